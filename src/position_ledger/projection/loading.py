"""Filling a shadow table from the log: a part is a range of streams, folded stream by stream and copied in flat memory."""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from types import TracebackType
from typing import Any, Protocol, Self
from uuid import UUID

import psycopg
from psycopg.sql import Identifier
from psycopg.types.string import ByteaBinaryLoader

from position_ledger.database import connect
from position_ledger.errors import VerificationFailed
from position_ledger.projection import chunk_ledger, statements
from position_ledger.projection.carrying.amounts import codec_of_load
from position_ledger.projection.copy_rows import RowEncoder, columns_of
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import shard_range
from position_ledger.projection.pacing import GivenBack, Pace, StopFlag
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Version, fold_batch
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

FETCH_EVENTS = 1_000
"""Events that one round trip reads. The next ones are read while these are folded, so a process holds twice as many."""

PAGE_EVENTS = 250
"""Events that are decoded, folded and written at once. With eight times as many, a load takes a third more CPU time: what
is made of a page no longer fits into the cache of a core."""

WAITING_BLOCKS_MAX = 8
"""Pages of rows, some 125 KB each, that wait for the server while the next ones are folded."""

RANGE = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at
  FROM events AS e
 WHERE e.originator_id BETWEEN %(from)s AND %(to)s AND e.notification_id <= %(upto)s AND e.topic = ANY(%(topics)s)
 ORDER BY e.originator_id, e.originator_version
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one process loads at a time: everything of some streams up to a number."""

    number: int
    stream_from: UUID
    stream_to: UUID
    upto: int


EventPages = Generator[Sequence[Recorded[Any]], None, None]
Pages = Callable[[Chunk], EventPages]


class History(Protocol):
    """Where a load takes events from, if not from the log; sent to every process that loads."""

    @property
    def upto(self) -> int:
        """The number up to which it has every event."""

    def events_of(self, projection: Projection[Any], upto: int) -> int:
        """How many events up to a number concern a projection."""

    def reading(self, projection: Projection[Any], codec: Codec) -> Pages:
        """What gives the events of a chunk that concern a projection, in pages, in order of stream and version."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a chunk came to: events read and versions written."""

    events: int
    versions: int


def chunk_of(part: chunk_ledger.Part) -> Chunk:
    """What a part of the list stands for."""
    low, high = shard_range(part.number, part.parts)
    return Chunk(part.number, low, high, part.upto)


class Loader:
    """Loads parts over connections that it keeps: one copies, one asks, and without a history one reads. Not for threads."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        projection: Projection[Any],
        schema: str,
        *,
        generation_id: int | None = None,
        stop: StopFlag | None = None,
        as_app: bool = False,
        history: History | None = None,
    ) -> None:
        """``generation_id`` is whose pace is kept, none: as fast as it goes. Workers load ``as_app``."""
        self._projection = projection
        self._schema = schema
        self._copy_in = statements.copy_in(schema, projection)
        name = "position-ledger rebuild"
        with ExitStack() as opened:
            *reading, self._writing, asking = (
                opened.enter_context(closing(connect(url, settings, as_app=as_app, name=name)))
                for _ in range(3 if history is None else 2)
            )
            for connection in (*reading, self._writing):
                for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    connection.execute("SELECT set_config(%s, '0', false)", (limit,))
            codec = codec_of_load(projection, settings)
            if history is None:
                self._pages: Pages = partial(log_pages, reading[0], projection, Resolver(codec, projection.folds))
            else:
                self._pages = history.reading(projection, codec)
            self._asking = asking
            self._encoder = _encoder(self._writing, schema, projection)
            self.pace = Pace(
                asking,
                schema,
                generation_id,
                stop or threading.Event(),
                gives_way=settings.rebuild_lag_max_s > 0,
            )
            self._opened = opened.pop_all()

    def take(self) -> Loaded | None:
        """Take a part that is missing, fold it and copy its versions, in one transaction that marks it as loaded.

        Answers None if every part is loaded, or others are at those that are not.

        Raises:
            FoldFailed: the definition cannot fold an event.
            VerificationFailed: a row does not fit the table.
            Stopped, GivenBack: nothing of the part is loaded.
        """
        try:
            return self._take()
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise VerificationFailed(does_not_fit(self._projection.table, error)) from error

    def is_complete(self) -> bool:
        """Whether every part is loaded."""
        return chunk_ledger.is_complete(self._asking, self._schema)

    def _take(self) -> Loaded | None:
        with no_collecting(), self._writing.transaction(), self._writing.cursor() as cursor:
            part = chunk_ledger.claim(cursor, self._schema)
            if part is None:
                return None
            loaded = self._copy(cursor, chunk_of(part))
            if not chunk_ledger.mark(cursor, self._schema, part.number, loaded.events, loaded.versions):
                raise GivenBack  # its row was locked, so this cannot be; twice the rows would be worse than once more
        return loaded

    def _copy(self, cursor: psycopg.Cursor[Any], chunk: Chunk) -> Loaded:
        events = versions = 0
        encoder, values_of = self._encoder, statements.values_of
        waiting: deque[Future[None]] = deque()
        with (
            closing(folded(self._projection, self._pages(chunk))) as batches,
            cursor.copy(self._copy_in) as copy,
            ThreadPoolExecutor(1, "writing rows") as writing,
        ):
            for batch in batches:
                events += batch.events
                versions += len(batch.versions)
                self.pace.read(chunk.number, events, batch.events)
                block = encoder.block([values_of(version) for version in batch.versions])
                if len(waiting) == WAITING_BLOCKS_MAX:
                    waiting.popleft().result()
                waiting.append(writing.submit(copy.write, block))
            for sent in waiting:
                sent.result()
        return Loaded(events, versions)

    def __enter__(self) -> Self:
        """The loader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections; what was under way is undone."""
        self._opened.close()


@contextmanager
def no_collecting() -> Iterator[None]:
    """Without the collector of cycles: a load makes none, and to look for them costs a twentieth of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def copy_versions(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any], versions: Iterable[Version]
) -> None:
    """Copy versions into the table as a load does, over a connection of the caller's, in one statement.

    Raises:
        UnfitValue: a value that cannot be written.
        psycopg.Error: what the server finds wrong with a row.
    """
    encoder = _encoder(connection, schema, projection)
    with connection.cursor() as cursor, cursor.copy(statements.copy_in(schema, projection)) as copy:
        copy.write(encoder.block([statements.values_of(version) for version in versions]))


