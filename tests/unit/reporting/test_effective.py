"""Realized money on the time of the fact that made it, for positions that were restated."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import (
    AmendSettlement,
    BustTrade,
    IncreasePosition,
    ReducePosition,
    SettlePosition,
)
from position_ledger.domain.journal import read_journal
from position_ledger.reporting.effective import realized_by_fact
from tests.unit.domain.world import NOON, D, World, examples

Fact = tuple[int, bool, int, int, bool]
"""Minute, whether it is an entry, quantity, price in cents, whether it is busted later."""

FACTS = st.lists(
    st.tuples(st.integers(1, 60), st.booleans(), st.integers(1, 10), st.integers(0, 100), st.booleans()),
    max_size=8,
    unique_by=lambda fact: fact[0],
)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def steps(world: World) -> list[tuple[datetime, Decimal]]:
    stream = world.names["POS-1"]
    appends = [append for append in world.log if append.stream == stream]
    return [one for one in realized_by_fact(world.at("POS-1"), read_journal(appends)) if one[1]]


def trade(world: World, fact: Fact) -> str:
    """Record one fact; its trade."""
    minute, is_entry, quantity, cents, _ = fact
    kind = IncreasePosition if is_entry else ReducePosition
    world.do(kind(position_id="POS-1", quantity=quantity, price=D(cents) / 100, fee=".01", effective_at=at(minute)))
    return world.trade(sum(getattr(one.event, "fill", None) is not None for one in world.log))


def begun() -> World:
    world = World()
    world.now = at(1000)
    world.open(quantity=1000, fee=1, effective_at=at(0))
    return world


def test_g8_the_late_entry_counts_for_the_sale_after_it() -> None:
    """By arrival the sale made 1.00; with the late entry before it, .75: on its own time, not on that of the news."""
    world = World()
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("sell", 5, ".60", effective_at=at(3))
    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=".50", effective_at=at(2)))

    assert steps(world) == [(at(3), D(".75"))]


def test_an_amendment_counts_on_the_time_of_the_settlement() -> None:
    world = World()
    world.open(fee=".10", effective_at=at(0))
    world.do(SettlePosition(position_id="POS-1", value=1, effective_at=at(5)))
    world.later(days=3)
    world.do(AmendSettlement(position_id="POS-1", value=0))

    assert steps(world) == [(at(0), D("-.10")), (at(5), D(-4))]


@examples(80)
@given(facts=FACTS, order=st.randoms(use_true_random=False))
def test_whatever_the_order_of_arrival_each_fact_realizes_what_it_does_in_order(
    facts: list[Fact], order: object
) -> None:
    """Law 9: late facts and busts leave on each moment what a log in order without the busted trades leaves."""
    arrived, in_order = begun(), begun()
    shuffled = list(facts)
    order.shuffle(shuffled)
    trades = {fact: trade(arrived, fact) for fact in shuffled}
    for fact, name in trades.items():
        if fact[4]:
            arrived.do(BustTrade(trade=name, bust_id="b", reason="erroneous", actor="desk"))

    for fact in sorted(fact for fact in facts if not fact[4]):
        trade(in_order, fact)

    assert steps(arrived) == steps(in_order)
    assert sum(change for _, change in steps(arrived)) == arrived.at("POS-1").realized_pnl
