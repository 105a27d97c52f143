"""Cash, locked and free: figures of domain.md, and the laws that tie positions to money."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.accounts.account import Account, AccountKey, account_stream
from position_ledger.domain.accounts.effects import holding
from position_ledger.domain.accounts.events import ACCOUNT_EVENTS, CashMoved, PositionBooked
from position_ledger.domain.commands import (
    AdjustCash,
    ClosePosition,
    Deposit,
    IncreasePosition,
    OpenPosition,
    RecordCash,
    RecordFill,
    ReducePosition,
    SetOpeningBalance,
    SettlePosition,
    Withdraw,
)
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import NOON, D, World, examples

MAIN = {"environment": "paper", "account": "main"}


def account(world: World, name: str = "main", currency: str = "USD") -> Account:
    state = world.states[account_stream(AccountKey(Environment.PAPER, name, currency))]
    assert isinstance(state, Account)
    return state


def balances(world: World) -> tuple[Decimal, Decimal, Decimal]:
    """Cash, locked, free."""
    held = account(world)
    return held.cash, held.locked, held.free


def test_opening_a_binary_moves_the_amount_from_free_to_locked_and_cash_by_the_fee_only() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=100))

    world.open(quantity=10, entry_price="0.40", fee="0.10")

    assert balances(world) == (D("99.90"), D("4"), D("95.90"))


def test_reducing_and_settling_a_binary() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=100))
    world.open(quantity=10, entry_price="0.40")

    world.do(ReducePosition(position_id="POS-1", quantity=5, price="0.60", fee="0.05"))
    assert balances(world) == (D("100.95"), D("2"), D("98.95"))

    world.do(SettlePosition(position_id="POS-1", value=0))
    assert balances(world) == (D("98.95"), D(0), D("98.95"))


def test_yes_and_no_lock_both_costs_without_offset() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=100))
    world.open(side="YES", quantity=10, entry_price="0.40")
    world.open(side="NO", quantity=10, entry_price="0.55")

    assert balances(world) == (D(100), D("9.5"), D("90.5"))


def test_long_pays_the_amount_and_locks_nothing() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=1000))
    world.open(side="LONG", quantity=2, entry_price=100, fee=1)
    assert balances(world) == (D(799), D(0), D(799))

    world.do(ClosePosition(position_id="POS-1", price=110, reason="manual"))
    assert balances(world) == (D(1019), D(0), D(1019))


def test_short_locks_proceeds_and_margin() -> None:
    """The margin rate of the position is that of its market; here it is none."""
    world = World()
    world.do(Deposit(**MAIN, amount=1000))
    world.open(side="SHORT", quantity=2, entry_price=100)
    assert balances(world) == (D(1200), D(200), D(1000))

    world.do(ReducePosition(position_id="POS-1", quantity=1, price=90))
    assert balances(world) == (D(1110), D(100), D(1010))


def test_an_intention_is_refused_for_money_only_from_the_first_deposit_on() -> None:
    world = World()
    world.open()
    assert account(world).free == D("-4")

    world.do(Deposit(**MAIN, amount=5))
    with pytest.raises(CommandRejected, match="4 is needed but only 1 is free") as caught:
        world.open()
    assert caught.value.reason is Reason.INSUFFICIENT_FUNDS


def test_a_fact_is_never_refused_for_money() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=1))

    world.fill("buy", 10, "0.40")
    world.do(IncreasePosition(position_id="POS-1", quantity=10, price="0.40"))

    assert account(world).free == D("-7")


def test_all_of_what_is_free_can_be_spent_and_withdrawn() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=10))
    world.open(quantity=10, entry_price="0.40")

    world.do(Withdraw(**MAIN, amount=6))

    assert balances(world) == (D(4), D(4), D(0))


def test_nothing_can_be_withdrawn_that_was_never_paid_in() -> None:
    with pytest.raises(CommandRejected, match="1 is needed but only 0 is free"):
        World().do(Withdraw(**MAIN, amount=1))


def test_other_cash_and_adjustments_are_facts() -> None:
    world = World()
    world.do(SetOpeningBalance(**MAIN, amount=50))
    world.do(RecordCash(**MAIN, kind="funding", amount="-60"))
    world.do(AdjustCash(**MAIN, amount=3, reason="venue says so"))

    assert account(world).free == D(-7)
    assert [one.event.kind.value for one in world.log if isinstance(one.event, CashMoved)] == [
        "opening_balance", "funding", "adjustment",
    ]  # fmt: skip


def test_money_of_other_currencies_and_accounts_is_not_touched() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount=10))
    world.do(Deposit(**MAIN, currency="EUR", amount=20))
    world.do(Deposit(environment="paper", account="other", amount=30))
    world.open()

    assert (account(world).free, account(world, currency="EUR").free, account(world, "other").free) == (
        D(6),
        D(20),
        D(30),
    )


def test_a_flip_books_both_halves_with_their_causes() -> None:
    world = World()
    world.fill("buy", 10, "0.40")
    world.fill("sell", 15, "0.50", on_excess="flip")

    booked = [one.event for one in world.log if isinstance(one.event, PositionBooked)]
    assert [one.cause for one in booked] == ["opened", "closed", "opened"]
    assert balances(world) == (D(1), D("2.5"), D("-1.5"))


def test_a_cash_event_keeps_the_time_of_its_position_event() -> None:
    world = World()
    at = NOON - timedelta(days=3)
    world.fill("buy", 10, "0.40", effective_at=at)
    assert {one.effective_at for one in world.log} == {at}


def test_a_zero_adjustment_of_an_unknown_account_is_refused_and_of_a_known_one_changes_nothing() -> None:
    world = World()
    with pytest.raises(CommandRejected, match="amount is 0 but must be greater"):
        world.do(AdjustCash(**MAIN, amount=0, reason="none"))
    world.do(Deposit(**MAIN, amount=1))
    assert world.do(AdjustCash(**MAIN, amount=0, reason="none")).appends == ()


amounts = st.integers(1, 10**6).map(lambda units: Decimal(units) / 1000)
prices = st.integers(0, 100).map(lambda cents: Decimal(cents) / 100)


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Fills of a few accounts and sides, payments between them."""
    steps: list[Any] = []
    for _ in range(draw(st.integers(1, 25))):
        key = {"environment": "paper", "account": draw(st.sampled_from(["a", "b"]))}
        if draw(st.integers(0, 5)) == 0:
            steps.append(Deposit(**key, amount=draw(amounts)))
            continue
        side = draw(st.sampled_from(["YES", "NO", "LONG", "SHORT"]))
        fields = {"quantity": draw(amounts), "price": draw(prices), "fee": draw(amounts)}
        action = draw(st.sampled_from(["buy", "sell"]))
        steps.append(
            RecordFill(**key, market=f"M-{side in {'YES', 'NO'}}", side=side, action=action, on_excess="flip", **fields)
        )
    return steps


