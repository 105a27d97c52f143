"""One page of the feed into one table or several: fold, expire, insert and move the checkpoints, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import psycopg

from position_ledger.domain.errors import LedgerError
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import GENERATION_LOCK, Generation
from position_ledger.projection.leases import LEASE_S, Lease, LeaseLost, marks, merged_ranges
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Changes, Version, fold_batch
from position_ledger.store import feed
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded

BATCH_EVENTS_MAX = 2_000
ROWS_KEPT_MAX = 50_000
"""Current rows kept in memory by one projector: valid while its leases hold, for then nobody else writes them."""

LOCK_GENERATIONS = "SELECT pg_advisory_xact_lock_shared(%s, m.id) FROM unnest(%s::int[]) AS m (id)"

ADVANCE = """
UPDATE projection_checkpoints AS c
   SET position = %(upto)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
  FROM unnest(%(generations)s::int[], %(shards)s::smallint[], %(tokens)s::bigint[]) AS m (generation, shard, token),
       projection_generations AS g
  JOIN unnest(%(ids)s::int[], %(fingerprints)s::text[]) AS o (generation, fingerprint)
    ON g.generation_id = o.generation AND g.fingerprint = o.fingerprint
 WHERE c.generation_id = m.generation AND c.shard = m.shard AND c.token = m.token AND c.position = %(from)s
   AND g.generation_id = c.generation_id AND g.state <> 'dropped' AND g.mode = 'worker'
