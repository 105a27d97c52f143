"""What is remembered of migrations: schema_migrations says what is applied, its history who did what and when."""

from __future__ import annotations

import getpass
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping_tables import (
    BOOKKEEPING,
    HISTORY,
    TABLE,
    bookkeeping_exists,
    ensure_bookkeeping,
)
from position_ledger.migration.files import Checksums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = [
    "BOOKKEEPING",
    "Applied",
    "HistoryRow",
    "accept",
    "add_history",
    "change_state",
    "ensure_bookkeeping",
    "finish",
    "forget",
    "origin",
    "read_applied",
    "read_history",
    "remember",
]

State = Literal["running", "done", "reverting", "expanded", "building"]
Action = Literal["start", "up", "revert", "down", "baseline", "accept", "expand", "build", "abort"]
AnyCursor = psycopg.Cursor[tuple[object, ...]]

_HISTORY_ROWS: Final = """
    SELECT h.id, h.number, h.name, h.action, h.done_at, h.done_by, h.host, h.duration_ms, h.checksum,
           to_jsonb(h) ->> 'old_checksum' AS old_checksum, to_jsonb(h) ->> 'reason' AS reason
      FROM {} AS h ORDER BY h.id
"""
"""The last two by name from the whole row: a database that an older release migrated has no such columns yet."""
_NEWEST: Final = "change_set"
_ROWS: Final = "SELECT {}, (to_jsonb(m) ->> 'change_set')::int AS change_set FROM {} AS m ORDER BY number"


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
    change_set: int | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it belongs to a change set that has begun and is not applied yet."""
        return self.state in {"expanded", "building"}

    @property
    def checksums(self) -> Checksums:
        """The checksums of the file as it was when it was applied."""
        return Checksums(
            self.checksum, self.checksum_header, self.checksum_forward, self.checksum_verify, self.checksum_rollback
        )


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line of the history: who did what to which migration, from where and how long it took; times in UTC."""

    id: int
    number: int
    name: str
    action: Action
    done_at: datetime
    done_by: str
    host: str
    duration_ms: int
    checksum: str
    old_checksum: str | None
    reason: str | None


def read_applied(connection: Connection, schema: str) -> tuple[Applied, ...]:
    """Rows of schema_migrations in order; empty for a database without it; MigrationError without the right to read."""
    if not bookkeeping_exists(connection, schema):
        return ()
    names = sql.SQL(", ").join(map(sql.Identifier, [name for name in Applied.__dataclass_fields__ if name != _NEWEST]))
    query = sql.SQL(_ROWS).format(names, sql.Identifier(schema, TABLE))
    with _may_read(connection, schema, TABLE), connection.cursor(row_factory=class_row(Applied)) as cursor:
        return tuple(cursor.execute(query).fetchall())


def read_history(connection: Connection, schema: str) -> tuple[HistoryRow, ...]:
    """Every migration and rollback ever run here, oldest first; empty for a database without it; MigrationError."""
    if not bookkeeping_exists(connection, schema):
        return ()
    query = sql.SQL(_HISTORY_ROWS).format(sql.Identifier(schema, HISTORY))
    with _may_read(connection, schema, HISTORY), connection.cursor(row_factory=class_row(HistoryRow)) as cursor:
        return tuple(cursor.execute(query).fetchall())


@contextmanager
def _may_read(connection: Connection, schema: str, table: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"role {connection.info.user} may not read {schema}.{table}; grant it SELECT or connect as another role"
        ) from error


def remember(
    cursor: AnyCursor,
    schema: str,
    file: MigrationFile,
    state: State,
    duration_ms: int,
    *,
    action: Action | None = None,
    change_set: int | None = None,
) -> None:
    """Insert the row of a file in the caller's transaction; MigrationError when another runner has recorded it."""
    try:
        _insert(cursor, schema, file, state, duration_ms, change_set)
    except psycopg.errors.UniqueViolation as error:
        raise MigrationError(
            f"{file.filename} was recorded as applied by another runner meanwhile; see `position-ledger migrate status`"
        ) from error
    add_history(cursor, schema, file, action or _ACTIONS[state], duration_ms)


