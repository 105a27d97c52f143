"""docs/how-to/verify.md: what the page shows of a changed cell is what is shown, and what it advises mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from position_ledger import MarkPosition
from tests.support.command_line import in_this_process
from tests.support.commands import opening
from tests.support.pages import alike, commands, text_of

if TYPE_CHECKING:
    from position_ledger import Ledger


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
    shown = dict(commands(text_of("verify")))["position-ledger verify"]
    answer = run("verify")
    # Then it answers as the page says, with its exit code
    assert answer.code == 1
    assert alike(shown).fullmatch(answer.out), (answer.out, alike(shown).pattern)
    # And what the page advises makes the table the one of the log
    assert run("rebuild-projection", "positions").code != 0
    assert run("rebuild-projection", "positions", "--accept-differences").code == 0
    assert run("verify").code == 0


def test_the_page_names_every_field_of_the_document(ledger: Ledger) -> None:
    (document, *_) = in_this_process(ledger.database_url)("verify", "--json").document["tables"]
    page = text_of("verify")
    assert [name for name in document if f"`{name}`" not in page and name != "table"] == []
