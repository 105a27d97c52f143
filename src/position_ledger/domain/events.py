"""What can happen to a position and to a book. Booked figures are facts: projections map them and compute nothing.

Every event of a position carries the complete figures after it, except a mark, which carries only what a mark
changes. The effective time of an event is not in its body: it travels beside it. Bodies refer to other streams as
(stream, version), because sequence numbers do not exist yet when an event is made. Corrections of what was recorded
before are in `restatements`.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from pydantic import JsonValue

from position_ledger.domain.event import Event
from position_ledger.domain.exits import TrailingState
from position_ledger.domain.numbers import ONE, ZERO, Figure
from position_ledger.domain.parts import Figures, Fill, Holder, StreamRef, UtcTime
from position_ledger.domain.restatements import RESTATEMENT_EVENTS
from position_ledger.domain.vocabulary import Environment, ExitKind, Side

__all__ = [
    "BOOK_EVENTS",
    "POSITION_EVENTS",
    "BookPositionClosed",
    "BookPositionOpened",
    "BookPositionReopened",
    "ExitTriggered",
    "ExitsSet",
    "Figures",
    "Fill",
    "Holder",
    "PositionClosed",
    "PositionIncreased",
    "PositionMarked",
    "PositionOpened",
    "PositionReduced",
    "PositionSettled",
    "StreamRef",
    "body_json",
]


class PositionBegun(Event):
    """What the first event of a position stream says, however the position came about: who holds what, where and why."""

    environment: Environment
    account: str
    market: str
    platform: str | None = None
    strategy: int | None = None
    model: int | None = None
    edge: int | None = None
    currency: str
    multiplier: Figure = ONE
    """Units of the price's currency that one contract moves when its price moves by 1."""
    margin_rate: Figure = ZERO
    """Share of the entry amount that a SHORT locks beside its proceeds."""
    side: Side
    entry_time: UtcTime
    """When the cycle began; a transfer keeps that of the giver."""
    target_price: Figure | None = None
    stop_loss_price: Figure | None = None
    trailing_stop: TrailingState | None = None
    metadata: dict[str, JsonValue] | None = None
    previous: StreamRef | None = None
    """Opening of the position that this one follows: the one it came or flipped from, else the last of its key and side."""


class PositionOpened(PositionBegun):
    """The first event of a position that an execution opened, with its fill."""

    TOPIC = "position.opened"

    fill: Fill
    figures: Figures


class PositionIncreased(Event):
    """More was bought (sold, for SHORT) into an open position."""

    TOPIC = "position.increased"

    holder: Holder
    fill: Fill
    figures: Figures


class PositionReduced(Event):
    """A part was sold (bought back, for SHORT); the position stays open."""

    TOPIC = "position.reduced"

    exit_reason: str = "fill"
    """Why, if this turns out to be what closes the position, after a restatement."""
    holder: Holder
    fill: Fill
    figures: Figures


class PositionClosed(Event):
    """The rest was sold (bought back, for SHORT); the position is flat and its cycle over."""

    TOPIC = "position.closed"

    exit_reason: str
    holder: Holder
    fill: Fill
    figures: Figures


class PositionSettled(Event):
    """The market paid out what was held; the position is flat and its cycle over."""

    TOPIC = "position.settled"

    settlement_value: Figure
    """What one YES is worth in a binary market (one NO the rest up to 1), elsewhere the settlement price."""
    quantity: Figure
    """Contracts that were paid out."""
    price: Figure
    """Payout of one contract of this side."""
    amount: Figure
    """Payout of all of them; YES and NO of one quantity receive exactly that quantity together."""
    fee: Figure = ZERO
    realized_gross: Figure = ZERO
    """What the settlement alone realized, before fees."""
    exit_reason: str = "settlement"
    settlement_revision: int | None = None
    """Of the market's verdict; None: settled by hand."""
    figures: Figures


class PositionMarked(Event):
    """The open position was valued at a price. Only what a mark changes; mark time = effective time of the event."""

    TOPIC = "position.marked"

    price: Figure
    source: str | None = None
    unrealized_pnl: Figure
    unrealized_pnl_pct: Figure | None = None
    trailing_stop: TrailingState | None = None
    """The trailing stop after this mark; None: the mark did not change it."""


class ExitTriggered(Event):
    """A mark touched exits that were armed. Told once per arming; setting exits arms them again."""

    TOPIC = "position.exit_triggered"

    kind: ExitKind
    """The exit that counts: the first touched, stop before trailing stop before target."""
    also: tuple[ExitKind, ...] = ()
    """Others touched by the same mark; they will not be told again either."""
    price: Figure
    """The mark that touched them."""


class ExitsSet(Event):
    """All exits of the position as they are from now on; what is None is off. Every exit is armed anew."""

    TOPIC = "position.exits_set"

    target_price: Figure | None = None
    stop_loss_price: Figure | None = None
    trailing_stop: TrailingState | None = None


class BookPositionOpened(Event):
    """A position of this key was opened; concurrent openings of one key conflict on this event."""

    TOPIC = "book.position_opened"

    environment: Environment
    account: str
    market: str
    strategy: int | None = None
    side: Side
    position: UUID
    entry_time: UtcTime


class BookPositionClosed(Event):
    """A position of this key is no longer open: closed, settled or flipped away."""

    TOPIC = "book.position_closed"

    position: UUID


class BookPositionReopened(Event):
    """A position of this key is open again after a restatement."""

    TOPIC = "book.position_reopened"

    side: Side
    position: UUID
    entry_time: UtcTime


POSITION_EVENTS: Final = (
    PositionOpened,
    PositionIncreased,
    PositionReduced,
    PositionClosed,
    PositionSettled,
    PositionMarked,
    ExitTriggered,
    ExitsSet,
    *RESTATEMENT_EVENTS,
)
BOOK_EVENTS: Final = (BookPositionOpened, BookPositionClosed, BookPositionReopened)


def body_json(event: Event) -> str:
    """Write the body of an event compactly: fields at their default are left out, and reading puts them back.

    Changing the default of a stored field therefore needs a new ``VERSION`` and an upcaster.
    """
    return event.model_dump_json(exclude_defaults=True)
