"""Run pending migrations statement by statement in a scratch database, and write down what each one did.

Locks, rewritten tables, rows written, tables read in full, and the difference in the catalogue. Afterwards the
rollback and the forward part once more, which must lead back and forth between the same two catalogues.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg

from position_ledger.migration.bookkeeping import BOOKKEEPING, ensure_bookkeeping
from position_ledger.migration.catalogue import diff
from position_ledger.migration.cluster import run_beside_others, state_of_cluster
from position_ledger.migration.concurrent import without_concurrently
from position_ledger.migration.execute import (
    FileFailed,
    StatementFailed,
    keeping_path,
    run_section,
    run_statement,
    verify_section,
)
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.lost_values import LostValues, RowsBefore, lost_values, remember_rows
from position_ledger.migration.scratch import between_commits, defer_again, replay_file
from position_ledger.migration.session import use_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from position_ledger.migration.catalogue import Catalogue
    from position_ledger.migration.files import MigrationFile, Section
    from position_ledger.migration.session import Connection
    from position_ledger.migration.sql_text import Statement

__all__ = ["Failure", "Lock", "RollbackProof", "TracedFile", "TracedStatement", "Tracer"]

CATALOGUE_READS_MAX: Final = 60
"""Statements after which the catalogue is read, some 35 ms each. Of later ones, and of all where more are asked for at
once, it is read after the file: its differences are then listed with the last statement."""

_READ_LOCK: Final = "AccessShareLock"
_GATHERED: Final = frozenset({"comment", "grant", "revoke"})
"""Runs of these change what they say they change: the catalogue is read once, after the last of a run."""

_FACTS: Final = """
    SELECT c.oid::bigint, c.relname::text, c.relfilenode::bigint,
           pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
               + pg_stat_get_xact_tuples_deleted(c.oid),
           pg_stat_get_xact_numscans(c.oid)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> ALL (%s)
"""
_LOCKS: Final = """
    SELECT l.relation::bigint, l.mode FROM pg_locks l
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode <> %s
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on a relation that was there before the file; ``mode`` as in the manual, ``ACCESS EXCLUSIVE``."""

    table: str
    mode: str


@dataclass(frozen=True, slots=True)
class TracedStatement:
    """What one statement did, to the rows that were copied from the live database.

    ``written`` has rows inserted, updated or deleted by table, ``scans`` how often a table was read in full.
    """

    line: int
    text: str
    locks: tuple[Lock, ...] = ()
    rewrites: tuple[str, ...] = ()
    written: Mapping[str, int] = field(default_factory=dict)
    scans: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that the server refused, and on what; names are "" where the server gives none."""

    line: int
    statement: str
    sqlstate: str
    cause: str
    table: str = ""
    column: str = ""
    constraint: str = ""


@dataclass(frozen=True, slots=True)
class RollbackProof:
    """Whether forward, rollback, forward came to the same two catalogues; ``reason`` says why not.

    ``lost`` is what rows held before, and not once the file was taken back.
    """

    state: Literal["proven", "none", "wrong", "not tried"]
    reason: str = ""
    line: int = 0
    differences: tuple[str, ...] = ()
    lost: tuple[LostValues, ...] = ()


@dataclass(frozen=True, slots=True)
class TracedFile:
    """One file in its place. ``after`` is ``before`` when it failed."""

    file: MigrationFile
    before: Catalogue
    after: Catalogue
    statements: tuple[TracedStatement, ...] = ()
    failure: Failure | None = None
    untrue: tuple[Failure, ...] = ()
    rollback: RollbackProof = RollbackProof("not tried")

    @property
    def written(self) -> frozenset[str]:
        """Tables to which the file wrote, or would have with rows in them."""
        by_lock = {lock.table for one in self.statements for lock in one.locks if lock.mode == "ROW EXCLUSIVE"}
        return frozenset(by_lock | {table for one in self.statements for table, rows in one.written.items() if rows})


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the server knows of the schema's relations at one moment of a transaction, by oid."""

    names: dict[int, str]
    files: dict[int, int]
    written: dict[int, int]
    scans: dict[int, int]
    locks: frozenset[tuple[int, str]]


