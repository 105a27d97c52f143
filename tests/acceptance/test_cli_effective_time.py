"""positions --as-of and lots on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger, RecordFill
from tests.support.command_line import CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILLS = (("buy", 40, ".40", 1), ("buy", 40, ".50", 3), ("sell", 50, ".62", 4), ("buy", 20, ".60", 2))
"""Golden G9, its second entry told last."""


@pytest.fixture(scope="module")
def run(ledger_template: Template) -> Iterator[CommandLine]:
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock") as ledger:
            for action, quantity, price, minute in FILLS:
                done = ledger.execute(
                    RecordFill(
                        environment="paper",
                        account="main",
                        market="M",
                        side="YES",
                        action=action,
                        quantity=quantity,
                        price=price,
                        effective_at=NOON + timedelta(minutes=minute),
                    )
                )
            ledger.wait_for(done.token)
        yield in_this_process(url)


@pytest.mark.parametrize(("method", "gross"), [("fifo", 9), ("lifo", 5), ("hifo", 4), ("average", 7)])
def test_lots_by_every_method_are_those_of_g9(run: CommandLine, method: str, gross: int) -> None:
    position = run("positions", "--json").document[0]["position_id"]

    document = run("lots", position, "--method", method, "--json").document

    assert Decimal(document["gross"]) == gross
    assert sum(Decimal(lot["quantity"]) for lot in document["open"]) == 50
    shown = run("lots", position, "--method", method)
    assert f"1 exits by {method}: gross {gross}, net {gross}" in shown.out
    assert shown.code == 0


def test_as_of_counts_the_late_fill_at_its_own_time(run: CommandLine) -> None:
    def quantity(minutes: float) -> list[Decimal]:
        moment = (NOON + timedelta(minutes=minutes)).isoformat()
        return [Decimal(row["quantity"]) for row in run("positions", "--as-of", moment, "--json").document]

    assert [quantity(minutes) for minutes in (0, 1, 2, 3, 4)] == [[], [40], [60], [100], [50]]


def test_an_unknown_position_or_method_is_one_sentence(run: CommandLine) -> None:
    unknown = run("lots", "POS-999999")
    assert unknown.code != 0
    assert "not found" in unknown.err
    assert run("lots", "POS-1", "--method", "newest").code == 2
    assert run("positions", "--as-of", "2026-03-01T12:00:00").code == 2
