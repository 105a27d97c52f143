"""docs/how-to/verify.md: what the page shows of a changed cell is what is shown, and what it advises mends it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from position_ledger import MarkPosition
from tests.support.command_line import in_this_process
from tests.support.commands import opening

if TYPE_CHECKING:
    from position_ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "verify.md"


def looks_like(shown: str) -> re.Pattern[str]:
    """A pattern for shown output: … is any lines; numbers, digests and the width of columns are those of the moment."""
    pattern = re.escape(shown).replace(r"\ ", " ")
    pattern = re.sub(r"\b[0-9a-f]{16}\b", "<digest>", pattern)
    pattern = re.sub(r"(?<![.\d])\d+(?!\\?[.\d])", r"\\d+", pattern)
    pattern = re.sub(r" {2,}", " +", pattern).replace("<digest>", "[0-9a-f]{16}")
    return re.compile(pattern.replace("…\\\n", "(?:.*\n)*"))


def test_the_page_shows_what_a_changed_cell_looks_like(ledger: Ledger) -> None:
    """Given a cell that an owner changed by hand, in the last digit."""
    run = in_this_process(ledger.database_url)
    held = ledger.execute(opening())
    ledger.execute(MarkPosition(position_id=str(held.position_id), price="0.50"))
    ledger.catch_up()
    with psycopg.connect(ledger.database_url) as owner:
        owner.execute("SET session_replication_role = replica")
        changed = "UPDATE ledger.positions SET cost = cost + 1e-18 WHERE version = 2"
        assert owner.execute(changed).rowcount == 1
    # When the command of the page is run
    shown = re.findall(r"```\n\$ position-ledger verify\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    answer = run("verify")
    # Then it answers as the page says, with its exit code
    assert answer.code == 1
    assert looks_like(shown).fullmatch(answer.out), (answer.out, looks_like(shown).pattern)
    # And what the page advises makes the table the one of the log
    assert run("rebuild-projection", "positions").code != 0
    assert run("rebuild-projection", "positions", "--accept-differences").code == 0
    assert run("verify").code == 0


def test_the_page_names_every_field_of_the_document(ledger: Ledger) -> None:
    (document, *_) = in_this_process(ledger.database_url)("verify", "--json").document["tables"]
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in document if f"`{name}`" not in page and name != "table"] == []