def _facts_of(rows: Iterable[tuple[Any, ...]], locks: Iterable[tuple[Any, ...]]) -> _Facts:
    names, files, written, scans = ({row[0]: row[place] for row in rows} for place in range(1, 5))
    return _Facts(names, files, written, scans, frozenset((oid, mode) for oid, mode in locks))


class _UndoneError(Exception):
    """Ends a step whose work is not to be kept."""


def _undo_unless(kept: bool) -> None:  # noqa: FBT001 - the word before it names it
    if not kept:
        raise _UndoneError


class Tracer:
    """Migrations in a scratch database, each in a transaction of its own, as `up` runs them.

    A file that makes something that outlives the database (a role) is never committed: it and all after it then share
    one transaction, which ends with the connection.
    """

    def __init__(self, connection: Connection, schema: str) -> None:
        """``connection`` is an autocommit session of a scratch database, which is dropped afterwards."""
        self.connection = connection
        self._schema = schema
        self._is_held = False
        self._reads_left = CATALOGUE_READS_MAX
        self._known: Catalogue | None = None
        with self.step():
            ensure_bookkeeping(connection, schema)

    @property
    def is_held(self) -> bool:
        """Whether everything is in one transaction, since something was made that would outlive the database."""
        return self._is_held

    @contextlib.contextmanager
    def step(self, *, keep: bool = True) -> Iterator[None]:
        """One transaction, or a savepoint while one is held open; without ``keep`` its work is undone."""
        if not self._is_held:
            self.connection.execute("BEGIN")
        before = state_of_cluster(self.connection)
        try:
            with self.connection.transaction():
                use_schema(self.connection, self._schema)
                defer_again(self.connection)
                yield
                _undo_unless(keep)
                use_schema(self.connection, self._schema)
        except _UndoneError:
            self._end(is_kept=False)
        except BaseException:
            if not self.connection.closed:
                self._end(is_kept=False)
            raise
        else:
            self._is_held = self._is_held or state_of_cluster(self.connection) != before
            self._end(is_kept=True)

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is done inside, traces of whole files included, is undone."""
        was_held, known, reads_left = self._is_held, self._known, self._reads_left
        self.connection.execute("SAVEPOINT position_ledger_trial" if was_held else "BEGIN")
        self._is_held = True
        try:
            yield
        finally:
            self._is_held, self._known, self._reads_left = was_held, known, reads_left
            if not self.connection.closed:
                self.connection.execute("ROLLBACK TO position_ledger_trial" if was_held else "ROLLBACK")

    def _end(self, *, is_kept: bool) -> None:
        if not self._is_held:
            self.connection.execute("COMMIT" if is_kept else "ROLLBACK")

    def catalogue(self) -> Catalogue:
        """What the schema holds now."""
        return read_catalogue(self.connection, self._schema)

    def begin(self, files: Sequence[MigrationFile]) -> Catalogue:
        """What is there before the files that will be traced; where they are long, it is read once for each of them."""
        if sum(len(file.forward.statements) for file in files) > CATALOGUE_READS_MAX:
            self._reads_left = 0
        self._known = self.catalogue()
        return self._known

    def replay(self, files: Sequence[MigrationFile]) -> None:
        """Run the forward parts of files that are applied already."""
        for part in between_commits(files):
            with self.step():
                for file in part:
                    use_schema(self.connection, self._schema)
                    replay_file(self.connection, file)
                    defer_again(self.connection)

    def first_failing(self, files: Sequence[MigrationFile]) -> tuple[MigrationFile, Failure] | None:
        """Run the forward parts on the rows that are here now, up to the first that fails; nothing of it stays."""
        with self.trial():
            for file in files:
                try:
                    self.replay([file])
                except StatementFailed as error:
                    return file, failure_of(error, file.forward.statements)
        return None

    def trace(self, file: MigrationFile, *, is_new: bool = True, filled: Collection[str] = ()) -> TracedFile:
        """Run one file and its verification, then try its way back; what the forward part did stays.

        A failure is in the answer, and then nothing of the file stays. One that is not ``is_new`` ran on the live
        database before, in whole or in part: a role that it makes may be there. Of the ``filled`` tables it is told
        what they would lose.
        """
        before = self._known or self.catalogue()
        rows = self._rows_before(file, before, filled)
        statements: list[TracedStatement] = []
        try:
            with self.step():
                for statement in self._forward(file, before, is_new=is_new):
                    statements.append(statement)  # noqa: PERF402 - those before a failure are kept
                use_schema(self.connection, self._schema)
                untrue = self.untrue(file)
                after = self._known or self.catalogue()
        except StatementFailed as error:
            self._known = None
            return TracedFile(file, before, before, tuple(statements), failure_of(error, file.forward.statements))
        return TracedFile(file, before, after, tuple(statements), None, untrue, self._back(file, before, after, rows))

    def _rows_before(self, file: MigrationFile, before: Catalogue, filled: Collection[str]) -> tuple[RowsBefore, ...]:
        if not file.rollback.statements or not filled:
            return ()
        with self.step():
            there = [before.tables[name] for name in sorted(filled) if name in before.tables]
            return remember_rows(self.connection, self._schema, there)

    def _forward(self, file: MigrationFile, before: Catalogue, *, is_new: bool) -> Iterator[TracedStatement]:
        with self.connection.cursor() as cursor, keeping_path(cursor, file):
            yield from self._statements(file, before, run_statement if is_new else run_beside_others)
            self._run_deferred(file)

    def _statements(
        self, file: MigrationFile, before: Catalogue, run: Callable[..., object]
    ) -> Iterator[TracedStatement]:
        statements = file.forward.statements
        facts, self._known = self._facts(), before
        first = facts
        for place, statement in enumerate(statements):
            started = time.monotonic()
            with self.connection.cursor() as cursor:
                run(cursor, file, statement, _text(file, statement))
            took_ms = round((time.monotonic() - started) * 1000)
            now = self._facts()
            differences: tuple[str, ...] = ()
            following = statements[place + 1] if place + 1 < len(statements) else None
            if following is None or (self._reads_left > 0 and not _is_gathered(statement, following)):
                catalogue, self._reads_left = self.catalogue(), self._reads_left - 1
                differences, self._known = tuple(diff(self._known, catalogue)), catalogue
            done = _compared(statement, first, facts, now, differences, took_ms)
            yield done if file.is_transactional else replace(done, locks=_concurrent(done.locks))
            facts = now

    def _run(self, file: MigrationFile, section: Section) -> None:
        with self.connection.cursor() as cursor, keeping_path(cursor, file):
            for statement in section.statements:
                run_beside_others(cursor, file, statement, _text(file, statement))
            self._run_deferred(file)

    def _run_deferred(self, file: MigrationFile) -> None:
        with self.connection.cursor() as cursor:
            run_section(cursor, file, [])

    def untrue(self, file: MigrationFile) -> tuple[Failure, ...]:
        """The verifications of the file that do not hold now."""
        failures: list[Failure] = []
        for part in file.verify.apart():
            statement = part.statements[0]
            try:
                with self.connection.transaction(), self.connection.cursor() as cursor:
                    verify_section(cursor, file, part)
            except FileFailed as error:
                state = error.sqlstate or "" if isinstance(error, StatementFailed) else ""
                failures.append(Failure(statement.line, statement.excerpt, state, error.why))
        return tuple(failures)

    def _back(
        self, file: MigrationFile, before: Catalogue, after: Catalogue, rows: Iterable[RowsBefore]
    ) -> RollbackProof:
        if not file.rollback.statements:
            return RollbackProof("none", file.header["Rollback"])
        proof = RollbackProof("proven")
        section = file.rollback
        try:
            with self.step(keep=False):
                self._run(file, section)
                use_schema(self.connection, self._schema)
                left = tuple(diff(before, self.catalogue()))
                if left:
                    return _wrong(file, "the rollback does not lead back to the schema before the file", left)
                proof = replace(proof, lost=tuple(lost_values(self.connection, self._schema, rows)))
                section = file.forward
                self._run(file, section)
                use_schema(self.connection, self._schema)
                other = tuple(diff(after, self.catalogue()))
                if other:
                    return _wrong(file, "after the rollback the forward part makes another schema", other)
        except StatementFailed as error:
            failure = failure_of(error, section.statements)
            which = "the rollback" if section is file.rollback else "the forward part, after the rollback,"
            return RollbackProof("wrong", f"{which} fails: {failure.cause}", failure.line)
        return proof

    def _facts(self) -> _Facts:
        rows = self.connection.execute(_FACTS, [self._schema, list(BOOKKEEPING)]).fetchall()
        locks = self.connection.execute(_LOCKS, [_READ_LOCK]).fetchall()
        return _facts_of(rows, locks)


def _concurrent(locks: tuple[Lock, ...]) -> tuple[Lock, ...]:
    """The lock that an index takes which is built or dropped CONCURRENTLY, though here that was in a transaction."""
    return tuple(
        Lock(lock.table, "SHARE UPDATE EXCLUSIVE") for lock in locks if lock.mode in {"SHARE", "ACCESS EXCLUSIVE"}
    )


def _text(file: MigrationFile, statement: Statement) -> str:
    return "" if file.is_transactional else without_concurrently(statement)


def _is_gathered(statement: Statement, following: Statement) -> bool:
    first, second = statement.words[:1], following.words[:1]
    return first == second and bool(_GATHERED & set(first))


def _compared(
    statement: Statement, first: _Facts, before: _Facts, now: _Facts, differences: tuple[str, ...], took_ms: int
) -> TracedStatement:
    taken = sorted((now.locks - before.locks), key=lambda lock: (first.names.get(lock[0], ""), lock[1]))
    names = {**now.names, **before.names}
    return TracedStatement(
        statement.line,
        statement.text,
        tuple(Lock(first.names[oid], _mode(mode)) for oid, mode in taken if oid in first.names),
        tuple(sorted(names[oid] for oid, node in before.files.items() if now.files.get(oid, node) != node)),
        _more(before.written, now.written, names),
        _more(before.scans, now.scans, first.names),
        differences,
        took_ms,
    )


def _more(before: dict[int, int], now: dict[int, int], names: dict[int, str]) -> dict[str, int]:
    counts = {names[oid]: count - before.get(oid, 0) for oid, count in now.items() if oid in names}
    return {name: count for name, count in sorted(counts.items()) if count > 0}


def _mode(mode: str) -> str:
    """``ShareRowExclusiveLock`` as the manual writes it: SHARE ROW EXCLUSIVE."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in mode.removesuffix("Lock"))
    return words.strip().upper()


def _wrong(file: MigrationFile, reason: str, differences: tuple[str, ...]) -> RollbackProof:
    first = file.rollback.statements[0].line
    return RollbackProof("wrong", f"{reason}: {'; '.join(differences[:5])}", first, differences)


def failure_of(error: StatementFailed, statements: Sequence[Statement]) -> Failure:
    """The server's refusal as plain values; the statement is the one at or before the line it points at."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.Error):
        return Failure(0, "", error.sqlstate or "", error.why)
    diag = cause.diag
    at = next((one for one in reversed(statements) if one.line <= error.line), None)
    detail = f" ({' '.join(diag.message_detail.split())})" if diag.message_detail else ""
    primary = " ".join((diag.message_primary or str(cause)).split())
    return Failure(
        error.line,
        at.text if at else "",
        error.sqlstate or "",
        f"{primary}{detail}",
        diag.table_name or "",
        diag.column_name or "",
        diag.constraint_name or "",
    )
