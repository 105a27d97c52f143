"""account_balance: one row for each change of the money of an account. Balances and postings come from the event."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row
from position_ledger.events import CashMoved, PositionBooked


class AccountBalanceRow(Row, frozen=True, gc=False):
    """The columns of account_balance beside id, balance_id and those of SCD Type 2."""

    execution_environment: str
    account_id: str
    platform_id: str | None
    currency: str
    cash: Decimal
    locked: Decimal
    free: Decimal
    change: Decimal
    cause: str
    cause_id: int | None
    reason: str | None
    is_cash_controlled: bool
    posted_free: Decimal
    posted_locked: Decimal
    posted_holdings: Decimal
    posted_realized: Decimal
    posted_fees: Decimal
    posted_external: Decimal


def balances(body: Any) -> dict[str, Any]:
    """The columns that every event of an account fills."""
    postings = body.postings
    return {
        "execution_environment": body.environment,
        "account_id": body.account,
        "platform_id": body.platform,
        "currency": body.currency,
        "cash": body.cash,
        "locked": body.locked,
        "free": body.free,
        "change": body.change,
        "posted_free": postings.free,
        "posted_locked": postings.locked,
        "posted_holdings": postings.holdings,
        "posted_realized": postings.realized,
        "posted_fees": postings.fees,
        "posted_external": postings.external,
    }


def cash_moved(row: AccountBalanceRow | None, event: Recorded[CashMoved]) -> AccountBalanceRow:
    """Money came or went beside positions."""
    body = event.body
    controlled = body.kind in ("deposit", "opening_balance") or (row is not None and row.is_cash_controlled)
    return AccountBalanceRow(
        cause=body.kind, cause_id=None, reason=body.reason, is_cash_controlled=controlled, **balances(body)
    )


def position_booked(row: AccountBalanceRow | None, event: Recorded[PositionBooked]) -> AccountBalanceRow:
    """A position moved money; its version has the id cause_id."""
    body = event.body
    return AccountBalanceRow(
        cause=body.cause,
        cause_id=event.refs[body.event.stream, body.event.version],
        reason=None,
        is_cash_controlled=row is not None and row.is_cash_controlled,
        **balances(body),
    )


def balance_id(event: Recorded[Any]) -> str:
    """BAL- and the number of the event that began the account."""
    return f"BAL-{event.opened_seq}"


ACCOUNT_BALANCE = Projection(
    table="account_balance",
    key_column="balance_id",
    key=balance_id,
    row=AccountBalanceRow,
    folds={CashMoved: cash_moved, PositionBooked: position_booked},
)
