"""Verifying files whose tables are not in their places yet: on the shadows first, and what that cannot tell in the swap.

On a shadow a verification may be slow, for nobody waits. But views are bound in the swap, and a sentence about them, or
about two tables at once, can hold only there. So what is quick is asked again under the swap's locks, and what did not
hold on the shadows must hold there; only what is slow and has held is not repeated.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from position_ledger.errors import MigrationError
from position_ledger.migration.execute import StatementFailed, verify_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg import Cursor

    from position_ledger.migration.files import MigrationFile, Section

__all__ = ["rehearse", "verify_files"]

QUICK_S: Final = 0.005
LOCKED_TIMEOUT_MS: Final = 2_000
"""How long one verification may take while everybody waits."""

Part = tuple["MigrationFile", "Section"]


def verify_files(cursor: Cursor[Any], path: Sequence[str], files: Sequence[MigrationFile]) -> None:
    """Run the verification of files in the caller's transaction, with these schemas searched in order.

    Raises MigrationError for the first that does not return what it declares.
    """
    with _looking(cursor, path) as checking:
        for file in files:
            verify_section(checking, file, file.verify)


def rehearse(
    cursor: Cursor[Any], schema: str, files: Sequence[MigrationFile], shadows: Sequence[str]
) -> Callable[[Cursor[Any]], None]:
    """Run the verification of files on the shadows; answers what is to be run in the swap, in its transaction."""
    again: list[Part] = []
    with _looking(cursor, [*shadows, schema]) as checking:
        for file, part in _parts(files):
            started = time.monotonic()
            try:
                verify_section(checking, file, part)
            except MigrationError:
                again.append((file, part))
            else:
                if time.monotonic() - started < QUICK_S:
                    again.append((file, part))
    return partial(_in_place, schema, again)


def _in_place(schema: str, parts: Sequence[Part], cursor: Cursor[Any]) -> None:
    with _looking(cursor, [schema]) as checking:
        checking.execute(f"SET LOCAL statement_timeout = {LOCKED_TIMEOUT_MS}".encode())
        for file, part in parts:
            try:
                verify_section(checking, file, part)
            except StatementFailed as error:
                if error.sqlstate != psycopg.errors.QueryCanceled.sqlstate:
                    raise
                raise MigrationError(
                    f"{file.filename} line {part.statements[0].line}: the verification {part.statements[0].excerpt!r} "
                    f"takes longer than {LOCKED_TIMEOUT_MS / 1000:g} s, for which nobody may wait at the swap; "
                    "nothing of this file was kept; make it quick, or let it look at the table alone"
                ) from error
        checking.execute("SET LOCAL statement_timeout = 0")


def _parts(files: Sequence[MigrationFile]) -> Iterator[Part]:
    """Each statement of each verification, alone."""
    for file in files:
        for part in file.verify.apart():
            yield file, part


@contextmanager
def _looking(cursor: Cursor[Any], path: Sequence[str]) -> Iterator[Cursor[tuple[object, ...]]]:
    """A cursor in the caller's transaction that searches these schemas; the path is as it was afterwards."""
    with cursor.connection.transaction(), cursor.connection.cursor(row_factory=tuple_row) as checking:
        before = checking.execute("SELECT current_setting('search_path')").fetchone()
        checking.execute(
            sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.SQL(", ").join(map(sql.Identifier, path)))
        )
        yield checking
        checking.execute("SELECT set_config('search_path', %s, true)", [before[0] if before else ""])
