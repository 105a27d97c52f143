"""A sample of the log, folded by the code's definitions and put into the tables that the migrations lead to.

What a rebuild would find after minutes (a fold that gives None for NOT NULL, a CHECK that history breaks, a type that
does not fit) is found in a second, with table, column and the number of the event.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Final

import psycopg
from psycopg import sql

from position_ledger.events import EVENTS
from position_ledger.projection import statements
from position_ledger.projection.definition import SURROGATE, Projection
from position_ledger.projection.generations import shard_ranges
from position_ledger.projection.loading import copy_versions
from position_ledger.projection.references import LogBroken, Resolver
from position_ledger.projection.scd2 import FoldFailed, Version, fold_batch
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

EVENTS_MAX: Final = 2_000
STREAM_EVENTS_MAX: Final = 100
"""Of a log with more than `EVENTS_MAX` events: the first so many of each stream, which fold like the whole of it."""
RANGES: Final = 16
PROBLEMS_MAX: Final = 10
FAILING_ROWS_MAX: Final = 100
"""Rows that do not fit and are looked at; the next thousand of the same kind would say nothing new."""

_COLUMNS: Final = (
    "e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at"
)
_WHOLE_LOG: Final = f"""
SELECT {_COLUMNS} FROM events AS e WHERE e.topic = ANY(%(topics)s)
 ORDER BY e.originator_id, e.originator_version
