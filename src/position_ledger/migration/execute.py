"""Run the statements of a migration and say, for each way they fail, which file, line, statement and cause it was."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import psycopg

from position_ledger.errors import MigrationError
from position_ledger.migration.concurrent import instead_of_inside
from position_ledger.migration.expectations import returned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg import Cursor

    from position_ledger.migration.expectations import Expectation
    from position_ledger.migration.files import MigrationFile, Section
    from position_ledger.migration.sql_text import Statement

__all__ = [
    "FileFailed",
    "StatementFailed",
    "is_lock_trouble",
    "keeping_path",
    "run_section",
    "run_statement",
    "verify_section",
]

_NOT_INSIDE: Final = "25001"
_LABELS: Final = {
    "22P02": ("type mismatch", "convert the old values in a USING clause"),
    "23502": ("NOT NULL violation", "give the rows that exist a value first, or a default"),
    "23503": ("foreign key violation", "add the missing parent rows first"),
    "23505": (
        "unique violation",
        "remove the duplicate rows first, or where history gives the rows, choose another key or correct the events",
    ),
    "23514": ("CHECK violation", "correct the rows that break it first"),
    "25001": ("not allowed in a transaction", ""),
    "25006": ("the session is read-only", "connect to the primary server with a role that may write"),
    "40P01": ("deadlock", ""),
    "42501": ("no permission", "connect as the owner of the tables"),
    "42701": ("foreign object in the way", "find out who made the column, then drop or rename it"),
    "42710": ("foreign object in the way", "find out who made it, then drop or rename it"),
    "42723": ("foreign object in the way", "find out who made the function, then drop or rename it"),
    "42804": ("type mismatch", "convert the old values in a USING clause"),
    "42846": ("type mismatch", "convert the old values in a USING clause"),
    "42P07": ("foreign object in the way", "find out who made it, then drop or rename it"),
    "53100": ("disk full", "make room on the server's disk"),
    "55P04": ("a new value is used in the transaction that adds it", "use it in a later file"),
    "55P03": ("lock not available", "find who holds the lock, or run it at a quieter time"),
    "57014": ("cancelled", ""),
}
_RAISING: Final = "exec_stmt_raise"
"""RAISE of a function, such as the triggers that keep history: with the SQLSTATE of a missing right, but nobody has it."""
_TAKEN_BACK_OTHERWISE: Final = "a later migration has to take back what it did in another way"
_NOTHING_KEPT: Final = "nothing of this file was kept"
_DISK_FULL: Final = "53100"
_EXTENDING: Final = frozenset({"mdextend", "mdzeroextend"})
"""Functions of the server that make a file longer; a quota or a limit of file sizes has no SQLSTATE of its own."""
_LOCK_TROUBLE: Final = frozenset({"55P03", "40P01"})


class FileFailed(MigrationError):
    """A file failed: the message says where, why, and what to do then; each of them can be had on its own."""

    def __init__(self, why: str, *, at: tuple[str, int] | None = None, then: str = "") -> None:
        """``at`` is file and line; None if ``why`` names the file itself."""
        self.why = why
        self.line = at[1] if at else 0
        self.told = f"{at[0]} line {at[1]}: {why}" if at else why
        """Where and why, without what to do."""
        self.then = then
        super().__init__(f"{self.told}; {then}" if then else self.told)


class StatementFailed(FileFailed):
    """A statement of a migration failed, and nothing was kept."""

    def __init__(self, why: str, sqlstate: str | None, *, at: tuple[str, int] | None = None, then: str = "") -> None:
        super().__init__(why, at=at, then=then)
        self.sqlstate = sqlstate


def is_lock_trouble(error: BaseException) -> bool:
    """Whether waiting a moment and trying again may help: a lock time-out, or being chosen as the deadlock's victim."""
    return isinstance(error, StatementFailed) and error.sqlstate in _LOCK_TROUBLE


def run_section(
    cursor: Cursor[tuple[object, ...]], file: MigrationFile, statements: Iterable[Statement], *, command: str = ""
) -> None:
    """Execute statements one by one in the caller's transaction, then check every deferred constraint.

    ``command`` is what to run again when one fails; "" for `migrate up` or `migrate down`.
    """
    line = 0
    with keeping_path(cursor, file):
        for statement in statements:
            run_statement(cursor, file, statement, command=command)
            line = statement.line
    try:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        is_back = statements is file.rollback.statements
        _raise_failed(error, file, line, "the deferred constraints", cursor=cursor, is_back=is_back, command=command)


@contextlib.contextmanager
def keeping_path(cursor: Cursor[tuple[object, ...]], file: MigrationFile) -> Iterator[None]:
    """Refuse statements after which new things would land in another schema: those they made, nobody would verify."""
    before = _landing(cursor)
    yield
    after = _landing(cursor)
    if after != before:
        raise StatementFailed(
            f"{file.filename}: its statements set search_path, so that what they make lands in schema {after} instead of "
            f"{before}, where nobody would verify it",
            None,
            then=f"{_NOTHING_KEPT}; take out what sets it, and write the schema before the name where another one is meant, "
            "then run `position-ledger migrate sum`",
        )


