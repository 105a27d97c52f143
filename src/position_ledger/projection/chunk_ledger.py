"""Which parts of a load are done, written down beside the shadow itself: the list goes when its schema goes.

A part is marked in the transaction that copies its rows, so a killed load loses no more than the parts it was at, and two
processes that are at one part at once (a parent that was killed, a child that did not know it yet) never both keep it.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.database import only_row

TABLE = "position_ledger_load"

CREATE = """
CREATE TABLE {} (
    number   integer PRIMARY KEY,
    upto     bigint  NOT NULL,
    events   bigint,
    versions bigint
)
"""
FILL = "INSERT INTO {} (number, upto) SELECT g.number, %s FROM generate_series(0, %s - 1) AS g (number)"
MARK = "UPDATE {} SET events = %s, versions = %s WHERE number = %s AND versions IS NULL"


def _name(schema: str) -> Identifier:
    return Identifier(schema, TABLE)


def create(connection: psycopg.Connection[Any], schema: str, upto: int, parts: int) -> None:
    """List what is to be loaded: so many parts of the log up to a number. In the caller's transaction."""
    connection.execute(SQL(CREATE).format(_name(schema)))
    connection.execute(SQL(FILL).format(_name(schema)), (upto, parts))


def exists(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether a load into the schema has begun and not ended."""
    name = _name(schema).as_string(connection)
    return connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() != (None,)


def horizon(connection: psycopg.Connection[Any], schema: str) -> int:
    """The number up to which the load goes, fixed when it began."""
    return int(only_row(connection.execute(SQL("SELECT max(l.upto) FROM {} AS l").format(_name(schema))))[0])


def missing(connection: psycopg.Connection[Any], schema: str) -> list[int]:
    """The parts that are not loaded yet."""
    statement = SQL("SELECT l.number FROM {} AS l WHERE l.versions IS NULL ORDER BY l.number").format(_name(schema))
    return [row[0] for row in connection.execute(statement)]


def mark(cursor: psycopg.Cursor[Any], schema: str, number: int, events: int, versions: int) -> bool:
    """Say that a part is loaded, in the transaction that copied it; false if somebody else has loaded it meanwhile."""
    return cursor.execute(SQL(MARK).format(_name(schema)), (events, versions, number)).rowcount == 1


def progress(connection: psycopg.Connection[Any], schema: str) -> tuple[int, int, int]:
    """How many parts are loaded, of how many, and the events in them."""
    statement = SQL("SELECT count(l.versions), count(*), coalesce(sum(l.events), 0)::bigint FROM {} AS l")
    done, parts, events = only_row(connection.execute(statement.format(_name(schema))))
    return int(done), int(parts), int(events)


def drop(connection: psycopg.Connection[Any], schema: str) -> None:
    """Forget the list, in the transaction in which the load ends."""
    connection.execute(SQL("DROP TABLE {}").format(_name(schema)))
