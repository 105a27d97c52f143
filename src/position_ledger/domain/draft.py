"""What a decision reads and what it says: streams in, appends out. Nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from position_ledger.domain.book import Book, BookKey, book_stream
from position_ledger.domain.events import (
    BookPositionClosed,
    BookPositionOpened,
    BookPositionReopened,
    PositionOpened,
)
from position_ledger.domain.position import evolve
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from position_ledger.domain.commands import Command
    from position_ledger.domain.event import Event
    from position_ledger.domain.family import Family
    from position_ledger.domain.fields import Handle
    from position_ledger.domain.parts import Restated
    from position_ledger.domain.position import Position
    from position_ledger.domain.transfers.events import PositionReceived
    from position_ledger.domain.vocabulary import ExitKind

__all__ = [
    "Append",
    "Decision",
    "Draft",
    "Located",
    "Streams",
    "Subject",
    "effective_time",
    "open_position",
    "unknown_position",
]


@dataclass(frozen=True, slots=True)
class Located:
    """A position and the stream it lives in."""

    stream: UUID
    position: Position


class Streams(Protocol):
    """The present state of streams, loaded by the caller; within a batch, with the decisions before folded in."""

    def position(self, ref: str | int | Handle) -> Located:
        """Find a position by any of its ids or a handle. Raises `CommandRejected` (`unknown_position`)."""

    def position_stream(self, stream: UUID) -> Position:
        """Return the position of a stream that a book names."""

    def book(self, key: BookKey) -> Book:
        """Return the book of a key; an empty ``Book()`` if its stream has not begun."""

    def state(self, stream: UUID) -> Any | None:
        """Return the state of a stream whose id follows from its key (a market, an account …); None: not begun.

        What a decision reads this way is guarded: the append is refused if the stream has moved on meanwhile.
        """

    def located(self, ref: str | int, family: Family) -> tuple[UUID, Any]:
        """Find a stream by a business id of its family (EDGE-7) or any number of its events.

        Raises ``LookupError`` if there is none.
        """

    def journal(self, stream: UUID) -> tuple[Append, ...]:
        """Return the events of a position's stream by version, without marks, those of this batch included."""

    def event_place(self, number: int) -> tuple[UUID, int] | None:
        """Say at which (stream, version) the event of a sequence number stands; None: there is no such event."""

    def reference(self, field: str, value: str | int) -> bool:
        """Say whether a row that a field of `references.REFERENCE_TABLES` names exists; True if its table is empty."""

    def new_stream(self) -> UUID:
        """Mint the id of a new stream (uuid4)."""


@dataclass(frozen=True, slots=True)
class Append:
    """One event and where it goes."""

    stream: UUID
    version: int
    """1-based version that the stream will have with this event."""
    event: Event
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class Subject:
    """What a command that is not about a position is about."""

    family: Family
    stream: UUID


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command makes of the ledger; no appends: it changes nothing and that is no error."""

    appends: tuple[Append, ...] = ()
    positions: tuple[UUID, ...] = ()
    """Streams of the positions that the command addressed, opened or changed, the main one first."""
    subject: Subject | None = None
    """The row that the command is about; None: that of the first position."""
    opened: UUID | None = None
    """Stream of the position that the command opened; what its ``handle`` stands for."""
    triggered: tuple[ExitKind, ...] = ()
    """Exits that a mark touched, in order of precedence."""
    fill_key: str | None = None
    """Canonical text under which the fill is unique in the store; None: a fill without a venue's id, or no fill."""
    correction_keys: tuple[str, ...] = ()
    """Names under which a bust, correction or fee adjustment is unique in the store, one for each trade it changes."""


@dataclass(slots=True)
class Draft:
    """Collects the appends of one command and counts the versions of the streams they go to."""

    streams: Streams
    effective_at: datetime
    appends: list[Append] = field(default_factory=list)
    receivers: list[UUID] = field(default_factory=list)
    """Positions that were told of a restatement of what they had received."""
    _versions: dict[UUID, int] = field(default_factory=dict)

    def append(self, stream: UUID, version_before: int, *events: Event, at: datetime | None = None) -> None:
        """Add the next events of a stream that stood at ``version_before`` when the command was decided.

        ``at`` is their effective time, when it is not that of the command.
        """
        for event in events:
            version = self._versions.get(stream, version_before) + 1
            self._versions[stream] = version
            self.appends.append(Append(stream, version, event, at or self.effective_at))

    def position(self, stream: UUID) -> Position:
        """Return a position with what this draft adds to it."""
        position = self.streams.state(stream)
        for append in self._added(stream):
            position = evolve(position, append.event, append.effective_at)
        return cast("Position", position)

    def journal(self, stream: UUID) -> tuple[Append, ...]:
        """Return the events of a position as `Streams.journal` does, with what this draft adds to them."""
        added = self._added(stream)
        known = () if added and added[0].version == 1 else self.streams.journal(stream)
        return (*known, *added)

    def _added(self, stream: UUID) -> list[Append]:
        return [append for append in self.appends if append.stream == stream]

    def note_opened(self, stream: UUID, opened: PositionOpened | PositionReceived) -> None:
        """Tell the book that a position was opened."""
        key = BookKey(opened.environment, opened.account, opened.market, opened.strategy)
        event = BookPositionOpened(
            environment=opened.environment,
            account=opened.account,
            market=opened.market,
            strategy=opened.strategy,
            side=opened.side,
            position=stream,
            entry_time=opened.entry_time,
        )
        self.append(book_stream(key), self.streams.book(key).version, event)

    def note_ended(self, stream: UUID, position: Position, at: datetime | None = None) -> None:
        """Tell the book that a position is no longer open."""
        key = BookKey.of(position)
        self.append(book_stream(key), self.streams.book(key).version, BookPositionClosed(position=stream), at=at)

    def note_restated(self, stream: UUID, before: Position, restated: Restated) -> None:
        """Tell the book when a restatement ended or reopened a position."""
        is_open = restated.status is Status.OPEN
        if before.is_open and not is_open:
            self.note_ended(stream, before, restated.exit_time)
        elif is_open and not before.is_open:
            key = BookKey.of(before)
            event = BookPositionReopened(side=before.side, position=stream, entry_time=restated.entry_time)
            self.append(book_stream(key), self.streams.book(key).version, event)


def unknown_position(ref: str | int | Handle, command: Command | None = None) -> CommandRejected:
    """Build the rejection for an id that no position has ever had."""
    return CommandRejected(Reason.POSITION_UNKNOWN, command, value=getattr(ref, "name", ref))


def open_position(command: Command, ref: str | int | Handle, streams: Streams) -> Located:
    """Find the position that a command addresses. Raises `CommandRejected` if there is none or it is not open."""
    located = streams.position(ref)
    if not located.position.is_open:
        status = located.position.status.value
        raise CommandRejected(Reason.POSITION_NOT_OPEN, command, value=getattr(ref, "name", ref), status=status)
    return located


def effective_time(command: Command, now: datetime, known: Iterable[datetime]) -> datetime:
    """Take the time that the command states, else now, never before what the addressed streams have seen.

    So the clocks of several machines may differ, and a command that states no time is never late.
    """
    return command.effective_at or max((now, *known))
