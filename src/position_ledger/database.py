"""Connections: how every process of the ledger meets the database, and how driver errors become ours."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from position_ledger.errors import ConfigurationError, DatabaseUnavailable, LedgerError, SchemaMismatch
from position_ledger.sessions import CLIENT_LIMITS, NOT_KEPT, is_alive, pin, require_alive, require_session
from position_ledger.settings import Settings

APP_ROLE = "position_ledger_app"
"""What trading and worker processes run as: appends, projects and reads, and can change nothing that is written."""

IDLE_IN_TRANSACTION_TIMEOUT_S = 2.0
"""An append or projecting transaction left open holds the feed or a lease: the server ends it after this time."""

SERVER_VERSION_MIN = 15_00_00
Connection = psycopg.Connection[tuple[object, ...]]


def process_name() -> str:
    """Names this process for pg_stat_activity and leases: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def connect(url: str, settings: Settings, *, as_app: bool, name: str = "position-ledger") -> Connection:
    """One autocommit connection with a session of its own, prepared by `prepare`.

    Raises:
        DatabaseUnavailable: no answer, or the server refused; names where.
        ConfigurationError: a pooler in between does not keep the session, or the server is too old.
    """
    limits = _limits(settings, name)
    with translated():
        connection = psycopg.connect(url, autocommit=True, **limits)
        try:
            require_session(connection, url, limits)
            prepare(connection, settings, as_app=as_app)
        except BaseException:
            connection.close()
            raise
        return connection


def _limits(settings: Settings, name: str) -> dict[str, Any]:
    """What libpq is told: a server that is gone without a word is noticed in seconds, not in hours."""
    return {
        "application_name": name,
        "connect_timeout": max(2, round(settings.connect_timeout_s)),
        "client_encoding": "utf8",
        **CLIENT_LIMITS,
    }


def open_pool(
    url: str, settings: Settings, *, name: str = "position-ledger", row_factory: Any = tuple_row
) -> ConnectionPool[Connection]:
    """A pool of app connections. Opens at once, so that a wrong address is told at start."""

    def configure(connection: Connection) -> None:
        prepare(connection, settings, as_app=True)

    connect(url, settings, as_app=True, name=name).close()
    return ConnectionPool(
        url,
        connection_class=psycopg.Connection,
        kwargs={"autocommit": True, "row_factory": row_factory, **_limits(settings, name)},
        configure=configure,
        check=require_alive,
        min_size=1,
        max_size=settings.pool_size_max,
        timeout=settings.connect_timeout_s,
        max_idle=300.0,
        reconnect_timeout=60.0,
        open=True,
    )


KEPT_USES_MAX = 10_000
"""How often a connection is lent before the pool has it back, to retire it when it is old."""

LOOKED_AT_AFTER_S = 0.01
"""A connection that has waited for longer is looked at before it is lent: no server is back so soon (a small one is after 90 ms).
Who calls all the time pays nothing for it."""


class Connections:
    """Lends connections of a pool, the last one used first, at a fraction of what the pool's own checkout costs.

    The pool opens, configures, replaces and retires connections; in between, those that come back whole wait here. Safe
    for threads.
    """

    def __init__(self, pool: ConnectionPool[Connection]) -> None:
        self._pool = pool
        self._waiting: deque[tuple[Connection, int, float]] = deque()
        self._at_pool = 0
        """Takers that wait at the pool, or are about to: what comes back then goes there."""
        self._counting = threading.Lock()
        self._is_closed = False

    def lent(self) -> Lent:
        """A connection for the length of a with block."""
        return Lent(self)

    def take(self) -> tuple[Connection, int]:
        """A connection, and how often it was lent; waits for one within the limit of the pool."""
        if kept := self._kept():
            return kept
        self._count(1)
        try:
            # One may have come back before we were counted.
            return self._kept() or (self._pool.getconn(), 0)
        finally:
            self._count(-1)

    def _kept(self) -> tuple[Connection, int] | None:
        """The last one that came back, of those that the server has not ended since: after a restart all that wait are dead."""
        with suppress(IndexError):
            while True:
                connection, uses, since = self._waiting.pop()
                if time.monotonic() - since < LOOKED_AT_AFTER_S or is_alive(connection):
                    return connection, uses
                self._pool.putconn(connection)
        return None

    def give_back(self, connection: Connection, uses: int) -> None:
        """Keep a connection for the next, if it is whole and idle; else the pool takes care of it."""
        is_whole = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if not is_whole or uses >= KEPT_USES_MAX:
            self._pool.putconn(connection)
            return
        self._waiting.append((connection, uses + 1, time.monotonic()))
        if self._at_pool or self._is_closed:
            with suppress(IndexError):
                self._pool.putconn(self._waiting.pop()[0])

    def _count(self, takers: int) -> None:
        with self._counting:
            self._at_pool += takers

    def close(self) -> None:
        """Give everything back and close the pool. Closing twice is fine."""
        self._is_closed = True
        with suppress(IndexError):
            while True:
                self._pool.putconn(self._waiting.pop()[0])
        self._pool.close()


