"""When a rebuild stands back: while live tables or replicas are behind, and somebody is at work to bring them up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from position_ledger.projection.lag import lag_of
from position_ledger.store import feed

GO_ON_SHARE = 0.3
"""It goes on when the lag has fallen below this share of the limit: at the limit itself it would stop and go all the time."""

PATIENCE_S = 20.0
"""It stands back for so long at a stretch: what has not been brought up by then, something else holds up."""

TURN_S = 10.0
"""For so long it then goes on all the same, so that a rebuild ends, at a third of its pace, where something always is behind."""

TOLD_EVERY_S = 60.0
"""How often a rebuild that takes such turns says so."""

FOLLOWED = """
SELECT g.projection, g.generation_id, min(c.position) FROM projection_generations AS g
  JOIN projection_checkpoints AS c USING (generation_id)
 WHERE g.state = 'active' AND g.mode = 'worker'
 GROUP BY g.generation_id HAVING bool_or(c.lease_until > clock_timestamp()) AND min(c.position) < %s
"""
# The server keeps the last lag that it has measured, so of a replica that has replayed everything it says what once was.
REPLICAS = """
SELECT coalesce(nullif(r.application_name, ''), 'unnamed'), extract(epoch FROM r.replay_lag)::float8
  FROM pg_stat_replication AS r WHERE r.replay_lag IS NOT NULL AND r.replay_lsn < pg_current_wal_flush_lsn()
"""


@dataclass(frozen=True, slots=True)
class Behind:
    """Something that is behind: its name in words, and by how many seconds."""

    what: str
    lag_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether the load stands back or goes on, and since when, by a monotonic clock in seconds."""

    since: float
    stands_back: bool = False
    is_due: bool = False
    """It goes on although something is behind: it has stood back for long enough."""


def furthest_behind(connection: psycopg.Connection[Any]) -> Behind | None:
    """What is furthest behind of the tables that workers follow and the replicas; None if nothing is.

    A table of which no worker holds a shard is left out: nobody would bring it up while the rebuild waits. So are replicas
    that the user may not see (that needs pg_monitor).
    """
    found = [
        Behind(f"table {table}", lag_of(connection, generation_id, lowest).age_s)
        for table, generation_id, lowest in connection.execute(FOLLOWED, (feed.mark(connection),)).fetchall()
    ]
    found += [Behind(f"replica {name}", lag_s) for name, lag_s in connection.execute(REPLICAS).fetchall()]
    return furthest(found)


def furthest(found: Iterable[Behind]) -> Behind | None:
    """The one with the largest lag; None of none."""
    return max(found, key=lambda one: one.lag_s, default=None)


def stands_back(behind: Behind | None, limit_s: float, *, does_already: bool) -> bool:
    """Whether to stand back now: above the limit, and then until it has fallen well below. No limit (0): never."""
    if behind is None or limit_s <= 0:
        return False
    return behind.lag_s > (limit_s * GO_ON_SHARE if does_already else limit_s)


def turn_after(turn: Turn, behind: Behind | None, limit_s: float, now: float) -> Turn:
    """The turn that follows; the same one while nothing changes."""
    if turn.is_due and now - turn.since < TURN_S:
        return turn
    stands = stands_back(behind, limit_s, does_already=turn.stands_back)
    if stands and turn.stands_back and now - turn.since >= PATIENCE_S:
        return Turn(now, is_due=True)
    return turn if stands == turn.stands_back and not turn.is_due else Turn(now, stands)
