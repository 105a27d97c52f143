"""What the terms of a market ask of the commands that trade in it, and how a market nets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.commands import (
    IncreasePosition,
    OpenPosition,
    RegisterMarket,
    SettleMarket,
)
from position_ledger.domain.events import PositionOpened
from position_ledger.domain.markets.market import market_stream
from position_ledger.domain.markets.vocabulary import MarketStatus
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Side, Status
from tests.unit.domain.market_world import HERE, KEY, PAPER, STEPS, WAYS, market_in, refused, world_with
from tests.unit.domain.world import D, World

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

# What trades in it


@pytest.mark.parametrize("status", ["initialized", "halted", "closed", "determined", "settled", "voided"])
def test_a_position_is_opened_in_an_open_market_only(status: str) -> None:
    world = world_with(status="initialized")
    for step in WAYS[status]:
        world.do(STEPS[step])

    rejection = refused(world, OpenPosition(**HERE, account="main", side="YES", quantity=10, entry_price="0.4"))

    assert rejection.reason is Reason.MARKET_NOT_OPEN
    assert rejection.reason.transient
    assert f"market M is {status}, not open" in str(rejection)


@pytest.mark.parametrize("status", ["initialized", "halted", "closed", "determined"])
def test_a_fill_is_a_fact_in_any_market_that_is_not_paid(status: str) -> None:
    world = world_with(status="initialized")
    for step in WAYS[status]:
        world.do(STEPS[step])
    assert world.fill("buy", 10, "0.40").appends


@pytest.mark.parametrize(("kind", "side"), [("binary", "LONG"), ("binary", "SHORT"), ("equity", "YES"), ("spot", "NO")])
def test_the_kind_decides_the_sides(kind: str, side: str) -> None:
    world = world_with(kind=kind)
    opening = OpenPosition(**HERE, account="main", side=side, quantity=1, entry_price="0.5")

    rejection = refused(world, opening)

    assert rejection.reason is Reason.SIDE_NOT_IN_MARKET
    assert f"side is of side {side}, but market M is {kind}" in str(rejection)
    with pytest.raises(CommandRejected) as caught:
        world.fill("buy", 1, "0.5", side=side)
    assert caught.value.reason is Reason.SIDE_NOT_IN_MARKET


@pytest.mark.parametrize(
    ("terms", "price", "reason"),
    [
        ({"tick_size": "0.01"}, "0.405", Reason.PRICE_NOT_ON_TICK),
        ({"tick_size": "0.01"}, "0.40", None),
        ({"tick_size": "0.001"}, "0.405", None),
        ({"price_min": "0.05"}, "0.049", Reason.ENTRY_PRICE_OUT_OF_RANGE),
        ({"price_min": "0.001"}, "0.001", None),
        ({"price_max": "0.80"}, "0.81", Reason.ENTRY_PRICE_OUT_OF_RANGE),
        ({"price_max": 1}, 1, None),
        ({}, "0.995", Reason.ENTRY_PRICE_OUT_OF_RANGE),
    ],
)
def test_bounds_and_tick_bind_openings_only(terms: dict[str, Any], price: Any, reason: Reason | None) -> None:
    world = world_with(**terms)
    opening = OpenPosition(**HERE, account="main", side="NO", quantity=1, entry_price=price)
    if reason is None:
        assert world.do(opening).opened
    else:
        assert refused(world, opening).reason is reason
    assert world.fill("buy", 1, price, side="NO").appends


def test_a_bound_below_is_told_without_one_above() -> None:
    world = world_with(kind="spot", price_min=10)
    opening = OpenPosition(**HERE, account="main", side="LONG", quantity=1, entry_price=9)
    assert "entry_price 9 is outside valid range of at least 10" in str(refused(world, opening))


def test_the_currency_is_that_of_the_market() -> None:
    world = world_with(currency="EUR")
    opening = {**HERE, "account": "main", "side": "YES", "quantity": 1, "entry_price": "0.4"}

    rejection = refused(world, OpenPosition(**opening, currency="USD"))

    assert "currency is USD but market M is traded in EUR" in str(rejection)
    assert rejection.reason is Reason.MARKET_CURRENCY
    assert world.open().currency == "EUR", "what is not stated is taken from the market"
    with pytest.raises(CommandRejected, match="currency is USD but market M"):
        world.fill("buy", 1, "0.4", currency="USD", strategy=7)
    world.fill("buy", 1, "0.4", strategy=7)
    assert {position.currency for position in world.positions.values()} == {"EUR"}


def test_a_position_keeps_the_terms_that_it_was_opened_with() -> None:
    world = world_with(kind="future", multiplier=50, margin_rate="0.1", platform="cme")
    position = world.open(side="SHORT", entry_price=100, quantity=2)

    assert (position.multiplier, position.margin_rate, position.platform) == (D(50), D("0.1"), "cme")
    assert position.cost == D(10_000)
    world.do(IncreasePosition(position_id="POS-1", quantity=1, price=90))
    assert world.at("POS-1").cost == D(14_500)
    assert world.at("POS-1").average_entry_price == D("96.666666666666666667")


def test_new_legs_of_a_fill_have_the_multiplier_of_the_market() -> None:
    # given a position from before the market was registered, and a flip that opens one after it
    world = World()
    world.open(side="LONG", entry_price=100, quantity=2)
    world.do(RegisterMarket(**HERE, kind="future", multiplier=50))

    world.fill("sell", 3, 110, side="LONG", on_excess="flip")

    long, short = world.positions.values()
    assert (long.realized_gross, long.exit_amount, long.multiplier) == (D(20), D(220), D(1))
    assert (short.side, short.quantity, short.cost, short.multiplier) == (Side.SHORT, D(1), D(5500), D(50))


def test_a_market_nobody_registered_asks_nothing() -> None:
    world = World()
    position = world.open(market="anything", side="SHORT", entry_price=3)
    assert (position.multiplier, position.margin_rate, position.currency) == (D(1), D(0), "USD")


def test_a_market_can_be_named_by_its_number() -> None:
    world = world_with()
    world.names["MKT-1"] = market_stream(PAPER)

    position = world.open(market="MKT-1")
    world.fill("buy", 5, "0.5", market="MKT-1")
    world.do(SettleMarket(environment="paper", market="MKT-1", value=1))

    assert position.market == "M"
    assert world.at("POS-1").quantity == D(15)
    assert market_in(world).status is MarketStatus.SETTLED


def test_a_number_of_no_market_is_refused() -> None:
    world = world_with()
    world.names["MKT-1"] = market_stream(PAPER)
    opening = {"account": "main", "side": "YES", "quantity": 10, "entry_price": "0.4"}

    for environment, market in [("paper", "MKT-9"), ("live", "MKT-1")]:
        rejection = refused(world, OpenPosition(environment=environment, market=market, **opening))
        assert rejection.reason is Reason.MARKET_UNKNOWN
        assert f"market {market} is not registered in {environment}" in str(rejection)


# Netting


def held(world: World) -> list[tuple[str, Position]]:
    return [(position.side.value, position) for position in world.positions.values()]


def test_side_by_side_unless_the_market_nets() -> None:
    world = world_with()
    world.fill("buy", 10, "0.40")
    world.fill("buy", 4, "0.55", side="NO")
    assert [position.quantity for position in world.positions.values()] == [D(10), D(4)]


def test_a_buy_of_the_other_side_closes_what_is_held_at_1_minus_n() -> None:
    # given YES 10 @ .40 in a market that nets
    world = world_with(netting="market")
    world.fill("buy", 10, "0.40")

    # when NO 4 is bought at .55
    world.fill("buy", 4, "0.55", side="NO", fee="0.04")

    # then 4 YES were sold at .45, and no NO is held
    ((_, yes),) = held(world)
    assert (yes.quantity, yes.realized_gross, yes.exit_price, yes.close_fees) == (D(6), D("0.20"), D("0.45"), D("0.04"))


def test_the_rest_opens() -> None:
    world = world_with(netting="market")
    world.fill("buy", 10, "0.40")

    decision = world.fill("buy", 15, "0.55", side="NO", fee="0.15")

    (_, yes), (_, no) = held(world)
    assert (yes.status, yes.exit_reason, yes.realized_gross, yes.close_fees) == (
        Status.CLOSED, "netting", D("0.50"), D("0.10"),
    )  # fmt: skip
    assert (no.side, no.quantity, no.entry_price, no.open_fees) == (Side.NO, D(5), D("0.55"), D("0.05"))
    assert no.previous
    assert no.previous.stream == decision.positions[0]
    opened = next(append.event for append in decision.appends if isinstance(append.event, PositionOpened))
    assert opened.fill.linked
    assert world.book(KEY).open_on(Side.YES) == ()


def test_netting_takes_the_oldest_first_and_adds_the_rest_to_what_is_open() -> None:
    world = world_with(netting="market")
    world.open(quantity=3)
    world.open(quantity=3, entry_price="0.50")
    world.open(side="NO", quantity=2, entry_price="0.30")

    world.fill("buy", 8, "0.50", side="NO")

    assert [(side, position.quantity) for side, position in held(world)] == [("YES", D(0)), ("YES", D(0)), ("NO", D(4))]


def test_netting_of_other_kinds_is_at_the_same_price() -> None:
    world = world_with(kind="perpetual", netting="market")
    world.fill("buy", 2, 100, side="LONG")
    world.fill("sell", 3, 110, side="SHORT")
    (_, long), (_, short) = held(world)
    assert (long.realized_gross, long.exit_price) == (D(20), D(110))
    assert (short.quantity, short.entry_price) == (D(1), D(110))


def test_dust_beyond_what_netting_closes_opens_nothing() -> None:
    world = world_with(netting="market")
    world.fill("buy", 10, "0.40")
    decision = world.fill("buy", "10.005", "0.55", side="NO", dust="0.01")
    assert len(world.positions) == 1
    assert decision.appends[0].event.fill.dust_excess == D("0.005")


def test_a_fill_of_a_position_does_not_net() -> None:
    world = world_with(netting="market")
    world.open()
    world.open(side="NO", entry_price="0.5")
    world.fill("buy", 5, "0.55", side="NO", position_id="POS-2", on_excess="flip")
    assert [position.quantity for position in world.positions.values()] == [D(10), D(15)]
