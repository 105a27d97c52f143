"""Proofs: the tables equal the log, two generations equal each other, the laws of SCD2 hold.

Every proof reads one REPEATABLE READ snapshot and locks nothing. What it compares ends at a checkpoint of that snapshot,
so that commands and projecting go on while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.events import EVENTS
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation, kept
from position_ledger.projection.loading import chunks, replayed
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Version
from position_ledger.store.codec import Codec

BUCKET_IDS = 65_536
"""Ids of one bucket of a digest: two tables that differ are compared row by row in the differing buckets only."""

DIFFERENCES_MAX = 10
KEYS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a table and what it should be part: key, id and column; values as text."""

    table: str
    key: str
    id: int
    column: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One sentence for people."""
        return f"{self.table} {self.key}, row {self.id}: {self.column} is {self.found}, the log says {self.expected}"


@dataclass(frozen=True, slots=True)
class TableProof:
    """What a comparison of one table with the log found. ``difference`` is None if they are equal."""

    table: str
    position: int
    events: int
    rows: int
    difference: Difference | None


@contextmanager
def snapshot(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """One REPEATABLE READ, read-only snapshot for everything inside the block."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(
            "SET LOCAL statement_timeout = 0"
        )  # no query: the snapshot is taken after the caller's locks
        yield connection


