"""Exits: stop, target and trailing stop, told once per arming."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import MarkPosition, SetExits, TrailingStop
from position_ledger.domain.events import ExitTriggered, PositionMarked
from position_ledger.domain.vocabulary import ExitKind
from tests.unit.domain.world import D, World, examples


@pytest.fixture
def world() -> World:
    return World()


def mark(world: World, price: object) -> tuple[ExitKind, ...]:
    return world.do(MarkPosition(position_id="POS-1", price=price)).triggered


def test_a_touch_triggers_once(world: World) -> None:
    # given
    world.open(stop_loss_price=".30", target_price=".60")

    # then a touch is enough, and is told once
    assert mark(world, ".31") == ()
    assert mark(world, ".30") == (ExitKind.STOP_LOSS,)
    assert mark(world, ".29") == ()
    assert mark(world, ".60") == (ExitKind.PROFIT_TARGET,)

    # when the exits are set again, they are armed anew
    world.do(SetExits(position_id="POS-1", stop_loss_price=".30"))
    assert mark(world, ".60") == ()
    assert mark(world, ".20") == (ExitKind.STOP_LOSS,)


def test_a_trigger_is_an_event_after_the_mark(world: World) -> None:
    world.open(stop_loss_price=".30", trailing_stop=TrailingStop(trail_amount=".05"))

    decision = world.do(MarkPosition(position_id="POS-1", price=".30", source="ticker"))

    marked, triggered = (append.event for append in decision.appends)
    assert isinstance(marked, PositionMarked)
    assert (marked.price, marked.source, marked.trailing_stop) == (D(".30"), "ticker", None)
    assert triggered == ExitTriggered(kind=ExitKind.STOP_LOSS, also=(ExitKind.TRAILING_STOP,), price=D(".30"))
    assert [append.version for append in decision.appends] == [2, 3]
    assert decision.triggered == (ExitKind.STOP_LOSS, ExitKind.TRAILING_STOP)
    assert mark(world, ".29") == ()


def test_a_short_is_stopped_above_and_takes_profit_below(world: World) -> None:
    world.open(side="SHORT", entry_price=100, stop_loss_price=110, target_price=80)
    assert mark(world, 109) == ()
    assert mark(world, 110) == (ExitKind.STOP_LOSS,)
    assert mark(world, 80) == (ExitKind.PROFIT_TARGET,)


def test_a_trailing_stop_follows_and_only_ratchets(world: World) -> None:
    world.open(trailing_stop={"trail_amount": ".05"})

    stops = []
    for price in (".45", ".42", ".50", ".48"):
        assert mark(world, price) == ()
        state = world.at("POS-1").trailing_stop
        assert state is not None
        stops.append((state.watermark, state.stop_price))

    assert stops == [(D(".45"), D(".40")), (D(".45"), D(".40")), (D(".50"), D(".45")), (D(".50"), D(".45"))]
    assert mark(world, ".45") == (ExitKind.TRAILING_STOP,)


def test_a_trailing_stop_of_a_short_follows_downwards(world: World) -> None:
    world.open(side="SHORT", entry_price=100, trailing_stop={"trail_percent": ".1"})
    assert mark(world, 80) == ()
    assert mark(world, 85) == ()
    assert mark(world, 88) == (ExitKind.TRAILING_STOP,)


def test_an_activation_price_arms_it_later(world: World) -> None:
    world.open(trailing_stop={"trail_amount": ".05", "activation_price": ".50"})

    assert mark(world, ".30") == ()
    state = world.at("POS-1").trailing_stop
    assert state is not None
    assert not state.is_active
    assert mark(world, ".50") == ()
    state = world.at("POS-1").trailing_stop
    assert state is not None
    assert state.is_active
    assert (state.watermark, state.stop_price) == (D(".50"), D(".45"))
    assert mark(world, ".44") == (ExitKind.TRAILING_STOP,)


def test_setting_exits_starts_from_the_present_price_and_replaces_all(world: World) -> None:
    world.open(stop_loss_price=".2", target_price=".9")
    mark(world, ".60")

    world.do(SetExits(position_id="POS-1", trailing_stop={"trail_amount": ".1"}))

    position = world.at("POS-1")
    assert (position.stop_loss_price, position.target_price) == (None, None)
    assert position.trailing_stop is not None
    assert position.trailing_stop.stop_price == D(".5")


def test_a_mark_older_than_the_last_changes_nothing(world: World) -> None:
    world.open(stop_loss_price=".30")
    mark(world, ".50")
    before = world.at("POS-1")

    decision = world.do(
        MarkPosition(position_id="POS-1", price=".10", effective_at=world.now - timedelta(microseconds=1))
    )

    assert (decision.appends, decision.triggered) == ((), ())
    assert decision.positions == (world.names["POS-1"],)
    assert world.at("POS-1") == before


def test_marks_of_one_moment_follow_the_order_of_arrival(world: World) -> None:
    """S39: quick successive updates are never coalesced."""
    world.open()
    mark(world, ".50")
    mark(world, ".51")
    assert (world.at("POS-1").current_price, world.at("POS-1").version) == (D(".51"), 3)


@examples(60)
@given(
    prices=st.lists(st.integers(1, 99), min_size=1, max_size=20),
    trail=st.integers(1, 50),
    side=st.sampled_from(["YES", "NO", "LONG", "SHORT"]),
)
def test_a_trailing_stop_is_the_best_mark_less_the_trail(prices: list[int], trail: int, side: str) -> None:
    world = World()
    world.open(side=side, trailing_stop={"trail_amount": D(trail) / 100})
    seen, told = [D(".40")], 0

    for cents in prices:
        price = D(cents) / 100
        seen.append(price)
        best = min(seen) if side == "SHORT" else max(seen)
        stop = best + D(trail) / 100 if side == "SHORT" else best - D(trail) / 100
        is_touched = price >= stop if side == "SHORT" else price <= stop
        told += mark(world, price) == (ExitKind.TRAILING_STOP,)
        state = world.at("POS-1").trailing_stop
        assert state is not None
        assert (state.watermark, state.stop_price) == (best, stop)
        assert told == 1 or not is_touched
        if told:
            break


@examples(60)
@given(
    prices=st.lists(st.integers(1, 99), min_size=1, max_size=20),
    percent=st.integers(1, 99),
    quantities=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    side=st.sampled_from(["YES", "NO", "LONG", "SHORT"]),
)
def test_a_trailing_stop_only_ratchets_and_never_depends_on_the_quantity(
    prices: list[int], percent: int, quantities: tuple[int, int], side: str
) -> None:
    paths = [_stops(side, quantity, D(percent) / 100, prices) for quantity in quantities]

    assert paths[0] == paths[1]
    ratcheted = sorted(paths[0], reverse=side == "SHORT")
    assert paths[0] == ratcheted


def _stops(side: str, quantity: int, percent: Decimal, prices: list[int]) -> list[Decimal]:
    """The stop after each mark."""
    world = World()
    world.open(side=side, quantity=quantity, trailing_stop={"trail_percent": percent})
    stops = []
    for cents in prices:
        mark(world, D(cents) / 100)
        state = world.at("POS-1").trailing_stop
        assert state is not None
        assert state.stop_price is not None
        stops.append(state.stop_price)
    return stops