RETURNING c.generation_id, g.schema_name
"""


class WriteMismatch(LedgerError):
    """The table does not hold the rows that the log says it holds: it was changed by hand. Verify and rebuild it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one batch did: events read, versions written, and the checkpoint it reached."""

    events: int
    versions: int
    position: int


@dataclass(frozen=True, slots=True)
class Target:
    """One table that a batch is written to, and the events that concern it, in order.

    ``current`` holds current versions that are known to be those of the table; missing ones are loaded into it.
    """

    schema: str
    projection: Projection[Any]
    events: Sequence[Recorded[Any]]
    current: dict[str, Version] = field(default_factory=dict)


class Projector:
    """One generation as it is projected over one connection, with its current rows. Not for sharing between threads.

    ``resolver`` may be shared by all projectors of a connection; it must know the events of each of them.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        generation: Generation,
        projection: Projection[Any],
        codec: Codec,
        *,
        resolver: Resolver | None = None,
    ) -> None:
        self.connection = connection
        self.generation_id = generation.generation_id
        self.fingerprint = generation.fingerprint
        self.projection = projection
        self.resolver = resolver or Resolver(codec, projection.folds)
        self.current: dict[str, Version] = {}

    def forget(self) -> None:
        """Drop what is kept in memory, rows and numbers: whenever leases changed hands.

        Numbers never change in a log, but a test database is emptied, and then streams named by a key begin again.
        """
        self.current.clear()
        self.resolver.forget()

    def project(self, leases: Sequence[Lease], upto: int, *, limit: int = BATCH_EVENTS_MAX) -> Progress:
        """Project one batch of some shards that stand at the same position. Raises as `project_together`."""
        return project_together([Work(self, leases)], upto, limit=limit)


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch does for one generation: which of its shards it moves on."""

    projector: Projector
    leases: Sequence[Lease]


def project_together(works: Sequence[Work], upto: int, *, limit: int = BATCH_EVENTS_MAX) -> Progress:
    """Project one page of the feed into every generation, at most up to ``upto`` (a horizon), all or none.

    All works are of one connection and have the same shards, which all stand at the same position.

    Raises:
        LeaseLost: a shard is no longer ours; nothing was written.
        FoldFailed: a definition cannot fold an event; nothing was written.
        WriteMismatch: a table is not what the log says; nothing was written.
    """
    leases, first = works[0].leases, works[0].projector
    start, connection = leases[0].position, first.connection
    topics = _union(tuple(work.projector.projection.topics for work in works))
    rows = feed.page(connection, after=start, upto=upto, topics=topics, ranges=merged_ranges(leases), limit=limit)
    end = rows[-1].seq if len(rows) == limit else upto
    try:
        events = first.resolver.resolve(connection, rows)
        with connection.transaction():
            schemas = advance(connection, works, start, end)
            changes = apply_all(connection, [_target(work.projector, schemas, events) for work in works])
    except BaseException:
        for work in works:
            work.projector.forget()
        raise
    for work in works:
        for lease in work.leases:
            lease.position = end
        if len(work.projector.current) > ROWS_KEPT_MAX:
            work.projector.forget()
    return Progress(len(events), sum(len(one.inserted) for one in changes), end)


@lru_cache(maxsize=64)
def _union(topics: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(sorted({topic for some in topics for topic in some}))


def _target(projector: Projector, schemas: dict[int, str], events: Sequence[Recorded[Any]]) -> Target:
    projection = projector.projection
    return Target(schemas[projector.generation_id], projection, concerning(projection, events), projector.current)


def concerning(projection: Projection[Any], events: Iterable[Recorded[Any]]) -> list[Recorded[Any]]:
    """The events that a projection folds."""
    folds = projection.folds_by_topic
    return [event for event in events if event.topic in folds]


def advance(connection: psycopg.Connection[Any], works: Sequence[Work], start: int, end: int) -> dict[int, str]:
    """Take the generations' locks and move the checkpoints, first of all: one row for each shard, or abort.

    A generation that went over to other code since we looked (an empty table that was migrated in place) is not ours.
    The locks in the order of their ids, as everybody takes them. Answers the schema of each generation.
    """
    code = {work.projector.generation_id: work.projector.fingerprint for work in works}
    connection.execute(LOCK_GENERATIONS, (GENERATION_LOCK, sorted(code)), prepare=True)
    leases = [lease for work in works for lease in work.leases]
    ours = {"ids": list(code), "fingerprints": list(code.values())}
    moved = connection.execute(
        ADVANCE, {**marks(leases), **ours, "from": start, "upto": end, "lease_s": LEASE_S}, prepare=True
    ).fetchall()
    counts = Counter(row[0] for row in moved)
    for work in works:
        held, found = len(work.leases), counts[work.projector.generation_id]
        if found != held:
            table = work.projector.projection.table
            msg = f"{table}: {held - found} of {held} shards are held by another worker, or by other code"
            raise LeaseLost(msg)
    return dict(moved)


def apply_events(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    events: Sequence[Recorded[Any]],
    current: dict[str, Version],
) -> Changes:
    """As `apply_all`, for one table."""
    return apply_all(connection, [Target(schema, projection, events, current)])[0]


def apply_all(connection: psycopg.Connection[Any], targets: Sequence[Target]) -> list[Changes]:
    """Fold events and write what they change in each table, inside the caller's transaction: two round trips at most.

    Raises:
        FoldFailed, WriteMismatch: the caller must roll back and throw every ``current`` away.
    """
    load_current(connection, targets)
    changes = [fold_batch(one.projection, one.events, one.current) for one in targets]
    written = [(target, some) for target, some in zip(targets, changes, strict=True) if some.inserted]
    if written:
        write_changes(connection, written)
    return changes


def load_current(connection: psycopg.Connection[Any], targets: Sequence[Target]) -> None:
    """Load the stored current versions of the keys that events touch and ``current`` lacks."""
    lacking = [(one, keys) for one in targets if (keys := _lacking(one))]
    asked = [Asked(statements.load_current(one.schema, one.projection), (keys,), binary=True) for one, keys in lacking]
    for (one, _), rows in zip(lacking, in_one_round_trip(connection, asked), strict=True):
        versions = [statements.version_of(one.projection, row) for row in rows]
        one.current.update((version.key, version) for version in versions)


def _lacking(target: Target) -> list[str]:
    return list({target.projection.key(event) for event in target.events} - target.current.keys())


def write_changes(connection: psycopg.Connection[Any], written: Sequence[tuple[Target, Changes]]) -> None:
    """One statement for the whole batch of each table; its counts must be those of the batch."""
    asked = [Asked(statements.write(one.schema, one.projection), _as_written(one, some)) for one, some in written]
    for (one, changes), (answer,) in zip(written, in_one_round_trip(connection, asked), strict=True):
        expected = (len(changes.expired_ids), len(changes.inserted))
        if answer != expected:
            table = one.projection.table
            msg = (
                f"table {one.schema}.{table} is not what the log says: {answer} rows expired and inserted, expected "
                f"{expected}; run position-ledger verify {table}"
            )
            raise WriteMismatch(msg)


def _as_written(target: Target, changes: Changes) -> dict[str, Any]:
    rows = statements.encode_rows(target.projection, changes.inserted)
    return {"ids": changes.expired_ids, "ats": changes.expired_at, "rows": rows}


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement with its parameters."""

    statement: bytes
    parameters: Any
    binary: bool = False


def in_one_round_trip(connection: psycopg.Connection[Any], asked: Sequence[Asked]) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, sent without waiting for the answer of the one before; one alone is sent plainly."""

    def sent() -> list[psycopg.Cursor[Any]]:
        return [connection.execute(one.statement, one.parameters, binary=one.binary) for one in asked]

    if len(asked) > 1:
        with connection.pipeline():
            cursors = sent()
    else:
        cursors = sent()
    return [cursor.fetchall() for cursor in cursors]
