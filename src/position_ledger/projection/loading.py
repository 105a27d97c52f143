"""Filling a shadow table from the log: stream by stream, in ranges, over any number of processes, in flat memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.connection import wait
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from position_ledger.database import connect
from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.generations import shard_ranges
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Version, fold_batch
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

CHUNKS = 64
"""Ranges of the stream id that a load is cut into: the unit that a process takes and that progress counts."""

FETCH_EVENTS = 2_000
"""Events that one round trip reads; what a process holds in memory at once."""

STREAM_STATEMENT_TIMEOUT_S = 0
"""A chunk may read for as long as it needs."""

RANGE = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at
  FROM events AS e
 WHERE e.originator_id BETWEEN %(from)s AND %(to)s AND e.notification_id <= %(upto)s AND e.topic = ANY(%(topics)s)
 ORDER BY e.originator_id, e.originator_version
"""

COLUMN_TYPES = """
SELECT a.attname, a.atttypid, t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""


Encoder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one process loads at a time: everything of some streams up to a number."""

    number: int
    stream_from: UUID
    stream_to: UUID
    upto: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a chunk came to: events read and versions written."""

    events: int
    versions: int


def chunks(upto: int, count: int = CHUNKS) -> list[Chunk]:
    """The whole log up to a number, cut into equal ranges of the stream id."""
    return [Chunk(number, low, high, upto) for number, low, high in shard_ranges(count)]


def load(
    url: str,
    settings: Settings,
    projection: Projection[Any],
    schema: str,
    upto: int,
    *,
    processes: int,
    advance: Callable[[int], None],
) -> Loaded:
    """Load every version up to a number into the bare table in ``schema``; ``advance`` hears of events as they are done."""
    pending = chunks(upto)
    if processes <= 1:
        done = [_told(load_chunk(url, settings, projection, schema, chunk), advance) for chunk in pending]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=processes, mp_context=context, initializer=_end_with_parent) as pool:
            running = [
                pool.submit(_load_in_process, url, settings, projection.table, schema, chunk) for chunk in pending
            ]
            try:
                done = [_told(finished.result(), advance) for finished in as_completed(running)]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Loaded(sum(one.events for one in done), sum(one.versions for one in done))


def _end_with_parent() -> None:
    """End this process when its parent is killed: it would wait for its next chunk for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), name="end with parent", daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _told(loaded: Loaded, advance: Callable[[int], None]) -> Loaded:
    advance(loaded.events)
    return loaded


def _load_in_process(url: str, settings: Settings, table: str, schema: str, chunk: Chunk) -> Loaded:
    projection = next((one for one in load_projections(settings.projections) if one.table == table), None)
    if projection is None:
        msg = f"setting projections: {settings.projections!r} defines no table {table!r}"
        raise ConfigurationError(msg)
    return load_chunk(url, settings, projection, schema, chunk)


def load_chunk(url: str, settings: Settings, projection: Projection[Any], schema: str, chunk: Chunk) -> Loaded:
    """Fold one range of streams and copy its versions into the table, in one transaction."""
    events = versions = 0
    with (
        connect(url, settings, as_app=False, name="position-ledger rebuild") as reading,
        connect(url, settings, as_app=False, name="position-ledger rebuild") as writing,
        writing.transaction(),
        writing.cursor() as cursor,
    ):
        for connection in (reading, writing):
            connection.execute("SELECT set_config('statement_timeout', '0', false)")
        types, encoders = _binary(writing, schema, projection)
        with cursor.copy(statements.copy_in(schema, projection)) as copy:
            copy.set_types(types)
            for batch in replayed(reading, projection, chunk):
                events += batch.events
                versions += len(batch.versions)
                for version in batch.versions:
                    copy.write_row(_encoded(statements.values_of(version), encoders))
    return Loaded(events, versions)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Some streams folded: how many events, and every version of them in order of key and version."""

    events: int
    versions: list[Version]


def replayed(connection: psycopg.Connection[Any], projection: Projection[Any], chunk: Chunk) -> Iterator[Replayed]:
    """Fold a range of streams from their beginning, a bounded number of events at a time, each stream whole.

    The one way in which history becomes rows outside live projecting: load and verification both go through it.
    """
    resolver = Resolver(Codec(EVENTS), projection.folds)
    current: dict[str, Version] = {}
    stream: UUID | None = None
    with connection.transaction(), connection.cursor(name="replay") as cursor:
        cursor.itersize = FETCH_EVENTS
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
        while rows := cursor.fetchmany(FETCH_EVENTS):
            events = resolver.resolve(connection, [StoredRow(*row) for row in rows])
            finished: list[Version] = []
            for of_stream, some in groupby(events, key=attrgetter("stream")):
                if of_stream != stream:
                    finished.extend(current.values())
                    current, stream = {}, of_stream
                finished.extend(_superseded(projection, some, current))
            yield Replayed(len(rows), finished)
        yield Replayed(0, list(current.values()))


def _superseded(
    projection: Projection[Any], events: Iterable[Recorded[Any]], current: dict[str, Version]
) -> Iterator[Version]:
    """Fold more events of one stream; the versions that are no longer current."""
    before = list(current.values())
    changes = fold_batch(projection, events, current)
    return (version for version in (*before, *changes.inserted) if version.expires is not None)


def _binary(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any]
) -> tuple[list[int], list[Encoder | None]]:
    """For each column its type, and what a value needs before the driver can write it in binary."""
    name = statements.names([schema, projection.table]).as_string(connection).replace(", ", ".")
    found = {row[0]: (row[1], row[2]) for row in connection.execute(COLUMN_TYPES, (name,)).fetchall()}
    types = [found[column][0] for column in projection.columns]
    encoders: list[Encoder | None] = [
        _as_jsonb if found[column][1] in ("jsonb", "json") else None for column in projection.columns
    ]
    return types, encoders


def _encoded(values: Sequence[Any], encoders: Sequence[Encoder | None]) -> list[Any]:
    return [
        value if encoder is None or value is None else encoder(value)
        for value, encoder in zip(values, encoders, strict=True)
    ]


def _as_jsonb(value: Any) -> Jsonb:
    return Jsonb(value, dumps=msgspec.json.encode)
