"""Who may write which shard: leases by the clock of the database, with a fencing token that rises at each change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.domain.errors import LedgerError

LEASE_S = 4.0
"""How long a lease lasts unless renewed; longer than the idle-in-transaction time-out of its holder."""

WORKER_FORGOTTEN_S = 6.0
"""A worker that was not seen for so long does not count when shards are shared out."""

ACQUIRE = """
UPDATE projection_checkpoints AS c
   SET token = c.token + 1, holder = %(holder)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE (c.generation_id, c.shard) IN (
       SELECT f.generation_id, f.shard FROM projection_checkpoints AS f
        WHERE f.generation_id = %(generation)s AND f.lease_until < clock_timestamp()
          AND (%(shards)s::smallint[] IS NULL OR f.shard = ANY(%(shards)s))
        ORDER BY f.shard LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING c.generation_id, c.shard, c.stream_from, c.stream_to, c.position, c.token
"""

RENEW = """
UPDATE projection_checkpoints AS c
   SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
  FROM unnest(%(generations)s::int[], %(shards)s::smallint[], %(tokens)s::bigint[]) AS m (generation, shard, token)
 WHERE c.generation_id = m.generation AND c.shard = m.shard AND c.token = m.token
RETURNING c.generation_id, c.shard
"""

RELEASE = """
UPDATE projection_checkpoints AS c SET holder = NULL, lease_until = '-infinity'
  FROM unnest(%(generations)s::int[], %(shards)s::smallint[], %(tokens)s::bigint[]) AS m (generation, shard, token)
 WHERE c.generation_id = m.generation AND c.shard = m.shard AND c.token = m.token
"""

# The clock first, then the mark, which migration 004 makes a bound for all that was recorded before: hence the OFFSET.
HEARTBEAT = """
INSERT INTO projection_workers AS w (worker, fingerprints, seen_at, mark)
SELECT %(worker)s, %(fingerprints)s, c.now, feed_mark() FROM (SELECT clock_timestamp() AS now OFFSET 0) AS c
ON CONFLICT (worker) DO UPDATE
   SET seen_at = excluded.seen_at, mark = excluded.mark, fingerprints = excluded.fingerprints
"""

HEARTBEAT_BEFORE_017 = """
INSERT INTO projection_workers AS w (worker, fingerprints, seen_at) VALUES (%(worker)s, %(fingerprints)s, clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET seen_at = clock_timestamp(), fingerprints = excluded.fingerprints
"""

# The tightest bound for what was recorded up to a time that any worker has told; null marks: by releases before 017.
TOLD = """
SELECT w.seen_at, (to_jsonb(w) ->> 'mark')::bigint AS mark FROM projection_workers AS w
 WHERE w.seen_at > %s AND to_jsonb(w) ->> 'mark' IS NOT NULL ORDER BY mark, w.seen_at DESC LIMIT 1
"""

WORKERS_ALIVE = """
SELECT w.worker, w.fingerprints FROM projection_workers AS w
 WHERE w.seen_at > clock_timestamp() - make_interval(secs => %s) ORDER BY w.worker COLLATE "C"
"""


class LeaseLost(LedgerError):
    """Another worker holds a shard now: what was about to be written was not, and must be folded again from its rows."""


@dataclass(slots=True)
class Lease:
    """The right to write one shard of one generation. ``position`` is its checkpoint and moves as it is projected."""

    generation_id: int
    shard: int
    stream_from: UUID
    stream_to: UUID
    position: int
    token: int


def acquire(
    connection: psycopg.Connection[Any],
    generation_id: int,
    holder: str,
    *,
    limit: int,
    lease_s: float = LEASE_S,
    shards: Iterable[int] | None = None,
) -> list[Lease]:
    """Take up to ``limit`` shards that nobody holds, of all or of the given ones."""
    wanted = None if shards is None else sorted(shards)
    if limit <= 0 or wanted == []:
        return []
    rows = connection.execute(
        ACQUIRE,
        {"generation": generation_id, "holder": holder, "limit": limit, "lease_s": lease_s, "shards": wanted},
    ).fetchall()
    return [Lease(*row) for row in sorted(rows, key=lambda row: row[1])]


def renew(connection: psycopg.Connection[Any], leases: Sequence[Lease], *, lease_s: float = LEASE_S) -> list[Lease]:
    """Extend leases, of any number of generations; answers those that are still ours."""
    if not leases:
        return []
    ours = set(connection.execute(RENEW, {**marks(leases), "lease_s": lease_s}).fetchall())
    return [lease for lease in leases if (lease.generation_id, lease.shard) in ours]


def release(connection: psycopg.Connection[Any], leases: Sequence[Lease]) -> None:
    """Give leases back; those that are ours no longer are left alone."""
    if leases:
        connection.execute(RELEASE, marks(leases))


def heartbeat(connection: psycopg.Connection[Any], worker: str, fingerprints: Sequence[str]) -> None:
    """Say that a worker with this code is alive, and how far the log is: a standby has no other way to know."""
    told = {"worker": worker, "fingerprints": list(fingerprints)}
    try:
        connection.execute(HEARTBEAT, told)
    except psycopg.errors.UndefinedColumn:  # a database to which migration 017 has not come yet
        connection.execute(HEARTBEAT_BEFORE_017, told)


def told_of(connection: psycopg.Connection[Any], recorded: datetime) -> tuple[datetime, int] | None:
    """A moment after a recorded time, and a number that nothing recorded before that moment exceeds; None: not told yet.

    What workers have written down, so it is true wherever it can be read, on a standby too.
    """
    row = connection.execute(TOLD, (recorded,)).fetchone()
    return None if row is None else (row[0], row[1])


def leave(connection: psycopg.Connection[Any], worker: str) -> None:
    """Say that a worker has ended, and forget those that were lost long ago."""
    connection.execute(
        "DELETE FROM projection_workers WHERE worker = %s OR seen_at < clock_timestamp() - interval '1 hour'", (worker,)
    )


def workers_alive(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """The workers that were seen lately, in the order of their names, by the fingerprints of their code."""
    alive: dict[str, list[str]] = {}
    for worker, fingerprints in connection.execute(WORKERS_ALIVE, (WORKER_FORGOTTEN_S,)).fetchall():
        for fingerprint in fingerprints:
            alive.setdefault(fingerprint, []).append(worker)
    return alive


def fair_share(worker: str, alive: Sequence[str], shards: int) -> frozenset[int]:
    """Which shards a worker should hold among those alive: neighbours, as many as anybody's, rounded up or down.

    The same shards of every generation that the same workers follow, so that one page of the feed serves all of them.
    """
    if worker not in alive:
        return frozenset()
    rank = alive.index(worker)
    return frozenset(shard for shard in range(shards) if shard * len(alive) // shards == rank)


def merged_ranges(leases: Iterable[Lease]) -> list[tuple[UUID, UUID]]:
    """The stream ranges of some shards, neighbours joined: all shards together are one range."""
    ranges: list[tuple[UUID, UUID]] = []
    for lease in sorted(leases, key=lambda lease: lease.stream_from):
        if ranges and ranges[-1][1].int + 1 == lease.stream_from.int:
            ranges[-1] = (ranges[-1][0], lease.stream_to)
        else:
            ranges.append((lease.stream_from, lease.stream_to))
    return ranges


def marks(leases: Sequence[Lease]) -> dict[str, Any]:
    """Generation, shard and token of each lease, as the parameters of a statement."""
    return {
        "generations": [lease.generation_id for lease in leases],
        "shards": [lease.shard for lease in leases],
        "tokens": [lease.token for lease in leases],
    }