_ACTIONS: Final[dict[State, Action]] = {
    "running": "start",
    "done": "up",
    "reverting": "revert",
    "expanded": "expand",
    "building": "build",
}


def _insert(
    cursor: AnyCursor, schema: str, file: MigrationFile, state: State, duration_ms: int, change_set: int | None
) -> None:
    sums = file.checksums
    cursor.execute(
        sql.SQL(
            "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), session_user, %s, %s, %s)"
        ).format(sql.Identifier(schema, TABLE)),
        [
            *(file.number, file.name, state),
            *(sums.whole, sums.header, sums.forward, sums.verify, sums.rollback),
            *(origin(), duration_ms, change_set),
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
    add_history(cursor, schema, file, _ACTIONS[state], duration_ms)


def finish(cursor: AnyCursor, schema: str, file: MigrationFile, duration_ms: int) -> None:
    """Record a file as applied, whether its change set has begun with a row for it or not.

    A rebuild took from when it was begun until now: a pause between a kill and the next run counts.
    """
    row = cursor.execute(sql.SQL(_FINISH).format(sql.Identifier(schema, TABLE)), [duration_ms, file.number]).fetchone()
    if row is None:
        remember(cursor, schema, file, "done", duration_ms)
    else:
        add_history(cursor, schema, file, "up", int(str(row[0])))


_FINISH: Final = """
UPDATE {} SET state = 'done', applied_at = clock_timestamp(), duration_ms = duration_ms + %s + CASE state
         WHEN 'building' THEN least(greatest(extract(epoch FROM clock_timestamp() - applied_at) * 1000, 0), 1e9)::integer
         ELSE 0 END
 WHERE number = %s AND state IN ('expanded', 'building') RETURNING duration_ms
"""


def accept(cursor: AnyCursor, schema: str, file: MigrationFile, old: Applied, reason: str | None) -> None:
    """Put the checksums of an edited file in the place of those it was applied with; the history keeps both."""
    sums = file.checksums
    cursor.execute(
        sql.SQL(
            "UPDATE {} SET name = %s, checksum = %s, checksum_header = %s, checksum_forward = %s, checksum_verify = %s,"
            " checksum_rollback = %s WHERE number = %s AND checksum = %s AND state = 'done'"
        ).format(sql.Identifier(schema, TABLE)),
        [
            *(file.name, sums.whole, sums.header, sums.forward, sums.verify, sums.rollback),
            *(file.number, old.checksum),
        ],
    )
    if cursor.rowcount != 1:
        raise MigrationError(f"the record of {old.name} changed meanwhile; see `position-ledger migrate status`")
    add_history(cursor, schema, file, "accept", 0, old_checksum=old.checksum, reason=reason)


def forget(
    cursor: AnyCursor,
    schema: str,
    file: MigrationFile,
    duration_ms: int,
    *,
    reason: str | None = None,
    action: Action = "down",
) -> None:
    """Delete the row of a file that was rolled back; the history keeps both, and why."""
    cursor.execute(sql.SQL("DELETE FROM {} WHERE number = %s").format(sql.Identifier(schema, TABLE)), [file.number])
    if cursor.rowcount != 1:
        raise MigrationError(f"{file.filename} is not recorded as applied; see `position-ledger migrate status`")
    add_history(cursor, schema, file, action, duration_ms, reason=reason)


def add_history(
    cursor: AnyCursor,
    schema: str,
    file: MigrationFile,
    action: Action,
    duration_ms: int,
    *,
    old_checksum: str | None = None,
    reason: str | None = None,
) -> None:
    """Append what was done to the history."""
    cursor.execute(
        sql.SQL(
            "INSERT INTO {} (number, name, action, checksum, done_at, done_by, host, duration_ms, old_checksum, reason)"
            " VALUES (%s, %s, %s, %s, clock_timestamp(), session_user, %s, %s, %s, %s)"
        ).format(sql.Identifier(schema, HISTORY)),
        [file.number, file.name, action, file.checksums.whole, origin(), duration_ms, old_checksum, reason],
    )


def origin() -> str:
    """Who runs this on which machine: several people share one database role."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
