"""Test databases: one migrated template for each test process, a clone for each test, and one call that empties one."""

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import psycopg
import redis
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.database import Connection, connect, open_pool
from position_ledger.errors import ConfigurationError
from position_ledger.operations import migrate_up
from position_ledger.projection.generations import kept
from position_ledger.setup import Reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg_pool import ConnectionPool

    from position_ledger.ledger import Ledger
    from position_ledger.settings import Settings

TEST_MARK = "position-ledger test database"
"""How the comment of a test database begins. A comment does not travel with a dump, a restore or a clone."""

QUEUE_MARK = "position-ledger:test-queue"
QUEUE_KEYS = "dramatiq:*"
NAME_PREFIX = "position_ledger_test"
LEFT_OVER_AFTER = timedelta(days=1)
STRATEGY_SINCE = 150_000
"""The first version that can be told how to copy a template; before it all copy files."""

LOCK_TIMEOUT_S = 10
EMPTIED = ("events", "append_keys", "stream_snapshots", "projection_audits", "audit_findings")
"""Tables that `reset` empties beside those of the projections."""


class HandyRow(dict[str, Any]):
    """One row by column name, and by place for whoever counts columns."""

    def __getitem__(self, column: str | int) -> Any:
        """The value of a column."""
        return [*self.values()][column] if isinstance(column, int) else super().__getitem__(column)


class NamedTupleRow(tuple[Any, ...]):
    """One row as a tuple, that answers by column name too."""

    __slots__ = ()
    names: tuple[str, ...]

    def __getitem__(self, column: Any) -> Any:
        """The value of a column, by place or name."""
        if not isinstance(column, str):
            return super().__getitem__(column)
        if column not in self.names:
            raise KeyError(column)
        return super().__getitem__(self.names.index(column))


def _named_tuple_rows(cursor: psycopg.Cursor[Any]) -> Any:
    """A row factory of such rows: for whoever counts columns and for whoever names them."""
    names = tuple(column.name for column in cursor.description or ())
    return type("TestRow", (NamedTupleRow,), {"__slots__": (), "names": names})


OwnerCursor = psycopg.Cursor[HandyRow]


def _handy_rows(cursor: psycopg.Cursor[Any]) -> Any:
    names = [column.name for column in cursor.description or ()]
    return lambda values: HandyRow(zip(names, values, strict=True))


@contextmanager
def owner_cursor(url: str, settings: Settings) -> Iterator[OwnerCursor]:
    """A cursor of the database's owner, in autocommit and in the schema of the ledger."""
    with (
        closing(connect(url, settings, as_app=False, name="position-ledger tests")) as connection,
        connection.cursor(row_factory=_handy_rows) as cursor,
    ):
        yield cursor


def pool_for_tests(url: str, settings: Settings) -> ConnectionPool[Connection]:
    """A pool of connections with the rights of trading code, whose rows answer by place and by name."""
    return open_pool(url, settings, name="position-ledger tests", row_factory=_named_tuple_rows)


@dataclass(frozen=True, slots=True)
class Template:
    """A migrated database that nobody is connected to, and the server it is on."""

    server_url: str
    name: str
    settings: Settings
    _numbers: count[int]

    @classmethod
    @contextmanager
    def make(cls, server_url: str, settings: Settings) -> Iterator[Template]:
        """Create and migrate a template; it is dropped at the end of the block.

        Raises:
            psycopg.Error: the user may not create databases, or a migration failed.
        """
        _drop_left_overs(server_url)
        name = f"{NAME_PREFIX}_{os.getpid()}_{secrets.token_hex(3)}"
        with _database(server_url, name, template=None) as url:
            migrate(url, settings)
            yield cls(server_url, name, settings, count(1))

    @contextmanager
    def clone(self) -> Iterator[str]:
        """A fresh database, its address in the block; it is dropped at the end, whoever is connected."""
        with _database(self.server_url, f"{self.name}_{next(self._numbers)}", template=self.name) as url:
            yield url


@contextmanager
def _database(server_url: str, name: str, *, template: str | None) -> Iterator[str]:
    create_database(server_url, name, template=template)
    _on_server(server_url, _mark(name))
    try:
        yield address_of(server_url, name)
    finally:
        _on_server(server_url, SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def create_database(server_url: str, name: str, *, template: str | None = None) -> None:
    """Create a database, of a template or empty.

    A server that does not wait for the disk copies the files: half the time. Elsewhere that takes a checkpoint, and what
    else the server does would wait for it.
    """
    with closing(psycopg.connect(server_url, autocommit=True, connect_timeout=10)) as connection:
        source = SQL(" TEMPLATE {}").format(Identifier(template)) if template else SQL("")
        waits = connection.execute("SELECT current_setting('fsync')::boolean").fetchone() != (False,)
        copies = connection.info.server_version >= STRATEGY_SINCE and not waits
        strategy = SQL(" STRATEGY file_copy" if copies else "")
        connection.execute(SQL("CREATE DATABASE {}{}{}").format(Identifier(name), source, strategy))


def _mark(name: str) -> Any:
    made = f"{TEST_MARK}, made {datetime.now(UTC).isoformat()}"
    return SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(name), Literal(made))


