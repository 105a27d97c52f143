"""Proofs: that a table equals the log, cell by cell, and that it keeps the laws of SCD2.

Every proof reads one REPEATABLE READ snapshot and locks nothing but what a SELECT does. Each shard is compared exactly as
far as its checkpoint says, so commands and projecting go on while it runs, and ends of versions are compared too.

The log is folded and the table read once, each into a digest by bucket of ids; where a bucket differs, the streams behind
it are folded once more and their rows compared cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from position_ledger.events import EVENTS
from position_ledger.projection import digests, statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import Difference, comparison, differing, folded
from position_ledger.projection.digests import BUCKET_SHIFT_MIN, Digest
from position_ledger.projection.generations import Generation, shard_range
from position_ledger.projection.loading import Chunk, Replayed, replayed
from position_ledger.projection.provers import Provers, do, parts_of_log, parts_of_table
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Version
from position_ledger.projection.snapshots import Reach, pinned, reach, snapshot
from position_ledger.store.codec import Codec

SAMPLE_RANGES: Final = 16
SAMPLE_EVENTS: Final = 4_000
"""A sample has so many events or more, in as many ranges of streams; all of a log that has no more."""

Advance = Callable[[int, int], None]
"""Hears how many parts are done, of how many."""


@dataclass(frozen=True, slots=True)
class TableProof:
    """What a comparison of one table with the log found. ``difference`` is None if they are equal.

    ``digest`` is of all rows of the table, whatever their order: the same on any server that holds the same rows. The
    table has every event up to ``position``, and none after ``highest``.
    """

    table: str
    position: int
    highest: int
    events: int
    rows: int
    digest: str
    difference: Difference | None


def table_equals_log(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    generation: Generation,
    provers: Provers,
    advance: Advance = lambda _done, _of: None,
) -> TableProof:
    """Fold the whole log again and compare every column of every row with the table.

    Raises:
        FoldFailed, LogBroken, SchemaMismatch: the log does not give rows.
    """
    with snapshot(connection):
        generation = pinned(connection, generation)
        of_log = reach(connection, generation)
        shift = digests.shift_of(of_log.highest)
        schema, table = generation.schema, projection.table
        parts = parts_of_table(connection, schema, table, shift)
        parts += parts_of_log(schema, table, shift, of_log.chunks())
        events, should, is_ = 0, Digest(), Digest()
        for done, found in enumerate(provers.each(connection, do, parts), start=1):
            events += found.events
            (should if found.is_of_log else is_).add(found.digest)
            advance(done, len(parts))
        place = Place(projection, schema, SQL("{} AS t").format(Identifier(schema, table)), of_log, shift, {})
        difference = first_difference(connection, place, should.differs_from(is_))
        return TableProof(table, of_log.lowest, of_log.highest, events, is_.rows, is_.hash, difference)


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are that may differ: ``source`` gives them as ``t``, the log up to ``reach``; by buckets of ``shift``."""

    projection: Projection[Any]
    schema: str
    source: Composable
    reach: Reach
    shift: int
    parameters: Mapping[str, Any]


OF_IDS = """
SELECT DISTINCT e.originator_id FROM events AS e
 WHERE e.notification_id >= %s AND e.notification_id < %s AND e.topic = ANY(%s) ORDER BY e.originator_id
"""


def first_difference(connection: psycopg.Connection[Any], place: Place, buckets: Sequence[int]) -> Difference | None:
    """The first cell that differs in the buckets, in the order of ids and columns; None without buckets.

    Folds the streams behind 1,024 ids at a time, so that its memory is bounded.
    """
    step = 1 << BUCKET_SHIFT_MIN
    for bucket in buckets:
        for low in range(bucket << place.shift, (bucket + 1) << place.shift, step):
            found = next(_among(connection, place, low, low + step), None)
            if found is not None:
                return found
    if not buckets:
        return None
    low = buckets[0] << place.shift
    return Difference(place.projection.table, "?", low, "the hash of the rows from there on", "another", "not that")


