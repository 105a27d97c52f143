"""Laws 1, 2, 3, 6, 9 and 13 over random histories of one position, told in any order, busted, corrected and settled.

The naive side keeps a list of facts as fractions, sorts it, and works everything out from the whole list each time.
"""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from position_ledger.domain.commands import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    CorrectTrade,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    ReducePosition,
    SetExits,
    SettlePosition,
    VoidPosition,
)
from position_ledger.domain.decisions import fold_append
from position_ledger.domain.effective_order import in_effective_order
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from tests.unit.domain.oracle import r18
from tests.unit.domain.world import LONG, NOON, World, examples, through_json

F = Fraction
NONE = F(0)
NAME = "POS-1"
REFUSED = {Reason.QUANTITY_EXCEEDS_HELD, Reason.BUST_EXCEEDS_REST, Reason.TRADE_BUSTED, Reason.POSITION_NOT_OPEN,
           Reason.TOO_LATE, Reason.POSITION_NOT_SETTLED}  # fmt: skip
NOT_FOLDED = {
    "version", "restatements", "restated_realized", "last_effective_at", "last_fill_at", "mark_price",
    "received_at", "stated_at",
}  # fmt: skip
"""What counts or orders the recording, and is no part of what the position is."""

minutes = st.integers(0, 12)
quantities = st.one_of(st.integers(1, 20).map(Decimal), st.integers(1, 10**6).map(lambda n: Decimal(n).scaleb(-5)))
fees = st.one_of(st.just(Decimal(0)), st.integers(-100, 300).map(lambda n: Decimal(n).scaleb(-2)))
prices = st.one_of(st.sampled_from([Decimal(0), Decimal(1)]), st.integers(1, 9999).map(lambda n: Decimal(n).scaleb(-4)))


@dataclass(frozen=True)
class Naive:
    """One fill as it counts."""

    order: int
    minute: int
    is_entry: bool
    quantity: Fraction
    price: Fraction
    fee: Fraction
    busted: Fraction = NONE
    busted_amount: Fraction = NONE

    @property
    def amount(self) -> Fraction:
        return r18(self.quantity * self.price)

    @property
    def left(self) -> Fraction:
        return self.quantity - self.busted


@dataclass
class Verdict:
    minute: int
    value: Fraction | None
    fee: Fraction = NONE
    refunds: bool = False


@dataclass
class Figured:
    """What the list of facts makes of a position."""

    quantity: Fraction = NONE
    cost: Fraction = NONE
    gross: Fraction = NONE
    entered: Fraction = NONE
    left: Fraction = NONE
    entry_amount: Fraction = NONE
    exit_amount: Fraction = NONE
    open_fees: Fraction = NONE
    close_fees: Fraction = NONE
    short: Fraction = NONE
    short_amount: Fraction = NONE
    peak: Fraction = NONE
    status: str = "open"
    counts: bool = False
    facts: list[Naive] = field(default_factory=list)

    def named(self) -> dict[str, Fraction]:
        return {
            "quantity": self.quantity, "cost": self.cost, "realized_gross": self.gross, "entry_quantity": self.entered,
            "exit_quantity": self.left, "entry_amount": self.entry_amount, "exit_amount": self.exit_amount,
            "open_fees": self.open_fees, "close_fees": self.close_fees, "shortfall_quantity": self.short,
            "shortfall_amount": self.short_amount, "peak_quantity": self.peak,
            "realized_pnl": self.gross - self.open_fees - self.close_fees,
        }  # fmt: skip


