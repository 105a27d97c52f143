"""The book of a key: what is open under it. Everything that opens or closes a position appends to its book."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID, uuid5

import msgspec

from position_ledger.domain.event import Event
from position_ledger.domain.events import BookPositionClosed, BookPositionOpened, BookPositionReopened
from position_ledger.domain.vocabulary import Environment, Side

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

__all__ = ["Book", "BookKey", "LastExit", "OpenEntry", "book_stream", "evolve_book"]

_NAMESPACE: Final = UUID("6b0f3f0e-5d0a-4c8e-9a57-3f1f6a2f9d11")
"""Of book stream ids; changing it would orphan every book ever written."""
_KEYS_CACHED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class BookKey:
    """What positions have in common that net with each other; the side is told apart inside the book."""

    environment: Environment
    account: str
    market: str
    strategy: int | None = None

    @classmethod
    def of(cls, holder: Position | BookPositionOpened) -> Self:
        """Take the key from anything that carries its parts."""
        return cls(holder.environment, holder.account, holder.market, holder.strategy)


@lru_cache(maxsize=_KEYS_CACHED_MAX)
def book_stream(key: BookKey) -> UUID:
    """Stream id of the book: uuid5 of the canonical JSON of its key, the same in every process for ever."""
    parts = [key.environment.value, key.account, key.market, key.strategy]
    return uuid5(_NAMESPACE, json.dumps(parts, ensure_ascii=False, separators=(",", ":")))


class OpenEntry(msgspec.Struct, frozen=True):
    """An open position of the book."""

    stream: UUID
    side: Side
    entry_time: datetime
    order: int
    """Version of the book at which it was opened; breaks ties of the entry time."""


class LastExit(msgspec.Struct, frozen=True):
    """The last position of a side that ended, and the latest time at which one did."""

    side: Side
    stream: UUID
    effective_at: datetime


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What is open under one key, oldest entry first, and what ended last on each side. Version 0: nothing yet."""

    version: int = 0
    open: tuple[OpenEntry, ...] = ()
    exits: tuple[LastExit, ...] = ()

    def open_on(self, side: Side) -> tuple[UUID, ...]:
        """Streams of the open positions of a side, the oldest entry first."""
        return tuple(entry.stream for entry in self.open if entry.side is side)

    def last_exit(self, side: Side) -> LastExit | None:
        """Find what ended last on a side, None if nothing has."""
        return next((last for last in self.exits if last.side is side), None)


def evolve_book(book: Book | None, event: Event, effective_at: datetime) -> Book:
    """Fold the next event of a book's stream. Raises ``TypeError`` for an event that does not fit."""
    before = book or Book()
    if isinstance(event, BookPositionOpened):
        return _opened(before, event)
    if isinstance(event, BookPositionClosed):
        return _closed(before, event, effective_at)
    if isinstance(event, BookPositionReopened):
        return _reopened(before, event)
    raise TypeError(f"{type(event).__name__} cannot be folded into a book; the log is damaged")


def _opened(book: Book, event: BookPositionOpened | BookPositionReopened) -> Book:
    version = book.version + 1
    entry = OpenEntry(event.position, event.side, event.entry_time, version)
    entries = sorted((*book.open, entry), key=lambda entry: (entry.entry_time, entry.order))
    return Book(version=version, open=tuple(entries), exits=book.exits)


def _reopened(book: Book, event: BookPositionReopened) -> Book:
    if any(entry.stream == event.position for entry in book.open):
        raise TypeError(f"position {event.position} is open in this book already; the log is damaged")
    exits = tuple(last for last in book.exits if last.stream != event.position)
    return _opened(Book(version=book.version, open=book.open, exits=exits), event)


def _closed(book: Book, event: BookPositionClosed, effective_at: datetime) -> Book:
    ended = next((entry for entry in book.open if entry.stream == event.position), None)
    if ended is None:
        raise TypeError(f"position {event.position} is not open in this book; the log is damaged")
    before = book.last_exit(ended.side)
    latest = max(before.effective_at, effective_at) if before else effective_at
    return Book(
        version=book.version + 1,
        open=tuple(entry for entry in book.open if entry is not ended),
        exits=(
            *(last for last in book.exits if last.side is not ended.side),
            LastExit(ended.side, event.position, latest),
        ),
    )
