"""What the ledger is doing now: servers, schema, how far behind each projection is, and who holds the feed back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from psycopg import sql

from position_ledger.auditing.state import AuditStatus, audits, findings
from position_ledger.database import connect, first_line, translated
from position_ledger.errors import LedgerError
from position_ledger.operations import around_of, definition_states, migration_status
from position_ledger.projection.definition import load_projections
from position_ledger.projection.differences import Difference
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.lag import Lag, lag_of
from position_ledger.projection.leases import WORKER_FORGOTTEN_S
from position_ledger.projection.rebuilds import RebuildStatus, latest
from position_ledger.setup import masked
from position_ledger.store import feed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.checking.definitions import State
    from position_ledger.settings import Settings
    from position_ledger.setup import Reached

EVENTS_COUNTED_MAX = 1_000_000
"""Beyond that the number of events is the estimate of the planner: status must stay cheap."""

REDIS_TIMEOUT_S = 3.0

GENERATIONS = """
SELECT g.generation_id, g.projection, g.fingerprint, g.state, g.mode, g.release, g.schema_name, min(c.position),
       count(c.shard), count(c.shard) FILTER (WHERE c.lease_until >= clock_timestamp()),
       (to_jsonb(g) ->> 'kept_until')::timestamptz
  FROM projection_generations AS g LEFT JOIN projection_checkpoints AS c USING (generation_id)
 WHERE g.state <> 'dropped'
 GROUP BY g.generation_id ORDER BY g.projection, g.generation_id
"""

WORKERS = """
SELECT w.worker, w.started_at, extract(epoch FROM clock_timestamp() - w.seen_at)::float8, w.fingerprints
  FROM projection_workers AS w WHERE w.seen_at > clock_timestamp() - make_interval(secs => %s) ORDER BY w.worker
"""

OVERDRAWN_MAX = 10
"""Accounts that are shown; the worst first."""

HAS_BALANCES = "SELECT to_regclass('account_balance') IS NOT NULL"
OVERDRAWN = """
SELECT b.balance_id, b.execution_environment, b.account_id, b.currency, b.free FROM account_balance AS b
 WHERE b.row_current_ind AND b.is_cash_controlled AND b.free < 0 ORDER BY b.free, b.balance_id LIMIT %s
"""

SERVER = "SELECT current_setting('server_version'), current_database(), session_user::text, pg_is_in_recovery()"
ESTIMATE = "SELECT c.reltuples::bigint FROM pg_class AS c WHERE c.oid = 'events'::regclass"


@dataclass(frozen=True, slots=True)
class Server:
    """One server, or what is wrong with it."""

    kind: str
    address: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """One generation of one table."""

    table: str
    generation_id: int
    fingerprint: str
    is_ours: bool
    """It belongs to the code that asks."""
    state: str
    mode: str
    release: str
    position: int | None
    """Every event up to here is in the table; None while it is being loaded."""
    lag_events: int
    lag_s: float
    lag_is_more: bool
    shards: int
    shards_held: int
    kept_until: datetime | None = None
    """Of a retired one: until when one can go back to it."""

    @property
    def shards_free(self) -> int:
        """Shards that no worker holds."""
        return self.shards - self.shards_held


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process that was seen lately."""

    name: str
    started_at: datetime
    seen_s: float
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Overdrawn:
    """An account that owes its venue money: facts are never refused for lack of it."""

    balance_id: str
    environment: str
    account: str
    currency: str
    free: Decimal


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """Everything at one moment, by the clock of the database."""

    servers: tuple[Server, ...]
    is_embedded: bool
    database: str
    user: str
    is_standby: bool
    schema: str
    schema_version: str | None
    migrations_pending: int
    migrations_unknown: int
    events: int
    events_is_estimate: bool
    mark: int
    horizon: int | None
    """The number up to which the log is whole; None on a standby, which cannot know what is in flight on the primary."""
    holders: tuple[feed.Holder, ...]
    projections: tuple[ProjectionStatus, ...]
    workers: tuple[Worker, ...]
    queue_length: int | None
    overdrawn: tuple[Overdrawn, ...] = ()
    """The worst first, at most OVERDRAWN_MAX."""
    definitions: tuple[State, ...] = ()
    """How the code that asks stands to each table: current, to be rebuilt and why, or for newer code."""
    audits: tuple[AuditStatus, ...] = ()
    differences: tuple[Difference, ...] = ()
    """Rows of live tables that the audit found to differ from the log, the first of them."""
    rebuilds: tuple[RebuildStatus, ...] = ()
    """The last one of each table."""


