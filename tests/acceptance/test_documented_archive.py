"""docs/how-to/archive.md: its commands are run in their order and answer what the page shows; so does its code."""

from __future__ import annotations

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.command_line import in_this_process
from tests.support.engine import Traffic

if TYPE_CHECKING:
    from position_ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "archive.md"
ANYTHING = "…"


def looks_like(shown: str) -> re.Pattern[str]:
    """A pattern for shown output: … stands for anything."""
    return re.compile(".*".join(map(re.escape, shown.split(ANYTHING))))


def test_the_page_does_what_it_says(ledger: Ledger, tmp_path: Path) -> None:
    """Given trading that goes on between exports, when the page is followed, then it is answered as it says."""
    run, traffic = in_this_process(ledger.database_url), Traffic(ledger, 8)
    page = PAGE.read_text(encoding="utf-8")
    followed = re.findall(r"^\$ (\S+) (.*)\n((?:(?!\$ |```).*\n)+)", page, re.MULTILINE)
    assert len(followed) == 6
    with chdir(tmp_path):
        for program, arguments, shown in followed:
            if "nothing new" not in shown:
                traffic.run(25)
                ledger.catch_up()
            command = [] if program == "position-ledger" else [program]
            answer = run(*command, *arguments.split())
            assert answer.code == 0, answer
            assert looks_like(shown).fullmatch(answer.out), (answer, shown)
        printed = StringIO()
        code, _, output = re.findall(r"```python\n(.*?)```\n\n(```text\n(.*?)```)", page, re.DOTALL)[0]
        with redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102 - our own page
        assert printed.getvalue() == output
