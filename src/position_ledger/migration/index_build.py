"""The one step outside a transaction: an index built or dropped CONCURRENTLY, resumable from its state row.

Row ``running`` is committed before the build and ``done`` after it. A build that fails is cleaned up at once and its
row taken away; only a kill leaves ``running`` behind, and then an INVALID index of that name is ours: it is dropped
first.
lock_timeout stays off: the build waits for old snapshots, and a time-out would leave an INVALID index each time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from psycopg import sql

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import change_state, forget, read_applied, remember
from position_ledger.migration.execute import StatementFailed, run_statement, verify_section

if TYPE_CHECKING:
    from collections.abc import Callable

    from position_ledger.migration.concurrent import ConcurrentIndex
    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = ["apply_index", "undo_index"]


def apply_index(connection: Connection, schema: str, file: MigrationFile) -> None:
    """Build or drop the index of a file, or finish what a killed runner began; MigrationError leaves all as before."""
    (_take_away if _index_of(file).is_dropped else _build_forward)(connection, schema, file)


def undo_index(
    connection: Connection,
    schema: str,
    file: MigrationFile,
    require_back: Callable[[], None],
    *,
    reason: str | None = None,
) -> None:
    """Roll a file back, whether its index is whole, half built or gone.

    ``require_back`` raises MigrationError unless an index that was built again is the one that the file dropped; then,
    and when it cannot be built, the file stays applied.
    """
    if _index_of(file).is_dropped:
        _bring_back(connection, schema, file, require_back, reason)
    else:
        _drop_again(connection, schema, file, reason)


def _build_forward(connection: Connection, schema: str, file: MigrationFile) -> None:
    started = time.monotonic()
    index = _index_of(file)
    is_resumed = any(row.number == file.number for row in read_applied(connection, schema))
    valid = _validity(connection, schema, index.name)
    if not is_resumed:
        _refuse_other(file, index, valid)
        _in_transaction(connection, remember, schema, file, "running", 0)
    elif valid is False:
        _drop(connection, schema, index.name)
    if not (is_resumed and valid):
        _build(connection, schema, file)
    _finish(connection, schema, file, round((time.monotonic() - started) * 1000))


def _index_of(file: MigrationFile) -> ConcurrentIndex:
    if file.index is None:
        raise MigrationError(f"{file.filename} builds no index CONCURRENTLY; say '-- Transactional: yes' in its header")
    return file.index


def _refuse_other(file: MigrationFile, index: ConcurrentIndex, valid: bool | None) -> None:  # noqa: FBT001 - three states
    if valid is not None:
        raise MigrationError(
            f"{file.filename}: foreign object in the way: {index.name} exists already and no migration made it; "
            "find out who did, then drop or rename it"
        )


def _build(connection: Connection, schema: str, file: MigrationFile) -> None:
    index = _index_of(file)
    try:
        with connection.cursor() as cursor:
            run_statement(cursor, file, index.statement)
    except StatementFailed:
        _give_up(connection, schema, file)
        raise
    if _validity(connection, schema, index.name) is not True:
        _give_up(connection, schema, file)
        raise MigrationError(
            f"{file.filename}: the index {index.name} is not valid after its build; run the migration again"
        )


def _finish(connection: Connection, schema: str, file: MigrationFile, duration_ms: int) -> None:
    try:
        with connection.transaction(), connection.cursor() as cursor:
            verify_section(cursor, file, file.verify)
            change_state(cursor, schema, file, "done", duration_ms)
    except MigrationError:
        _give_up(connection, schema, file)
        raise


def _give_up(connection: Connection, schema: str, file: MigrationFile) -> None:
    """As before the file: no index of its name, no row."""
    _drop(connection, schema, _index_of(file).name)
    _in_transaction(connection, forget, schema, file, 0)


def _drop_again(connection: Connection, schema: str, file: MigrationFile, reason: str | None) -> None:
    started = time.monotonic()
    _in_transaction(connection, change_state, schema, file, "reverting")
    _drop(connection, schema, _index_of(file).name)
    with connection.transaction(), connection.cursor() as cursor:
        forget(cursor, schema, file, round((time.monotonic() - started) * 1000), reason=reason)


def _take_away(connection: Connection, schema: str, file: MigrationFile) -> None:
    """Drop the index that a file drops; a killed drop leaves it INVALID, and is done again."""
    started = time.monotonic()
    if not any(row.number == file.number for row in read_applied(connection, schema)):
        _refuse_missing(connection, schema, file)
        _in_transaction(connection, remember, schema, file, "running", 0)
    try:
        _drop_as_written(connection, schema, file)
        with connection.transaction(), connection.cursor() as cursor:
            verify_section(cursor, file, file.verify)
            change_state(cursor, schema, file, "done", round((time.monotonic() - started) * 1000))
    except MigrationError:
        _make_whole(connection, schema, file)
        _in_transaction(connection, forget, schema, file, 0)
        raise


def _drop_as_written(connection: Connection, schema: str, file: MigrationFile) -> None:
    if _validity(connection, schema, _index_of(file).name) is not None:
        with connection.cursor() as cursor:
            run_statement(cursor, file, file.forward.statements[0])


def _refuse_missing(connection: Connection, schema: str, file: MigrationFile) -> None:
    name = _index_of(file).name
    valid = _validity(connection, schema, name)
    if valid is None:
        raise MigrationError(f"{file.filename}: there is no index {name} to drop; name one of schema {schema}")
    if not valid:
        raise MigrationError(
            f"{file.filename}: {name} is no valid index, so it is not what the rollback would make again; "
            "find out who left it, then drop it by hand or build it again"
        )


def _bring_back(
    connection: Connection, schema: str, file: MigrationFile, require_back: Callable[[], None], reason: str | None
) -> None:
    """Build the index again that a file dropped; if that fails the file stays applied, without a half-built rest."""
    started = time.monotonic()
    _in_transaction(connection, change_state, schema, file, "reverting")
    try:
        _make_whole(connection, schema, file)
        require_back()
    except MigrationError:
        _drop(connection, schema, _index_of(file).name)
        _in_transaction(connection, change_state, schema, file, "done")
        raise
    with connection.transaction(), connection.cursor() as cursor:
        forget(cursor, schema, file, round((time.monotonic() - started) * 1000), reason=reason)


def _make_whole(connection: Connection, schema: str, file: MigrationFile) -> None:
    """Have a valid index of the file's name."""
    index = _index_of(file)
    valid = _validity(connection, schema, index.name)
    if valid is False:
        _drop(connection, schema, index.name)
    if not valid:
        with connection.cursor() as cursor:
            run_statement(cursor, file, index.statement)


def _drop(connection: Connection, schema: str, name: str) -> None:
    connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name)))


def _validity(connection: Connection, schema: str, name: str) -> bool | None:
    """Whether the index is valid; None when nothing has that name, False also for a relation that is no index."""
    row = connection.execute(
        """
        SELECT coalesce(x.indisvalid AND x.indisready, false) FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid
         WHERE n.nspname = %s AND c.relname = %s
        """,
        [schema, name],
    ).fetchone()
    return None if row is None else row[0] is True


def _in_transaction(connection: Connection, step: Any, *arguments: Any) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        step(cursor, *arguments)
