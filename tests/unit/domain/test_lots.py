"""Lots by average cost, FIFO, LIFO and HIFO over the same facts."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import (
    BustTrade,
    ReducePosition,
    SettlePosition,
    SplitShares,
    TransferPosition,
    VoidPosition,
)
from position_ledger.domain.lots import Lots, Method, lots_of
from tests.unit.domain.world import D, World, examples

if TYPE_CHECKING:
    from decimal import Decimal

METHODS = list(Method)


def lots(world: World, method: Method | str, name: str = "POS-1") -> Lots:
    stream = world.names[name]
    return lots_of([one for one in world.log if one.stream == stream], Method(method))


def g9(world: World) -> None:
    for quantity, price in ((40, ".40"), (20, ".60"), (40, ".50")):
        world.fill("buy", quantity, price)
    world.fill("sell", 50, ".62")


@pytest.mark.parametrize(("method", "gross"), [("fifo", 9), ("lifo", 5), ("hifo", 4), ("average", 7)])
def test_g9(method: str, gross: int) -> None:
    world = World()
    g9(world)

    report = lots(world, method)

    assert report.gross == report.net == gross
    assert sum(lot.quantity for lot in report.open) == 50
    assert sum(lot.cost for lot in report.open) == 48 - (31 - gross)
    assert sum(one.quantity for one in report.exits[0].used) == 50


def test_net_takes_the_fees_of_what_was_used_up() -> None:
    world = World()
    world.fill("buy", 10, ".40", fee="1")
    world.fill("buy", 10, ".50", fee="3")
    world.fill("sell", 15, ".60", fee=".25")

    report = lots(world, "fifo")

    assert (report.gross, report.net) == (D("2.50"), D("2.50") - 1 - D("1.50") - D(".25"))
    assert [(lot.quantity, lot.cost, lot.fees) for lot in report.open] == [(5, D("2.50"), D("1.50"))]


def test_hifo_of_a_short_uses_the_lowest_entry_first() -> None:
    world = World()
    for price in (10, 30, 20):
        world.fill("sell", 1, price, side="SHORT")
    world.fill("buy", 1, 15, side="SHORT")

    assert lots(world, "hifo").gross == -5
    assert lots(world, "fifo").gross == -5
    assert lots(world, "lifo").gross == 5


def test_busts_are_out_and_shortfall_uses_up_nothing() -> None:
    world = World()
    g9(world)
    said = {"reason": "venue", "actor": "desk"}
    world.do(BustTrade(trade=world.trade(1), bust_id="b", **said))
    world.do(BustTrade(trade=world.trade(3), bust_id="b", **said))

    report = lots(world, "fifo")

    assert (report.open, report.exits[0].quantity, report.gross) == ((), 20, D("0.40"))


def test_a_settlement_pays_and_a_void_pays_back() -> None:
    for command, gross in ((SettlePosition(position_id="POS-1", value=0), 3), (VoidPosition(position_id="POS-1"), 0)):
        world = World()
        world.open(side="NO", quantity=10, entry_price=".40")
        world.do(ReducePosition(position_id="POS-1", quantity=5, price=".40"))
        world.do(command)

        assert lots(world, "lifo").gross == gross


def test_transfers_take_lots_along_and_splits_count_them_otherwise() -> None:
    world = World()
    world.open(side="LONG", quantity=10, entry_price=20)
    world.do(SplitShares(position_id="POS-1", ratio=4))
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=10))

    assert [(lot.quantity, lot.price, lot.cost) for lot in lots(world, "fifo").open] == [(30, 5, 150)]
    assert [(lot.quantity, lot.cost) for lot in lots(world, "hifo", "POS-2").open] == [(10, 50)]


fills = st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 100), st.integers(0, 5)), max_size=12)


@examples(60)
@given(path=fills)
def test_methods_differ_only_in_time(path: list[tuple[bool, int, int, int]]) -> None:
    """Once flat every method has made the same gain; before, gain and open cost of each sum to the same."""
    world = World()
    world.open(quantity=5, entry_price=".5")
    for is_entry, quantity, cents, fee in path:
        held: Decimal = world.at("POS-1").quantity
        if is_entry:
            world.fill("buy", quantity, D(cents) / 100, D(fee) / 100, position_id="POS-1")
        elif held > quantity:
            world.fill("sell", quantity, D(cents) / 100, D(fee) / 100, position_id="POS-1")
    reports = [lots(world, method) for method in METHODS]

    assert len({report.gross - sum(lot.cost for lot in report.open) for report in reports}) == 1
    assert {sum(lot.quantity for lot in report.open) for report in reports} == {world.at("POS-1").quantity}

    world.do(ReducePosition(position_id="POS-1", quantity=world.at("POS-1").quantity, price=".7"))
    reports = [lots(world, method) for method in METHODS]
    closed = world.at("POS-1")
    assert {(report.gross, report.net, report.open) for report in reports} == {
        (closed.realized_gross, closed.realized_pnl, ())
    }
