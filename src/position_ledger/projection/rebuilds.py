"""The table `projection_rebuilds`: what each rebuild does, what is wanted of it, and how far it is.

The process that rebuilds writes its row; commands in other terminals write what they want of it; loading processes read
it. A ledger that is on its way through older migrations does not have the table yet: its rebuilds run without a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from position_ledger.database import only_row
from position_ledger.projection.definition import Projection

REBUILD_LOCK = 0x504C52
"""First half of the advisory lock that keeps two rebuilds of one projection apart; the second half is its hash."""

COUNTED_MAX = 200_000
"""A log that is no longer is counted; of a longer one a sample says how much of it concerns a table."""

SAMPLED_BLOCKS = 1_000
"""A sample reads so many blocks, wherever they are. The planner's own knowledge is that of the last ANALYZE: none of a log
that was restored a moment ago, where its guess was a tenth of what was there."""

BLOCKS = "SELECT pg_relation_size('events') / current_setting('block_size')::bigint"
SAMPLE = """
SELECT count(*) FILTER (WHERE e.topic = ANY(%(topics)s))::float8 / nullif(count(*), 0)
  FROM events AS e TABLESAMPLE SYSTEM (%(percent)s)
"""

EXISTS = "SELECT to_regclass('projection_rebuilds') IS NOT NULL"
OPEN = """
INSERT INTO projection_rebuilds AS r (generation_id, projection, state, processes, throttle_per_s, events_total)
VALUES (%(generation)s, %(projection)s, %(state)s, %(processes)s, %(throttle)s, %(total)s)
ON CONFLICT (generation_id) DO UPDATE
   SET state = excluded.state, wanted = 'run', processes = excluded.processes, throttle_per_s = excluded.throttle_per_s,
       next_at = '-infinity', yields_to = NULL, events_per_s = NULL, eta = NULL, finished_at = NULL, problem = NULL,
       events_total = greatest(r.events_total, excluded.events_total), updated_at = clock_timestamp()
"""
ADVANCE = """
UPDATE projection_rebuilds AS r
   SET events_done = %(done)s, events_total = greatest(r.events_total, %(done)s), events_per_s = %(per_s)s,
       eta = clock_timestamp() + make_interval(secs => %(left_s)s), updated_at = clock_timestamp()
 WHERE r.generation_id = %(generation)s
RETURNING r.wanted, r.events_total
"""
ASKED = "SELECT r.wanted FROM projection_rebuilds AS r WHERE r.generation_id = %s"
ENTER = """
UPDATE projection_rebuilds AS r SET state = %(state)s, yields_to = NULL, updated_at = clock_timestamp()
 WHERE r.generation_id = %(generation)s
"""
LOADED = """
UPDATE projection_rebuilds AS r SET events_done = %(events)s, events_total = %(events)s, updated_at = clock_timestamp()
 WHERE r.generation_id = %(generation)s
"""
YIELD = "UPDATE projection_rebuilds AS r SET yields_to = %s, updated_at = clock_timestamp() WHERE r.generation_id = %s"
FINISH = """
UPDATE projection_rebuilds AS r
   SET state = %(state)s, problem = %(problem)s, finished_at = clock_timestamp(), updated_at = clock_timestamp(),
       after_load_s = coalesce(%(after_load_s)s, r.after_load_s), eta = NULL, yields_to = NULL
 WHERE r.generation_id = %(generation)s AND r.finished_at IS NULL
"""
WANT = """
UPDATE projection_rebuilds AS r SET wanted = %(wanted)s
  FROM projection_generations AS g
 WHERE g.generation_id = r.generation_id AND g.state = 'building' AND g.projection = %(table)s
   AND r.finished_at IS NULL
RETURNING r.generation_id
"""
AFTER_THE_LAST = """
SELECT r.after_load_s / r.events_total FROM projection_rebuilds AS r
 WHERE r.projection = %s AND r.state IN ('built', 'done') AND r.after_load_s > 0 AND r.events_total > 0
 ORDER BY r.generation_id DESC LIMIT 1