def read_status(settings: Settings, reached: Reached) -> LedgerStatus:
    """Look at everything once; cheap enough to repeat every second.

    Raises:
        DatabaseUnavailable, SchemaMismatch: no database, or none with the schema. A missing Redis is in the answer.
    """
    migrations = migration_status(settings, reached)
    versions = migrations.rows
    ours = {fingerprint_of(projection) for projection in load_projections(settings.projections)}
    redis_server, queue_length = read_redis(reached.redis_url, settings.ledger_schema)
    url, name = reached.database_url, "position-ledger status"
    with translated(), closing(connect(url, settings, as_app=False, name=name)) as link:
        version, database, user, is_standby = _one(link, SERVER)
        applied = [row for row in versions if row.applied is not None]
        mark = feed.mark(link)
        events, is_estimate = count_events(link, mark)
        return LedgerStatus(
            servers=(Server("PostgreSQL", masked(reached.database_url), version.split()[0]), redis_server),
            is_embedded=reached.servers is not None,
            database=database,
            user=user,
            is_standby=is_standby,
            schema=settings.ledger_schema,
            schema_version=max(applied, key=lambda row: row.number).name if applied else None,
            migrations_pending=sum(row.state in {"pending", "running", "expanded", "building"} for row in versions),
            migrations_unknown=sum(row.state == "unknown" for row in versions),
            events=events,
            events_is_estimate=is_estimate,
            mark=mark,
            horizon=None if is_standby else feed.horizon(link, known_mark=mark),
            holders=tuple(feed.holders(link)),
            projections=tuple(_projections(link, ours)),
            workers=tuple(_workers(link, ours)),
            queue_length=queue_length,
            overdrawn=tuple(_overdrawn(link)),
            definitions=definition_states(link, settings, around_of(migrations)),
            audits=tuple(audits(link)),
            differences=tuple(findings(link)),
            rebuilds=tuple(latest(link)),
        )


def _one(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(sql.SQL(query)).fetchone()
    if row is None:
        msg = f"the database answered nothing to: {query}"
        raise LedgerError(msg)
    return tuple(row)


def count_events(connection: psycopg.Connection[Any], mark: int) -> tuple[int, bool]:
    """How many events there are, and whether that is an estimate."""
    if mark > EVENTS_COUNTED_MAX:
        estimate = int(_one(connection, ESTIMATE)[0])
        if estimate >= 0:
            return estimate, True
    return int(_one(connection, "SELECT count(e.notification_id) FROM events AS e")[0]), False


def _projections(connection: psycopg.Connection[Any], ours: set[str]) -> list[ProjectionStatus]:
    return [_projection(connection, row, ours) for row in connection.execute(GENERATIONS).fetchall()]


def _projection(connection: psycopg.Connection[Any], row: Sequence[Any], ours: set[str]) -> ProjectionStatus:
    generation_id, table, fingerprint, state, mode, release, _schema, position, shards, held, kept_until = row
    is_followed = mode == "worker" and position is not None
    behind = lag_of(connection, generation_id, position) if is_followed else Lag(0, 0.0)
    return ProjectionStatus(
        table=table,
        generation_id=generation_id,
        fingerprint=fingerprint,
        is_ours=fingerprint in ours,
        state=state,
        mode=mode,
        release=release,
        position=position,
        lag_events=behind.events,
        lag_s=behind.age_s,
        lag_is_more=behind.is_more,
        shards=shards,
        shards_held=held,
        kept_until=kept_until,
    )


def _workers(connection: psycopg.Connection[Any], ours: set[str]) -> list[Worker]:
    rows = connection.execute(WORKERS, (WORKER_FORGOTTEN_S,)).fetchall()
    return [
        Worker(name, started_at, round(seen_s, 3), bool(ours & set(fingerprints)))
        for name, started_at, seen_s, fingerprints in rows
    ]


def _overdrawn(connection: psycopg.Connection[Any]) -> list[Overdrawn]:
    if not _one(connection, HAS_BALANCES)[0]:
        return []
    return [Overdrawn(*row) for row in connection.execute(OVERDRAWN, (OVERDRAWN_MAX,)).fetchall()]


def read_redis(url: str, schema: str) -> tuple[Server, int | None]:
    """The server of the queue and the messages in it; a server that does not answer is told, not raised."""
    try:
        with redis.Redis.from_url(
            url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, decode_responses=True
        ) as client:
            facts: Any = client.info("server")
            queue = f"dramatiq:position-ledger.{schema}"
            length = sum(int(str(client.llen(name))) for name in (queue, f"{queue}.DQ"))
    except (redis.RedisError, OSError, ValueError) as error:
        return Server("Redis", masked(url), None, first_line(error)), None
    kind, version = (
        ("Valkey", facts["valkey_version"]) if "valkey_version" in facts else ("Redis", facts["redis_version"])
    )
    return Server(kind, masked(url), version), length
