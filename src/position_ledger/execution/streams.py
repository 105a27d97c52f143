"""The states that commands are decided on: loaded from the log, kept in memory, never trusted when they say no."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, cast
from uuid import UUID

import psycopg

from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.book import Book, BookKey, book_stream
from position_ledger.domain.commands import Command
from position_ledger.domain.decisions import Append, Decision, Located, fold_append, unknown_position
from position_ledger.domain.errors import LedgerError
from position_ledger.domain.events import Fill, PositionMarked
from position_ledger.domain.families import POSITION, family_of_state
from position_ledger.domain.family import Family
from position_ledger.domain.fields import Handle
from position_ledger.domain.position import Position
from position_ledger.execution.loaded import NOT_BEGUN, Loaded, from_snapshot, leave_snapshot
from position_ledger.execution.references import KnownReferences
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import NewEvent, Receipt, new_event_id

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
"""Gives a connection of the pool for the length of a with block."""

STREAM_EVENTS = """
SELECT e.originator_version, e.topic, e.state, e.effective_at, e.stream_hash, e.notification_id
  FROM events AS e WHERE e.originator_id = %s AND e.originator_version > %s
 ORDER BY e.originator_version LIMIT %s
"""
# Of a stream that is read from its beginning the snapshot comes first, if there is one, and the events after it: its row
# has a shape. LIMIT keeps the planner from reading all snapshots at once.
MANY_STREAMS_EVENTS = """
SELECT w.stream, p.version, p.topic, p.state, p.effective_at, p.stream_hash, p.seq, p.shape, p.opened_seq
  FROM unnest(%s::uuid[], %s::bigint[]) AS w (stream, version)
  LEFT JOIN LATERAL (SELECT n.originator_version, n.shape, n.state, n.stream_hash, n.opened_seq, n.last_seq
                       FROM stream_snapshots AS n WHERE n.originator_id = w.stream AND w.version = 0 LIMIT 1) AS s ON true
 CROSS JOIN LATERAL (
    SELECT s.originator_version, NULL, s.state, NULL, s.stream_hash, s.last_seq, s.shape, s.opened_seq
     WHERE s.shape IS NOT NULL
     UNION ALL
    (SELECT e.originator_version, e.topic, e.state, e.effective_at, e.stream_hash, e.notification_id, NULL, NULL
       FROM events AS e
      WHERE e.originator_id = w.stream AND e.originator_version > coalesce(s.originator_version, w.version)
      ORDER BY e.originator_version LIMIT %s)
 ) AS p (version, topic, state, effective_at, stream_hash, seq, shape, opened_seq)
 ORDER BY w.stream, p.version
"""
JOURNAL = """
SELECT e.originator_version, e.topic, e.state, e.effective_at
  FROM events AS e WHERE e.originator_id = %s AND e.topic <> ALL(%s) ORDER BY e.originator_version
"""
FILLS_AT = """
SELECT e.topic, e.state FROM events AS e
 WHERE e.originator_id = %s AND e.effective_at = %s ORDER BY e.originator_version
"""
PLACE_OF_NUMBER = """
SELECT e.originator_id, e.originator_version, e.topic FROM events AS e WHERE e.notification_id = %s
"""

PLACES_OF_NUMBERS = """
SELECT e.notification_id, e.originator_id, e.topic FROM events AS e WHERE e.notification_id = ANY(%s)
"""

PAGE_EVENTS = 500
"""Events of one stream that are read at a time; who had to read more leaves a snapshot."""

NOT_IN_JOURNAL = [PositionMarked.TOPIC]
"""Marks change no money, and there may be millions of them."""

POSITION_PREFIX = "POS-"
DIGITS_MAX = 18
"""Digits of a number that surely fits a bigint."""


class ReadApart(LedgerError):
    """Streams that belong together were read at different moments, with a change in between: read them again."""


@dataclass(slots=True)
class _Working:
    """A stream within one batch: as the log has it, and the state with what the batch adds folded in."""

    loaded: Loaded
    state: Any | None


class StreamCache:
    """The last loaded state of each stream, least recently used dropped first. Safe for threads: entries never change."""

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._loaded: OrderedDict[UUID, Loaded] = OrderedDict()
        self._stream_of: OrderedDict[int, UUID] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, stream: UUID) -> Loaded | None:
        """The state, if it is kept; it may be behind the log."""
        with self._lock:
            loaded = self._loaded.get(stream)
            if loaded is not None:
                self._loaded.move_to_end(stream)
            return loaded

    def put(self, stream: UUID, loaded: Loaded, number: int | None = None) -> None:
        """Keep a state, unless a later one is kept already; ``number`` is the first one of a position's stream."""
        with self._lock:
            before = self._loaded.get(stream)
            if before is None or before.version <= loaded.version:
                self._loaded[stream] = loaded
                self._loaded.move_to_end(stream)
            while len(self._loaded) > self._streams_max:
                self._loaded.popitem(last=False)
            if number is not None:
                self._note_stream(number, stream)

    def stream_of(self, number: int) -> UUID | None:
        """The stream that the event of this number belongs to, if it is known."""
        with self._lock:
            return self._stream_of.get(number)

    def note_stream(self, number: int, stream: UUID) -> None:
        """Remember to which stream a number belongs; that never changes."""
        with self._lock:
            self._note_stream(number, stream)

    def _note_stream(self, number: int, stream: UUID) -> None:
        self._stream_of[number] = stream
        while len(self._stream_of) > 2 * self._streams_max:
            self._stream_of.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._loaded.clear()
            self._stream_of.clear()


