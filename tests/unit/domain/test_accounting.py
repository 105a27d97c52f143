"""Positions and accounts against an engine of the tests' own, over random fills, fees, flips, zero prices and busts.

The engine (`oracle`) shares no code with the ledger: lists of executions as fractions, worked out anew each time. Law 9:
what is left after a bust is what the list without the busted execution makes.
"""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from position_ledger.domain.accounts.account import Account, AccountKey, account_stream
from position_ledger.domain.commands import AdjustCash, BustTrade, Deposit, OpenPosition, RecordCash, Withdraw
from position_ledger.domain.rejections import Reason
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.oracle import Holding, Part, Refused, r18
from tests.unit.domain.test_laws import Histories, check_fills_make_quantities, fees, quantities
from tests.unit.domain.world import LONG, examples

if TYPE_CHECKING:
    from position_ledger.domain.decisions import Decision
    from position_ledger.domain.position import Position

F = Fraction
MAIN: dict[str, Any] = {"environment": "paper", "account": "main"}
STREAM = account_stream(AccountKey(Environment.PAPER, "main", "USD"))


class Accounting(Histories):
    """Everything that `Histories` does, and busts, whole or in part, and money that comes and goes."""

    refusals = frozenset(
        {Reason.QUANTITY_EXCEEDS_HELD, Reason.BUST_EXCEEDS_REST, Reason.FLIP_IS_ONE_TRADE, Reason.INSUFFICIENT_FUNDS}
    )

    def __init__(self) -> None:
        super().__init__()
        self.trades: dict[str, tuple[Holding, Part]] = {}
        self.busts = 0
        self.is_controlled = False

    def note(self, command: Any, decision: Decision) -> None:
        super().note(command, decision)
        known = {id(part) for _, part in self.trades.values()}
        new = [(of, part) for of in self.naive.all() for part in of.parts if id(part) not in known]
        legs = new[0][1].legs or new if new else []
        numbers = [n for n, one in enumerate(self.world.log, 1) if getattr(one.event, "fill", None) is not None]
        for number, leg in zip(numbers[len(self.trades) :], legs, strict=True):
            self.trades[f"TRD-{number}"] = leg

    def both(self, command: Any, told: Any) -> None:
        """What is refused for money is an intention that takes some; the naive ledger says no for the same reason."""

        def paid() -> None:
            told()
            cash, locked = self.naive.money()
            takes = isinstance(command, OpenPosition) and (
                command.fee or r18(F(command.quantity) * F(command.entry_price))
            )
            if self.is_controlled and takes and cash < locked:
                raise Refused

        naive = self.naive
        before = naive.count, {key: [*held] for key, held in naive.holdings.items()}, naive.openings
        try:
            super().both(command, paid)
        finally:
            if len(self.world.positions) != naive.count:
                naive.count, naive.holdings, naive.openings = before

    @precondition(lambda self: self.trades)
    @rule(data=st.data(), share=st.sampled_from([None, F(1), F(1, 2), F(1, 3), F(2)]), fee=st.one_of(st.none(), fees))
    def bust(self, data: st.DataObject, share: Fraction | None, fee: Decimal | None) -> None:
        trade = data.draw(st.sampled_from(sorted(self.trades)), "trade")
        holding, part = self.trades[trade]
        quantity = None if share is None else decimal_of(part.quantity * share)
        if quantity is not None and quantity <= 0:
            return
        self.busts += 1
        command = BustTrade(
            trade=trade, bust_id=str(self.busts), quantity=quantity, fee=fee, reason="erroneous", actor="desk"
        )
        told = None if quantity is None else F(quantity)
        self.both(command, lambda: self.naive.bust(holding, part, told, None if fee is None else F(fee)))

    @rule(amount=quantities, pays_in=st.booleans())
    def deposit_or_withdraw(self, amount: Decimal, pays_in: bool) -> None:  # noqa: FBT001
        def told() -> None:
            cash, locked = self.naive.money()
            if not pays_in and cash - locked < F(amount):
                raise Refused
            self.naive.cash += F(amount) if pays_in else -F(amount)
            self.is_controlled |= pays_in

        self.both((Deposit if pays_in else Withdraw)(**MAIN, amount=amount), told)

    @precondition(lambda self: self.naive.count)
    @rule(amount=fees.filter(bool), is_reward=st.booleans())
    def other_money(self, amount: Decimal, is_reward: bool) -> None:  # noqa: FBT001
        command = (
            RecordCash(**MAIN, kind="reward", amount=amount)
            if is_reward
            else AdjustCash(**MAIN, amount=amount, reason="venue statement")
        )

        def told() -> None:
            self.naive.cash += F(amount)

        self.both(command, told)

    @invariant()
    def the_account_has_what_the_executions_left(self) -> None:
        account: Account = self.world.states.get(STREAM, Account())
        cash, locked = self.naive.money()
        assert (F(account.cash), F(account.locked), F(account.free)) == (cash, locked, cash - locked)
        assert account.is_cash_controlled is self.is_controlled

    @invariant()
    def laws_hold_within_every_position(self) -> None:
        for position in self.world.positions.values():
            check_restated(position)

    def teardown(self) -> None:
        if self.busts:
            assert self.world.replayed() == self.world.states
            check_without_the_busted(self)
        else:
            check_fills_make_quantities(self.world)


def decimal_of(value: Fraction) -> Decimal:
    """Cut after 18 places."""
    return Decimal(int(value * 10**18)).scaleb(-18)


def check_restated(position: Position) -> None:
    """Laws 1, 2, 3 and 6, exactly, whatever was busted."""
    sign = position.side.sign
    fees_ = F(position.open_fees) + F(position.close_fees)
    gross, cost = F(position.realized_gross), F(position.cost)
    trading_cash = sign * (F(position.exit_amount) - F(position.entry_amount)) - fees_
    assert F(position.quantity) == F(position.entry_quantity) - F(position.exit_quantity)
    assert gross - fees_ == trading_cash + sign * cost == F(position.realized_pnl)
    value = r18(F(position.quantity) * F(position.current_price))
    assert trading_cash + sign * value == gross - fees_ + F(position.unrealized_pnl or 0)
    if not position.quantity:
        assert (cost, position.unrealized_pnl, position.average_entry_price) == (0, None, None)
        assert position.realized_pnl == position.realized_pnl_closed
    assert (position.quantity > 0) is position.is_open


def check_without_the_busted(machine: Accounting) -> None:
    """Law 9: figures are those of a list in which what was busted whole, fee and all, never was."""
    for holding in machine.naive.all():
        there = [part for part in holding.parts if part.left or part.fee]
        if not any(part.is_entry and part.left for part in there):
            continue  # it shows what its opening was
        without = replace(holding, parts=there).figures()
        position = machine.world.at(holding.name)
        figures = {name: getattr(position, name) for name in without}
        assert {name: value if value is None else F(value) for name, value in figures.items()} == without


Accounting.TestCase.settings = examples(100, steps=25)
TestAccounting = pytest.mark.uncounted(pytest.mark.timeout(0 if LONG else 120)(Accounting.TestCase))