def difference_in_sample(connection: psycopg.Connection[Any], place: Place, events: int) -> Difference | None:
    """The first cell that differs in rows of streams all over the log, which has so many events of the projection.

    They are folded as a proof folds them, every amount a decimal: a load that took for text what a fold calculates with
    is found, where a digest of what was loaded would only say that it is still there.
    """
    resolver = Resolver(Codec(EVENTS), place.projection.folds)
    every = max(1, events // SAMPLE_EVENTS)
    for number in range(SAMPLE_RANGES):
        low, high = shard_range(number * every, SAMPLE_RANGES * every)
        versions = _some(
            replayed(connection, place.projection, resolver, Chunk(number, low, high, place.reach.highest))
        )
        where, ids = SQL("t.id = ANY(%(ids)s)"), [version.id for version in versions]
        found = next(_differing(connection, place, versions, where, {"ids": ids}), None)
        if found is not None:
            return found
    return None


def _some(replaying: Generator[Replayed, None, None]) -> list[Version]:
    """The versions of the first pages, whether or not each event makes one: of a longer stream those that have ended."""
    versions: list[Version] = []
    events = 0
    with closing(replaying):
        for batch in replaying:
            versions += batch.versions
            events += batch.events
            if events >= SAMPLE_EVENTS // SAMPLE_RANGES:
                break
    return versions


def _among(connection: psycopg.Connection[Any], place: Place, low: int, high: int) -> Iterator[Difference]:
    versions = list(_versions(connection, place, low, high))
    where = SQL("t.id >= %(low)s AND t.id < %(high)s")
    return _differing(connection, place, versions, where, {"low": low, "high": high})


def _differing(
    connection: psycopg.Connection[Any],
    place: Place,
    versions: Sequence[Version],
    where: SQL,
    parameters: Mapping[str, Any],
) -> Iterator[Difference]:
    """Versions that were folded against the rows of the place that a condition names; the first difference alone."""
    projection = place.projection
    statement = comparison(
        folded(Identifier(place.schema, projection.table)),
        SQL("{} WHERE {}").format(place.source, where),
        projection.key_column,
        projection.columns,
        limit=1,
    )
    rows = statements.encode_rows(projection, versions)
    given = {**place.parameters, **parameters, "rows": rows}
    return differing(connection, statement, given, projection.table, projection.columns)


def _versions(connection: psycopg.Connection[Any], place: Place, low: int, high: int) -> Iterator[Version]:
    """What the log gives for a range of ids."""
    projection = place.projection
    resolver = Resolver(Codec(EVENTS), projection.folds)
    streams = connection.execute(OF_IDS, (low, high, list(projection.topics))).fetchall()
    for (stream,) in streams:
        for batch in replayed(connection, projection, resolver, place.reach.of_stream(stream)):
            yield from (version for version in batch.versions if low <= version.id < high)


LAWS = """
SELECT t.{key}, t.id, t.broken FROM (
    SELECT t.{key}, t.id,
           CASE WHEN t.version <> row_number() OVER w THEN 'versions count 1, 2, 3 … without gaps'
                WHEN t.row_expiration_date IS DISTINCT FROM lead(t.row_effective_date) OVER w
                THEN 'each version ends when the next one begins, and the last one has no end'
                WHEN t.row_current_ind <> (lead(t.id) OVER w IS NULL) THEN 'the last version, and no other, is current'
                WHEN t.id <= lag(t.id) OVER w THEN 'ids rise with the versions'
           END AS broken
      FROM {table} AS t WINDOW w AS (PARTITION BY t.{key} ORDER BY t.version)) AS t
 WHERE t.broken IS NOT NULL ORDER BY t.id LIMIT 1
"""


def broken_law(connection: psycopg.Connection[Any], schema: str, projection: Projection[Any]) -> str | None:
    """The first row that breaks a law of SCD2, in words; None if they all hold."""
    with snapshot(connection):
        row = connection.execute(
            SQL(LAWS).format(table=Identifier(schema, projection.table), key=Identifier(projection.key_column))
        ).fetchone()
    return None if row is None else f"{projection.table} {row[0]}, row {row[1]}: {row[2]} does not hold"
