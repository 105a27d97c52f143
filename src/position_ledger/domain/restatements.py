"""Corrections: what becomes known later about trades and settlements of a position.

Nothing that was recorded is edited: each of these events says what was wrong and carries the position as it is when all
its facts are folded again in effective order. The effective time of a correction is that of the fact it corrects.
"""

from __future__ import annotations

from typing import Final

from position_ledger.domain.event import Event
from position_ledger.domain.numbers import ZERO, Figure
from position_ledger.domain.parts import Fill, Holder, Restated, StreamRef, TradeNow, UtcTime
from position_ledger.domain.vocabulary import PositionEffect

__all__ = [
    "RESTATEMENT_EVENTS",
    "FeeAdjusted",
    "LateFillRecorded",
    "PositionVoided",
    "SettlementAmended",
    "TradeBusted",
    "TradeCorrected",
    "TransferRestated",
]


class LateFillRecorded(Event):
    """An execution became known after later ones of its position; it counts at its own time."""

    TOPIC = "position.late_fill_recorded"

    effect: PositionEffect
    """increase or reduce."""
    exit_reason: str = "fill"
    """Why, if this turns out to be what closes the position."""
    holder: Holder
    fill: Fill
    restated: Restated


class _Correction(Event):
    trade: StreamRef
    """The event that recorded the fill."""
    reason: str
    actor: str
    announced_at: UtcTime | None = None
    """When the venue said so; None: not stated."""
    now: TradeNow
    """The trade with this and all corrections before."""
    restated: Restated


class TradeBusted(_Correction):
    """The venue cancelled an execution, or a part of it: it never counted."""

    TOPIC = "position.trade_busted"

    bust_id: str
    quantity: Figure
    """Contracts of this bust alone."""
    amount: Figure
    """Of them, part of what the trade was booked at."""
    fee: Figure
    """Given back by this bust."""


class TradeCorrected(_Correction):
    """The venue corrected an execution; None: as it was."""

    TOPIC = "position.trade_corrected"

    correction_id: str
    quantity: Figure | None = None
    price: Figure | None = None
    fee: Figure | None = None
    execution_time: UtcTime | None = None


class FeeAdjusted(_Correction):
    """The venue charges another fee for an execution than was recorded."""

    TOPIC = "position.fee_adjusted"

    adjustment_id: str
    fee: Figure
    """New total of the trade."""


class TransferRestated(Event):
    """What this position received is something else than was told: a fact before the transfer was restated."""

    TOPIC = "position.transfer_restated"

    because: StreamRef
    """The event that restated the giver."""
    quantity: Figure
    """Contracts that came, as it counts now."""
    cost: Figure
    fees: Figure
    """Open fees that came along, as it counts now."""
    entry_time: UtcTime
    """Of the giver's cycle."""
    brought: Figure = ZERO
    """What of cost and fees came with it beyond what was told before; below zero: what did not."""
    restated: Restated


class SettlementAmended(Event):
    """The market paid out at another value than was recorded before; all is as if it always had."""

    TOPIC = "position.settlement_amended"

    settlement_value: Figure
    settlement_revision: int | None = None
    quantity: Figure
    """Contracts that are paid out; 0: nothing was held when the market settled."""
    price: Figure
    amount: Figure
    fee: Figure = ZERO
    realized_gross: Figure = ZERO
    restated: Restated


class PositionVoided(Event):
    """The market was void: what was held is paid back at cost. Earlier exits stay."""

    TOPIC = "position.voided"

    quantity: Figure
    price: Figure
    """``average_entry_price``, which becomes the exit price."""
    amount: Figure
    """The cost of what was held."""
    refund_fees: bool = False
    """All fees of the position were given back."""
    replaces_settlement: bool = False
    """The market had settled before: a restatement."""
    settlement_revision: int | None = None
    restated: Restated


RESTATEMENT_EVENTS: Final = (
    LateFillRecorded,
    TradeBusted,
    TradeCorrected,
    FeeAdjusted,
    TransferRestated,
    SettlementAmended,
    PositionVoided,
)
