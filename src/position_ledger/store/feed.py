"""The feed: every event once, in order, though numbers are handed out before commit and commits overtake each other.

The horizon is what makes it lossless (docs/ARCHITECTURE.md, The log and its feed). It needs three statements, each
with a snapshot of its own, on a connection in autocommit or READ COMMITTED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from position_ledger.database import only_row
from position_ledger.errors import ConfigurationError

LOWEST_STREAM = UUID(int=0)
HIGHEST_STREAM = UUID(int=2**128 - 1)

MARK = "SELECT feed_mark()"

# The shared advisory locks of appends in flight: the namespace in the upper 16 bits of classid, the number before
# theirs in the lower 16 bits of classid and in objid. objsubid 1 means: a lock with one 64-bit key.
LOWEST_IN_FLIGHT = """
SELECT min(((l.classid::bigint & 65535) << 32) | l.objid::bigint)
  FROM pg_locks AS l
 WHERE l.locktype = 'advisory' AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND (l.classid::bigint >> 16) = (SELECT f.namespace FROM feed AS f)
"""

PAGE = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at
  FROM events AS e
 WHERE e.notification_id > %(after)s AND e.notification_id <= %(upto)s AND e.topic = ANY(%(topics)s)
   AND EXISTS (SELECT FROM unnest(%(from)s::uuid[], %(to)s::uuid[]) AS r (low, high)
                WHERE e.originator_id BETWEEN r.low AND r.high)
 ORDER BY e.notification_id LIMIT %(limit)s
"""

WHO_HOLDS = """
SELECT a.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s, a.state, a.query
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND (l.classid::bigint >> 16) = (SELECT f.namespace FROM feed AS f)
   AND a.xact_start < clock_timestamp() - make_interval(secs => %s)
 ORDER BY a.xact_start LIMIT 10
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A transaction that holds the horizon back: an append that has neither committed nor gone."""

    pid: int
    application: str
    age_s: float
    state: str
    query: str


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """One event as stored. Times are aware, UTC."""

    seq: int
    stream: UUID
    version: int
    topic: str
    state: bytes
    recorded_at: datetime
    effective_at: datetime


def is_standby(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server replays another one: what it has replayed is true, what is in flight there it cannot know."""
    return bool(only_row(connection.execute("SELECT pg_is_in_recovery()"))[0])


def check_connection(connection: psycopg.Connection[Any]) -> None:
    """Refuse a server on which the feed would not be whole.

    Raises:
        ConfigurationError: a standby, whose pg_locks do not show the primary's appends.
    """
    if is_standby(connection):
        msg = (
            "the feed cannot be followed on a standby: connect to the primary; a ledger with the setting read_only reads "
            "what was replayed"
        )
        raise ConfigurationError(msg)


def mark(connection: psycopg.Connection[Any]) -> int:
    """The highest number handed out so far; events up to it may still be in flight."""
    row = only_row(connection.execute(MARK, prepare=True))
    return int(row[0])


def horizon(connection: psycopg.Connection[Any], *, known_mark: int | None = None) -> int:
    """The number up to which every event is visible or will never exist. Read pages only after this returns.

    Never call it inside REPEATABLE READ, and never wait for it to advance while holding a lock.
    """
    upper = mark(connection) if known_mark is None else known_mark
    row = only_row(connection.execute(LOWEST_IN_FLIGHT, prepare=True))
    return upper if row[0] is None else min(upper, int(row[0]))


def page(
    connection: psycopg.Connection[Any],
    *,
    after: int,
    upto: int,
    topics: Sequence[str],
    ranges: Sequence[tuple[UUID, UUID]] = ((LOWEST_STREAM, HIGHEST_STREAM),),
    limit: int,
) -> list[StoredRow]:
    """Events with ``after < seq <= upto`` of the given topics and stream ranges (both ends included), in order.

    ``upto`` must come from `horizon`. A page with fewer rows than ``limit`` has reached ``upto``.
    """
    rows = connection.execute(
        PAGE,
        {
            "after": after,
            "upto": upto,
            "topics": list(topics),
            "from": [low for low, _ in ranges],
            "to": [high for _, high in ranges],
            "limit": limit,
        },
        prepare=True,
        binary=True,
    ).fetchall()
    return [StoredRow(*row) for row in rows]


def holders(connection: psycopg.Connection[Any], *, older_than_s: float = 2.0) -> list[Holder]:
    """Who has held the horizon back for longer than that, oldest first; empty without the pg_read_all_stats right."""
    return [Holder(*row) for row in connection.execute(WHO_HOLDS, (older_than_s,)).fetchall()]
