"""Figures computed by independent accounting engines, exact to the last place."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.domain.commands import (
    ClosePosition,
    IncreasePosition,
    MarkPosition,
    ReducePosition,
    SettlePosition,
)
from position_ledger.domain.vocabulary import Status
from tests.unit.domain.world import D, World

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.fixture
def world() -> World:
    return World()


def net(world: World) -> Decimal:
    return sum((position.realized_pnl for position in world.positions.values()), D(0))


def g1_until_the_flip(world: World) -> list[tuple[Decimal, Decimal | None, Decimal]]:
    steps = []
    for action, quantity, price, fee in (
        ("buy", 100, ".40", "1.68"),
        ("buy", 50, ".55", ".87"),
        ("sell", 60, ".62", ".99"),
    ):
        world.fill(action, quantity, price, fee)
        position = world.at("POS-1")
        steps.append((position.quantity, position.average_entry_price, net(world)))
    return steps


def test_g1_a_cycle_that_flips_and_is_closed(world: World) -> None:
    # given buys and a partial sell
    assert g1_until_the_flip(world) == [
        (100, D(".40"), D("-1.68")),
        (150, D(".45"), D("-2.55")),
        (90, D(".45"), D("6.66")),
    ]

    # when more is sold than is held
    world.fill("sell", 150, ".50", "2.63", on_excess="flip")

    # then the held side is closed and the other bought, the fee split in proportion
    first, second = world.at("POS-1"), world.at("POS-2")
    assert (first.status, first.exit_reason, first.realized_pnl) == (Status.CLOSED, "flip", D("9.582"))
    assert first.close_fees == D(".99") + D("1.578")
    assert (second.side, second.quantity, second.average_entry_price) == ("NO", 60, D(".50"))
    assert (second.realized_pnl, second.open_fees) == (D("-1.052"), D("1.052"))
    assert net(world) == D("8.53")

    # when the NO is closed at 1 and YES entered again
    world.fill("sell", 60, 1, side="NO")
    assert (world.at("POS-2").status, net(world)) == (Status.CLOSED, D("38.53"))
    world.fill("buy", 60, ".3333")

    # then the entry after flat is a new position
    assert (world.at("POS-3").quantity, world.at("POS-3").average_entry_price) == (60, D(".3333"))
    assert net(world) == D("38.53")


def test_g1b_the_flip_away_from_one_half(world: World) -> None:
    g1_until_the_flip(world)

    world.fill("sell", 150, ".62", "2.63", on_excess="flip")

    assert (world.at("POS-2").quantity, world.at("POS-2").average_entry_price) == (60, D(".38"))
    assert net(world) == D("19.33")
    world.fill("sell", 60, 1, side="NO")
    assert net(world) == D("56.53")


@pytest.mark.parametrize(("value", "expected"), [(1, "5.90"), (0, "-4.10"), (".5", ".90")])
def test_g3_settling(world: World, value: object, expected: str) -> None:
    world.open(fee=".10")

    world.do(SettlePosition(position_id="POS-1", value=value))

    settled = world.at("POS-1")
    assert settled.realized_pnl == settled.realized_pnl_closed == D(expected)
    assert (settled.status, settled.quantity, settled.unrealized_pnl) == (Status.SETTLED, 0, None)
    assert settled.settlement_value == settled.exit_price == settled.current_price == D(str(value))


def test_g4_prices_that_do_not_divide(world: World) -> None:
    world.open(quantity=3, entry_price=".3333", fee=".005")
    world.do(IncreasePosition(position_id="POS-1", quantity=3, price=".3334", fee=".005"))

    for quantity in (1, 1, 4):
        world.do(ReducePosition(position_id="POS-1", quantity=quantity, price=".3335", fee=".0049"))

    closed = world.at("POS-1")
    assert closed.status is Status.CLOSED
    assert closed.realized_gross == D(".0009")
    assert closed.open_fees + closed.close_fees == D(".0247")
    assert closed.realized_pnl == closed.realized_pnl_closed == D("-.0238")


def test_g6_zero_is_a_price(world: World) -> None:
    world.open()

    world.do(ReducePosition(position_id="POS-1", quantity=5, price=0))
    assert world.at("POS-1").exit_price == 0
    world.do(ReducePosition(position_id="POS-1", quantity=5, price=".60"))

    assert world.at("POS-1").realized_pnl == D("-1.00")
    assert world.at("POS-1").exit_price == D(".30")


def test_g6_exits_at_zero_only_have_a_mean_of_zero(world: World) -> None:
    world.open()

    world.do(ReducePosition(position_id="POS-1", quantity=5, price=0))
    world.do(ReducePosition(position_id="POS-1", quantity=5, price=0))

    closed = world.at("POS-1")
    assert closed.exit_price == closed.current_price == 0
    assert closed.realized_pnl == -4


@pytest.mark.parametrize("side", ["YES", "NO"])
@pytest.mark.parametrize(("price", "profit"), [(".5200", ".2250"), (".6000", "1.0250")])
def test_the_original_system_marking(world: World, side: str, price: str, profit: str) -> None:
    """S86; NO positions are priced in NO prices, so both sides gain alike."""
    world.open(side=side, entry_price=".4975")

    world.do(MarkPosition(position_id="POS-1", price=price))

    assert world.at("POS-1").unrealized_pnl == D(profit)
    assert world.at("POS-1").unrealized_pnl_pct == round(D(profit) / D("4.975"), 18)


@pytest.mark.parametrize(("price", "profit"), [(".7000", "2.0250"), (".7500", "2.5250"), (".3500", "-1.4750")])
def test_the_original_system_closing(world: World, price: str, profit: str) -> None:
    """S33, S86, S87."""
    world.open(entry_price=".4975")

    world.do(ClosePosition(position_id="POS-1", price=price, reason="profit_target"))

    closed = world.at("POS-1")
    assert closed.realized_pnl == D(profit)
    assert (closed.unrealized_pnl, closed.unrealized_pnl_pct, closed.average_entry_price) == (None, None, None)
    assert closed.current_price == closed.exit_price == D(price)
    assert (closed.exit_reason, closed.exit_time, closed.entry_price) == ("profit_target", world.now, D(".4975"))
