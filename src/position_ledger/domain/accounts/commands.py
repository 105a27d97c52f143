"""What can be asked of an account. Money that positions earn or cost is booked with them; these move all other money."""

from __future__ import annotations

from position_ledger.domain.command import Command
from position_ledger.domain.fields import Text
from position_ledger.domain.numbers import Money, Quantity
from position_ledger.domain.vocabulary import CashKind, Environment

__all__ = ["AccountCommand", "AdjustCash", "Deposit", "RecordCash", "SetOpeningBalance", "Withdraw"]


class AccountCommand(Command):
    """What every command about an account carries."""

    environment: Environment
    account: Text
    currency: Text = "USD"
    platform: Text | None = None


class Deposit(AccountCommand):
    """Record money that was paid in; from now on the account is cash-controlled."""

    amount: Quantity
    reason: Text | None = None


class Withdraw(AccountCommand):
    """Take free money out; refused when the account has less that is free."""

    amount: Quantity
    reason: Text | None = None


class SetOpeningBalance(AccountCommand):
    """Record the cash that the account had before the ledger knew it, once; it is cash-controlled from then on."""

    amount: Money
    reason: Text | None = None


class AdjustCash(AccountCommand):
    """Correct the cash by hand to what the venue says; a fact, never refused for money."""

    amount: Money
    """What is added; below zero: taken away."""
    reason: Text


class RecordCash(AccountCommand):
    """Record money that the venue paid or charged beside trades."""

    kind: CashKind
    """reward, rebate, funding, interest, dividend or fee."""
    amount: Money
    """What is added; below zero: charged."""
    reason: Text | None = None
