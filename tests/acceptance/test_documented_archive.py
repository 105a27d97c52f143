"""docs/how-to/archive.md: its commands are run in their order and answer what the page shows; so does its code."""

from __future__ import annotations

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from tests.support.command_line import in_this_process
from tests.support.engine import Traffic
from tests.support.pages import commands, exactly, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger import Ledger


def test_the_page_does_what_it_says(ledger: Ledger, tmp_path: Path) -> None:
    """Given trading that goes on between exports, when the page is followed, then it is answered as it says."""
    run, traffic = in_this_process(ledger.database_url), Traffic(ledger, 8)
    page = text_of("archive")
    followed = commands(page)
    assert len(followed) == 6
    with chdir(tmp_path):
        for given, shown in followed:
            if "nothing new" not in shown:
                traffic.run(25)
                ledger.catch_up()
            answer = run(*given.removeprefix("position-ledger ").split())
            assert answer.code == 0, answer
            assert exactly(shown).fullmatch(answer.out), (answer, shown)
        printed = StringIO()
        code, _, output = re.findall(r"```python\n(.*?)```\n\n(```text\n(.*?)```)", page, re.DOTALL)[0]
        with redirect_stdout(printed):
            exec(compile(code, "archive.md", "exec"), {})  # noqa: S102 - our own page
        assert printed.getvalue() == output
