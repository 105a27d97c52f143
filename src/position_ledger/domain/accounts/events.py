"""What can happen to an account. Every event carries the balances after it and postings that sum to zero."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from position_ledger.domain.event import Event
from position_ledger.domain.events import StreamRef
from position_ledger.domain.numbers import ZERO, Figure
from position_ledger.domain.vocabulary import CashKind, Environment

__all__ = ["ACCOUNT_EVENTS", "CashMoved", "PositionBooked", "Postings"]


class Postings(BaseModel):
    """Double entry of one event, in the currency of the account: what is added to each book; they sum to zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    free: Figure = ZERO
    """Cash that nothing stands on."""
    locked: Figure = ZERO
    """Cash that stands behind open positions."""
    holdings: Figure = ZERO
    """What is held, at cost: LONG adds, SHORT owes; a binary's cost is in ``locked``."""
    realized: Figure = ZERO
    """Minus what was realized before fees: income is a credit."""
    fees: Figure = ZERO
    """Fees paid."""
    external: Figure = ZERO
    """Minus what came from outside: deposits, rewards, what was transferred in."""


class _AccountEvent(Event):
    environment: Environment
    account: str
    currency: str
    platform: str | None = None
    change: Figure
    """By how much ``cash`` changed."""
    cash: Figure
    """All money at the venue after this event."""
    locked: Figure
    """The part of it that stands behind open positions, after this event."""
    free: Figure
    """``cash - locked``, after this event; what the venue calls available."""
    postings: Postings


class CashMoved(_AccountEvent):
    """Money came or went that no position of the ledger earned or cost."""

    TOPIC = "account.cash_moved"

    kind: CashKind
    reason: str | None = None


class PositionBooked(_AccountEvent):
    """What one event of a position did to the money of its account."""

    TOPIC = "account.position_booked"

    cause: str
    """What happened to the position: the second word of its event's topic."""
    event: StreamRef
    """The position's event."""


ACCOUNT_EVENTS: Final = (CashMoved, PositionBooked)