def _encoder(connection: psycopg.Connection[Any], schema: str, projection: Projection[Any]) -> RowEncoder:
    table = Identifier(schema, projection.table).as_string(connection)
    return RowEncoder(connection, projection.table, columns_of(connection, table, projection.columns))


def does_not_fit(table: str, error: psycopg.Error) -> str:
    """Why the rows that the log gives cannot be in the table as the migrations make it, in one sentence."""
    diag = error.diag
    explained = diag.message_detail or (diag.context or "").partition("\n")[0]
    detail = f" ({' '.join(explained.split())})" if explained else ""
    return (
        f"the history does not fit table {table} as the migrations make it: {diag.message_primary or error}{detail}; the "
        "live table is unchanged, correct the migration, or the projection that gives the rows"
    )


@dataclass(frozen=True, slots=True)
class Replayed:
    """Some streams folded: how many events, and every version of them in order of key and version."""

    events: int
    versions: list[Version]


def replayed(
    connection: psycopg.Connection[Any], projection: Projection[Any], resolver: Resolver, chunk: Chunk
) -> Generator[Replayed, None, None]:
    """Fold a range of streams of the log from their beginning."""
    return folded(projection, log_pages(connection, projection, resolver, chunk))


def folded(projection: Projection[Any], pages: EventPages) -> Generator[Replayed, None, None]:
    """Fold streams from their beginning, a bounded number of events at a time, each stream whole; closes ``pages``.

    The one way in which history becomes rows outside live projecting: load and verification both go through it.
    """
    current: dict[str, Version] = {}
    stream: UUID | None = None
    with closing(pages):
        for events in pages:
            finished: list[Version] = []
            for of_stream, some in groupby(events, key=attrgetter("stream")):
                if of_stream != stream:
                    finished.extend(current.values())
                    current, stream = {}, of_stream
                finished.extend(_superseded(projection, some, current))
            yield Replayed(len(events), finished)
        yield Replayed(0, list(current.values()))


def log_pages(
    connection: psycopg.Connection[Any], projection: Projection[Any], resolver: Resolver, chunk: Chunk
) -> EventPages:
    """The events of a range of streams that concern a projection, from the log, in order of stream and version."""
    with connection.transaction(), connection.cursor(name="replay") as cursor:
        cursor.adapters.register_loader("uuid", ByteaBinaryLoader)
        cursor.execute(
            RANGE,
            {
                "from": chunk.stream_from,
                "to": chunk.stream_to,
                "upto": chunk.upto,
                "topics": list(projection.topics),
            },
            binary=True,
        )
        with closing(_pages(cursor)) as pages:
            for rows in pages:
                yield resolver.resolve(connection, _stored(rows))


def _pages(cursor: psycopg.ServerCursor[Any]) -> Generator[Sequence[Sequence[Any]], None, None]:
    """The rows of a cursor, a page at a time; the server makes the next ones ready meanwhile."""
    with ThreadPoolExecutor(1, "reading the log") as reading:
        coming = reading.submit(cursor.fetchmany, FETCH_EVENTS)
        while rows := coming.result():
            coming = reading.submit(cursor.fetchmany, FETCH_EVENTS)
            for start in range(0, len(rows), PAGE_EVENTS):
                yield rows[start : start + PAGE_EVENTS]


class _Streams(dict[bytes, UUID]):
    """Stream ids by their bytes: one object for all events of a stream, because making one costs as much as a fold."""

    def __missing__(self, raw: bytes) -> UUID:
        stream = self[raw] = UUID(bytes=raw)
        return stream


def _stored(rows: Iterable[Sequence[Any]]) -> list[StoredRow]:
    """What `RANGE` answers, with stream ids as bytes."""
    streams = _Streams()
    return [
        StoredRow(seq, streams[stream], version, topic, state, recorded_at, effective_at)
        for seq, stream, version, topic, state, recorded_at, effective_at in rows
    ]


def _superseded(
    projection: Projection[Any], events: Iterable[Recorded[Any]], current: dict[str, Version]
) -> Iterator[Version]:
    """Fold more events of one stream; the versions that are no longer current."""
    before = list(current.values())
    changes = fold_batch(projection, events, current)
    return (version for version in (*before, *changes.inserted) if version.expires is not None)