@pytest.mark.uncounted
@examples(100)
@given(steps=histories())
def test_money_follows_positions_exactly(steps: list[Any]) -> None:
    """Law 5: free + locked = cash after every event, postings sum to zero; and cash is what positions and payments say."""
    world = World()
    paid: dict[str, Decimal] = {}
    for step in steps:
        world.do(step)
        if isinstance(step, Deposit):
            paid[step.account] = paid.get(step.account, D(0)) + step.amount

    for append in world.log:
        if isinstance(append.event, ACCOUNT_EVENTS):
            assert sum(append.event.postings.__dict__.values()) == 0
            assert append.event.change == append.event.postings.free + append.event.postings.locked
    for name in {step.account for step in steps}:
        held = account(world, name)
        parts = [holding(one) for one in world.positions.values() if one.account == name]
        assert held.cash == paid.get(name, D(0)) + sum((part.cash for part in parts), D(0))
        assert held.locked == sum((part.locked for part in parts), D(0))
        assert held.free + held.locked == held.cash
        assert world.replayed()[account_stream(AccountKey(Environment.PAPER, name, "USD"))] == held


def test_a_position_is_opened_with_what_is_free_to_the_last_cent() -> None:
    world = World()
    world.do(Deposit(**MAIN, amount="4.10"))
    world.do(OpenPosition(**MAIN, market="M", side="YES", quantity=10, entry_price="0.40", fee="0.10"))
    assert account(world).free == 0
