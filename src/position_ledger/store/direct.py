"""The append below the driver's cursors: one libpq call with binary parameters, at less than half the client's cost.

Only for connections in autocommit that are outside a transaction. What the driver does for every statement (choosing
dumpers, looking up its cache, waiting in Python) costs as much as deciding a command; the append is the one statement
for which that matters. Errors are the driver's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

BINARY = 1
JSONB_VERSION = b"\x01"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INT8 = Struct("!q")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with the type of each parameter ($1, $2 …), prepared on a connection when it is first used there."""

    name: bytes
    sql: bytes
    types: tuple[int, ...]
    prepared: WeakSet[psycopg.Connection[Any]]
    """Connections that have it; one may have lost it since, and then it is prepared again."""


def statement(name: str, sql: str, types: Sequence[int]) -> Statement:
    """A statement that no connection has yet."""
    return Statement(name.encode(), sql.encode(), tuple(types), WeakSet())


def run(connection: psycopg.Connection[Any], what: Statement, parameters: Sequence[bytes | None]) -> PGresult:
    """Execute with binary parameters; the result is binary too.

    Raises:
        psycopg.Error: as the driver's cursors would.
    """
    if connection not in what.prepared:
        _prepare(connection, what)
    try:
        return _run(connection, what, parameters)
    except InvalidSqlStatementName:  # the driver has emptied the cache of the session; nothing was executed
        _prepare(connection, what)
        return _run(connection, what, parameters)


def _run(connection: psycopg.Connection[Any], what: Statement, parameters: Sequence[bytes | None]) -> PGresult:
    values: Any = parameters  # None is NULL, which the driver's stub leaves out
    result = connection.pgconn.exec_prepared(what.name, values, [BINARY] * len(parameters), BINARY)
    if result.status != ExecStatus.TUPLES_OK:
        raise _error(connection, result)
    return result


def _prepare(connection: psycopg.Connection[Any], what: Statement) -> None:
    result = connection.pgconn.prepare(what.name, what.sql, what.types)
    if result.status != ExecStatus.COMMAND_OK:
        raise _error(connection, result)
    what.prepared.add(connection)


def _error(connection: psycopg.Connection[Any], result: PGresult) -> psycopg.Error:
    error = error_from_result(result)
    if connection.pgconn.status == ConnStatus.BAD and error.sqlstate is None:
        return psycopg.OperationalError(str(error))
    return error


def int8(value: int) -> bytes:
    """A bigint as PostgreSQL sends it."""
    return _INT8.pack(value)


def read_int8(value: bytes | None) -> int:
    """A bigint as PostgreSQL sends it."""
    return int(_INT8.unpack(value or b"")[0])


def timestamptz(value: datetime) -> bytes:
    """An aware time as PostgreSQL sends it: microseconds since 2000-01-01 UTC."""
    return _INT8.pack((value - _EPOCH) // _MICROSECOND)


def read_timestamptz(value: bytes | None) -> datetime:
    """An aware time, in UTC."""
    return _EPOCH + timedelta(microseconds=read_int8(value))