"""
IS_RUNNING = """
SELECT EXISTS (SELECT FROM pg_locks AS l
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %(lock)s::bigint::oid
                  AND l.objid = (hashtext(%(table)s)::bigint & 4294967295)::oid
                  AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
"""
LATEST = """
SELECT DISTINCT ON (r.projection) r.projection, r.generation_id,
       CASE WHEN r.finished_at IS NULL AND g.state <> 'building' THEN 'cancelled' ELSE r.state END,
       r.wanted, r.processes, r.throttle_per_s, r.yields_to, r.events_done, r.events_total, r.events_per_s, r.eta,
       r.started_at, r.updated_at, r.finished_at, r.problem, g.state = 'building'
  FROM projection_rebuilds AS r JOIN projection_generations AS g USING (generation_id)
 ORDER BY r.projection, r.generation_id DESC
"""
BUILDING = "SELECT g.generation_id FROM projection_generations AS g WHERE g.state = 'building' AND g.projection = %s"
ENDED = frozenset({"built", "done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class RebuildStatus:
    """The last rebuild of a table, as others see it."""

    table: str
    generation_id: int
    state: str
    wanted: str
    processes: int
    throttle_per_s: float | None
    yields_to: str | None
    events_done: int
    events_total: int
    events_per_s: float | None
    eta: datetime | None
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    problem: str | None
    is_kept: bool
    """What it has built is there, and not swapped in."""
    is_running: bool
    """A process is at it; what is neither running nor ended goes on where it was when the command is run again."""


def exist(connection: psycopg.Connection[Any]) -> bool:
    """Whether this ledger has the table: not while it is on its way through the migrations before it."""
    return connection.execute(EXISTS).fetchone() == (True,)


def open_row(
    connection: psycopg.Connection[Any],
    generation_id: int,
    projection: str,
    *,
    state: str,
    processes: int,
    throttle_per_s: float | None,
    total: int,
) -> None:
    """Begin the row of a rebuild, or take up that of one which was interrupted: whoever runs it wants it to run."""
    parameters = {
        "generation": generation_id,
        "projection": projection,
        "state": state,
        "processes": processes,
        "throttle": throttle_per_s,
        "total": total,
    }
    connection.execute(OPEN, parameters)


def finish(
    connection: psycopg.Connection[Any],
    generation_id: int,
    state: str,
    *,
    problem: str | None = None,
    after_load_s: float | None = None,
) -> None:
    """Write down how a rebuild ended, unless it has ended before."""
    parameters = {"generation": generation_id, "state": state, "problem": problem, "after_load_s": after_load_s}
    connection.execute(FINISH, parameters)


def want(connection: psycopg.Connection[Any], table: str, wanted: str) -> int | None:
    """Say what is wanted of the rebuild of a table that has not ended; answers its generation, or None if there is none."""
    row = connection.execute(WANT, {"table": table, "wanted": wanted}).fetchone()
    return None if row is None else int(row[0])


def building(connection: psycopg.Connection[Any], table: str) -> int | None:
    """The generation of the table that is being built, or was when its rebuild was interrupted."""
    row = connection.execute(BUILDING, (table,)).fetchone()
    return None if row is None else int(row[0])


def is_running(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether a process holds the lock of the table's rebuilds."""
    return only_row(connection.execute(IS_RUNNING, {"lock": REBUILD_LOCK, "table": table})) == (True,)


def latest(connection: psycopg.Connection[Any]) -> list[RebuildStatus]:
    """The last rebuild of each table, by table; none in a ledger that does not keep them yet."""
    if not exist(connection):
        return []
    rows = connection.execute(LATEST).fetchall()
    return [RebuildStatus(*(*row, row[2] not in ENDED and is_running(connection, row[0]))) for row in rows]


def after_the_last(connection: psycopg.Connection[Any], table: str) -> float | None:
    """Seconds an event that everything behind the load took the last time; None before the first rebuild has ended."""
    row = connection.execute(AFTER_THE_LAST, (table,)).fetchone() if exist(connection) else None
    return None if row is None else float(row[0])


def to_load(connection: psycopg.Connection[Any], projection: Projection[Any], upto: int) -> int:
    """How many events the table is made from; of a long log an estimate."""
    topics = list(projection.topics)
    if upto <= COUNTED_MAX:
        counting = "SELECT count(*) FROM events AS e WHERE e.topic = ANY(%s) AND e.notification_id <= %s"
        return int(only_row(connection.execute(counting, (topics, upto)))[0])
    blocks = max(1, only_row(connection.execute(BLOCKS))[0])
    percent = min(100.0, 100.0 * SAMPLED_BLOCKS / blocks)
    share = only_row(connection.execute(SAMPLE, {"topics": topics, "percent": percent}))[0]
    return upto if share is None else round(share * upto)