def figured(facts: list[Naive], side: str, verdict: Verdict | None = None, until: int = 99) -> Figured:
    now, sign = Figured(), -1 if side == "SHORT" else 1
    for fact in sorted((one for one in facts if one.minute <= until), key=lambda one: (one.minute, one.order)):
        now.facts.append(fact)
        now.counts |= fact.left > 0
        amount = fact.amount - fact.busted_amount
        if fact.is_entry:
            now.open_fees += fact.fee
            now.quantity, now.cost = now.quantity + fact.left, now.cost + (amount if fact.left else 0)
            now.entered, now.entry_amount = now.entered + fact.left, now.entry_amount + (amount if fact.left else 0)
            now.peak = max(now.peak, now.quantity)
            continue
        now.close_fees += fact.fee
        if not fact.left:
            continue
        taken = min(now.quantity, fact.left)
        got = amount if taken == fact.left else r18(amount * taken / fact.left)
        if taken:
            leave(now, taken, got, sign)
        now.short, now.short_amount = now.short + fact.left - taken, now.short_amount + amount - got
    if verdict and verdict.minute <= until and now.quantity:
        if verdict.value is None:
            leave(now, now.quantity, now.cost, sign)
            now.status = "voided"
            if verdict.refunds:
                now.open_fees = now.close_fees = F(0)
        else:
            paid = r18(now.quantity * verdict.value)
            leave(now, now.quantity, now.quantity - paid if side == "NO" else paid, sign)
            now.close_fees += verdict.fee
            now.status = "settled"
    elif not now.quantity:
        now.status = "closed" if now.counts else "voided"
    return now


def leave(now: Figured, taken: Fraction, got: Fraction, sign: int) -> None:
    released = now.cost if taken == now.quantity else r18(now.cost * taken / now.quantity)
    now.gross += sign * (got - released)
    now.cost, now.quantity = now.cost - released, now.quantity - taken
    now.left, now.exit_amount = now.left + taken, now.exit_amount + got


