"""One batch of events into one table: fold, expire, insert and move the checkpoint, in one transaction or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from position_ledger.domain.errors import LedgerError
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import GENERATION_LOCK, Generation
from position_ledger.projection.leases import LEASE_S, Lease, LeaseLost, merged_ranges
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Changes, Version, fold_batch
from position_ledger.store import feed
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded

BATCH_EVENTS_MAX = 2_000
ROWS_KEPT_MAX = 50_000
"""Current rows kept in memory by one projector: valid while its leases hold, for then nobody else writes them."""

ADVANCE = """
UPDATE projection_checkpoints AS c
   SET position = %(upto)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
  FROM unnest(%(shards)s::smallint[], %(tokens)s::bigint[]) AS m (shard, token), projection_generations AS g
 WHERE c.generation_id = %(generation)s AND c.shard = m.shard AND c.token = m.token AND c.position = %(from)s
   AND g.generation_id = c.generation_id AND g.state <> 'dropped' AND g.mode = 'worker'
RETURNING g.schema_name
"""


class WriteMismatch(LedgerError):
    """The table does not hold the rows that the log says it holds: it was changed by hand. Verify and rebuild it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one batch did: events folded, versions written, and the checkpoint it reached."""

    events: int
    versions: int
    position: int


class Projector:
    """Projects shards of one generation over one connection. Not for sharing between threads."""

    def __init__(
        self, connection: psycopg.Connection[Any], generation: Generation, projection: Projection[Any], codec: Codec
    ) -> None:
        self._connection = connection
        self._generation_id = generation.generation_id
        self._projection = projection
        self._topics = projection.topics
        self._resolver = Resolver(codec, projection.folds)
        self._current: dict[str, Version] = {}

    def forget(self) -> None:
        """Drop the rows kept in memory: whenever leases changed hands."""
        self._current.clear()

    def project(self, leases: Sequence[Lease], upto: int, *, limit: int = BATCH_EVENTS_MAX) -> Progress:
        """Project one batch of some shards that stand at the same position, at most up to ``upto`` (a horizon).

        Raises:
            LeaseLost: a shard is no longer ours; nothing was written.
            FoldFailed: the definition cannot fold an event; nothing was written.
            WriteMismatch: the table is not what the log says; nothing was written.
        """
        start = leases[0].position
        rows = feed.page(
            self._connection, after=start, upto=upto, topics=self._topics, ranges=merged_ranges(leases), limit=limit
        )
        end = rows[-1].seq if len(rows) == limit else upto
        try:
            events = self._resolver.resolve(self._connection, rows)
            with self._connection.transaction():
                schema = self._advance(leases, start, end)
                changes = apply_events(self._connection, schema, self._projection, events, self._current)
        except BaseException:
            self.forget()
            raise
        for lease in leases:
            lease.position = end
        if len(self._current) > ROWS_KEPT_MAX:
            self.forget()
        return Progress(len(events), len(changes.inserted), end)

    def _advance(self, leases: Sequence[Lease], start: int, end: int) -> str:
        """Take the generation's lock and move the checkpoints, first of all: one row for each shard, or abort."""
        self._connection.execute(
            "SELECT pg_advisory_xact_lock_shared(%s, %s)", (GENERATION_LOCK, self._generation_id), prepare=True
        )
        moved = self._connection.execute(
            ADVANCE,
            {
                "generation": self._generation_id,
                "shards": [lease.shard for lease in leases],
                "tokens": [lease.token for lease in leases],
                "from": start,
                "upto": end,
                "lease_s": LEASE_S,
            },
            prepare=True,
        ).fetchall()
        if len(moved) != len(leases):
            msg = f"{self._projection.table}: {len(leases) - len(moved)} of {len(leases)} shards are held by another worker"
            raise LeaseLost(msg)
        return str(moved[0][0])


def apply_events(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    events: Sequence[Recorded[Any]],
    current: dict[str, Version],
) -> Changes:
    """Fold events and write what they change, inside the caller's transaction.

    ``current`` holds current versions that are known to be those of the table; missing ones are loaded into it.

    Raises:
        FoldFailed, WriteMismatch: the caller must roll back and throw ``current`` away.
    """
    if not events:
        return Changes()
    load_current(connection, schema, projection, events, current)
    changes = fold_batch(projection, events, current)
    if changes.inserted:
        write_changes(connection, schema, projection, changes)
    return changes


def load_current(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    events: Sequence[Recorded[Any]],
    current: dict[str, Version],
) -> None:
    """Load the stored current versions of the keys that events touch and ``current`` lacks."""
    wanted = {projection.key(event) for event in events} - current.keys()
    if not wanted:
        return
    rows = connection.execute(statements.load_current(schema, projection), (list(wanted),), binary=True).fetchall()
    versions = [statements.version_of(projection, row) for row in rows]
    current.update((version.key, version) for version in versions)


def write_changes(
    connection: psycopg.Connection[Any], schema: str, projection: Projection[Any], changes: Changes
) -> None:
    """One statement for the whole batch; its counts must be those of the batch."""
    answer = connection.execute(
        statements.write(schema, projection),
        {
            "ids": changes.expired_ids,
            "ats": changes.expired_at,
            "rows": statements.encode_rows(projection, changes.inserted),
        },
    ).fetchone()
    if answer != (len(changes.expired_ids), len(changes.inserted)):
        msg = (
            f"table {schema}.{projection.table} is not what the log says: {answer} rows expired and inserted, expected "
            f"{(len(changes.expired_ids), len(changes.inserted))}; run position-ledger verify {projection.table}"
        )
        raise WriteMismatch(msg)
