"""What events are made of: executions, figures, holders and references. Frozen, exact, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, JsonValue

from position_ledger.domain.numbers import ZERO, Figure
from position_ledger.domain.vocabulary import Action, Environment, Liquidity, Side, Status

__all__ = ["Figures", "Fill", "HandedOn", "Holder", "Part", "Restated", "StreamRef", "TradeNow", "UtcTime"]


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment, kept in UTC whatever zone it was given in."""


class Part(BaseModel):
    """A part of an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StreamRef(Part):
    """One event of another stream; the engine resolves it to its sequence number."""

    stream: UUID
    version: int


class Holder(Part):
    """Whose execution it was, repeated beside each fill, so that a trade is told whole by one event."""

    environment: Environment
    account: str
    market: str
    platform: str | None = None
    strategy: int | None = None
    currency: str
    side: Side


class Fill(Part):
    """One execution as booked on one position, or one leg of an execution that was split over several."""

    action: Action
    """What the venue executed: SHORT is sold to open and bought to cover."""
    quantity: Figure
    """Contracts that the position gained or lost: without, or with, those that a fee in the base asset took. The dust
    that was sold beyond them is apart."""
    price: Figure
    """Own-side price of one contract."""
    amount: Figure
    """``round18(quantity * price)``, or this leg's part of it."""
    fee: Figure = ZERO
    """What this leg was charged, in the currency of the position; below zero: a rebate."""
    fee_currency: str | None = None
    """In which currency the venue charged it; None: that of the position."""
    fee_charged: Figure | None = None
    """What the venue charged in ``fee_currency``, if that is another than the position's."""
    realized_gross: Figure = ZERO
    """What this leg alone realized, before fees."""
    leg: int = 1
    """1-based place in the execution; more than one when it was split or flipped."""
    linked: StreamRef | None = None
    """The event of the next leg, of the last leg that of the first: all legs in a ring. None: a single leg."""
    dust_excess: Figure = ZERO
    """Contracts that the venue says were sold beyond what was held, tolerated as dust."""
    is_dust_left: bool = False
    """What stays open after this fill is no more than dust."""
    venue: str | None = None
    venue_fill_id: str | None = None
    order_id: str | None = None
    liquidity: Liquidity | None = None
    source: str | None = None
    execution_time: UtcTime | None = None
    """Only when it differs from the effective time of the event."""
    metadata: dict[str, JsonValue] | None = None


class Figures(Part):
    """All money of a position after an event; formulas in `figures`, every number rounded to 18 places."""

    quantity: Figure
    entry_quantity: Figure
    exit_quantity: Figure = ZERO
    peak_quantity: Figure
    entry_amount: Figure
    exit_amount: Figure = ZERO
    cost: Figure
    realized_gross: Figure = ZERO
    open_fees: Figure = ZERO
    close_fees: Figure = ZERO
    open_fees_released: Figure = ZERO
    entry_price: Figure
    average_entry_price: Figure | None = None
    exit_price: Figure | None = None
    current_price: Figure
    realized_pnl: Figure = ZERO
    realized_pnl_closed: Figure = ZERO
    unrealized_pnl: Figure | None = None
    unrealized_pnl_pct: Figure | None = None
    shortfall_quantity: Figure = ZERO
    """Sold beyond what was held, after a restatement; never in ``exit_quantity``."""
    shortfall_amount: Figure = ZERO
    """What the shortfall brought; in no gain and in no ``exit_amount``."""
    transferred_quantity: Figure = ZERO
    """What came from other accounts less what went there, after the opening."""


class HandedOn(Part):
    """A part of a position that went to another account, when a restatement changed what it was."""

    version: int
    """Of the event of this stream that told of the transfer."""
    at: UtcTime
    """When it went: its money counts then."""
    quantity: Figure
    """Contracts that have gone, as it counts now; less than were stated if less was held."""
    cost: Figure
    fees: Figure
    brought: Figure = ZERO
    """What comes back to this account; below zero: what more has gone."""


class Restated(Part):
    """A position after its facts were folded again in effective order: all that a restatement can change.

    Exits (stops, targets, trailing stops and what was triggered) are not restated: they are what was in force and told.
    """

    figures: Figures
    status: Status
    entry_time: UtcTime
    """Of the first entry that counts."""
    exit_time: UtcTime | None = None
    exit_reason: str | None = None
    settlement_value: Figure | None = None
    mark_time: UtcTime | None = None
    """Of the last mark, unless it is before the first entry that counts."""
    mark_source: str | None = None
    last_fill_at: UtcTime
    """Effective time of the last fact that counts."""
    is_dust: bool = False
    restated_realized: Figure = ZERO
    """``realized_pnl`` now less what it was before this event."""
    restated_realized_sum: Figure = ZERO
    """The same of all restatements so far."""
    handed_on: tuple[HandedOn, ...] = ()
    """Parts that went elsewhere and are worth, or are, something else now. Their receivers are told in the same append."""


class TradeNow(Part):
    """One trade as it counts after a correction."""

    quantity: Figure
    """Contracts executed, those busted since included."""
    price: Figure
    amount: Figure
    """Of all of ``quantity``."""
    fee: Figure
    """What is charged for it now."""
    busted_quantity: Figure = ZERO
    busted_amount: Figure = ZERO
    """Part of ``amount`` that is no longer owed."""
    realized_gross: Figure = ZERO
    """What it alone realizes, before fees, in its place in effective order."""
    execution_time: UtcTime
