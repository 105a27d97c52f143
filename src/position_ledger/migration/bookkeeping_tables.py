"""The tables that remember migrations: how they are made, and how those of an older release are brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import sql

from position_ledger.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from position_ledger.migration.session import Connection

__all__ = ["BOOKKEEPING", "HISTORY", "TABLE", "bookkeeping_exists", "ensure_bookkeeping"]

TABLE: Final = "schema_migrations"
HISTORY: Final = "schema_migration_history"
GUARD: Final = "schema_migration_history_is_append_only"
BOOKKEEPING: Final = frozenset({TABLE, HISTORY, GUARD})
"""Names in the schema that belong to the runner and not to any migration."""

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
    CREATE OR REPLACE FUNCTION {guard}() RETURNS trigger LANGUAGE plpgsql AS $$
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


class _Upgrade(NamedTuple):
    """What a later release added; a database has it when ``table`` has ``column``. New databases get them all too."""

    table: str
    column: str
    statements: tuple[str, ...]


_UPGRADES: Final = (
    _Upgrade(
        HISTORY,
        "reason",
        (
            """
            ALTER TABLE {history} ADD COLUMN old_checksum text, ADD COLUMN reason text,
                DROP CONSTRAINT schema_migration_history_action_check,
                ADD CONSTRAINT schema_migration_history_action_check
                    CHECK (action IN ('start', 'up', 'revert', 'down', 'baseline', 'accept'))
            """,
            "COMMENT ON COLUMN {history}.old_checksum IS 'Of the file before, where an edited one was accepted'",
            "COMMENT ON COLUMN {history}.reason IS 'What the operator gave as reason, of a rollback say'",
        ),
    ),
    _Upgrade(
        TABLE,
        "change_set",
        (
            """
            ALTER TABLE {table} ADD COLUMN change_set integer,
                DROP CONSTRAINT schema_migrations_state_check,
                ADD CONSTRAINT schema_migrations_state_check
                    CHECK (state IN ('running', 'done', 'reverting', 'expanded', 'building'))
            """,
            """
            ALTER TABLE {history}
                DROP CONSTRAINT schema_migration_history_action_check,
                ADD CONSTRAINT schema_migration_history_action_check
                    CHECK (action IN ('start', 'up', 'revert', 'down', 'baseline', 'accept', 'expand', 'build', 'abort'))
            """,
            "COMMENT ON COLUMN {table}.change_set IS 'Number of the last file of the change set that it became applied with'",
        ),
    ),
)
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '5s'"

_FIND: Final = """
    SELECT has_table_privilege(c.oid, 'INSERT') AND current_setting('transaction_read_only') = 'off'
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS: Final = """
    SELECT c.relname::text, a.attname::text
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


def ensure_bookkeeping(connection: Connection, schema: str) -> None:
    """Create schema and tables, or what they lack (call it under the migration lock); raise MigrationError."""
    if bookkeeping_exists(connection, schema):
        _refuse_read_only(connection, schema)
        statements = _missing(connection, schema)
    else:
        statements = [*_CREATE, *(statement for upgrade in _UPGRADES for statement in upgrade.statements)]
    if statements:
        _run(connection, schema, statements)


def _missing(connection: Connection, schema: str) -> list[str]:
    """What later releases added and this database does not have."""
    found = connection.execute(_COLUMNS, [schema, [TABLE, HISTORY]]).fetchall()
    known = {(str(table), str(column)) for table, column in found}
    lacking = [upgrade for upgrade in _UPGRADES if (upgrade.table, upgrade.column) not in known]
    return [statement for upgrade in lacking for statement in upgrade.statements]


def _run(connection: Connection, schema: str, statements: Iterable[str]) -> None:
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
            connection.execute(_LOCK_TIMEOUT)
            for statement in statements:
                connection.execute(sql.SQL(statement).format(**names))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise _may_not_write(connection, schema) from error


def bookkeeping_exists(connection: Connection, schema: str) -> bool:
    """Whether this schema was ever migrated; to_regclass would fail for a role that may not use the schema."""
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
