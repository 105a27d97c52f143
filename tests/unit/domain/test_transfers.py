"""Transfers, share splits, pairs, and positions that were held before the ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.accounts.events import ACCOUNT_EVENTS, PositionBooked
from position_ledger.domain.commands import (
    ClosePosition,
    Deposit,
    MarkPosition,
    MergePair,
    RecordOpeningPosition,
    ReducePosition,
    RegisterMarket,
    SetExits,
    SettlePosition,
    SplitPair,
    SplitShares,
    TrailingStop,
    TransferPosition,
)
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import D, World, examples

MAIN = {"environment": "paper", "account": "main"}


def money(world: World, name: str) -> tuple[Decimal, Decimal]:
    """Cash and locked."""
    held = world.states[account_stream(AccountKey(Environment.PAPER, name, "USD"))]
    return held.cash, held.locked


def test_a_transfer_moves_quantity_cost_and_unreleased_fees_and_realizes_nothing() -> None:
    world = World()
    opened = world.open(quantity=10, entry_price="0.40", fee="0.10", strategy=3, stop_loss_price="0.20")
    world.do(ReducePosition(position_id="POS-1", quantity=5, price="0.60"))

    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=2))

    giver, receiver = world.at("POS-1"), world.at("POS-2")
    assert (giver.quantity, giver.cost, giver.open_fees, giver.status) == (3, D("1.2"), D("0.08"), "open")
    assert (receiver.quantity, receiver.cost, receiver.open_fees) == (2, D("0.8"), D("0.02"))
    assert (giver.realized_gross, receiver.realized_gross) == (1, 0)
    assert (receiver.entry_time, receiver.strategy, receiver.stop_loss_price) == (opened.entry_time, 3, D("0.2"))
    assert giver.transferred_quantity == -2


def test_money_of_both_accounts_follows_a_binary() -> None:
    """The collateral goes along; the fees were paid by the giver and stay paid."""
    world = World()
    world.do(Deposit(**MAIN, amount=10))
    world.open(quantity=10, entry_price="0.40", fee="0.10")

    world.do(TransferPosition(position_id="POS-1", to_account="other"))

    assert money(world, "main") == (D("5.90"), 0)
    assert money(world, "other") == (4, 4)
    assert world.at("POS-1").status == "transferred"
    world.do(SettlePosition(position_id="POS-2", value=1))
    assert money(world, "other") == (10, 0)
    assert world.at("POS-2").realized_pnl == D("5.90")


@pytest.mark.parametrize(("side", "main", "other"), [("LONG", (800, 0), (0, 0)), ("SHORT", (1000, 0), (200, 200))])
def test_money_of_both_accounts_follows_other_sides(side: str, main: Any, other: Any) -> None:
    """What LONG paid stays paid; SHORT takes its proceeds along."""
    world = World()
    world.do(Deposit(**MAIN, amount=1000))
    world.open(side=side, quantity=2, entry_price=100)

    world.do(TransferPosition(position_id="POS-1", to_account="other"))

    assert (money(world, "main"), money(world, "other")) == (main, other)


def test_a_transfer_can_go_to_another_strategy_of_the_same_account() -> None:
    world = World()
    world.open(strategy=1)
    world.do(TransferPosition(position_id="POS-1", to_account="main", to_strategy=2))
    assert (world.at("POS-2").strategy, world.at("POS-2").quantity) == (2, 10)


def test_a_transfer_to_where_it_is_or_of_more_than_is_held_is_refused() -> None:
    world = World()
    world.open()
    with pytest.raises(CommandRejected, match="main holds the position already"):
        world.do(TransferPosition(position_id="POS-1", to_account="main"))
    with pytest.raises(CommandRejected, match="quantity 11 exceeds the 10 held"):
        world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=11))


def test_what_was_transferred_away_cannot_be_traded() -> None:
    world = World()
    world.open()
    world.do(TransferPosition(position_id="POS-1", to_account="other"))
    with pytest.raises(CommandRejected, match="POS-1 is transferred, not open"):
        world.do(ReducePosition(position_id="POS-1", quantity=1, price="0.5"))


def test_a_share_split_multiplies_quantities_and_divides_prices() -> None:
    world = World()
    world.open(side="LONG", quantity=10, entry_price=100)
    world.do(ReducePosition(position_id="POS-1", quantity=4, price=110))
    world.do(MarkPosition(position_id="POS-1", price=120))
    world.do(
        SetExits(position_id="POS-1", target_price=150, stop_loss_price=90, trailing_stop=TrailingStop(trail_amount=10))
    )
    before = world.at("POS-1")

    world.do(SplitShares(position_id="POS-1", ratio=4))

    after = world.at("POS-1")
    assert (after.quantity, after.entry_quantity, after.exit_quantity, after.peak_quantity) == (24, 40, 16, 40)
    assert (after.entry_price, after.average_entry_price, after.exit_price) == (25, 25, D("27.5"))
    assert (after.current_price, after.target_price, after.stop_loss_price) == (30, D("37.5"), D("22.5"))
    assert after.trailing_stop is not None
    assert (after.trailing_stop.watermark, after.trailing_stop.stop_price) == (30, D("27.5"))
    for name in ("cost", "realized_gross", "realized_pnl", "unrealized_pnl", "entry_amount", "exit_amount"):
        assert getattr(after, name) == getattr(before, name)


def test_a_binary_cannot_be_split() -> None:
    world = World()
    world.open()
    with pytest.raises(CommandRejected) as caught:
        world.do(SplitShares(position_id="POS-1", ratio=2))
    assert caught.value.reason is Reason.SIDE_CANNOT_SPLIT


def test_merging_a_pair_sells_both_halves_for_one_together() -> None:
    """P&L of the pair = q * (1 - average YES - average NO)."""
    world = World()
    world.do(Deposit(**MAIN, amount=100))
    world.open(side="YES", quantity=10, entry_price="0.40")
    world.open(side="NO", quantity=8, entry_price="0.50")

    world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-2", quantity=8, yes_price="0.333"))

    yes, no = world.at("POS-1"), world.at("POS-2")
    assert (yes.quantity, no.status) == (2, "closed")
    assert yes.realized_gross + no.realized_gross == 8 * (1 - D("0.40") - D("0.50"))
    assert yes.exit_amount + no.exit_amount == 8
    assert money(world, "main") == (D("100.8"), D("0.8"))


def test_only_yes_and_no_of_one_market_are_a_pair() -> None:
    world = World()
    world.open(side="YES")
    world.open(side="NO", market="other")
    with pytest.raises(CommandRejected, match="market is other where M is needed"):
        world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-2", quantity=1))
    with pytest.raises(CommandRejected, match="yes_position_id is NO where YES is needed"):
        world.do(MergePair(yes_position_id="POS-2", no_position_id="POS-1", quantity=1))


def test_splitting_makes_pairs_that_merging_gives_back() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=100))

    world.do(SplitPair(**MAIN, market="M", quantity=10, yes_price="0.3"))
    assert (world.at("POS-1").cost, world.at("POS-2").cost) == (3, 7)
    world.do(SplitPair(**MAIN, market="M", quantity=5))
    assert (world.at("POS-1").quantity, world.at("POS-2").cost) == (15, D("9.5"))
    world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-2", quantity=15))

    assert money(world, "main") == (100, 0)


def test_an_opening_position_comes_with_its_cost() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=100))

    world.do(RecordOpeningPosition(**MAIN, market="M", side="YES", quantity=10, entry_price="0.40", open_fees="0.10"))

    assert money(world, "main") == (104, 4)
    world.do(ClosePosition(position_id="POS-1", price="0.50", reason="manual"))
    assert money(world, "main") == (105, 0)
    assert world.at("POS-1").realized_pnl == D("0.90")


quantities = st.integers(1, 10**5).map(lambda units: Decimal(units) / 1000)


@examples(50)
@given(
    side=st.sampled_from(["YES", "NO", "LONG", "SHORT"]),
    held=quantities,
    parts=st.lists(quantities, max_size=5),
    fee=quantities,
    price=st.integers(1, 99).map(lambda cents: Decimal(cents) / 100),
)
def test_transfers_keep_the_sum(side: str, held: Decimal, parts: list[Decimal], fee: Decimal, price: Decimal) -> None:
    """Quantity, cost, fees and P&L over all accounts stay what they were; postings sum to zero."""
    world = World()
    world.open(side=side, quantity=held, entry_price=price, fee=fee)
    for number, part in enumerate(parts):
        if world.at("POS-1").is_open and part <= world.at("POS-1").quantity:
            world.do(TransferPosition(position_id="POS-1", to_account=f"other-{number}", quantity=part))

    positions = world.positions.values()
    for name, expected in (("quantity", held), ("cost", world.at("POS-1").entry_amount), ("open_fees", fee)):
        assert sum(getattr(one, name) for one in positions) == expected
    assert sum(one.realized_pnl for one in positions) == -fee
    for one in positions:  # law 2
        assert one.realized_gross - one.open_fees - one.close_fees == one.realized_pnl
    booked = [one.event for one in world.log if isinstance(one.event, ACCOUNT_EVENTS)]
    assert all(sum(event.postings.__dict__.values()) == 0 for event in booked)
    moved = [event for event in booked if isinstance(event, PositionBooked) and event.cause != "opened"]
    assert sum(event.change for event in moved) == 0
    assert sum(event.postings.external for event in moved) == 0


def test_what_was_held_before_has_the_terms_of_its_market() -> None:
    world = World()
    world.do(RegisterMarket(environment="paper", market="F", kind="future", multiplier=50, margin_rate="0.1"))
    world.do(Deposit(**MAIN, amount=10_000))

    world.do(RecordOpeningPosition(**MAIN, market="F", side="SHORT", quantity=2, entry_price=10))

    position = world.at("POS-1")
    assert (position.cost, position.multiplier, position.entry_price) == (1000, 50, 10)
    assert money(world, "main") == (11_000, 1100)


def test_pairs_exist_in_binary_markets_only() -> None:
    world = World()
    world.do(RegisterMarket(environment="paper", market="S", kind="spot"))
    with pytest.raises(CommandRejected) as caught:
        world.do(SplitPair(**MAIN, market="S", quantity=1))
    assert caught.value.reason is Reason.SIDE_NOT_IN_MARKET


def test_what_was_held_before_and_pairs_have_the_terms_of_their_market() -> None:
    """A position has the terms of its market, however it came to be."""
    world, key = World(), MAIN
    world.do(
        RegisterMarket(
            environment="paper", market="TEN", kind="binary", multiplier=10, currency="EUR", platform="kalshi"
        )
    )
    world.do(RegisterMarket(environment="paper", market="FUT", kind="future", multiplier=50, margin_rate="0.1"))

    world.do(SplitPair(**key, market="TEN", quantity=3, yes_price="0.4"))
    world.do(RecordOpeningPosition(**key, market="FUT", side="SHORT", quantity=2, entry_price=7))

    yes, no, short = (world.at(f"POS-{number}") for number in (1, 2, 3))
    for position in (yes, no):
        assert (position.multiplier, position.currency, position.platform) == (10, "EUR", "kalshi")
    assert (yes.cost, no.cost) == (12, 18)
    assert (short.multiplier, short.margin_rate, short.cost, short.average_entry_price) == (50, D("0.1"), 700, 7)
    with pytest.raises(CommandRejected) as refused:
        world.do(SplitPair(**key, market="FUT", quantity=1))
    assert refused.value.reason is Reason.SIDE_NOT_IN_MARKET


def test_a_pair_of_halves_that_count_differently_is_refused() -> None:
    world = World()
    # given YES that was bought before its market was registered with another multiplier, and NO after that
    world.open()
    world.do(RegisterMarket(environment="paper", market="M", kind="binary", multiplier=10))
    world.open(side="NO")

    with pytest.raises(CommandRejected) as merging:
        world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-2", quantity=1))
    with pytest.raises(CommandRejected) as splitting:
        world.do(SplitPair(environment="paper", account="main", market="M", quantity=1))

    assert merging.value.reason is Reason.NOT_A_PAIR
    assert splitting.value.reason is Reason.KEY_MISMATCH
    assert "multiplier" in str(merging.value)
