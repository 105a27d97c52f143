"""The tables that remember migrations: schema_migrations says what is applied, its history who did what and when."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from position_ledger.errors import MigrationError
from position_ledger.migration.files import Checksums

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Cursor

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = [
    "BOOKKEEPING",
    "Applied",
    "add_history",
    "change_state",
    "ensure_bookkeeping",
    "forget",
    "read_applied",
    "remember",
]

TABLE: Final = "schema_migrations"
HISTORY: Final = "schema_migration_history"
GUARD: Final = "schema_migration_history_is_append_only"
BOOKKEEPING: Final = frozenset({TABLE, HISTORY, GUARD})
"""Names in the schema that belong to the runner and not to any migration."""

State = Literal["running", "done", "reverting"]
Action = Literal["start", "up", "revert", "down"]
AnyCursor = psycopg.Cursor[tuple[object, ...]]

_CREATE: Final = (
    """
    CREATE TABLE {table} (
        number integer PRIMARY KEY CHECK (number > 0),
        name text NOT NULL,
        state text NOT NULL CHECK (state IN ('running', 'done', 'reverting')),
        checksum text NOT NULL,
        checksum_header text NOT NULL,
        checksum_forward text NOT NULL,
        checksum_verify text NOT NULL,
        checksum_rollback text NOT NULL,
        applied_at timestamptz NOT NULL,
        applied_by text NOT NULL,
        host text NOT NULL,
        duration_ms bigint NOT NULL
    )
    """,
    """
    CREATE TABLE {history} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        number integer NOT NULL,
        name text NOT NULL,
        action text NOT NULL CHECK (action IN ('start', 'up', 'revert', 'down')),
        checksum text NOT NULL,
        done_at timestamptz NOT NULL,
        done_by text NOT NULL,
        host text NOT NULL,
        duration_ms bigint NOT NULL
    )
    """,
    """
    CREATE FUNCTION {guard}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the history of migrations is append-only' USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {history}
    FOR EACH STATEMENT EXECUTE FUNCTION {guard}()
    """,
    "ALTER TABLE {history} ENABLE ALWAYS TRIGGER append_only",
    "COMMENT ON TABLE {table} IS 'Applied migrations; written by the migration runner only'",
    "COMMENT ON TABLE {history} IS 'Every migration and rollback ever run here; append-only'",
)

_FIND: Final = """
    SELECT has_table_privilege(c.oid, 'INSERT') AND current_setting('transaction_read_only') = 'off'
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of schema_migrations; times in UTC."""

    number: int
    name: str
    state: State
    checksum: str
    checksum_header: str
    checksum_forward: str
    checksum_verify: str
    checksum_rollback: str
    applied_at: datetime
    applied_by: str
    host: str
    duration_ms: int

    @property
    def checksums(self) -> Checksums:
        """The checksums of the file as it was when it was applied."""
        return Checksums(
            self.checksum, self.checksum_header, self.checksum_forward, self.checksum_verify, self.checksum_rollback
        )


def ensure_bookkeeping(connection: Connection, schema: str) -> None:
    """Create schema and tables where they are missing (call it under the migration lock); raise MigrationError."""
    if _exists(connection, schema):
        _refuse_read_only(connection, schema)
        return
    names = {
        "table": sql.Identifier(schema, TABLE),
        "history": sql.Identifier(schema, HISTORY),
        "guard": sql.Identifier(schema, GUARD),
    }
    try:
        with connection.transaction():
            # IF NOT EXISTS asks for the right to create schemas even when there is nothing to create.
            if connection.execute("SELECT to_regnamespace(quote_ident(%s))", [schema]).fetchone() == (None,):
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            for statement in _CREATE:
                connection.execute(sql.SQL(statement).format(**names))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise _may_not_write(connection, schema) from error


def _exists(connection: Connection, schema: str) -> bool:
    """Asked of the catalogue itself: to_regclass fails for a role that may not use the schema."""
    return connection.execute(_FIND, [schema, TABLE]).fetchone() is not None


def _refuse_read_only(connection: Connection, schema: str) -> None:
    row = connection.execute(_FIND, [schema, TABLE]).fetchone()
    if row != (True,):
        raise _may_not_write(connection, schema)


def _may_not_write(connection: Connection, schema: str) -> MigrationError:
    user, database = connection.info.user, connection.info.dbname
    return MigrationError(
        f"role {user} may not migrate schema {schema} of database {database} (no permission, or a read-only server); "
        "run the command on the primary server as the owner of the schema"
    )


def read_applied(connection: Connection, schema: str) -> tuple[Applied, ...]:
    """Rows of schema_migrations in order; empty for a database without it; MigrationError without the right to read."""
    if not _exists(connection, schema):
        return ()
    names = sql.SQL(", ").join(map(sql.Identifier, Applied.__dataclass_fields__))
    query = sql.SQL("SELECT {} FROM {} ORDER BY number").format(names, sql.Identifier(schema, TABLE))
    try:
        with connection.cursor(row_factory=class_row(Applied)) as cursor:
            return tuple(cursor.execute(query).fetchall())
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"role {connection.info.user} may not read {schema}.{TABLE}; grant it SELECT or connect as another role"
        ) from error


def remember(cursor: AnyCursor, schema: str, file: MigrationFile, state: State, duration_ms: int) -> None:
    """Insert the row of a file in the caller's transaction; MigrationError when another runner has recorded it."""
    try:
        _insert(cursor, schema, file, state, duration_ms)
    except psycopg.errors.UniqueViolation as error:
        raise MigrationError(
            f"{file.filename} was recorded as applied by another runner meanwhile; see `position-ledger migrate status`"
        ) from error
    add_history(cursor, schema, file, "up" if state == "done" else "start", duration_ms)