class Corrected(RuleBasedStateMachine):
    """One position; times are minutes, so that ties are common."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.side = "YES"
        self.facts: dict[str, Naive] = {}
        self.verdict: Verdict | None = None
        self.ids = 0

    @property
    def position(self) -> Position:
        return self.world.at(NAME)

    def tried(self, command: Any) -> bool:
        """Execute a command; whether it was accepted."""
        log = len(self.world.log)
        try:
            return bool(self.world.do(command).appends)
        except CommandRejected as rejection:
            assert rejection.reason in REFUSED  # noqa: PT017 - either is fine
            assert len(self.world.log) == log
            return False

    def keep(self, fact: Naive) -> None:
        number = len([one for one in self.world.log if getattr(one.event, "fill", None) is not None])
        self.facts[self.world.trade(number)] = fact

    def a_trade(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.facts)), "trade")

    def said(self, trade: str) -> dict[str, str]:
        self.ids += 1
        return {"trade": trade, "reason": "venue", "actor": "desk"}

    @initialize(side=st.sampled_from(["YES", "NO", "LONG", "SHORT"]), minute=minutes, quantity=quantities, fee=fees)
    def begin(self, side: str, minute: int, quantity: Decimal, fee: Decimal) -> None:
        self.side = side
        self.world.do(
            OpenPosition(
                environment="paper", account="main", market="M", side=side, quantity=quantity, entry_price="0.4",
                fee=fee, effective_at=NOON + timedelta(minutes=minute),
            )
        )  # fmt: skip
        self.keep(Naive(0, minute, True, F(quantity), F(2, 5), F(fee)))  # noqa: FBT003

    @rule(minute=minutes, is_entry=st.booleans(), quantity=quantities, price=prices, fee=fees)
    def fill(self, minute: int, is_entry: bool, quantity: Decimal, price: Decimal, fee: Decimal) -> None:  # noqa: FBT001
        kind = IncreasePosition if is_entry else ReducePosition
        at = NOON + timedelta(minutes=minute)
        held = figured([*self.facts.values()], self.side, until=minute).quantity
        was_open = self.position.is_open
        took = self.tried(kind(position_id=NAME, quantity=quantity, price=price, fee=fee, effective_at=at))
        if took:
            assert is_entry or F(quantity) <= held
            self.keep(Naive(len(self.world.log), minute, is_entry, F(quantity), F(price), F(fee)))
        elif was_open:
            assert not is_entry
            assert F(quantity) > held

    @rule(data=st.data(), share=st.sampled_from([None, F(1), F(1, 2), F(1, 3)]), fee=st.one_of(st.none(), fees))
    def bust(self, data: st.DataObject, share: Fraction | None, fee: Decimal | None) -> None:
        trade = self.a_trade(data)
        fact = self.facts[trade]
        part = None if share is None else Decimal(int(fact.quantity * share * 10**5)).scaleb(-5)
        if part is not None and part <= 0:
            return
        command = BustTrade(**self.said(trade), bust_id=str(self.ids), quantity=part, fee=fee)
        taken = fact.left if part is None else F(part)
        if not self.tried(command):
            assert taken > fact.left or not fact.left
            return
        amount, back = fact.amount - fact.busted_amount, fact.fee
        if taken != fact.left:
            amount, back = r18(amount * taken / fact.left), r18(fact.fee * taken / fact.left)
        self.facts[trade] = replace(
            fact, busted=fact.busted + taken, busted_amount=fact.busted_amount + amount,
            fee=fact.fee - (back if fee is None else F(fee)),
        )  # fmt: skip

    @rule(data=st.data(), price=st.one_of(st.none(), prices), quantity=st.one_of(st.none(), quantities),
          fee=st.one_of(st.none(), fees), minute=st.one_of(st.none(), minutes))  # fmt: skip
    def correct(
        self, data: st.DataObject, price: Decimal | None, quantity: Decimal | None, fee: Decimal | None,
        minute: int | None,
    ) -> None:  # fmt: skip
        """Law 9: it is as if the corrected fill had been recorded in the first place."""
        told = {"price": price, "quantity": quantity, "fee": fee}
        told = {name: value for name, value in told.items() if value is not None}
        if minute is not None:
            told["execution_time"] = NOON + timedelta(minutes=minute)  # type: ignore[assignment]
        if not told:
            return
        trade = self.a_trade(data)
        fact = self.facts[trade]
        if not self.tried(CorrectTrade(**self.said(trade), correction_id=str(self.ids), **told)):
            assert (fact.quantity if quantity is None else F(quantity)) <= fact.busted
            return
        fact = replace(
            fact, price=fact.price if price is None else F(price), fee=fact.fee if fee is None else F(fee),
            quantity=fact.quantity if quantity is None else F(quantity),
            minute=fact.minute if minute is None else minute,
        )  # fmt: skip
        self.facts[trade] = replace(fact, busted_amount=r18(fact.amount * fact.busted / fact.quantity))

    @rule(data=st.data(), fee=fees)
    def adjust(self, data: st.DataObject, fee: Decimal) -> None:
        trade = self.a_trade(data)
        assert self.tried(AdjustFee(**self.said(trade), adjustment_id=str(self.ids), fee=fee))
        self.facts[trade] = replace(self.facts[trade], fee=F(fee))

    @rule(minute=minutes, price=prices)
    def mark(self, minute: int, price: Decimal) -> None:
        self.tried(MarkPosition(position_id=NAME, price=price, effective_at=NOON + timedelta(minutes=minute)))

    @rule(minute=minutes, stop=prices)
    def set_exits(self, minute: int, stop: Decimal) -> None:
        at = NOON + timedelta(minutes=minute)
        terms = {"trail_amount": "0.1"}
        self.tried(SetExits(position_id=NAME, stop_loss_price=stop, trailing_stop=terms, effective_at=at))

    @rule(value=prices, fee=fees)
    def settle(self, value: Decimal, fee: Decimal) -> None:
        at = NOON + timedelta(minutes=13)
        if self.tried(SettlePosition(position_id=NAME, value=value, fee=fee, effective_at=at)):
            self.verdict = Verdict(13, F(value), F(fee))

    @precondition(lambda self: self.verdict is not None)
    @rule(value=prices)
    def amend(self, value: Decimal) -> None:
        """Law 9: settle(A) then amend(B) = settle(B)."""
        assert self.verdict is not None
        self.tried(AmendSettlement(position_id=NAME, value=value))
        self.verdict = Verdict(13, F(value), self.verdict.fee)

    @rule(refunds=st.booleans())
    def void(self, refunds: bool) -> None:  # noqa: FBT001
        had_verdict, log = self.verdict is not None, len(self.world.log)
        if self.tried(VoidPosition(position_id=NAME, refund_fees=refunds, effective_at=NOON + timedelta(minutes=13))):
            assert len(self.world.log) > log
            self.verdict = Verdict(13, None, refunds=refunds)
        elif had_verdict:
            assert self.verdict == Verdict(13, None, refunds=refunds)

    @invariant()
    def the_position_is_what_its_facts_make_of_it(self) -> None:
        if self.world.positions:
            expected = figured([*self.facts.values()], self.side, self.verdict)
            same(self.position, expected)
            check_laws(self.position, [*self.facts.values()])

    @invariant()
    def the_fold_in_effective_order_is_the_same(self) -> None:
        """Law 13 in the domain, for now and for every time: a fold of what counts at T is what T looks like."""
        if not self.world.positions:
            return
        stream = self.world.names[NAME]
        appends = [one for one in self.world.log if one.stream == stream]
        told = position_of(in_effective_order(appends))
        assert told is not None
        names = [name for name in told.__struct_fields__ if name not in NOT_FOLDED]
        now = self.position
        entries = [one.minute for one in self.facts.values() if one.is_entry and one.left]
        if not entries or (now.mark_time is not None and now.mark_time < NOON + timedelta(minutes=min(entries))):
            names = [name for name in names if not name.startswith("mark_")]
            assert told.mark_time is None
        if now.status == "closed" or now.exit_reason == "busted":
            names.remove("settlement_revision")
        assert {name: getattr(told, name) for name in names} == {name: getattr(now, name) for name in names}
        for minute in range(15):
            self.check_as_of(appends, minute)

    def check_as_of(self, appends: list[Any], minute: int) -> None:
        told = position_of(in_effective_order(appends, NOON + timedelta(minutes=minute)))
        facts = [*self.facts.values()]
        entries = [one.minute for one in facts if one.is_entry and one.left]
        if entries and min(entries) > minute:
            assert told is None
        elif entries:
            assert told is not None
            same(told, figured(facts, self.side, self.verdict, until=minute))


def position_of(appends: list[Any]) -> Position | None:
    state = None
    for append in appends:
        state = fold_append(state, through_json(append))
    return state


def same(position: Position, expected: Figured) -> None:
    named = expected.named()
    assert {name: F(getattr(position, name)) for name in named} == named
    assert position.status == expected.status


def check_laws(position: Position, facts: list[Naive]) -> None:
    """Laws 1, 2, 3 and 6, with shortfall counted."""
    sign = position.side.sign
    fees_ = F(position.open_fees) + F(position.close_fees)
    gross, cost = F(position.realized_gross), F(position.cost)
    trading_cash = sign * (F(position.exit_amount) - F(position.entry_amount)) - fees_
    assert gross - fees_ == trading_cash + sign * cost == F(position.realized_pnl)
    entered = sum((one.left for one in facts if one.is_entry), F(0))
    assert F(position.quantity) + F(position.exit_quantity) == entered
    if position.status == "closed":
        left = sum((one.left for one in facts if not one.is_entry), F(0))
        assert F(position.quantity) == entered - left + F(position.shortfall_quantity)
    value = r18(F(position.quantity) * F(position.current_price))
    assert trading_cash + sign * value == gross - fees_ + F(position.unrealized_pnl or 0)
    if not position.quantity:
        assert (cost, position.unrealized_pnl, position.average_entry_price) == (0, None, None)
        assert position.realized_pnl == position.realized_pnl_closed
    assert (position.quantity > 0) is position.is_open


Corrected.TestCase.settings = examples(100, steps=25)
TestCorrected = pytest.mark.uncounted(pytest.mark.timeout(0 if LONG else 200)(Corrected.TestCase))