def checkpoint(connection: psycopg.Connection[Any], generation_id: int) -> int:
    """The number up to which a generation is complete, in the snapshot of the connection."""
    row = connection.execute(
        "SELECT min(c.position) FROM projection_checkpoints AS c WHERE c.generation_id = %s", (generation_id,)
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def table_equals_log(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    generation: Generation,
    advance: Callable[[int], None] = lambda _events: None,
) -> TableProof:
    """Fold the whole log again and compare every column of every row with the table."""
    with snapshot(connection):
        generation = pinned(connection, generation)
        position, highest = reach(connection, generation)
        events = rows = 0
        resolver = Resolver(Codec(EVENTS), projection.folds)
        for chunk in chunks(position):
            for batch in replayed(connection, projection, resolver, chunk):
                events += batch.events
                rows += len(batch.versions)
                advance(batch.events)
                difference = _first_difference(connection, projection, generation.schema, batch.versions)
                if difference is not None:
                    return TableProof(projection.table, position, events, rows, difference)
        surplus = _surplus(connection, projection, generation.schema, position, rows) or _beyond(
            connection, projection, generation.schema, highest
        )
        return TableProof(projection.table, position, events, rows, surplus)


def pinned(connection: psycopg.Connection[Any], generation: Generation) -> Generation:
    """The generation that has this table now: the lock, taken before the snapshot, keeps a swap from changing that."""
    table = Identifier(generation.schema, generation.projection)
    connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
    return next(one for one in kept(connection, generation.projection) if one.schema == generation.schema)


def reach(connection: psycopg.Connection[Any], generation: Generation) -> tuple[int, int]:
    """Say up to which number the table is complete, and up to which it can have rows at all."""
    if generation.mode == "inline":
        last = connection.execute("SELECT coalesce(max(e.notification_id), 0) FROM events AS e").fetchone()
        return (last[0], last[0]) if last else (0, 0)
    row = connection.execute(
        "SELECT coalesce(min(c.position), 0), coalesce(max(c.position), 0) FROM projection_checkpoints AS c "
        "WHERE c.generation_id = %s",
        (generation.generation_id,),
    ).fetchone()
    return row or (0, 0)


def _first_difference(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    schema: str,
    expected: Sequence[Version],
) -> Difference | None:
    ids = [version.id for version in expected]
    found: dict[int, Version] = {}
    for start in range(0, len(ids), KEYS_AT_ONCE):
        rows = connection.execute(
            statements.load_by_id(schema, projection), (ids[start : start + KEYS_AT_ONCE],), binary=True
        ).fetchall()
        found.update((row[0], statements.version_of(projection, row)) for row in rows)
    for version in expected:
        stored = found.get(version.id)
        if stored is None:
            return Difference(projection.table, version.key, version.id, "the row", "a row", "missing")
        difference = _compare(projection, version, stored)
        if difference is not None:
            return difference
    return None


def _compare(projection: Projection[Any], expected: Version, stored: Version) -> Difference | None:
    for column, should, is_ in zip(
        projection.columns, statements.values_of(expected), statements.values_of(stored), strict=True
    ):
        if column in ("row_current_ind", "row_expiration_date") and expected.expires is None:
            continue  # an event behind the checkpoint may have ended it; the laws cover how
        if not _same(should, is_):
            return Difference(projection.table, expected.key, expected.id, column, _shown(should), _shown(is_))
    return None


def _same(should: Any, is_: Any) -> bool:
    if should == is_:
        return True
    if isinstance(should, (dict, list, tuple, msgspec.Struct)):
        return bool(msgspec.to_builtins(should) == is_)
    return False


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return repr(msgspec.to_builtins(value)) if isinstance(value, (dict, list, msgspec.Struct)) else str(value)


def _surplus(
    connection: psycopg.Connection[Any], projection: Projection[Any], schema: str, position: int, expected: int
) -> Difference | None:
    """A row that no event makes, if the table has more rows than the log."""
    table, key = Identifier(schema, projection.table), Identifier(projection.key_column)
    row = connection.execute(SQL("SELECT count(*) FROM {} AS t WHERE t.id <= %s").format(table), (position,)).fetchone()
    if row is None or row[0] == expected:
        return None
    extra = connection.execute(
        SQL(
            "SELECT t.{key}, t.id FROM {table} AS t LEFT JOIN events AS e ON e.notification_id = t.id "
            "WHERE t.id <= %s AND (e.notification_id IS NULL OR e.topic <> ALL(%s)) ORDER BY t.id LIMIT 1"
        ).format(table=table, key=key),
        (position, list(projection.topics)),
    ).fetchone()
    if extra is None:
        return Difference(projection.table, "?", 0, "the number of rows", str(expected), str(row[0]))
    return Difference(projection.table, extra[0], extra[1], "the row", "no row", "a row")


def _beyond(
    connection: psycopg.Connection[Any], projection: Projection[Any], schema: str, highest: int
) -> Difference | None:
    """A row of the future: with a number that no shard has reached."""
    extra = connection.execute(
        SQL("SELECT t.{}, t.id FROM {} AS t WHERE t.id > %s ORDER BY t.id LIMIT 1").format(
            Identifier(projection.key_column), Identifier(schema, projection.table)
        ),
        (highest,),
    ).fetchone()
    return None if extra is None else Difference(projection.table, extra[0], extra[1], "the row", "no row", "a row")


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


def digest(schema: str, table: str, columns: Sequence[str]) -> Composed:
    """Rows and an order-independent hash for each bucket of ids up to a number (its parameter)."""
    return SQL(
        "SELECT t.id / {bucket} AS bucket, count(*), bit_xor(hash_record_extended(ROW({columns}), 0)) "
        "FROM {table} AS t WHERE t.id <= %s GROUP BY 1"
    ).format(
        bucket=SQL(str(BUCKET_IDS)),
        columns=statements.names(columns, of="t"),
        table=Identifier(schema, table),
    )


def generations_differ(
    connection: psycopg.Connection[Any], live: Generation, shadow: Generation, columns: Sequence[str], key: str
) -> tuple[int, list[Difference]]:
    """Compare two generations column by column up to what both have; answers that number and the first differences.

    Current flag and expiry are left out, because one of them may have been projected further: `broken_law` covers them.
    """
    compared = [column for column in columns if column not in ("row_current_ind", "row_expiration_date")]
    with snapshot(connection):
        upto = min(checkpoint(connection, one.generation_id) for one in (live, shadow))
        buckets = [
            {row[0]: row[1:] for row in connection.execute(digest(one.schema, one.projection, compared), (upto,))}
            for one in (live, shadow)
        ]
        unequal = sorted(
            bucket
            for bucket in buckets[0].keys() | buckets[1].keys()
            if buckets[0].get(bucket) != buckets[1].get(bucket)
        )
        found: list[Difference] = []
        for bucket in unequal:
            found.extend(_bucket_differences(connection, live, shadow, compared, key, bucket, upto))
            if len(found) >= DIFFERENCES_MAX:
                break
        return upto, found[:DIFFERENCES_MAX]


def _bucket_differences(
    connection: psycopg.Connection[Any],
    live: Generation,
    shadow: Generation,
    columns: Sequence[str],
    key: str,
    bucket: int,
    upto: int,
) -> Iterator[Difference]:
    statement = SQL(
        "SELECT coalesce(a.{key}, b.{key}), coalesce(a.id, b.id), to_jsonb(a), to_jsonb(b) "
        "FROM (SELECT {columns} FROM {live} AS t WHERE t.id >= %(low)s AND t.id < %(high)s AND t.id <= %(upto)s) AS a "
        "FULL JOIN (SELECT {columns} FROM {shadow} AS t WHERE t.id >= %(low)s AND t.id < %(high)s AND t.id <= %(upto)s) AS b "
        "USING (id) WHERE a IS DISTINCT FROM b ORDER BY 2 LIMIT {limit}"
    ).format(
        key=Identifier(key if key in columns else "id"),
        columns=statements.names(columns, of="t"),
        live=Identifier(live.schema, live.projection),
        shadow=Identifier(shadow.schema, shadow.projection),
        limit=SQL(str(DIFFERENCES_MAX)),
    )
    low = bucket * BUCKET_IDS
    rows = connection.execute(statement, {"low": low, "high": low + BUCKET_IDS, "upto": upto}).fetchall()
    for row_key, row_id, old, new in rows:
        if old is None or new is None:
            words = ("a row", "missing") if old is None else ("no row", "a row")
            yield Difference(live.projection, str(row_key), row_id, "the row", *words)
            continue
        for column in columns:
            if old[column] != new[column]:
                yield Difference(live.projection, str(row_key), row_id, column, str(new[column]), str(old[column]))