def _insert(cursor: AnyCursor, schema: str, file: MigrationFile, state: State, duration_ms: int) -> None:
    sums = file.checksums
    cursor.execute(
        sql.SQL(
            "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), session_user, %s, %s)"
        ).format(sql.Identifier(schema, TABLE)),
        [
            *(file.number, file.name, state),
            *(sums.whole, sums.header, sums.forward, sums.verify, sums.rollback),
            *(_origin(), duration_ms),
        ],
    )


def change_state(cursor: AnyCursor, schema: str, file: MigrationFile, state: State, duration_ms: int = 0) -> None:
    """Move the row of a file that runs outside transactions from one state to the next."""
    cursor.execute(
        sql.SQL("UPDATE {} SET state = %s, duration_ms = %s, applied_at = clock_timestamp() WHERE number = %s").format(
            sql.Identifier(schema, TABLE)
        ),
        [state, duration_ms, file.number],
    )
    actions: dict[State, Action] = {"running": "start", "done": "up", "reverting": "revert"}
    add_history(cursor, schema, file, actions[state], duration_ms)


def forget(cursor: AnyCursor, schema: str, file: MigrationFile, duration_ms: int) -> None:
    """Delete the row of a file that was rolled back; the history keeps both."""
    cursor.execute(sql.SQL("DELETE FROM {} WHERE number = %s").format(sql.Identifier(schema, TABLE)), [file.number])
    if cursor.rowcount != 1:
        raise MigrationError(f"{file.filename} is not recorded as applied; see `position-ledger migrate status`")
    add_history(cursor, schema, file, "down", duration_ms)


def add_history(
    cursor: Cursor[tuple[object, ...]], schema: str, file: MigrationFile, action: Action, duration_ms: int
) -> None:
    """Append what was done to the history."""
    cursor.execute(
        sql.SQL(
            "INSERT INTO {} (number, name, action, checksum, done_at, done_by, host, duration_ms)"
            " VALUES (%s, %s, %s, %s, clock_timestamp(), session_user, %s, %s)"
        ).format(sql.Identifier(schema, HISTORY)),
        [file.number, file.name, action, file.checksums.whole, _origin(), duration_ms],
    )


def _origin() -> str:
    """Who runs this on which machine: several people share one database role."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
