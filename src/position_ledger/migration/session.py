"""One database session that holds the migration lock: it is polled for, never waited in, and dies with its runner.

A session blocked inside pg_advisory_lock keeps a snapshot, and CREATE INDEX CONCURRENTLY waits for that snapshot: a
deadlock. Polling pg_try_advisory_lock on an autocommit session holds nothing between two tries.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import tenacity
from psycopg import sql

from position_ledger.errors import DatabaseUnavailable, MigrationError
from position_ledger.sessions import CLIENT_LIMITS, pin, require_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

__all__ = [
    "Connection",
    "Limits",
    "LockHolder",
    "lock_blockers",
    "lock_holder",
    "lock_key",
    "migration_session",
    "open_session",
    "use_schema",
]

Connection = psycopg.Connection[tuple[object, ...]]

# Before every file. A role's own time-outs are for its everyday work. Nothing ends a
# migration that waits, but one whose machine is gone must not keep its locks: the server asks whether it is there.
_FRESH = sql.SQL("""
    RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET search_path = {}, pg_catalog;
    SET statement_timeout = 0;
""")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a migration waits for whom, in milliseconds or seconds.

    A statement that waits for a lock makes every later reader of the table wait behind it, hence the short
    ``lock_timeout_ms`` and the many tries: ``retry_budget_s`` bounds them all together.
    """

    connect_timeout_s: int = 10
    migration_lock_wait_s: float = 60.0
    lock_timeout_ms: int = 100
    retry_budget_s: float = 60.0
    retry_pause_max_s: float = 2.0


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The session that holds the migration lock."""

    pid: int
    application: str
    host: str
    since: datetime | None

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return f"server process {self.pid} ({self.application or 'unnamed'}, host {self.host}){since}"


def lock_key(database: str, schema: str) -> tuple[int, int]:
    """The two int4 of the advisory lock; one pair per database and schema."""
    first, second = struct.unpack(
        ">ii", hashlib.sha256(f"position_ledger.migration\0{database}\0{schema}".encode()).digest()[:8]
    )
    return first, second


@contextlib.contextmanager
def open_session(conninfo: str, limits: Limits) -> Iterator[Connection]:
    """Yield an autocommit connection; raise DatabaseUnavailable when the server does not answer or goes away.

    An error of the driver that nobody inside has explained leaves as a MigrationError.
    """
    wanted: dict[str, Any] = {
        "prepare_threshold": None,
        "connect_timeout": limits.connect_timeout_s,
        "client_encoding": "utf8",
        **CLIENT_LIMITS,
        "application_name": f"position-ledger migrate {socket.gethostname()[:24]} {os.getpid()}",
    }
    try:
        connection = psycopg.connect(conninfo, autocommit=True, **wanted)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"the database refused the connection or did not answer: {one_line(error)}"
        ) from error
    with contextlib.closing(connection):
        try:
            require_session(connection, conninfo, wanted)
            pin(connection)
            yield connection
        except psycopg.Error as error:
            if not connection.broken:
                raise MigrationError(
                    f"a step of the migration failed: {one_line(error)}; it was not kept, "
                    "see `position-ledger migrate status`"
                ) from error
            raise DatabaseUnavailable(
                f"the connection was lost while migrating ({one_line(error)}); "
                "each file is applied whole or not at all: see `position-ledger migrate status`, then run it again"
            ) from error


def one_line(error: BaseException) -> str:
    """An error of the driver as one line."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def migration_session(
    conninfo: str, schema: str, limits: Limits, tell: Callable[[str], None] = lambda _message: None
) -> Iterator[Connection]:
    """Yield the session that holds the migration lock of schema; raise MigrationError naming the holder after the wait.

    ``tell`` hears for whom it waits, as soon as it has to.

    The lock belongs to the session: a killed runner loses it as soon as the server notices, and the server looks every
    two seconds even while a statement of the dead runner is at work.
    """
    with open_session(conninfo, limits) as connection:
        use_schema(connection, schema)
        key = lock_key(connection.info.dbname, schema)
        _take_lock(connection, key, schema, limits.migration_lock_wait_s, tell)
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.execute("SELECT pg_advisory_unlock(%s::int4, %s::int4)", key)


def use_schema(connection: Connection, schema: str) -> None:
    """Put the session back to what every migration file starts from: nothing set but our own path and time-outs."""
    connection.execute(_FRESH.format(sql.Identifier(schema)), prepare=False)
    pin(connection)


def _take_lock(
    connection: Connection, key: tuple[int, int], schema: str, wait_s: float, tell: Callable[[str], None]
) -> None:
    if _try_lock(connection, key):
        return
    running = lock_holder(connection, key) or "it ended just now"
    tell(f"waiting up to {wait_s:g} s for the migration of schema {schema} that is running: {running}")
    polling = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda taken: not taken),
        wait=tenacity.wait_random(0.05, 0.2),
        stop=tenacity.stop_after_delay(wait_s),
    )
    try:
        polling(_try_lock, connection, key)
    except tenacity.RetryError as error:
        holder = lock_holder(connection, key)
        raise MigrationError(
            f"another migration of schema {schema} is running: {holder or 'it ended just now'}; waited {wait_s:g} s, "
            "run the command again when it is done"
        ) from error


def _try_lock(connection: Connection, key: tuple[int, int]) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s::int4, %s::int4)", key).fetchone()
    return row is not None and row[0] is True


def lock_holder(connection: Connection, key: tuple[int, int]) -> LockHolder | None:
    """Who holds the migration lock now; None when nobody does."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.client_hostname, host(a.client_addr), 'local'),
                   a.backend_start
            FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
              AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
              AND l.classid = (%s::bigint & 4294967295)::oid AND l.objid = (%s::bigint & 4294967295)::oid
            """,
            key,
        )
        row = cursor.fetchone()
    return LockHolder(*row) if row else None  # type: ignore[arg-type]


def lock_blockers(connection: Connection, schema: str) -> str:
    """The sessions that hold locks on relations of schema, oldest transaction first, as text; "" when there is none."""
    rows = connection.execute(
        """
        SELECT DISTINCT a.xact_start,
               format('server process %%s (%%s, role %%s, transaction open for %%s s: %%s)', a.pid,
                      coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename,
               coalesce(round(extract(epoch FROM clock_timestamp() - a.xact_start), 1)::text, '?'),
                               coalesce(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80), '?'))
          FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
          JOIN pg_catalog.pg_class c ON l.locktype = 'relation' AND c.oid = l.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE l.granted AND n.nspname = %s AND l.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
         ORDER BY a.xact_start
         LIMIT 3
        """,
        [schema],
    ).fetchall()
    return ", ".join(str(row[1]) for row in rows)
