"""What the verdict of a market does to its positions: fills that come afterwards, repeats, and the laws of settling."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import (
    AmendMarket,
    AmendSettlement,
    RegisterMarket,
    SettleMarket,
    SettlePosition,
    VoidMarket,
    VoidPosition,
)
from position_ledger.domain.markets.market import Market, MarketKey, market_stream
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment, Status
from position_ledger.settling.work import Due, Verdict, payment
from tests.unit.domain.world import NOON, D, World, examples

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

HERE = {"environment": "paper", "market": "M"}
PAPER = MarketKey(Environment.PAPER, "M")
LATER = NOON + timedelta(hours=1)


def world_with(**terms: Any) -> World:
    world = World()
    world.do(RegisterMarket(**HERE | {"kind": "binary"} | terms))
    return world


def pay(world: World) -> int:
    """Give every position the verdict of the market, as a worker does; how many have changed."""
    market = world.state(market_stream(PAPER))
    assert isinstance(market, Market)
    verdict = Verdict(
        "MKT-1", "M", "paper", market.status.value, market.value, market.fee, market.revision, market.refund_fees,
        market.unwind, market.settled_at,
    )  # fmt: skip
    changed = 0
    for ref in [name for name in world.names if str(name).startswith("POS-")]:
        position = world.at(str(ref))
        if position.is_open or (position.settlement_revision or market.revision) < market.revision:
            changed += bool(world.do(payment(verdict, Due(0, str(ref), position.is_open))).appends)
    return changed


def money(position: Position) -> dict[str, Any]:
    """All that counts of a position but how often it was restated and under which verdict."""
    skipped = {"version", "settlement_revision", "restatements", "restated_realized"}
    return {name: getattr(position, name) for name in msgspec.structs.asdict(position) if name not in skipped}


# A fill in a market that is decided


def test_a_fill_for_a_settled_market_opens_and_is_paid_in_the_same_append() -> None:
    # given
    world = world_with()
    world.do(SettleMarket(**HERE, value=1, fee="0.10", effective_at=LATER))

    # when a buy from before the settlement becomes known
    decision = world.fill("buy", 10, "0.40", fee="0.05", effective_at=NOON)

    # then the position is there, with its payout, fee and revision, at the time of the settlement
    (position,) = world.positions.values()
    assert (position.status, position.settlement_value, position.settlement_revision) == (Status.SETTLED, D(1), 1)
    assert (position.entry_time, position.exit_time) == (NOON, LATER)
    assert position.realized_pnl == D("5.85")
    assert decision.opened
    assert [append.version for append in decision.appends if append.stream == decision.opened] == [1, 2]
    assert world.replayed()[decision.opened] == position


def test_a_fill_after_the_settlement_is_paid_at_its_own_time() -> None:
    world = world_with()
    world.do(SettleMarket(**HERE, value=0, effective_at=NOON))
    world.fill("buy", 10, "0.40", effective_at=LATER)
    (position,) = world.positions.values()
    assert (position.exit_time, position.realized_pnl) == (LATER, D(-4))


def test_a_fill_that_changes_a_position_that_is_not_paid_yet_pays_it() -> None:
    world = world_with()
    world.open(entry_price="0.40", quantity=10)
    world.do(SettleMarket(**HERE, value=1))

    world.fill("sell", 4, "0.90")

    position = world.at("POS-1")
    assert (position.status, position.realized_gross) == (Status.SETTLED, D("2.00") + D("3.60"))
    assert pay(world) == 0, "and nobody pays it again"


def test_a_late_fill_of_a_position_that_is_paid_is_paid_too() -> None:
    world = world_with()
    world.open(entry_price="0.40", quantity=10)
    world.do(SettleMarket(**HERE, value=1, effective_at=LATER))
    assert pay(world) == 1

    world.fill("buy", 5, "0.50", effective_at=NOON + timedelta(minutes=30))

    position = world.at("POS-1")
    assert (position.status, position.realized_gross, position.quantity) == (Status.SETTLED, D("8.5"), D(0))
    assert len(world.positions) == 1


def test_a_fill_for_a_void_market_has_its_cost_back() -> None:
    world = world_with()
    world.do(VoidMarket(**HERE, refund_fees=True, effective_at=LATER))
    world.fill("buy", 10, "0.40", fee="0.05", effective_at=NOON)
    (position,) = world.positions.values()
    assert (position.status, position.realized_pnl, position.exit_price) == (Status.VOIDED, D(0), D("0.40"))
    assert (position.open_fees, position.settlement_revision, position.exit_time) == (D(0), 1, LATER)


def test_more_of_a_position_in_a_void_market_is_given_back_with_it() -> None:
    world = world_with()
    world.open(entry_price="0.40", quantity=10)
    world.do(VoidMarket(**HERE))
    world.fill("buy", 10, "0.60", fee="0.05")
    position = world.at("POS-1")
    assert (position.status, position.exit_price, position.realized_pnl) == (Status.VOIDED, D("0.5"), D("-0.05"))


def test_both_halves_of_a_flip_are_paid() -> None:
    world = world_with()
    world.open(entry_price="0.40", quantity=10)
    world.do(SettleMarket(**HERE, value=0))
    world.fill("sell", 15, "0.30", on_excess="flip")
    yes, no = world.positions.values()
    assert (yes.status, yes.realized_gross) == (Status.CLOSED, D(-1))
    assert (no.status, no.realized_gross) == (Status.SETTLED, D("1.5"))


# Once


def test_a_verdict_is_given_once_and_an_older_one_that_comes_late_changes_nothing() -> None:
    world = world_with()
    world.open()
    world.do(SettlePosition(position_id="POS-1", value=1, settlement_revision=2))
    paid = world.at("POS-1")

    for command in (
        SettlePosition(position_id="POS-1", value=1, settlement_revision=2),
        SettlePosition(position_id="POS-1", value=0, settlement_revision=1),
        AmendSettlement(position_id="POS-1", value=0, settlement_revision=2),
        AmendSettlement(position_id="POS-1", value=0, settlement_revision=1),
        VoidPosition(position_id="POS-1", settlement_revision=1),
    ):
        decision = world.do(command)
        assert decision.appends == ()
        assert decision.positions
    assert world.at("POS-1") == paid
    with pytest.raises(CommandRejected) as caught:
        world.do(SettlePosition(position_id="POS-1", value=0, settlement_revision=3))
    assert caught.value.reason is Reason.POSITION_NOT_OPEN


def test_a_payout_is_never_before_what_it_pays_for() -> None:
    world = world_with()
    world.fill("buy", 10, "0.40", effective_at=LATER)
    with pytest.raises(CommandRejected) as caught:
        world.do(SettlePosition(position_id="POS-1", value=1, effective_at=NOON))
    assert caught.value.reason is Reason.TOO_LATE

    world.do(SettlePosition(position_id="POS-1", value=1, effective_at=NOON, settlement_revision=1))

    assert world.at("POS-1").exit_time == LATER


def test_what_was_settled_by_hand_is_left_alone() -> None:
    world = world_with()
    world.open()
    world.do(SettlePosition(position_id="POS-1", value=1))
    world.do(SettleMarket(**HERE, value=0))
    assert pay(world) == 0
    assert world.at("POS-1").settlement_value == D(1)


# Laws

values = st.one_of(
    st.sampled_from([D(0), D(1), D("0.5")]), st.integers(0, 10**18).map(lambda n: Decimal(n).scaleb(-18))
)
prices = st.integers(1, 99).map(lambda cents: Decimal(cents) / 100)
quantities = st.one_of(st.integers(1, 50).map(Decimal), st.integers(1, 10**18).map(lambda n: Decimal(n).scaleb(-18)))
fills = st.lists(
    st.tuples(st.sampled_from(["YES", "NO"]), st.sampled_from(["buy", "buy", "sell"]), quantities, prices,
              st.integers(0, 100).map(lambda n: Decimal(n).scaleb(-3))),
    min_size=1, max_size=12,
)  # fmt: skip
verdicts = st.one_of(values, st.just(None))
"""A value, or None: void."""


def traded(history: list[tuple[Any, ...]], netting: str = "side") -> World:
    """A market with some history; sells of what is not held are refused and left out."""
    world = world_with(netting=netting)
    for side, action, quantity, price, fee in history:
        world.later(minutes=1)
        try:
            world.fill(action, quantity, price, fee, side=side)
        except CommandRejected as refusal:
            if refusal.reason is not Reason.QUANTITY_EXCEEDS_HELD:
                raise
    world.now = LATER
    return world


def decide_market(world: World, verdict: Decimal | None, *, is_first: bool, fee: Any = 0) -> None:
    if verdict is None:
        world.do(VoidMarket(**HERE))
    else:
        world.do(SettleMarket(**HERE, value=verdict, fee=fee) if is_first else AmendMarket(**HERE, value=verdict))


@examples(60)
@given(history=fills, first=verdicts, second=verdicts, third=verdicts)
def test_any_verdicts_one_after_the_other_leave_what_the_last_alone_leaves(
    history: list[Any], first: Decimal | None, second: Decimal | None, third: Decimal | None
) -> None:
    """Law 9: settle(A) then amend(B) = settle(B); void and back likewise, whatever was decided before."""
    world, straight = traded(history), traded(history)

    decide_market(world, first, is_first=True)
    pay(world)
    for verdict in (second, third):
        decide_market(world, verdict, is_first=False)
        pay(world)
    decide_market(straight, third, is_first=True)
    pay(straight)

    assert list(map(money, world.positions.values())) == list(map(money, straight.positions.values()))
    assert pay(world) == 0


@examples(60)
@given(history=fills, value=values, netting=st.sampled_from(["side", "market"]))
def test_every_position_is_paid_exactly_once_and_yes_and_no_receive_1_together(
    history: list[Any], value: Decimal, netting: str
) -> None:
    """Law 4: what YES and NO of one quantity receive adds up to it, whatever the rounding."""
    world = traded(history, netting)
    held = {stream: position for stream, position in world.positions.items() if position.is_open}

    world.do(SettleMarket(**HERE, value=value))
    assert pay(world) == len(held)
    assert pay(world) == 0

    for stream, before in held.items():
        after = world.positions[stream]
        other = world_with()
        other.fill("buy", before.quantity, "0.5", side=before.side.other)
        other.do(SettleMarket(**HERE, value=value))
        pay(other)
        (opposite,) = other.positions.values()
        assert after.exit_amount - before.exit_amount + opposite.exit_amount == before.quantity
        assert (after.status, after.settlement_revision, after.quantity) == (Status.SETTLED, 1, D(0))


@examples(40)
@given(history=fills, late=fills, value=verdicts)
def test_fills_after_the_verdict_leave_nothing_open(history: list[Any], late: list[Any], value: Decimal | None) -> None:
    world = traded(history)
    decide_market(world, value, is_first=True)
    pay(world)
    for side, _, quantity, price, fee in late:
        world.later(minutes=1)
        world.fill("buy", quantity, price, fee, side=side)
    assert all(not position.is_open for position in world.positions.values())
    assert all(position.settlement_revision in {1, None} for position in world.positions.values())
    assert pay(world) == 0
