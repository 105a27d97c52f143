"""The state of an account: cash, what of it is locked, and whether intentions are held against it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

import msgspec

from position_ledger.domain.accounts.events import CashMoved, PositionBooked
from position_ledger.domain.event import Event
from position_ledger.domain.numbers import ZERO, minus
from position_ledger.domain.vocabulary import CashKind, Environment

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

__all__ = ["Account", "AccountKey", "account_stream", "evolve_account"]

_NAMESPACE: Final = UUID("a2d9f6de-6f57-4b1c-93c1-0a54f5f0b7c3")
"""Of account stream ids; changing it would orphan every account ever written."""


@dataclass(frozen=True, slots=True)
class AccountKey:
    """Where money is: it is never added over any of these."""

    environment: Environment
    account: str
    currency: str

    @classmethod
    def of(cls, holder: Position) -> AccountKey:
        """Take the account that pays for a position."""
        return cls(holder.environment, holder.account, holder.currency)


@lru_cache(maxsize=10_000)
def account_stream(key: AccountKey) -> UUID:
    """Stream id of the account: uuid5 of the canonical JSON of its key, the same in every process for ever."""
    parts = [key.environment.value, key.account, key.currency]
    return uuid5(_NAMESPACE, json.dumps(parts, ensure_ascii=False, separators=(",", ":")))


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Money at the venue after the last event. Version 0: nothing was booked yet."""

    version: int = 0
    platform: str | None = None
    cash: Decimal = ZERO
    """All money at the venue, collateral included."""
    locked: Decimal = ZERO
    """The part that stands behind open positions."""
    is_cash_controlled: bool = False
    """Whether intentions are refused for lack of money: from the first deposit on."""
    last_effective_at: datetime | None = None

    @property
    def free(self) -> Decimal:
        """``cash - locked``: what the venue calls available; below zero: overdrawn."""
        return minus(self.cash, self.locked)


_CONTROLLING: Final = frozenset({CashKind.DEPOSIT, CashKind.OPENING_BALANCE})


def evolve_account(account: Account | None, event: Event, effective_at: datetime) -> Account:
    """Fold the next event of an account's stream. Raises ``TypeError`` for an event that does not fit."""
    before = account or Account()
    if not isinstance(event, CashMoved | PositionBooked):
        raise TypeError(f"{type(event).__name__} cannot be folded into an account; the log is damaged")
    controls = isinstance(event, CashMoved) and event.kind in _CONTROLLING
    return Account(
        version=before.version + 1,
        platform=before.platform or event.platform,
        cash=event.cash,
        locked=event.locked,
        is_cash_controlled=before.is_cash_controlled or controls,
        last_effective_at=max(effective_at, before.last_effective_at or effective_at),
    )