def _landing(cursor: Cursor[tuple[object, ...]]) -> str:
    """The schema in which a name without one is made; "none" where the path has none that exists."""
    row = cursor.execute("SELECT coalesce(current_schema()::text, 'none')").fetchone()
    return str(row[0]) if row else ""


def run_statement(
    cursor: Cursor[tuple[object, ...]], file: MigrationFile, statement: Statement, text: str = "", *, command: str = ""
) -> None:
    """Execute one statement (or text in its place); StatementFailed, or the driver's error without a server.

    ``binary`` makes psycopg use the extended protocol, in which the server itself refuses two statements in one string.
    """
    try:
        cursor.execute((text or statement.text).encode(), prepare=False, binary=True)
    except psycopg.Error as error:
        is_back = any(statement is one for one in file.rollback.statements)
        what = repr(statement.excerpt)
        outside = instead_of_inside(statement) if error.sqlstate == _NOT_INSIDE else ""
        line = _line_of(error, statement)
        _raise_failed(error, file, line, what, cursor=cursor, is_back=is_back, remedy=outside, command=command)


def _held_by_retired(detail: str) -> str:
    """What frees an object that only the retired generation of a projected table still uses."""
    found = re.search(r"\b(\w+_g\d+)\.\w+ depends on", detail)
    if found is None:
        return ""
    named = re.search(r"\btable \w+_g\d+\.(\w+) depends on", detail)
    return (
        f"the table in {found[1]} that is kept to go back to still uses it: when nobody will go back any more, run "
        f"`rebuild-projection {named[1] if named else 'TABLE'} --drop-retired`"
    )


def _line_of(error: psycopg.Error, statement: Statement) -> int:
    """The line the server points at, else the statement's first."""
    position = error.diag.statement_position
    if position is None or not position.isdecimal():
        return statement.line
    return statement.line + statement.text.count("\n", 0, int(position) - 1)


def _raise_failed(
    error: psycopg.Error,
    file: MigrationFile,
    line: int,
    what: str,
    *,
    cursor: Cursor[tuple[object, ...]],
    is_back: bool,
    remedy: str = "",
    command: str = "",
) -> None:
    if cursor.connection.broken:
        raise error
    diag = error.diag
    sqlstate = _DISK_FULL if diag.source_function in _EXTENDING else error.sqlstate
    label, usual = _LABELS.get(sqlstate or "", ("", "correct the file"))
    if sqlstate == psycopg.errors.InsufficientPrivilege.sqlstate and diag.source_function == _RAISING:
        label, usual = (
            "refused",
            _TAKEN_BACK_OTHERWISE if is_back else "leave the statement out, or do as the refusal says",
        )
    remedy = remedy or _held_by_retired(diag.message_detail or "") or usual
    cause = " ".join((diag.message_primary or str(error)).split())
    detail = f" ({' '.join(diag.message_detail.split())})" if diag.message_detail else ""
    command = command or (f"migrate down {file.number:03}" if is_back else "migrate up")
    raise StatementFailed(
        f"{what} failed: {label + ': ' if label else ''}{cause}{detail}",
        sqlstate,
        at=(file.filename, line),
        then=f"{_NOTHING_KEPT}; {remedy + ', then ' if remedy else ''}run `position-ledger {command}` again",
    ) from error


def verify_section(cursor: Cursor[tuple[object, ...]], file: MigrationFile, section: Section) -> None:
    """Run each verification; raise MigrationError for the first that does not return what it declares.

    They run in a savepoint that is read-only, so a verification cannot repair what it was to find.
    """
    with cursor.connection.transaction():
        cursor.execute("SET TRANSACTION READ ONLY")
        for statement, expected in zip(section.statements, section.expectations, strict=True):
            try:
                run_statement(cursor, file, statement)
            except StatementFailed as error:
                if error.sqlstate != psycopg.errors.ReadOnlySqlTransaction.sqlstate:
                    raise
                raise FileFailed(
                    f"the verification {statement.excerpt!r} writes; it may only read",
                    at=(file.filename, statement.line),
                    then=f"{_NOTHING_KEPT}; correct it, then run `position-ledger migrate up` again",
                ) from error
            _refuse_other(cursor, file, statement, expected)


def _refuse_other(
    cursor: Cursor[tuple[object, ...]], file: MigrationFile, statement: Statement, expected: Expectation
) -> None:
    rows, count = cursor.fetchmany(3), cursor.rowcount
    if expected.is_met(rows, count):
        return
    raise FileFailed(
        f"the verification {statement.excerpt!r} returned {returned(rows, count)} instead of {expected}",
        at=(file.filename, statement.line),
        then=f"{_NOTHING_KEPT}; {expected.hint(rows)}correct the migration or its verification, then run "
        "`position-ledger migrate up` again",
    )
