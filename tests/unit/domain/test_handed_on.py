"""What becomes known about the time before a transfer, a split, a merge or an opening statement; figures by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.commands import (
    AdjustFee,
    BustTrade,
    ClosePosition,
    CorrectTrade,
    Deposit,
    IncreasePosition,
    MarkPosition,
    MergePair,
    RecordFill,
    RecordOpeningPosition,
    ReducePosition,
    SettlePosition,
    SplitPair,
    SplitShares,
    TrailingStop,
    TransferPosition,
)
from position_ledger.domain.effective_order import in_effective_order
from position_ledger.domain.events import BookPositionClosed, BookPositionReopened
from position_ledger.domain.lots import Method, lots_of
from position_ledger.domain.parts import StreamRef
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import TradeBusted, TransferRestated
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.test_correction_laws import NOT_FOLDED, position_of
from tests.unit.domain.world import NOON, D, World

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.decisions import Decision

MAIN = {"environment": "paper", "account": "main"}
SAID = {"reason": "venue", "actor": "desk"}


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


def money(world: World, name: str) -> tuple[Decimal, Decimal]:
    """Cash and locked."""
    held = world.states[account_stream(AccountKey(Environment.PAPER, name, "USD"))]
    return held.cash, held.locked


def held(world: World, name: str) -> tuple[Any, ...]:
    position = world.at(name)
    return position.quantity, position.cost, position.open_fees, position.status


def long_of_20() -> World:
    """LONG 10 @ 100 and 10 @ 120, a fee of 1 each, of which 10 went to another account at 110."""
    world = World(now=at(100))
    world.do(Deposit(**MAIN, amount=5000, effective_at=at(0)))
    world.open(side="LONG", quantity=10, entry_price=100, fee=1, effective_at=at(1))
    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=120, fee=1, effective_at=at(2)))
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=10, effective_at=at(3)))
    assert held(world, "POS-1") == held(world, "POS-2") == (10, 1100, 1, "open")
    assert money(world, "main") == (2798, 0)
    return world


def bust(world: World, fill: int, **fields: Any) -> Decision:
    return world.do(BustTrade(**SAID, **{"trade": world.trade(fill), "bust_id": "b"} | fields))


def test_a_bust_follows_the_shares_to_where_they_are() -> None:
    """The giver had only 10 @ 100 to give, so it gave all of it at that."""
    world = long_of_20()

    decision = bust(world, 2)

    assert held(world, "POS-1") == (0, 0, 0, "transferred")
    assert held(world, "POS-2") == (10, 1000, 1, "open")
    assert (money(world, "main"), money(world, "other")) == ((3999, 0), (0, 0))
    # and all of it is one append: the correction, the receiver, the book of what ended, both accounts
    kinds = [type(one.event).__name__ for one in decision.appends]
    assert kinds == ["TradeBusted", "BookPositionClosed", "TransferRestated", "PositionBooked", "PositionBooked",
                     "PositionBooked"]  # fmt: skip
    assert [one.effective_at for one in decision.appends if isinstance(one.event, TransferRestated)] == [at(3)]
    told = next(one.event for one in decision.appends if isinstance(one.event, TransferRestated))
    assert told.because == StreamRef(stream=world.names["POS-1"], version=4)
    assert (told.quantity, told.cost, told.fees, told.brought) == (10, 1000, 1, -100)


def test_what_the_receiver_has_sold_of_what_never_was_is_shortfall() -> None:
    world = long_of_20()
    world.do(ReducePosition(position_id="POS-2", quantity=6, price=130, effective_at=at(4)))
    bust(world, 1)
    assert held(world, "POS-2") == (4, 480, 1, "open")
    assert world.at("POS-2").realized_gross == 60

    bust(world, 2)

    assert held(world, "POS-1") == (0, 0, 0, "voided")
    assert held(world, "POS-2") == (0, 0, 0, "closed")
    receiver = world.at("POS-2")
    assert (receiver.shortfall_quantity, receiver.shortfall_amount, receiver.realized_pnl) == (6, 780, 0)
    assert (money(world, "main"), money(world, "other")) == ((5000, 0), (0, 0))


def test_a_receiver_of_nothing_is_voided_like_a_position_of_nothing() -> None:
    world = long_of_20()
    bust(world, 1)
    bust(world, 2)
    assert {world.at(name).exit_reason for name in ("POS-1", "POS-2")} == {"busted"}
    assert {world.at(name).status for name in ("POS-1", "POS-2")} == {"voided"}


def test_a_late_buy_before_the_transfer_stays_with_the_giver_and_changes_the_average_of_both() -> None:
    """10 @ 100, 10 @ 120 and 10 @ 140 cost 3600, so 10 of 30 went at 1200, with a third of the 3 for fees."""
    world = long_of_20()

    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=140, fee=1, effective_at=at(2)))

    assert held(world, "POS-1") == (20, 2400, 2, "open")
    assert held(world, "POS-2") == (10, 1200, 1, "open")


def test_all_that_was_held_is_a_number_of_contracts() -> None:
    """A transfer moved what was held by then; what becomes known later is still where it was bought."""
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(TransferPosition(position_id="POS-1", to_account="other", effective_at=at(3)))

    late = world.fill("buy", 5, 130, side="LONG", effective_at=at(2))

    assert held(world, "POS-1") == (5, 550, 0, "open")
    assert held(world, "POS-2") == (10, 1100, 0, "open")
    assert late.positions == (world.names["POS-1"], world.names["POS-2"])
    assert [type(one.event) for one in late.appends].count(BookPositionReopened) == 1


def test_a_late_sale_before_the_transfer_leaves_less_to_go() -> None:
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(TransferPosition(position_id="POS-1", to_account="other", effective_at=at(3)))

    world.fill("sell", 4, 120, side="LONG", effective_at=at(2))

    assert world.at("POS-1").realized_gross == 80
    assert held(world, "POS-1") == (0, 0, 0, "transferred")
    assert held(world, "POS-2") == (6, 600, 0, "open")
    with pytest.raises(CommandRejected) as caught:
        world.fill("sell", 7, 120, side="LONG", effective_at=at(2))
    assert caught.value.reason is Reason.QUANTITY_EXCEEDS_HELD


def test_another_price_of_a_binary_moves_what_is_locked_in_both_accounts() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=10))
    world.open(quantity=10, entry_price="0.40")
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=4))
    assert (money(world, "main"), money(world, "other")) == ((D("8.4"), D("2.4")), (D("1.6"), D("1.6")))

    world.do(CorrectTrade(**SAID, trade=world.trade(1), correction_id="c", price="0.50"))

    assert (money(world, "main"), money(world, "other")) == ((8, 3), (2, 2))
    world.do(SettlePosition(position_id="POS-2", value=1))
    assert world.at("POS-2").realized_pnl == 2


def test_a_fee_that_is_charged_otherwise_goes_along_in_proportion() -> None:
    """The giver pays it; what the receiver has of it only counts in its P&L."""
    world = World()
    world.do(Deposit(**MAIN, amount=10))
    world.open(quantity=10, entry_price="0.40", fee=1)
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=5))

    world.do(AdjustFee(**SAID, trade=world.trade(1), adjustment_id="a", fee=2))

    assert (world.at("POS-1").open_fees, world.at("POS-2").open_fees) == (1, 1)
    assert (world.at("POS-1").realized_pnl, world.at("POS-2").realized_pnl) == (-1, -1)
    assert (money(world, "main"), money(world, "other")) == ((6, 2), (2, 2))


def test_it_goes_on_through_a_chain_whose_links_are_closed_and_settled() -> None:
    """10 @ .40 -> 8 to B, 3 of them sold at .70 -> 5 to C, settled at 1; then the price turns out to be .20."""
    world = World(now=at(100))
    world.open(quantity=10, entry_price="0.40", effective_at=at(1))
    world.do(TransferPosition(position_id="POS-1", to_account="B", quantity=8, effective_at=at(2)))
    world.do(ReducePosition(position_id="POS-2", quantity=3, price="0.70", effective_at=at(3)))
    world.do(TransferPosition(position_id="POS-2", to_account="C", effective_at=at(4)))
    world.do(SettlePosition(position_id="POS-3", value=1, effective_at=at(5)))
    world.do(ClosePosition(position_id="POS-1", price="0.50", reason="manual", effective_at=at(6)))
    assert [world.at(f"POS-{n}").realized_pnl for n in (1, 2, 3)] == [D("0.2"), D("0.9"), 3]

    world.do(CorrectTrade(**SAID, trade=world.trade(1), correction_id="c", price="0.20"))

    assert [world.at(f"POS-{n}").realized_pnl for n in (1, 2, 3)] == [D("0.6"), D("1.5"), 4]
    assert [world.at(f"POS-{n}").restated_realized for n in (1, 2, 3)] == [D("0.4"), D("0.6"), 1]
    assert [world.at(f"POS-{n}").status for n in (1, 2, 3)] == ["closed", "transferred", "settled"]
    assert [money(world, name)[1] for name in ("main", "B", "C")] == [0, 0, 0]
    assert [money(world, name)[0] for name in ("main", "B", "C")] == [-1, D("2.1"), 5]


def test_a_bust_before_a_transfer_pays_back_what_the_receiver_was_paid_for_it() -> None:
    world = World()
    world.open(quantity=10, entry_price="0.40")
    world.do(TransferPosition(position_id="POS-1", to_account="other"))
    world.do(SettlePosition(position_id="POS-2", value=1))
    assert money(world, "other") == (10, 0)

    bust(world, 1, quantity=6)

    settled = world.at("POS-2")
    assert (settled.exit_quantity, settled.realized_pnl, settled.status) == (4, D("2.4"), "settled")
    assert (money(world, "main"), money(world, "other")) == ((D("-1.6"), 0), (4, 0))


def test_a_bust_of_a_sale_before_the_transfer_reopens_the_giver() -> None:
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(ReducePosition(position_id="POS-1", quantity=4, price=150, effective_at=at(2)))
    world.do(TransferPosition(position_id="POS-1", to_account="other", effective_at=at(3)))

    decision = bust(world, 2)

    assert held(world, "POS-1") == (4, 400, 0, "open")
    assert held(world, "POS-2") == (6, 600, 0, "open")
    assert not [one for one in decision.appends if isinstance(one.event, TransferRestated)]
    assert not [one for one in decision.appends if isinstance(one.event, BookPositionClosed)]


def test_a_late_fill_before_a_split_counts_in_the_old_contracts() -> None:
    """15 for 1650, and then each is two."""
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(MarkPosition(position_id="POS-1", price=120, effective_at=at(2)))
    world.do(SplitShares(position_id="POS-1", ratio=2, effective_at=at(3)))

    world.do(IncreasePosition(position_id="POS-1", quantity=5, price=130, effective_at=at(2)))

    position = world.at("POS-1")
    assert held(world, "POS-1") == (30, 1650, 0, "open")
    assert (position.entry_quantity, position.average_entry_price, position.entry_price) == (30, 55, 55)
    assert (position.current_price, position.unrealized_pnl) == (60, 150)


def test_a_bust_before_a_split_speaks_of_the_old_contracts() -> None:
    """Of 4 sold at 120 two never were: 8 are left of 10, which makes 16."""
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(ReducePosition(position_id="POS-1", quantity=4, price=120, effective_at=at(2)))
    world.do(SplitShares(position_id="POS-1", ratio=2, effective_at=at(3)))
    assert held(world, "POS-1") == (12, 600, 0, "open")

    bust(world, 2, quantity=2)

    position = world.at("POS-1")
    assert held(world, "POS-1") == (16, 800, 0, "open")
    assert (position.realized_gross, position.exit_quantity, position.exit_price) == (40, 4, 60)
    stream = world.names["POS-1"]
    report = lots_of([one for one in world.log if one.stream == stream], Method.FIFO)
    assert [(lot.quantity, lot.cost) for lot in report.open] == [(16, 800)]
    assert report.gross == 40


def test_what_was_bought_before_an_opening_statement_is_added_only_if_it_names_the_position() -> None:
    """By key it is in the statement already, and would count twice. Nothing was there to be sold."""
    world = World(now=at(100))
    world.do(RecordOpeningPosition(**MAIN, market="M", side="LONG", quantity=10, entry_price=100, effective_at=at(5)))

    world.do(IncreasePosition(position_id="POS-1", quantity=10, price=120, effective_at=at(3)))
    for side in ("buy", "sell"):
        with pytest.raises(CommandRejected) as caught:
            world.fill(side, 10, 140, side="LONG", effective_at=at(4))
        assert caught.value.reason is Reason.BEFORE_STATEMENT

    assert held(world, "POS-1") == (20, 2200, 0, "open")
    assert world.at("POS-1").entry_time == at(3)
    with pytest.raises(CommandRejected) as caught:
        world.do(ReducePosition(position_id="POS-1", quantity=11, price=120, effective_at=at(3)))
    assert caught.value.reason is Reason.QUANTITY_EXCEEDS_HELD


def test_a_fill_of_the_receivers_key_before_it_received_is_another_position() -> None:
    world = long_of_20()

    world.fill("buy", 1, 90, side="LONG", account="other", effective_at=at(2))

    assert held(world, "POS-2") == (10, 1100, 1, "open")
    assert held(world, "POS-3") == (1, 90, 0, "open")
    with pytest.raises(CommandRejected) as caught:
        world.fill("sell", 5, 90, side="LONG", account="other", effective_at=at(2))
    assert caught.value.reason is Reason.QUANTITY_EXCEEDS_HELD


def test_a_fill_that_names_the_receiver_joins_it_whenever_it_was() -> None:
    world = long_of_20()

    world.do(RecordFill(position_id="POS-2", action="buy", quantity=1, price=90, effective_at=at(0)))

    assert held(world, "POS-2") == (11, 1190, 1, "open")
    assert world.at("POS-2").entry_time == at(0)


def test_a_merge_is_busted_on_both_halves_after_one_of_them_moved_on() -> None:
    """10 pairs @ .40, 4 of them merged, the other 6 YES handed on: without the merge 4 YES are left behind."""
    world = World(now=at(100))
    world.do(SplitPair(**MAIN, market="M", quantity=10, yes_price="0.4", effective_at=at(1)))
    world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-2", quantity=4, effective_at=at(2)))
    world.do(TransferPosition(position_id="POS-1", to_account="other", effective_at=at(3)))

    decision = bust(world, 3)

    assert held(world, "POS-1") == (4, D("1.6"), 0, "open")
    assert held(world, "POS-2") == (10, 6, 0, "open")
    assert held(world, "POS-3") == (6, D("2.4"), 0, "open")
    assert len([one for one in decision.appends if isinstance(one.event, TradeBusted)]) == 2
    # and busting the pairs themselves, nobody has anything
    bust(world, 1)
    assert {world.at(f"POS-{n}").status for n in (1, 2, 3)} == {"voided"}
    assert (money(world, "main"), money(world, "other")) == ((0, 0), (0, 0))


def test_what_a_short_hands_on_is_its_proceeds() -> None:
    """2 sold at 100, one handed on with its 100; at 90 it is 90."""
    world = World()
    world.do(Deposit(**MAIN, amount=1000))
    world.open(side="SHORT", quantity=2, entry_price=100)
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=1))
    assert (money(world, "main"), money(world, "other")) == ((1100, 100), (100, 100))

    world.do(CorrectTrade(**SAID, trade=world.trade(1), correction_id="c", price=90))

    assert (money(world, "main"), money(world, "other")) == ((1090, 90), (90, 90))


def told_in_order(world: World, name: str = "POS-1") -> Any:
    """The position folded in effective order; all but what counts the recording is as it stands."""
    stream, now = world.names[name], world.at(name)
    told = position_of(in_effective_order([one for one in world.log if one.stream == stream]))
    names = [field for field in now.__struct_fields__ if field not in NOT_FOLDED]
    assert {field: getattr(told, field) for field in names} == {field: getattr(now, field) for field in names}
    return told


def test_what_is_bought_after_all_was_handed_on_is_told_in_order() -> None:
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=5, effective_at=at(3)))
    world.do(IncreasePosition(position_id="POS-1", quantity=5, price=120, effective_at=at(4)))
    world.do(MarkPosition(position_id="POS-1", price=130, effective_at=at(5)))

    bust(world, 1, quantity=5)  # so that the transfer took the last of it

    told = told_in_order(world)
    assert (told.status, told.quantity, told.cost, told.current_price) == ("open", 5, 600, 130)


def test_a_mark_of_what_was_all_handed_on_is_its_value() -> None:
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, effective_at=at(1))
    world.do(MarkPosition(position_id="POS-1", price=130, effective_at=at(8)))
    world.do(TransferPosition(position_id="POS-1", to_account="other", effective_at=at(3)))
    assert told_in_order(world).current_price == 130

    bust(world, 1, quantity=5)

    told = told_in_order(world)
    assert (told.status, told.current_price, told.unrealized_pnl) == ("transferred", 130, None)


def test_a_split_before_the_first_entry_that_counts_is_told_in_order() -> None:
    world = World(now=at(100))
    world.open(side="LONG", quantity=10, entry_price=100, stop_loss_price=80, effective_at=at(1))
    world.do(SplitShares(position_id="POS-1", ratio=2, effective_at=at(2)))
    world.do(IncreasePosition(position_id="POS-1", quantity=5, price=60, effective_at=at(3)))

    bust(world, 1)

    told = told_in_order(world)
    assert (told.quantity, told.cost, told.stop_loss_price, told.entry_time) == (5, 300, 40, at(3))


def test_a_mark_from_before_the_entry_keeps_only_its_trailing_stop() -> None:
    world = World(now=at(100))
    terms = TrailingStop(trail_amount=10)
    world.open(side="LONG", quantity=10, entry_price=100, trailing_stop=terms, effective_at=at(1))
    world.do(MarkPosition(position_id="POS-1", price=130, effective_at=at(2)))
    assert world.at("POS-1").current_price == 130

    world.do(CorrectTrade(**SAID, trade=world.trade(1), correction_id="c", execution_time=at(5)))

    position = world.at("POS-1")
    stream = world.names["POS-1"]
    told = position_of(in_effective_order([one for one in world.log if one.stream == stream]))
    assert told is not None
    assert told.trailing_stop == position.trailing_stop
    assert told.trailing_stop is not None
    assert told.trailing_stop.stop_price == 120
    assert told.current_price == position.current_price == 100
