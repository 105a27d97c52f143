"""Which parts of a load are done, written down beside the shadow itself: the list goes when its schema goes.

Parts are not handed out. Whoever loads takes one by locking its row in the transaction that copies it and marks it as
loaded. A process that dies lets go by itself, so any number of processes on any number of machines share a load: no part
is loaded twice, none is lost, and a kill costs no more than the parts that were under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.database import only_row

TABLE = "position_ledger_load"
READ = "position_ledger_load_read"
"""How far the parts are that are under way. Apart from the list, whose rows are locked while they are loaded."""

LOADERS = "position_ledger_projector"
"""Workers may load as well; what they load into is the owner's again when the table is finished."""

CREATE = """
CREATE TABLE {table} (
    number   integer PRIMARY KEY,
    upto     bigint  NOT NULL,
    parts    integer NOT NULL,
    events   bigint,
    versions bigint
)
"""
FILL = """
INSERT INTO {table} (number, upto, parts)
SELECT g.number, %(upto)s, %(parts)s FROM generate_series(0, %(parts)s - 1) AS g (number)
"""
CREATE_READ = "CREATE TABLE {read} (number integer PRIMARY KEY, events bigint NOT NULL) WITH (fillfactor = 50)"
FILL_READ = "INSERT INTO {read} (number, events) SELECT l.number, 0 FROM {table} AS l"
ALLOW = (
    "GRANT SELECT, UPDATE ON {table} TO {loaders}",
    "GRANT SELECT, UPDATE ON {read} TO {loaders}",
)
CLAIM = """
SELECT l.number, l.upto, l.parts FROM {table} AS l WHERE l.versions IS NULL
 ORDER BY l.number LIMIT 1 FOR UPDATE SKIP LOCKED
"""
MARK = "UPDATE {table} SET events = %s, versions = %s WHERE number = %s AND versions IS NULL"
PROGRESS = """
SELECT count(l.versions), count(*), coalesce(sum(coalesce(l.events, r.events)), 0)::bigint,
       coalesce(sum(l.versions), 0)::bigint
  FROM {table} AS l JOIN {read} AS r USING (number)
"""
HOLDERS = """
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed')
  FROM pg_locks AS k JOIN pg_stat_activity AS a ON a.pid = k.pid
 WHERE k.locktype = 'relation' AND k.relation = to_regclass(%s) AND k.mode = 'RowShareLock' AND k.granted
   AND k.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is ours until the transaction ends: everything up to a number of its share of the streams."""

    number: int
    upto: int
    parts: int
    """How many there are in all, of equal size."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is: parts that are done, of how many, events read (also of parts under way), versions copied."""

    done: int
    parts: int
    events: int
    versions: int


def _on(statement: str, schema: str) -> Composed:
    return SQL(statement).format(
        table=Identifier(schema, TABLE), read=Identifier(schema, READ), loaders=Identifier(LOADERS)
    )


def create(connection: psycopg.Connection[Any], schema: str, upto: int, parts: int) -> None:
    """List what is to be loaded: so many parts of the log up to a number. In the caller's transaction."""
    connection.execute(_on(CREATE, schema))
    connection.execute(_on(FILL, schema), {"upto": upto, "parts": parts})
    connection.execute(_on(CREATE_READ, schema))
    connection.execute(_on(FILL_READ, schema))
    for grant in ALLOW:
        connection.execute(_on(grant, schema))


def exists(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether a load into the schema has begun and not ended."""
    name = Identifier(schema, READ).as_string(connection)
    return connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() != (None,)


def horizon(connection: psycopg.Connection[Any], schema: str) -> int:
    """The number up to which the load goes, fixed when it began."""
    return int(only_row(connection.execute(_on("SELECT max(l.upto) FROM {table} AS l", schema)))[0])


def claim(cursor: psycopg.Cursor[Any], schema: str) -> Part | None:
    """Take a part that nobody has loaded and nobody is at, until the end of the transaction; None if there is none."""
    row = cursor.execute(_on(CLAIM, schema)).fetchone()
    return None if row is None else Part(*row)


def mark(cursor: psycopg.Cursor[Any], schema: str, number: int, events: int, versions: int) -> bool:
    """Say that a part is loaded, in the transaction that copied it; false if somebody else has loaded it meanwhile."""
    return cursor.execute(_on(MARK, schema), (events, versions, number)).rowcount == 1


def progress(connection: psycopg.Connection[Any], schema: str) -> Progress:
    """How far the load is."""
    return Progress(*map(int, only_row(connection.execute(_on(PROGRESS, schema)))))


def is_complete(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether every part is loaded."""
    row = connection.execute(_on("SELECT 1 FROM {table} AS l WHERE l.versions IS NULL LIMIT 1", schema)).fetchone()
    return row is None


def holders(connection: psycopg.Connection[Any], schema: str) -> list[tuple[int, str]]:
    """Who is at a part now: server process and application."""
    name = Identifier(schema, TABLE).as_string(connection)
    return connection.execute(HOLDERS, (name,)).fetchall()


def drop(connection: psycopg.Connection[Any], schema: str) -> None:
    """Forget the list, in the transaction in which the load ends."""
    connection.execute(_on("DROP TABLE {read}, {table}", schema))