class WorkingStreams:
    """The streams of one attempt at one batch: what decisions read, with what was already decided folded in.

    Implements `position_ledger.domain.decisions.Streams`.
    """

    def __init__(
        self, connect: Connect, codec: Codec, cache: StreamCache, references: KnownReferences, *, refresh: bool
    ) -> None:
        self._connect = connect
        self._codec = codec
        self._cache = cache
        self._references = references
        self._refresh = refresh
        self._streams: dict[UUID, _Working] = {}
        self._handles: dict[str, UUID] = {}
        self._fills_at: dict[tuple[UUID, datetime], tuple[Fill, ...]] = {}
        self._journals: dict[UUID, tuple[Append, ...]] = {}
        self._folded_here: list[Append] = []
        self._references_here: dict[tuple[str, str | int], bool] = {}
        self._guarded: set[UUID] = set()
        self._minted: set[UUID] = set()
        self.from_cache = False
        """Whether any state was taken from memory without asking the database: a refusal must then be checked."""

    def position(self, ref: str | int | Handle) -> Located:
        """A position by «POS-n», any surrogate id, or a handle of this batch."""
        if isinstance(ref, Handle):
            stream = self._handles.get(ref.name)
            if stream is None:
                raise unknown_position(ref)
            return Located(stream, cast("Position", self._working(stream).state))
        try:
            return Located(*self.located(ref, POSITION))
        except LookupError:
            raise unknown_position(ref) from None

    def located(self, ref: str | int, family: Family) -> tuple[UUID, Any]:
        """A stream of a family and its state, by business id or by the number of any of its events.

        Raises:
            LookupError: there is none.
        """
        stream = self._stream_of(ref, family)
        state = self._working(stream).state if stream is not None else None
        if stream is None or not isinstance(state, family.state):
            msg = f"{ref} is not known"
            raise LookupError(msg)
        return stream, state

    def state(self, stream: UUID) -> Any | None:
        """The state of a stream whose id follows from its key; the append is refused if it has moved on meanwhile."""
        self._guarded.add(stream)
        return self._working(stream).state

    def reads(self, appended: Iterable[UUID]) -> list[tuple[UUID, int]]:
        """(stream, version) of what was read and is not appended to: what the append must find unchanged."""
        return [(stream, self._streams[stream].loaded.version) for stream in self._guarded.difference(appended)]

    def shared(self) -> set[UUID]:
        """The streams that were read and that others may append to meanwhile: all but those begun here."""
        return self._streams.keys() - self._minted

    def journal(self, stream: UUID) -> tuple[Append, ...]:
        """The events of a position without its marks, by version: those of the log, then those of this batch."""
        if stream not in self._journals:
            version = self._working(stream).loaded.version
            with self._connect() as connection:
                rows = connection.execute(JOURNAL, (stream, NOT_IN_JOURNAL), binary=True).fetchall()
            # Later events than were folded belong to another writer: the append will find out.
            self._journals[stream] = tuple(
                Append(stream, row[0], self._codec.decode(row[1], row[2]), row[3]) for row in rows if row[0] <= version
            )
        return (*self._journals[stream], *(append for append in self._folded_here if append.stream == stream))

    def event_place(self, number: int) -> tuple[UUID, int] | None:
        """(stream, version) of the event with a sequence number."""
        with self._connect() as connection:
            row = connection.execute(PLACE_OF_NUMBER, (number,), prepare=True).fetchone()
        return None if row is None else (row[0], row[1])

    def position_stream(self, stream: UUID) -> Position:
        """The open position of a stream that a book names.

        Raises:
            ReadApart: it is no longer open, so the book is older than the position.
        """
        position = cast("Position", self._working(stream).state)
        if not position.is_open:
            msg = f"position stream {stream} has ended since its book was read"
            raise ReadApart(msg)
        return position

    def book(self, key: BookKey) -> Book:
        """The book of a key, empty if it has not begun."""
        state = self._working(book_stream(key)).state
        return Book() if state is None else cast("Book", state)

    def reference(self, field: str, value: str | int) -> bool:
        """Whether the row of a reference table that a field names exists, or the table is not in use; asked once."""
        asked = (field, value)
        if asked not in self._references_here:
            self._references_here[asked] = self._references.has(field, value)
        return self._references_here[asked]

    def new_stream(self) -> UUID:
        """A random stream id, which has nothing to load."""
        stream = new_event_id()
        self._minted.add(stream)
        self._streams[stream] = _Working(NOT_BEGUN, None)
        return stream

    def loaded(self, stream: UUID) -> Loaded:
        """The stream as the log has it, without what this batch adds."""
        return self._working(stream).loaded

    def preload(self, streams: Iterable[UUID]) -> None:
        """Read some streams, and the positions open in those that are books, in two round trips at most.

        With refresh all are read on from where memory has them, else those only that memory lacks.
        """
        wanted = {stream for stream in streams if self._refresh or self._cache.get(stream) is None}
        self._read_many(wanted)
        books = [state for stream in wanted if isinstance(state := self._streams[stream].state, Book)]
        if self._refresh:
            self._read_many({entry.stream for book in books for entry in book.open})

    def preload_positions(self, refs: Iterable[str | int]) -> None:
        """Read the positions that commands address, and their books and accounts, in three round trips at most.

        What is not a position is left for `position` to tell. With refresh or without, as `preload`.
        """
        numbers = {number for ref in refs if (number := number_of(ref))}
        unknown = [number for number in numbers if self._cache.stream_of(number) is None]
        if unknown:
            with self._connect() as connection:
                for number, stream, topic in connection.execute(PLACES_OF_NUMBERS, (unknown,), prepare=True):
                    if topic.startswith(f"{POSITION.name}."):
                        self._cache.note_stream(number, stream)
        found = {stream for number in numbers if (stream := self._cache.stream_of(number)) is not None}
        wanted = {stream for stream in found if self._refresh or self._cache.get(stream) is None}
        self._read_many(wanted)
        read = [state for stream in wanted if isinstance(state := self._streams[stream].state, Position)]
        beside = {book_stream(BookKey.of(position)) for position in read}
        beside |= {account_stream(AccountKey.of(position)) for position in read}
        self._read_many(stream for stream in beside if self._refresh or self._cache.get(stream) is None)

    def fills_at(self, stream: UUID, at: datetime) -> tuple[Fill, ...]:
        """Fills of a position with exactly this effective time, as the log has them, without what this batch adds."""
        if (stream, at) not in self._fills_at:
            with self._connect() as connection:
                rows = connection.execute(FILLS_AT, (stream, at), prepare=True, binary=True).fetchall()
            bodies = [self._codec.decode(topic, body) for topic, body in rows]
            self._fills_at[stream, at] = tuple(fill for body in bodies if (fill := getattr(body, "fill", None)))
        return self._fills_at[stream, at]

    def fold(self, decision: Decision) -> None:
        """Let later commands of the batch see what was decided.

        Raises:
            ReadApart: what was decided does not fit one of the streams, so they were read at different moments.
        """
        for append in decision.appends:
            working = self._working(append.stream)
            try:
                working.state = fold_append(working.state, append)
            except TypeError as error:
                raise ReadApart(str(error)) from error
            self._folded_here.append(append)

    def note_handle(self, command: Command, opened: UUID | None) -> None:
        """Let later commands of the batch address the position that this one opened by its handle, if it has one."""
        handle = getattr(command, "handle", None) if opened is not None else None
        if handle is not None and opened is not None:
            self._handles[handle] = opened

    def keep(self, appended: Iterable[tuple[NewEvent, Receipt]]) -> None:
        """After the append: what was loaded is now up to it, here and in memory for the next command."""
        opened: dict[UUID, int] = {}
        ends: dict[UUID, tuple[NewEvent, Receipt]] = {}
        due: list[UUID] = []
        for event, receipt in appended:
            if event.version == 1:
                opened[event.stream] = receipt.seq
            ends[event.stream] = (event, receipt)
            if event.version % PAGE_EVENTS == 0:
                due.append(event.stream)
        for stream, (event, receipt) in ends.items():
            working = self._streams[stream]
            opened_seq = working.loaded.opened_seq or opened[stream]
            working.loaded = Loaded(working.state, event.version, event.stream_hash, opened_seq, receipt.seq)
            self._cache.put(stream, working.loaded, opened_seq if family_of_state(working.state).prefix else None)
        self._leave(due)

    def _leave(self, due: Iterable[UUID]) -> None:
        """Leave a snapshot of streams that have grown by a page."""
        for stream in due:
            with self._connect() as connection:
                leave_snapshot(connection, stream, self._streams[stream].loaded)

    def _working(self, stream: UUID) -> _Working:
        working = self._streams.get(stream)
        if working is None:
            loaded = self._load(stream)
            working = self._streams[stream] = _Working(loaded, loaded.state)
        return working

    def _load(self, stream: UUID) -> Loaded:
        kept = self._cache.get(stream)
        if kept is not None and not self._refresh:
            self.from_cache = True
            return kept
        self._read_many([stream])
        return self._streams[stream].loaded

    def _read_on(self, stream: UUID, loaded: Loaded, began_at: int) -> Loaded:
        """Fold what the log has beyond the version that is loaded, page by page."""
        with self._connect() as connection:
            while rows := self._page(connection, stream, loaded.version):
                loaded = self._folded(stream, loaded, rows)
                if len(rows) < PAGE_EVENTS:
                    break
            if loaded.version - began_at >= PAGE_EVENTS:
                leave_snapshot(connection, stream, loaded)
        return loaded

    @staticmethod
    def _page(connection: psycopg.Connection[Any], stream: UUID, after: int) -> list[tuple[Any, ...]]:
        return connection.execute(STREAM_EVENTS, (stream, after, PAGE_EVENTS), prepare=True, binary=True).fetchall()

    def _read_many(self, streams: Iterable[UUID]) -> None:
        """Read streams on from where memory has them, in one round trip."""
        kept = {stream: self._cache.get(stream) or NOT_BEGUN for stream in streams if stream not in self._streams}
        if not kept:
            return
        versions = [loaded.version for loaded in kept.values()]
        with self._connect() as connection:
            rows = connection.execute(
                MANY_STREAMS_EVENTS, (list(kept), versions, PAGE_EVENTS), prepare=True, binary=True
            ).fetchall()
        found = {stream: [row[1:] for row in group] for stream, group in groupby(rows, key=itemgetter(0))}
        for stream, loaded in kept.items():
            read = self._read_first(stream, loaded, found.get(stream, []))
            self._streams[stream] = _Working(read, read.state)
            self._cache.put(stream, read)

    def _read_first(self, stream: UUID, loaded: Loaded, rows: Sequence[tuple[Any, ...]]) -> Loaded:
        """Fold the snapshot and the first page, and read on if there may be more."""
        if rows and rows[0][6] is not None:
            version, _, state, _, stream_hash, seq, shape, opened_seq = rows[0]
            snapshot = from_snapshot(version, shape, state, stream_hash, opened_seq, seq)
            if snapshot is None:  # other code has left it
                return self._read_on(stream, loaded, loaded.version)
            loaded, rows = snapshot, rows[1:]
        read = self._folded(stream, loaded, [row[:6] for row in rows])
        return self._read_on(stream, read, loaded.version) if len(rows) == PAGE_EVENTS else read

    def _folded(self, stream: UUID, loaded: Loaded, rows: Sequence[tuple[Any, ...]]) -> Loaded:
        """Fold rows of the log that follow what is loaded."""
        state, opened_seq = loaded.state, loaded.opened_seq
        for version, topic, body, effective_at, _, seq in rows:
            state = fold_append(state, Append(stream, version, self._codec.decode(topic, body), effective_at))
            opened_seq = opened_seq or seq
        if not rows:
            return loaded
        return Loaded(state, rows[-1][0], bytes(rows[-1][4]), opened_seq, rows[-1][5])

    def _stream_of(self, ref: str | int, family: Family) -> UUID | None:
        number = number_of(ref, family.prefix or "")
        stream = self._cache.stream_of(number)
        if stream is not None:
            return stream
        with self._connect() as connection:
            row = connection.execute(PLACE_OF_NUMBER, (number,), prepare=True).fetchone()
        if row is None or not str(row[2]).startswith(f"{family.name}."):
            return None
        self._cache.note_stream(number, row[0])
        return cast("UUID", row[0])


def number_of(ref: str | int, prefix: str = POSITION_PREFIX) -> int:
    """The sequence number in a reference: 17 for 17, «17» and «POS-17» with its prefix; 0 for anything else."""
    text = str(ref).removeprefix(prefix)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0
