"""Walking over all streams in small steps: what each step folds, and what of it is to be compared. No database writes.

A step reads a bounded number of events in the order of streams. A stream that is longer is carried on in the next step: its
current versions stay in memory, and only those that ended are compared until its last event is reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.errors import SchemaMismatch
from position_ledger.projection.definition import Projection
from position_ledger.projection.projector import concerning
from position_ledger.projection.references import LogBroken, Resolver
from position_ledger.projection.scd2 import FoldFailed, Version, fold_batch
from position_ledger.projection.snapshots import Reach
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import LOWEST_STREAM, StoredRow

STEP = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at
  FROM events AS e
 WHERE (e.originator_id, e.originator_version) > (%(stream)s, %(version)s)
 ORDER BY e.originator_id, e.originator_version LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the walk is: after a version of a stream.

    ``carried`` has the current rows of that stream as folded so far, by table; None where it could not be folded.
    """

    stream: UUID = LOWEST_STREAM
    version: int = 0
    carried: Mapping[str, dict[str, Version] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audited:
    """One table: its definition, and up to which number each range of streams is in it."""

    projection: Projection[Any]
    reach: Reach

    def has(self, row: StoredRow) -> bool:
        """Whether an event that concerns the table is in it."""
        return row.seq <= self.reach.of_stream(row.stream).upto


@dataclass(frozen=True, slots=True)
class Unfit:
    """Events of a stream that give no rows: the number of the first, and why."""

    table: str
    seq: int
    why: str


@dataclass(slots=True)
class Step:
    """What one step found that the tables should have."""

    events: int
    """How many were read."""
    cursor: Cursor
    """Where the next step begins."""
    is_round: bool
    """No stream is left: the next step begins at the first."""
    versions: dict[str, list[Version]]
    """By table, in order of key and version: those whose end is known, and those that have none."""
    unfit: list[Unfit] = field(default_factory=list)
    unversioned: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the events that were folded and make no version, by table."""


def step(
    connection: psycopg.Connection[Any], tables: Sequence[Audited], resolver: Resolver, cursor: Cursor, limit: int
) -> Step:
    """Read at most so many events after the cursor, in the snapshot of the connection, and fold them for every table."""
    parameters = {"stream": cursor.stream, "version": cursor.version, "limit": limit}
    rows = [StoredRow(*row) for row in connection.execute(STEP, parameters, prepare=True, binary=True).fetchall()]
    result = Step(len(rows), Cursor(), len(rows) < limit, {one.projection.table: [] for one in tables})
    if cursor.carried and (not rows or rows[0].stream != cursor.stream):
        _end(result, cursor.carried)
        cursor = Cursor()
    if result.is_round:
        kept: Sequence[StoredRow] = rows
    elif rows[0].stream != rows[-1].stream:
        result.cursor = Cursor(rows[-1].stream)  # it may go on beyond this page: the next one begins with it
        kept = [row for row in rows if row.stream != rows[-1].stream]
    else:
        kept = _projected(rows, tables)
        return _carry(connection, tables, resolver, cursor, rows[0].stream, kept, result)
    unended = cursor.carried
    for stream, events in _by_stream(connection, resolver, kept, tables, result):
        carried = cursor.carried if stream == cursor.stream else {}
        unended = {} if stream == cursor.stream else unended
        _end(result, _folded(tables, events, carried, result))
    _end(result, unended)  # what else happened in that stream concerns no table
    return result


def _carry(
    connection: psycopg.Connection[Any],
    tables: Sequence[Audited],
    resolver: Resolver,
    cursor: Cursor,
    stream: UUID,
    rows: Sequence[StoredRow],
    result: Step,
) -> Step:
    """A page of one stream, which goes on: what is current is not compared yet."""
    carried = cursor.carried if stream == cursor.stream else {}
    for _, events in _by_stream(connection, resolver, rows, tables, result):
        carried = _folded(tables, events, carried, result)
    begun = cursor.version if stream == cursor.stream else 0
    result.cursor = Cursor(stream, rows[-1].version if rows else begun, carried)
    return result


def _projected(rows: Sequence[StoredRow], tables: Sequence[Audited]) -> Sequence[StoredRow]:
    """The rows up to the first that some table does not have yet: the walk waits there, or it would pass over it."""
    for place, row in enumerate(rows):
        if any(row.topic in one.projection.folds_by_topic and not one.has(row) for one in tables):
            return rows[:place]
    return rows


def _by_stream(
    connection: psycopg.Connection[Any],
    resolver: Resolver,
    rows: Sequence[StoredRow],
    tables: Sequence[Audited],
    result: Step,
) -> Iterator[tuple[UUID, list[Recorded[Any]]]]:
    """The events of each stream; of one that cannot be read, none, and that is told."""
    topics = {topic for one in tables for topic in one.projection.topics}
    heard = [row for row in rows if row.topic in topics]
    try:
        events = resolver.resolve(connection, heard)
    except (LogBroken, SchemaMismatch):
        for stream, some in groupby(heard, key=attrgetter("stream")):
            of_stream = list(some)
            try:
                yield stream, resolver.resolve(connection, of_stream)
            except (LogBroken, SchemaMismatch) as error:
                yield stream, []
                result.unfit += [
                    Unfit(one.projection.table, of_stream[0].seq, str(error))
                    for one in tables
                    if any(row.topic in one.projection.folds_by_topic for row in of_stream)
                ]
        return
    for stream, of_one in groupby(events, key=attrgetter("stream")):
        yield stream, list(of_one)


def _folded(
    tables: Sequence[Audited],
    events: Sequence[Recorded[Any]],
    carried: Mapping[str, dict[str, Version] | None],
    result: Step,
) -> dict[str, dict[str, Version] | None]:
    """Fold more events of one stream for every table; answers what is current after them, nothing if there are none."""
    if not events:
        return {}
    after: dict[str, dict[str, Version] | None] = {}
    for one in tables:
        table = one.projection.table
        current = carried.get(table, {})
        upto = one.reach.of_stream(events[0].stream).upto
        some = [event for event in concerning(one.projection, events) if event.seq <= upto]
        if current is not None and some:
            before = list(current.values())
            try:
                changes = fold_batch(one.projection, some, current)
            except FoldFailed as error:
                result.unfit.append(Unfit(table, some[0].seq, str(error)))
                current = None
            else:
                made = {version.id for version in changes.inserted}
                result.unversioned.setdefault(table, []).extend(event.seq for event in some if event.seq not in made)
                result.versions[table] += [one for one in (*before, *changes.inserted) if one.expires is not None]
        after[table] = current
    return after


def _end(result: Step, current: Mapping[str, dict[str, Version] | None]) -> None:
    """The stream has ended: what is current is to be compared as such."""
    for table, rows in current.items():
        if rows and table in result.versions:
            result.versions[table] += rows.values()