class Lent:
    """One loan: a context manager that gives a connection."""

    __slots__ = ("_connection", "_connections", "_uses")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __enter__(self) -> Connection:
        """Take it."""
        self._connection, self._uses = self._connections.take()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back, whatever happened."""
        self._connections.give_back(self._connection, self._uses)


def prepare(connection: Connection, settings: Settings, *, as_app: bool) -> None:
    """Gives a new connection its schema, its time-outs and, for app work, the role that can change no history."""
    if connection.info.server_version < SERVER_VERSION_MIN:
        msg = f"PostgreSQL {connection.info.server_version // 10000} is too old: the ledger needs 15 or newer"
        raise ConfigurationError(msg)
    schema = sql.Identifier(settings.ledger_schema)
    # pg_temp last: unnamed it would come first, and a temporary table called events would stand in for the log.
    connection.execute(sql.SQL("SET search_path = {}, pg_catalog, pg_temp").format(schema))
    limits = {"statement_timeout": f"{settings.statement_timeout_s}s"}
    if as_app:
        limits["idle_in_transaction_session_timeout"] = f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"
    if settings.read_only:
        limits["default_transaction_read_only"] = "on"
    pin(connection, **limits)
    if as_app:
        row = connection.execute(
            "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = %s", (APP_ROLE,)
        ).fetchone()
        if row is not None and row[0]:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(APP_ROLE)))


# What the driver raises, in order of precedence: what it becomes, and the sentence around its first line.
_TRANSLATIONS: tuple[tuple[tuple[type[Exception], ...], type[LedgerError], str], ...] = (
    (
        (PoolTimeout,),
        DatabaseUnavailable,
        "no database connection became free: {}; raise pool_size_max or look for long transactions",
    ),
    (
        (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedFunction,
            psycopg.errors.InvalidSchemaName,
        ),
        SchemaMismatch,
        "the database does not have what this release needs ({}): run position-ledger migrate up",
    ),
    (
        (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement),
        ConfigurationError,
        f"a pooler has exchanged the session of the ledger ({{}}): {NOT_KEPT}",
    ),
    (
        (psycopg.errors.ReadOnlySqlTransaction,),
        DatabaseUnavailable,
        "the database may only be read here ({}): connect to the primary, without the setting read_only",
    ),
    (
        (psycopg.errors.InsufficientPrivilege,),
        DatabaseUnavailable,
        f"the database user may not do this ({{}}): grant it the role {APP_ROLE}",
    ),
    (
        (psycopg.errors.DiskFull,),
        DatabaseUnavailable,
        "the database has no disk space left ({}): nothing was written, free space and repeat",
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        DatabaseUnavailable,
        "the database did not answer ({}): nothing is half done, repeat when it is back",
    ),
)


class translated:  # noqa: N801 - used as a word: with translated()
    """Turns what the driver raises in its block into the ledger's errors; the cause stays attached."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing to prepare: a generator here would cost more than the rest of a checkout."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the ledger's error for one of the driver's; let any other through."""
        for theirs, ours, sentence in _TRANSLATIONS if error is not None else ():
            if isinstance(error, theirs):
                raise ours(sentence.format(first_line(error))) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the trailing full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def only_row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The row of a statement that always answers one.

    Raises:
        DatabaseUnavailable: it answered none.
    """
    row: tuple[Any, ...] | None = cursor.fetchone()
    if row is None:
        msg = "the database answered no row where it must answer one: it is not the database that this release set up"
        raise DatabaseUnavailable(msg)
    return row
