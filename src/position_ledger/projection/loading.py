"""Filling a shadow table from the log: stream by stream, in ranges, over any number of processes, in flat memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from multiprocessing.connection import wait
from operator import attrgetter
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
import psycopg
from psycopg.abc import Buffer
from psycopg.types.json import Jsonb
from psycopg.types.numeric import DecimalBinaryDumper

from position_ledger.database import connect
from position_ledger.errors import ConfigurationError, VerificationFailed
from position_ledger.events import EVENTS
from position_ledger.projection import chunk_ledger, statements
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

NUMBERS_KEPT_MAX = 50_000
"""Distinct amounts whose binary form a process remembers: some ten megabytes."""

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
    *,
    processes: int,
    advance: Callable[[int], None],
) -> Loaded:
    """Load what the list in ``schema`` says is missing into the bare table there; ``advance`` hears of events as it goes."""
    pending = _missing(url, settings, schema)
    if processes <= 1:
        with Loader(url, settings, projection, schema) as loader:
            done = [_told(loader.load(chunk), advance) for chunk in pending]
    else:
        context = multiprocessing.get_context("spawn")
        setting_up = (url, settings, projection.table, schema)
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up, initargs=setting_up) as pool:
            running = [pool.submit(_load_in_process, chunk) for chunk in pending]
            try:
                done = [_told(finished.result(), advance) for finished in as_completed(running)]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Loaded(sum(one.events for one in done), sum(one.versions for one in done))


def _missing(url: str, settings: Settings, schema: str) -> list[Chunk]:
    with connect(url, settings, as_app=False, name="position-ledger rebuild") as connection:
        wanted = set(chunk_ledger.missing(connection, schema))
        return [chunk for chunk in chunks(chunk_ledger.horizon(connection, schema)) if chunk.number in wanted]


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


class Loader:
    """Loads chunks over two connections that it keeps: one reads and folds, the other copies. Not for threads."""

    def __init__(self, url: str, settings: Settings, projection: Projection[Any], schema: str) -> None:
        self._projection = projection
        self._schema = schema
        self._resolver = Resolver(Codec(EVENTS), projection.folds)
        self._copy_in = statements.copy_in(schema, projection)
        self._reading, self._writing = (
            connect(url, settings, as_app=False, name="position-ledger rebuild") for _ in range(2)
        )
        for connection in (self._reading, self._writing):
            connection.execute("SELECT set_config('statement_timeout', '0', false)")
        self._types, self._json_places = _binary(self._writing, schema, projection)
        self._writing.adapters.register_dumper(Decimal, RememberedDecimal)

    def load(self, chunk: Chunk) -> Loaded:
        """Fold one range of streams and copy its versions into the table, in one transaction that marks it as loaded.

        Raises:
            VerificationFailed: a row does not fit the table.
        """
        try:
            return self._load_once(chunk)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise VerificationFailed(does_not_fit(self._projection.table, error)) from error

    def _load_once(self, chunk: Chunk) -> Loaded:
        kept: list[Loaded] = []
        with self._writing.transaction(), self._writing.cursor() as cursor:
            loaded = self._copy(cursor, chunk)
            if not chunk_ledger.mark(cursor, self._schema, chunk.number, loaded.events, loaded.versions):
                raise psycopg.Rollback  # somebody else has loaded this part
            kept.append(loaded)
        return kept[0] if kept else Loaded(0, 0)

    def _copy(self, cursor: psycopg.Cursor[Any], chunk: Chunk) -> Loaded:
        events = versions = 0
        with cursor.copy(self._copy_in) as copy:
            copy.set_types(self._types)
            for batch in replayed(self._reading, self._projection, self._resolver, chunk):
                events += batch.events
                versions += len(batch.versions)
                for version in batch.versions:
                    copy.write_row(_encoded(statements.values_of(version), self._json_places))
        return Loaded(events, versions)

    def __enter__(self) -> Self:
        """The loader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both connections."""
        self._reading.close()
        self._writing.close()


def copy_versions(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any], versions: Iterable[Version]
) -> None:
    """Copy versions into the table as a load does, over a connection of the caller's, in one statement.

    Raises whatever the driver or the server finds wrong with a row.
    """
    types, json_places = _binary(connection, schema, projection)
    with connection.cursor() as cursor, cursor.copy(statements.copy_in(schema, projection)) as copy:
        copy.set_types(types)
        for version in versions:
            copy.write_row(_encoded(statements.values_of(version), json_places))


def does_not_fit(table: str, error: psycopg.Error) -> str:
    """Why the rows that the log gives cannot be in the table as the migrations make it, in one sentence."""
    diag = error.diag
    detail = f" ({' '.join(diag.message_detail.split())})" if diag.message_detail else ""
    return (
        f"the history does not fit table {table} as the migrations make it: {diag.message_primary or error}{detail}; the "
        "live table is unchanged, correct the migration, or the projection that gives the rows"
    )


_loaders: list[Loader] = []
"""The loader of a process of the pool; it ends with the process."""


def _set_up(url: str, settings: Settings, table: str, schema: str) -> None:
    _end_with_parent()
    projection = next((one for one in load_projections(settings.projections) if one.table == table), None)
    if projection is None:
        msg = f"setting projections: {settings.projections!r} defines no table {table!r}"
        raise ConfigurationError(msg)
    _loaders.append(Loader(url, settings, projection, schema))


def _load_in_process(chunk: Chunk) -> Loaded:
    return _loaders[0].load(chunk)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Some streams folded: how many events, and every version of them in order of key and version."""

    events: int
    versions: list[Version]


def replayed(
    connection: psycopg.Connection[Any], projection: Projection[Any], resolver: Resolver, chunk: Chunk
) -> Iterator[Replayed]:
    """Fold a range of streams from their beginning, a bounded number of events at a time, each stream whole.

    The one way in which history becomes rows outside live projecting: load and verification both go through it.
    """
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


class RememberedDecimal(DecimalBinaryDumper):
    """Writes amounts in binary, each distinct one once: most columns of a version repeat those of the one before."""

    def dump(self, obj: Decimal) -> Buffer | None:
        """The binary form of an amount."""
        return _numeric(obj)


@lru_cache(maxsize=NUMBERS_KEPT_MAX)
def _numeric(number: Decimal) -> bytes:
    return bytes(DecimalBinaryDumper(Decimal).dump(number) or b"")


def _binary(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any]
) -> tuple[list[int], list[int]]:
    """The type of each column, and the places of those that hold JSON."""
    name = statements.names([schema, projection.table]).as_string(connection).replace(", ", ".")
    found = {row[0]: (row[1], row[2]) for row in connection.execute(COLUMN_TYPES, (name,)).fetchall()}
    types = [found[column][0] for column in projection.columns]
    json_places = [place for place, column in enumerate(projection.columns) if found[column][1] in ("jsonb", "json")]
    return types, json_places


def _encoded(values: Sequence[Any], json_places: Sequence[int]) -> list[Any]:
    """The values as the driver can write them in binary."""
    encoded = list(values)
    for place in json_places:
        if encoded[place] is not None:
            encoded[place] = _as_jsonb(encoded[place])
    return encoded


def _as_jsonb(value: Any) -> Jsonb:
    return Jsonb(value, dumps=msgspec.json.encode)
