"""Busts, corrections, fee adjustments, late fills, amended and void settlements, figure by figure."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.book import BookKey
from position_ledger.domain.commands import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    ClosePosition,
    CorrectTrade,
    IncreasePosition,
    MarkPosition,
    RecordFill,
    ReducePosition,
    SettlePosition,
    VoidPosition,
)
from position_ledger.domain.events import BookPositionClosed, BookPositionReopened, PositionOpened
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import LateFillRecorded, TradeBusted
from position_ledger.domain.vocabulary import Environment, Side, Status
from tests.unit.domain.world import NOON, D, World

if TYPE_CHECKING:
    from datetime import datetime

    from position_ledger.domain.decisions import Decision


@pytest.fixture
def world() -> World:
    return World()


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def bust(world: World, fill: int, **fields: Any) -> Decision:
    """Bust the fill-th fill that was recorded, 1-based."""
    defaults = {"bust_id": "b-1", "reason": "erroneous", "actor": "desk"}
    return world.do(BustTrade(**defaults | {"trade": world.trade(fill)} | fields))


def correct(world: World, fill: int, **fields: Any) -> Decision:
    defaults = {"correction_id": "c-1", "reason": "venue", "actor": "desk"}
    return world.do(CorrectTrade(**defaults | {"trade": world.trade(fill)} | fields))


def adjust(world: World, fill: int, fee: object, **fields: Any) -> Decision:
    defaults = {"adjustment_id": "a-1", "reason": "venue", "actor": "desk"}
    return world.do(AdjustFee(**defaults | {"trade": world.trade(fill), "fee": fee} | fields))


def g1(world: World) -> None:
    for action, quantity, price, fee in (
        ("buy", 100, ".40", "1.68"),
        ("buy", 50, ".55", ".87"),
        ("sell", 60, ".62", ".99"),
    ):
        world.fill(action, quantity, price, fee)


def test_g5_bust_of_the_second_fill_after_the_third(world: World) -> None:
    g1(world)

    bust(world, 2)

    position = world.at("POS-1")
    assert (position.quantity, position.average_entry_price, position.realized_pnl) == (40, D(".40"), D("10.53"))
    assert position.open_fees + position.close_fees == D("2.67")
    assert (position.restatements, position.restated_realized) == (1, D("10.53") - D("6.66"))
    assert position.status is Status.OPEN


@pytest.mark.parametrize("kind", [IncreasePosition, RecordFill])
def test_g8_a_late_fill(world: World, kind: Any) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("sell", 5, ".60", effective_at=at(3))
    action = {"action": "buy"} if kind is RecordFill else {}

    decision = world.do(kind(position_id="POS-1", quantity=10, price=".50", effective_at=at(2), **action))

    position = world.at("POS-1")
    assert (position.realized_pnl, position.average_entry_price) == (D(".75"), D(".45"))
    assert (position.quantity, position.restated_realized) == (15, D("-.25"))
    assert [type(append.event) for append in decision.appends if append.stream == world.names["POS-1"]] == [
        LateFillRecorded
    ]
    assert decision.appends[0].effective_at == at(2)


def test_g3_void_pays_the_cost_and_returns_fees_when_told(world: World) -> None:
    world.open(fee=".10")
    world.open(fee=".10")

    world.do(VoidPosition(position_id="POS-1"))
    world.do(VoidPosition(position_id="POS-2", refund_fees=True))

    kept, refunded = world.at("POS-1"), world.at("POS-2")
    assert (kept.realized_pnl, refunded.realized_pnl) == (D("-.10"), 0)
    for position in (kept, refunded):
        assert (position.status, position.exit_reason, position.quantity) == (Status.VOIDED, "void", 0)
        assert (position.exit_price, position.settlement_value, position.unrealized_pnl) == (D(".40"), None, None)
        assert position.realized_pnl == position.realized_pnl_closed
        assert (position.restatements, position.restated_realized) == (0, 0)


def test_void_keeps_earlier_exits(world: World) -> None:
    world.open()
    world.do(ReducePosition(position_id="POS-1", quantity=4, price=".70"))

    world.do(VoidPosition(position_id="POS-1", settlement_revision=3))

    position = world.at("POS-1")
    assert (position.realized_pnl, position.exit_quantity, position.exit_price) == (D("1.20"), 10, D(".40"))
    assert position.settlement_revision == 3


def test_void_replaces_a_settlement_and_a_settlement_the_void(world: World) -> None:
    world.open(fee=".10")
    world.later(minutes=1)
    settled_at = world.now
    world.do(SettlePosition(position_id="POS-1", value=1, fee=".02", settlement_revision=1))
    assert world.at("POS-1").realized_pnl == D("5.88")
    world.later(minutes=1)

    decision = world.do(VoidPosition(position_id="POS-1", settlement_revision=2))

    voided = world.at("POS-1")
    assert (voided.status, voided.realized_pnl, voided.restated_realized) == (Status.VOIDED, D("-.10"), D("-5.98"))
    assert (voided.settlement_value, voided.exit_time, voided.settlement_revision) == (None, settled_at, 2)
    assert decision.appends[0].effective_at == settled_at

    world.do(AmendSettlement(position_id="POS-1", value=0, settlement_revision=3))

    amended = world.at("POS-1")
    assert (amended.status, amended.realized_pnl, amended.settlement_value) == (Status.SETTLED, D("-4.10"), 0)
    assert (amended.restatements, amended.settlement_revision) == (2, 3)


def test_amending_back_and_forth_ends_where_it_began(world: World) -> None:
    world.open(side="NO", fee=".10")
    world.do(SettlePosition(position_id="POS-1", value=1, fee=".01", settlement_revision=1))
    first = world.at("POS-1")

    world.do(AmendSettlement(position_id="POS-1", value=0, settlement_revision=2))
    assert world.at("POS-1").realized_pnl == D("5.89")
    world.do(AmendSettlement(position_id="POS-1", value=1, settlement_revision=3))

    last = world.at("POS-1")
    names = [name for name in first.__struct_fields__ if name not in {"version", "restatements", "settlement_revision"}]
    assert [getattr(first, name) for name in names] == [getattr(last, name) for name in names]


def test_amending_to_the_same_changes_nothing(world: World) -> None:
    world.open()
    world.do(SettlePosition(position_id="POS-1", value=1, settlement_revision=1))

    assert not world.do(AmendSettlement(position_id="POS-1", value=1, settlement_revision=1)).appends


def test_a_bust_after_settlement_pays_back_the_payout_of_that_quantity(world: World) -> None:
    world.open(fee=".10")
    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=".50"))
    world.do(SettlePosition(position_id="POS-1", value=1))
    assert world.at("POS-1").realized_gross == 11

    bust(world, 2)

    position = world.at("POS-1")
    assert (position.realized_gross, position.exit_amount, position.status) == (6, 10, Status.SETTLED)


def test_an_exit_beyond_what_was_held_is_shortfall(world: World) -> None:
    world.open(fee=1)
    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=".50", fee=1))
    world.do(ReducePosition(position_id="POS-1", quantity=15, price=".60", fee=".30"))

    bust(world, 1)

    position = world.at("POS-1")
    assert (position.status, position.quantity, position.exit_quantity) == (Status.CLOSED, 0, 10)
    assert (position.shortfall_quantity, position.shortfall_amount) == (5, 3)
    assert (position.realized_gross, position.realized_pnl) == (1, D("-.30"))
    assert (position.exit_reason, position.exit_time) == ("manual", world.now)


def test_busts_add_up_to_the_whole_and_no_further(world: World) -> None:
    world.open(fee=1)

    bust(world, 1, quantity=4)
    half = world.at("POS-1")
    assert (half.quantity, half.cost, half.open_fees) == (6, D("2.40"), D(".60"))
    bust(world, 1, quantity=5, bust_id="b-2", fee=0)
    assert (world.at("POS-1").quantity, world.at("POS-1").open_fees) == (1, D(".60"))

    with pytest.raises(CommandRejected) as caught:
        bust(world, 1, quantity=2, bust_id="b-3")
    assert caught.value.reason is Reason.BUST_EXCEEDS_REST
    assert "quantity 2 exceeds the 1 of the trade" in str(caught.value)


def test_all_fills_busted_leaves_a_void_position_that_takes_no_more_fills(world: World) -> None:
    world.open(fee=1)
    world.later(minutes=1)
    opened = world.at("POS-1")

    decision = bust(world, 1)

    position = world.at("POS-1")
    assert (position.status, position.exit_reason, position.quantity) == (Status.VOIDED, "busted", 0)
    assert (position.cost, position.realized_pnl, position.unrealized_pnl) == (0, 0, None)
    assert (position.entry_price, position.exit_price, position.entry_time) == (D(".40"), None, opened.entry_time)
    assert decision.appends[0].effective_at == opened.entry_time
    assert [type(one.event) for one in decision.appends[:2]] == [TradeBusted, BookPositionClosed]
    with pytest.raises(CommandRejected) as caught:
        world.do(
            IncreasePosition(position_id="POS-1", quantity=1, price=".5", effective_at=opened.entry_time - timedelta(1))
        )
    assert caught.value.reason is Reason.POSITION_NOT_OPEN


def test_what_the_venue_keeps_of_the_fee_of_a_bust_stays_charged(world: World) -> None:
    world.open(fee=1)

    bust(world, 1, fee=".25")

    position = world.at("POS-1")
    assert (position.realized_pnl, position.realized_pnl_closed, position.open_fees) == (D("-.75"), D("-.75"), D(".75"))


def test_a_bust_of_an_exit_reopens_the_position_and_its_book_hears_of_it(world: World) -> None:
    world.open()
    world.do(MarkPosition(position_id="POS-1", price=".55"))
    world.do(ClosePosition(position_id="POS-1", price=".70", reason="profit_target"))
    key = BookKey(Environment.PAPER, "main", "M")
    assert not world.book(key).open

    decision = bust(world, 2)

    position = world.at("POS-1")
    assert (position.status, position.quantity, position.exit_price) == (Status.OPEN, 10, None)
    assert (position.exit_time, position.exit_reason, position.realized_pnl) == (None, None, 0)
    assert (position.current_price, position.unrealized_pnl) == (D(".55"), D("1.50"))
    assert isinstance(decision.appends[1].event, BookPositionReopened)
    assert world.book(key).open_on(Side.YES) == (world.names["POS-1"],)
    assert world.book(key).last_exit(Side.YES) is None
    world.fill("sell", 10, ".60")
    assert world.at("POS-1").status is Status.CLOSED


def test_busting_one_half_of_a_flip_busts_both(world: World) -> None:
    world.fill("buy", 10, ".40")
    world.fill("sell", 16, ".50", fee=".16", on_excess="flip")
    assert (world.at("POS-1").status, world.at("POS-2").side) == (Status.CLOSED, Side.NO)

    for half in (3, 2):
        with pytest.raises(CommandRejected) as caught:
            bust(world, half, quantity=1)
        assert caught.value.reason is Reason.FLIP_IS_ONE_TRADE
    decision = bust(world, 3)

    first, second = world.at("POS-1"), world.at("POS-2")
    assert (first.status, first.quantity, first.realized_pnl) == (Status.OPEN, 10, 0)
    assert (second.status, second.exit_reason, second.quantity, second.open_fees) == (Status.VOIDED, "busted", 0, 0)
    assert set(decision.positions) == {world.names["POS-1"], world.names["POS-2"]}
    assert len(decision.correction_keys) == 2


def test_a_split_exit_is_no_flip_and_each_part_is_a_trade(world: World) -> None:
    world.open()
    world.open()
    world.fill("sell", 15, ".50")

    bust(world, 4, quantity=5)

    assert (world.at("POS-1").quantity, world.at("POS-2").quantity) == (0, 10)


def test_a_correction_of_price_quantity_fee_and_time(world: World) -> None:
    world.fill("buy", 10, ".40", ".10", effective_at=at(1))
    world.fill("buy", 10, ".50", ".10", effective_at=at(2))
    world.fill("sell", 5, ".60", ".05", effective_at=at(3))

    correct(world, 2, price=".60", quantity=20, fee=".30")
    position = world.at("POS-1")
    assert (position.quantity, position.entry_amount, position.open_fees) == (25, 16, D(".40"))
    assert position.average_entry_price == round(D(16) / 30, 18)

    correct(world, 2, correction_id="c-2", execution_time=at(4))
    moved = world.at("POS-1")
    assert moved.realized_gross == 1
    assert (moved.last_fill_at, moved.entry_time) == (at(4), at(1))

    correct(world, 1, correction_id="c-3", execution_time=at(0))
    assert world.at("POS-1").entry_time == at(0)


def test_a_correction_leaves_busts_as_they_are_but_not_less_than_they_took(world: World) -> None:
    world.open()
    bust(world, 1, quantity=4)

    correct(world, 1, quantity=6)
    assert world.at("POS-1").quantity == 2

    with pytest.raises(CommandRejected) as caught:
        correct(world, 1, correction_id="c-2", quantity=4)
    assert caught.value.reason is Reason.TRADE_BUSTED


def test_a_fee_is_adjusted_to_its_new_total(world: World) -> None:
    world.open(fee=1)
    world.do(ReducePosition(position_id="POS-1", quantity=5, price=".40", fee=1))

    adjust(world, 1, "-.50")
    adjust(world, 2, 2, adjustment_id="a-2")

    position = world.at("POS-1")
    assert (position.open_fees, position.close_fees, position.open_fees_released) == (D("-.50"), 2, D("-.25"))
    assert (position.realized_pnl, position.realized_pnl_closed) == (D("-1.50"), D("-1.75"))


def test_a_late_exit_is_judged_by_what_was_held_at_its_time(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("buy", 10, ".40", effective_at=at(3))

    with pytest.raises(CommandRejected) as caught:
        world.fill("sell", 11, ".50", effective_at=at(2))
    assert caught.value.reason is Reason.QUANTITY_EXCEEDS_HELD
    assert caught.value.details["held"] == 10
    world.fill("sell", 10, ".50", effective_at=at(2))

    position = world.at("POS-1")
    assert (position.quantity, position.realized_pnl, position.status) == (10, 1, Status.OPEN)


def test_a_late_exit_that_makes_a_later_one_too_large_leaves_a_shortfall(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("sell", 10, ".50", effective_at=at(3))

    world.fill("sell", 4, ".60", effective_at=at(2))

    position = world.at("POS-1")
    assert (position.exit_quantity, position.shortfall_quantity, position.shortfall_amount) == (10, 4, 2)
    assert (position.realized_gross, position.exit_time) == (D("1.40"), at(3))


def test_a_late_entry_reopens_the_position_that_was_open_then(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("sell", 10, ".50", effective_at=at(3))

    world.fill("buy", 5, ".40", effective_at=at(2))

    assert len(world.positions) == 1
    assert (world.at("POS-1").status, world.at("POS-1").quantity) == (Status.OPEN, 5)


def test_a_late_entry_before_every_cycle_opens_one_of_its_own(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("sell", 10, ".50", effective_at=at(3))

    world.fill("buy", 5, ".40", effective_at=at(0))

    assert (world.at("POS-2").quantity, world.at("POS-2").entry_time, world.at("POS-2").previous) == (5, at(0), None)
    assert world.at("POS-1").restatements == 0


def test_an_entry_before_the_first_of_an_open_position_joins_it(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))

    world.fill("buy", 10, ".60", effective_at=at(0))

    position = world.at("POS-1")
    assert (position.quantity, position.entry_time, position.average_entry_price) == (20, at(0), D(".50"))
    assert position.current_price == D(".60")


def test_a_late_fill_of_a_settled_position_is_settled_with_it(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.do(SettlePosition(position_id="POS-1", value=1, effective_at=at(5)))

    world.fill("buy", 10, ".50", effective_at=at(2))
    world.fill("sell", 5, ".50", effective_at=at(3))

    position = world.at("POS-1")
    assert (position.status, position.exit_quantity, position.realized_gross) == (Status.SETTLED, 20, D("8.50"))
    assert position.settlement_value == 1


def test_nothing_left_to_settle_is_a_close(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.do(SettlePosition(position_id="POS-1", value=1, effective_at=at(5), settlement_revision=1))

    world.fill("sell", 10, ".50", effective_at=at(3), reason="manual")

    position = world.at("POS-1")
    assert (position.status, position.exit_time, position.exit_reason) == (Status.CLOSED, at(3), "manual")
    assert (position.settlement_value, position.settlement_revision, position.realized_pnl) == (None, 1, 1)
    bust(world, 2)
    assert (world.at("POS-1").status, world.at("POS-1").realized_pnl) == (Status.SETTLED, 6)


def test_a_mark_before_the_first_entry_that_counts_is_none(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.do(MarkPosition(position_id="POS-1", price=".70", effective_at=at(2)))
    world.fill("buy", 10, ".50", effective_at=at(3))

    bust(world, 1)

    position = world.at("POS-1")
    assert (position.current_price, position.unrealized_pnl, position.entry_time) == (D(".50"), 0, at(3))
    assert not world.do(MarkPosition(position_id="POS-1", price=".70", effective_at=at(2.5))).appends


@pytest.mark.parametrize("kind", ["close", "settle", "void"])
def test_what_ends_a_position_comes_after_all_its_fills(world: World, kind: str) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    commands = {
        "close": ClosePosition(position_id="POS-1", price=".5", reason="manual", effective_at=at(0)),
        "settle": SettlePosition(position_id="POS-1", value=1, effective_at=at(0)),
        "void": VoidPosition(position_id="POS-1", effective_at=at(0)),
    }

    with pytest.raises(CommandRejected) as caught:
        world.do(commands[kind])

    assert caught.value.reason is Reason.TOO_LATE


def test_after_a_bust_of_the_last_fill_a_close_may_be_before_it(world: World) -> None:
    world.fill("buy", 10, ".40", effective_at=at(1))
    world.fill("buy", 10, ".40", effective_at=at(5))
    bust(world, 2)

    world.do(ClosePosition(position_id="POS-1", price=".5", reason="manual", effective_at=at(3)))

    assert world.at("POS-1").exit_time == at(3)


def test_trades_are_found_by_the_number_of_their_fill_only(world: World) -> None:
    world.open()
    number = next(n for n, one in enumerate(world.log, 1) if isinstance(one.event, PositionOpened))
    assert world.do(BustTrade(trade=number, bust_id="b", reason="r", actor="a", quantity=1)).appends
    beside = next(n for n, one in enumerate(world.log, 1) if not isinstance(one.event, PositionOpened))

    for ref in ("TRD-999", f"TRD-{beside}", "POS-1", "TRD-x", beside):
        with pytest.raises(CommandRejected) as caught:
            world.do(BustTrade(trade=ref, bust_id="b", reason="r", actor="a"))
        assert caught.value.reason is Reason.TRADE_UNKNOWN


@pytest.mark.parametrize("missing", ["reason", "actor", "bust_id", "trade"])
def test_reason_and_actor_are_required(missing: str) -> None:
    fields = {"trade": "TRD-1", "bust_id": "b", "reason": "r", "actor": "a"}

    with pytest.raises(CommandRejected) as caught:
        BustTrade(**{name: value for name, value in fields.items() if name != missing})

    assert caught.value.reason is Reason.FIELD_MISSING