"""
# Streams one after the other over the primary key, some of each range, so that no part of the log is read in full.
_RANGE: Final = f"""
WITH RECURSIVE streams AS (
    (SELECT e.originator_id FROM events AS e WHERE e.originator_id >= %(from)s ORDER BY e.originator_id LIMIT 1)
    UNION ALL
    SELECT (SELECT e.originator_id FROM events AS e WHERE e.originator_id > s.originator_id
             ORDER BY e.originator_id LIMIT 1)
      FROM streams AS s WHERE s.originator_id <= %(to)s
), chosen AS (SELECT s.originator_id FROM streams AS s WHERE s.originator_id <= %(to)s LIMIT %(limit)s)
SELECT {_COLUMNS} FROM chosen AS s CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM events AS e WHERE e.originator_id = s.originator_id AND e.topic = ANY(%(topics)s)
       AND e.originator_version <= %(each)s ORDER BY e.originator_version) AS e
 ORDER BY e.originator_id, e.originator_version LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class ColumnStory:
    """Which kinds of event, by topic, gave a column its first value, changed it, or left it as it was."""

    column: str
    set_by: tuple[str, ...]
    changed_by: tuple[str, ...]
    carried_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with rows of a table, and the first event that shows it; ``column`` is "" if none is named."""

    code: str
    table: str
    column: str
    constraint: str
    event: int
    topic: str
    cause: str
    rows: int = 1


@dataclass(slots=True)
class Folded:
    """One projection over the sample: its versions with the topic of each, what it did to columns, what went wrong."""

    projection: Projection[Any]
    versions: list[Version] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    events: int = 0
    took_s: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    set_by: dict[str, set[str]] = field(default_factory=dict)
    changed_by: dict[str, set[str]] = field(default_factory=dict)

    def story(self, column: str) -> ColumnStory:
        """What the sample's events did to a column."""
        made, changed = self.set_by.get(column, set()), self.changed_by.get(column, set())
        carried = set(self.seen) - made - changed
        return ColumnStory(column, tuple(sorted(made)), tuple(sorted(changed)), tuple(sorted(carried)))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Topics that the definition folds and the sample does not have."""
        return tuple(topic for topic in self.projection.topics if topic not in self.seen)


def sample(connection: psycopg.Connection[Any], last: int, topics: Iterable[str]) -> list[StoredRow]:
    """Events of some streams, stream by stream from its beginning; all of a log of up to `EVENTS_MAX` events.

    ``last`` is the number of the last event. The connection is in a snapshot of the caller's.
    """
    wanted = sorted(topics)
    if last <= EVENTS_MAX:
        return _stored(connection, _WHOLE_LOG, {"topics": wanted})
    found: list[StoredRow] = []
    for place, (_, low, high) in enumerate(shard_ranges(RANGES)):
        share = (EVENTS_MAX - len(found)) // (RANGES - place)
        limits = {"from": low, "to": high, "limit": share, "each": STREAM_EVENTS_MAX, "topics": wanted}
        found += _stored(connection, _RANGE, limits)
    return found


def _stored(connection: psycopg.Connection[Any], query: str, parameters: Mapping[str, Any]) -> list[StoredRow]:
    return [StoredRow(*row) for row in connection.execute(query.encode(), parameters, binary=True).fetchall()]


def known_topics(projections: Iterable[Projection[Any]]) -> list[str]:
    """Every topic that one of the projections folds."""
    return sorted({topic for projection in projections for topic in projection.topics})


def fold(connection: psycopg.Connection[Any], projection: Projection[Any], rows: Sequence[StoredRow]) -> Folded:
    """Fold the rows that concern the projection; a stream that cannot be folded is a problem, and the others go on.

    ``connection`` has the log, for what events refer to.

    Raises:
        SchemaMismatch: an event cannot be read by this release.
    """
    folded = Folded(projection)
    concerned = [row for row in rows if row.topic in projection.folds_by_topic]
    began = time.perf_counter()
    resolver = Resolver(Codec(EVENTS), projection.folds)
    try:
        events = resolver.resolve(connection, concerned)
    except LogBroken as error:
        folded.problems.append(Problem("log-broken", projection.table, "", "", 0, "", str(error)))
        return folded
    folded.events = len(events)
    failed: dict[tuple[str, str], Problem] = {}
    for _, stream in groupby(events, key=attrgetter("stream")):
        problem = _fold_stream(folded, stream)
        if problem is not None:
            failed.setdefault((problem.topic, problem.code), problem)
    folded.problems += list(failed.values())[:PROBLEMS_MAX]
    folded.took_s = time.perf_counter() - began
    return folded


def _fold_stream(folded: Folded, stream: Iterable[Recorded[Any]]) -> Problem | None:
    projection = folded.projection
    current: dict[str, Version] = {}
    for event in stream:
        folded.seen[event.topic] += 1
        key = projection.key(event)
        before = current[key].row if key in current else None
        try:
            changes = fold_batch(projection, [event], current)
        except FoldFailed as error:
            return Problem("fold-failed", projection.table, "", "", event.seq, event.topic, str(error))
        for version in changes.inserted:
            folded.versions.append(version)
            folded.topics.append(event.topic)
            _remember(folded, event.topic, before, version.row)
    return None


def _remember(folded: Folded, topic: str, before: Any, after: Any) -> None:
    for name in folded.projection.row.__struct_fields__:
        value = getattr(after, name)
        if before is None:
            folded.set_by.setdefault(name, set()).add(topic)
        elif value is not (was := getattr(before, name)) and value != was:
            folded.changed_by.setdefault(name, set()).add(topic)


def put_in(connection: psycopg.Connection[Any], schema: str, folded: Folded) -> Iterator[Problem]:
    """Copy the versions into the table as a rebuild would; each way in which rows do not fit, once.

    ``connection`` is in a transaction; rows that fit are in the table afterwards.
    """
    began = time.perf_counter()
    pairs = list(zip(folded.versions, folded.topics, strict=True))
    first: dict[tuple[str, ...], Problem] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for version, topic, error in islice(_failing(connection, schema, folded.projection, pairs), FAILING_ROWS_MAX):
        place = _place_of(error)
        counts[place] += 1
        if place not in first:
            first[place] = _problem(connection, schema, folded.projection, version, topic, error)
    folded.took_s += time.perf_counter() - began
    for place, one in list(first.items())[:PROBLEMS_MAX]:
        yield replace(one, rows=counts[place])


def _failing(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    pairs: Sequence[tuple[Version, str]],
) -> Iterator[tuple[Version, str, Exception]]:
    """The rows that the table does not take, found by halves; all others are in it afterwards."""
    try:
        with connection.transaction():
            copy_versions(connection, schema, projection, [version for version, _ in pairs])
    except Exception as error:  # noqa: BLE001 - a driver refuses a value with many kinds of error
        if len(pairs) == 1:
            yield (*pairs[0], error)
            return
        half = len(pairs) // 2
        yield from _failing(connection, schema, projection, pairs[:half])
        yield from _failing(connection, schema, projection, pairs[half:])


def _place_of(error: Exception) -> tuple[str, ...]:
    """What makes two refusals the same one."""
    if not isinstance(error, psycopg.Error):
        return (type(error).__name__,)
    return (error.sqlstate or type(error).__name__, error.diag.column_name or "", error.diag.constraint_name or "")


def altered(
    connection: psycopg.Connection[Any], schema: str, folded: Folded, columns: Sequence[str]
) -> Iterator[Problem]:
    """Columns whose type took a value and kept another, as numeric(8,2) does with 0.125; each with its first row."""
    projection = folded.projection
    query = sql.SQL("SELECT t.{}, {} FROM {} AS t").format(
        sql.Identifier(SURROGATE), statements.names(columns, of="t"), sql.Identifier(schema, projection.table)
    )
    stored = {row[0]: row[1:] for row in connection.execute(query)} if columns else {}
    for place, column in enumerate(columns):
        wrong = [
            (version, topic, stored[version.id][place])
            for version, topic in zip(folded.versions, folded.topics, strict=True)
            if version.id in stored and _differs(getattr(version.row, column), stored[version.id][place])
        ]
        if wrong:
            version, topic, kept = wrong[0]
            cause = f"column {column} keeps {kept} where the fold gave {getattr(version.row, column)}"
            yield Problem("value-altered", projection.table, column, "", version.id, topic, cause, len(wrong))


def _differs(given: Any, kept: Any) -> bool:
    """Of values that are comparable as they are; what is stored as JSON is not looked at."""
    return isinstance(given, (Decimal, str, int, datetime)) and bool(given != kept)


_CODES: Final = {
    "23502": "fold-gives-null",
    "23503": "foreign-key-violation",
    "23505": "unique-violation",
    "23514": "check-violation",
}


def _problem(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    version: Version,
    topic: str,
    error: Exception,
) -> Problem:
    diag = error.diag if isinstance(error, psycopg.Error) else None
    code = _CODES.get(getattr(error, "sqlstate", None) or "", "type-mismatch")
    column = str((diag.column_name if diag else "") or "")
    if code == "type-mismatch":
        column = _column_at_fault(connection, schema, projection, version)
    constraint = (diag.constraint_name if diag else "") or ""
    primary = (diag.message_primary if diag else None) or str(error)
    cause = " ".join(primary.split())
    if code == "type-mismatch" and column:
        value = getattr(version.row, column, None)
        cause += f" (column {column}, value {str(value)[:60]!r} of type {type(value).__name__})"
    return Problem(code, projection.table, column, constraint, version.id, topic, cause)


def _column_at_fault(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any], version: Version
) -> str:
    """The first column whose value alone the table's type refuses; "" if it takes each of them."""
    for name in projection.row.__struct_fields__:
        statement = sql.SQL("CREATE TEMP TABLE position_ledger_probe AS SELECT {} FROM {} LIMIT 0").format(
            sql.Identifier(name), sql.Identifier(schema, projection.table)
        )
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(statement)
                _copy_one(connection, name, getattr(version.row, name))
        except Exception:  # noqa: BLE001 - whichever it is, this is the column
            return str(name)
    return ""


def _copy_one(connection: psycopg.Connection[Any], column: str, value: Any) -> None:
    row = connection.execute(
        "SELECT a.atttypid, t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
        "WHERE a.attrelid = to_regclass('pg_temp.position_ledger_probe') AND a.attname = %s",
        (column,),
    ).fetchone()
    oid, name = row or (0, "")
    if name in ("json", "jsonb"):
        return
    target = sql.SQL("COPY pg_temp.position_ledger_probe FROM STDIN (FORMAT BINARY)")
    with connection.cursor() as cursor, cursor.copy(target) as copy:
        copy.set_types([oid])
        copy.write_row([value])