def _on_server(server_url: str, *statements: Any) -> None:
    with closing(psycopg.connect(server_url, autocommit=True, connect_timeout=10)) as connection:
        for statement in statements:
            connection.execute(statement)


def _drop_left_overs(server_url: str) -> None:
    """Drop what test processes that were killed have left behind for a day."""
    with closing(psycopg.connect(server_url, autocommit=True, connect_timeout=10)) as connection:
        found = connection.execute(
            "SELECT d.datname, shobj_description(d.oid, 'pg_database') FROM pg_database AS d WHERE d.datname LIKE %s",
            (f"{NAME_PREFIX}\\_%",),
        ).fetchall()
        for name, comment in found:
            if is_left_over(comment, datetime.now(UTC)):
                connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def is_left_over(comment: str | None, now: datetime) -> bool:
    """Whether a database with this comment is a test database that was made too long ago to be in use."""
    _, mark, made = (comment or "").partition(f"{TEST_MARK}, made ")
    return bool(mark) and now - datetime.fromisoformat(made) > LEFT_OVER_AFTER


def address_of(server_url: str, name: str) -> str:
    """The address of another database on the same server, as URI if the given one is."""
    parts = urlsplit(server_url)
    if parts.scheme in {"postgresql", "postgres"}:
        return f"{parts.scheme}://{parts.netloc}/{quote(name)}" + (f"?{parts.query}" if parts.query else "")
    return make_conninfo(server_url, dbname=name)


def migrate(url: str, settings: Settings) -> None:
    """Bring an empty database to what this release needs, as `position-ledger migrate up` does."""
    migrate_up(settings, Reached(url, "", None), None, lambda _message: None)


# Emptying


def mark_as_test_database(url: str) -> None:
    """Declare that a database of your own is for tests, so that `reset` may empty it. Needs its owner."""
    with closing(psycopg.connect(url, autocommit=True, connect_timeout=10)) as connection:
        connection.execute(_mark(connection.info.dbname))


def mark_as_test_queue(url: str) -> None:
    """Declare that a Redis or Valkey is for tests, so that its queue may be emptied."""
    with _redis(url) as client:
        client.set(QUEUE_MARK, "1")


def reset(ledger: Ledger) -> None:
    """Empty the ledger's test database: events, keys, rows, checkpoints and queue. Numbers begin at 1 again.

    What migrations seeded stays, and so do the reference tables, which they may have seeded. Rows of other tables that
    refer to emptied ones go too (``TRUNCATE … CASCADE``).
    Workers that run notice within about a second, as when they lose a lease; nobody may be appending, and other open
    ledgers must be opened again, for they keep states in memory.

    Raises:
        ConfigurationError: the database or the queue is not marked as one for tests; nothing was touched.
    """
    schema = Identifier(ledger.settings.ledger_schema)
    _require_test_queue(ledger.redis_url)
    with (
        closing(
            connect(ledger.database_url, ledger.settings, as_app=False, name="position-ledger reset")
        ) as connection,
        connection.transaction(),
    ):
        _require_test_database(connection)
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{LOCK_TIMEOUT_S}s")))
        tables = [Identifier(one.schema, one.projection) for one in kept(connection)]
        fixed = [SQL("{}.{}").format(schema, Identifier(name)) for name in EMPTIED]
        checkpoints = SQL("{}.projection_checkpoints").format(schema)
        fenced = [*fixed, *tables, checkpoints]
        for table in fenced:
            connection.execute(SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table))
        connection.execute(SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(SQL(", ").join([*fixed, *tables])))
        connection.execute(
            SQL("UPDATE {} SET position = 0, token = token + 1, holder = NULL, lease_until = '-infinity'").format(
                checkpoints
            )
        )
        connection.execute(SQL("DELETE FROM {}.projection_workers").format(schema))
        for table in fenced:
            connection.execute(SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table))
    empty_queue(ledger.redis_url)
    ledger.forget()


def _require_test_database(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute(
        "SELECT shobj_description(d.oid, 'pg_database') FROM pg_database AS d WHERE d.datname = current_database()"
    ).fetchone()
    if row is None or not str(row[0] or "").startswith(TEST_MARK):
        msg = (
            f"database {connection.info.dbname} is not marked as a test database, so it is not emptied; if it is one, "
            "call position_ledger.testing.mark_as_test_database with its address first"
        )
        raise ConfigurationError(msg)


def _require_test_queue(url: str) -> None:
    with _redis(url) as client:
        if not client.exists(QUEUE_MARK):
            msg = (
                f"the queue at {url} is not marked as one for tests, so it is not emptied; if it is one, "
                f"set the key {QUEUE_MARK} there"
            )
            raise ConfigurationError(msg)


def empty_queue(url: str) -> None:
    """Delete every message of a queue for tests. Raises ConfigurationError for any other."""
    _require_test_queue(url)
    with _redis(url) as client:
        keys = list(client.scan_iter(QUEUE_KEYS, count=1000))
        if keys:
            client.delete(*keys)


@contextmanager
def _redis(url: str) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=10)) as client:
        try:
            yield client
        except redis.RedisError as error:
            msg = f"the queue at {url} did not answer: {error}"
            raise ConfigurationError(msg) from error
