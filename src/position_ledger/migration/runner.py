"""Apply and roll back migrations: one transaction each, under one lock, every step provable afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
import tenacity
from psycopg import sql
from psycopg.rows import tuple_row

from position_ledger.errors import MigrationError, SchemaMismatch
from position_ledger.migration.bookkeeping import ensure_bookkeeping, forget, read_applied, remember
from position_ledger.migration.catalogue import diff
from position_ledger.migration.classify import ProjectedChange, change_sets
from position_ledger.migration.execute import StatementFailed, is_lock_trouble, run_section, verify_section
from position_ledger.migration.files import SUM_FILE, load_folder, ordered
from position_ledger.migration.index_build import build_index, drop_index
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.plan import Status, check_fit, pending_files, status_of, to_roll_back
from position_ledger.migration.scratch import Targets
from position_ledger.migration.session import (
    Connection,
    Limits,
    lock_blockers,
    migration_session,
    open_session,
    use_schema,
)
from position_ledger.migration.sums import check_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from psycopg import Cursor

    from position_ledger.migration.files import MigrationFile

__all__ = ["Migrator", "Outcome", "Rebuild"]

Rebuild: TypeAlias = "Callable[[ProjectedChange], None]"
"""Brings a change set about and records its files in the transaction that makes it visible."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The files that a command applied or rolled back, in the order it did, and what it has to say."""

    files: tuple[MigrationFile, ...]
    messages: tuple[str, ...]


@dataclass(slots=True)
class _Run:
    """What one command has done so far; each message is also told at once."""

    tell: Callable[[str], None]
    is_log_empty: bool = False
    files: list[MigrationFile] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        self.messages.append(message)
        self.tell(message)

    def outcome(self) -> Outcome:
        return Outcome(tuple(self.files), tuple(self.messages))


class Migrator:
    """The migrations of one folder against one schema of one database."""

    def __init__(  # noqa: PLR0913 - each has its own name at the call
        self,
        conninfo: str,
        source: Traversable | str | Sequence[MigrationFile],
        schema: str = "ledger",
        *,
        projected: Collection[str] = (),
        events_table: str = "events",
        scratch_url: str | None = None,
        limits: Limits | None = None,
        reason: str | None = None,
        tell: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """``projected`` names the tables whose rows come from the log; ``tell`` hears every message as it happens.

        ``reason`` is kept in the history beside every rollback.

        Raises MigrationError for a folder or file that is wrong.
        """
        self._conninfo = conninfo
        self._sum_text, self.files = _load(source)
        self._schema = schema
        self._projected = frozenset(projected)
        self._events_table = events_table
        self._limits = limits or Limits()
        self._reason = reason
        self._tell = tell
        self.targets = Targets(scratch_url or conninfo, self.files, schema, projected, self._limits)

    def status(self) -> Status:
        """Folder against database; needs only the right to read, and writes nothing."""
        with open_session(self._conninfo, self._limits) as connection:
            return status_of(self.files, read_applied(connection, self._schema))

    def require_current(self) -> None:
        """Raise SchemaMismatch, naming the gap and the command, unless exactly the folder's migrations are applied."""
        with open_session(self._conninfo, self._limits) as connection:
            applied = read_applied(connection, self._schema)
        check_fit(self.files, applied)
        pending = status_of(self.files, applied).pending
        if pending:
            raise SchemaMismatch(
                f"the database is behind: {', '.join(row.name for row in pending)} not applied; "
                "run `position-ledger migrate up`"
            )

    def differences(self) -> list[str]:
        """How the database differs from what its applied files make, in words; empty: it is exactly that.

        Replays the files in a scratch database. Raises MigrationError without the right to make one.
        """
        with open_session(self._conninfo, self._limits) as connection:
            rows = status_of(self.files, read_applied(connection, self._schema)).rows
            wrong = [f"migration {row.name} is {row.state}" for row in rows if row.state not in {"applied", "pending"}]
            use_schema(connection, self._schema)
            applied = [row.number for row in rows if row.state == "applied"]
            return wrong or self._drift(connection, max(applied, default=0))

    def up(self, target: int | None = None, *, rebuild: Rebuild | None = None) -> Outcome:
        """Apply pending files up to target, or all; a second time it does nothing and says so.

        With events in the log, files that change a projected table are given to ``rebuild`` as a change set: it must
        bring the change about and call ``record_applied`` in the transaction that makes it visible.
        Raises MigrationError, SchemaMismatch, DatabaseUnavailable; the files before the one that failed stay applied.
        """
        run = _Run(self._tell)
        with migration_session(self._conninfo, self._schema, self._limits) as connection:
            applied = read_applied(connection, self._schema)
            self._check(applied)
            files = pending_files(self.files, applied, target)
            ensure_bookkeeping(connection, self._schema)
            if not files:
                run.say(f"nothing to do: {self._named(target)} already applied")
            for step in self._steps(connection, files, run):
                self._take_step(connection, step, rebuild, run)
        return run.outcome()

    def down(self, number: int, *, restore: Rebuild | None = None) -> Outcome:
        """Roll back number and every later file, latest first, each verified against the catalogue before it.

        With events in the log, files that changed a projected table are given to ``restore`` (``before`` is what the
        database has, ``after`` what it is to have again), which calls ``record_rolled_back`` in its swap transaction.
        """
        run = _Run(self._tell)
        with migration_session(self._conninfo, self._schema, self._limits) as connection:
            applied = read_applied(connection, self._schema)
            self._check(applied)
            files = to_roll_back(self.files, applied, number)
            if not files:
                run.say(f"nothing to do: {self.files[number - 1].filename} is not applied")
            else:
                ensure_bookkeeping(connection, self._schema)
            steps = self._steps(connection, files[::-1], run)
            self.targets.prepare({near for file in files for near in (file.number - 1, file.number)})
            for step in reversed(steps):
                self._take_step_back(connection, step, restore, run)
        return run.outcome()

    def record_applied(self, cursor: Cursor[Any], files: Sequence[MigrationFile], *, verify: bool = True) -> None:
        """Record files as applied in the caller's transaction, after their verification has held in it.

        A file that another runner recorded meanwhile fails on the primary key, so the caller's swap never doubles one.
        """
        for file in files:
            started = time.monotonic()
            if verify:
                self.verify(cursor, [file])
            remember(cursor, self._schema, file, "done", _elapsed_ms(started))

    def record_rolled_back(self, cursor: Cursor[Any], files: Sequence[MigrationFile]) -> None:
        """Record files (latest first) as rolled back in the caller's transaction."""
        for file in files:
            forget(cursor, self._schema, file, 0, reason=self._reason)

    def verify(self, cursor: Cursor[Any], files: Sequence[MigrationFile], *, schema: str | None = None) -> None:
        """Run the verification of files in the caller's transaction; ``schema`` names a shadow to look at first."""
        path = [schema, self._schema] if schema else [self._schema]
        with cursor.connection.transaction(), cursor.connection.cursor(row_factory=tuple_row) as checking:
            before = checking.execute("SELECT current_setting('search_path')").fetchone()
            checking.execute(
                sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.SQL(", ").join(map(sql.Identifier, path)))
            )
            for file in files:
                verify_section(checking, file, file.verify)
            checking.execute("SELECT set_config('search_path', %s, true)", [before[0] if before else ""])

    def _check(self, applied: Sequence[Any]) -> None:
        """The database first: that an applied file was edited says more than that the sum file does not fit."""
        check_fit(self.files, applied)
        if self._sum_text is not None:
            check_sum(self.files, self._sum_text)

    def _named(self, target: int | None) -> str:
        if target is None:
            return f"all {len(self.files)} migrations are" if self.files else "there are no migrations, all are"
        return f"{self.files[target - 1].filename} is"

    def _steps(
        self, connection: Connection, files: Sequence[MigrationFile], run: _Run
    ) -> list[MigrationFile | ProjectedChange]:
        """Without events every file runs in place; with events, what changes projected tables is set apart."""
        if not files or not self._projected:
            return list(files)
        run.is_log_empty = not self._has_events(connection)
        if run.is_log_empty:
            return list(files)
        return change_sets(self.targets.effects([file.number for file in files]))

    def _knows_events(self, connection: Connection) -> bool:
        name = sql.Identifier(self._schema, self._events_table).as_string(connection)
        return connection.execute("SELECT to_regclass(%s)::oid", [name]).fetchone() != (None,)

    def _has_events(self, connection: Connection) -> bool:
        name = sql.Identifier(self._schema, self._events_table)
        if not self._knows_events(connection):
            return False
        return connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone() is not None

    def _take_step(
        self,
        connection: Connection,
        step: MigrationFile | ProjectedChange,
        rebuild: Rebuild | None,
        run: _Run,
    ) -> None:
        if isinstance(step, ProjectedChange):
            self._hand_over(connection, step, rebuild, run, undo=False)
            return
        started = time.monotonic()
        if step.is_transactional:
            self._retrying(connection, step, run, lambda: self._apply(connection, step, run, started))
        else:
            build_index(connection, self._schema, step)
        use_schema(connection, self._schema)
        run.files.append(step)
        run.say(f"applied {step.filename} in {_elapsed_ms(started)} ms")

    def _apply(self, connection: Connection, file: MigrationFile, run: _Run, started: float) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            self._begin(connection, run)
            run_section(cursor, file, file.forward.statements)
            self._settle(connection)
            verify_section(cursor, file, file.verify)
            remember(cursor, self._schema, file, "done", _elapsed_ms(started))

    def _begin(self, connection: Connection, run: _Run) -> None:
        """Bound the waits; and while the log is empty, which makes in place right, let no first event arrive."""
        self._limit_lock_waits(connection)
        if not run.is_log_empty or not self._knows_events(connection):
            return
        name = sql.Identifier(self._schema, self._events_table)
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(name))
        except psycopg.errors.LockNotAvailable as error:
            raise StatementFailed(f"somebody writes to {self._events_table}", error.sqlstate) from error
        if self._has_events(connection):
            raise MigrationError("the first events arrived while migrating; run `position-ledger migrate up` again")

    def _settle(self, connection: Connection) -> None:
        """What the file set is over; the verification holds its locks, so it may not wait long for others either."""
        use_schema(connection, self._schema)
        self._limit_lock_waits(connection)

    def _limit_lock_waits(self, connection: Connection) -> None:
        connection.execute(f"SET LOCAL lock_timeout = {self._limits.lock_timeout_ms}".encode())

    def _hand_over(
        self,
        connection: Connection,
        change: ProjectedChange,
        strategy: Rebuild | None,
        run: _Run,
        *,
        undo: bool,
    ) -> None:
        tables, files = ", ".join(sorted(change.tables)), ", ".join(file.filename for file in change.files)
        if strategy is None:
            command = f"rebuild-projection {min(change.tables)}" + (" --rollback" if undo else "")
            raise MigrationError(
                f"{files} {'changed' if undo else 'changes'} the projected table {tables}, whose rows come from "
                f"the log, and the log has events: it needs the rebuild; run `{command}`"
            )
        run.say(f"{'taking back' if undo else 'rebuilding'} {tables} for {files}")
        strategy(change)
        recorded = {row.number for row in read_applied(connection, self._schema)}
        missing = [file.filename for file in change.files if (file.number in recorded) == undo]
        if missing:
            raise MigrationError(
                f"the rebuild of {tables} ended without recording {', '.join(missing)}; "
                "see `position-ledger migrate status`"
            )
        run.files += change.files
        run.say(f"{'rolled back' if undo else 'applied'} {files}")

    def _take_step_back(
        self,
        connection: Connection,
        step: MigrationFile | ProjectedChange,
        restore: Rebuild | None,
        run: _Run,
    ) -> None:
        if isinstance(step, ProjectedChange):
            back = ProjectedChange(step.files[::-1], step.tables, step.views, step.after, step.before)
            self._hand_over(connection, back, restore, run, undo=True)
            return
        started = time.monotonic()
        if step.is_transactional:
            self.targets.prepare([step.number - 1, step.number])
            known = self._drift(connection, step.number)
            self._retrying(connection, step, run, lambda: self._take_back(connection, step, run, known))
        else:
            drop_index(connection, self._schema, step, reason=self._reason)
        use_schema(connection, self._schema)
        run.files.append(step)
        run.say(f"rolled back {step.filename} in {_elapsed_ms(started)} ms")

    def _take_back(self, connection: Connection, file: MigrationFile, run: _Run, known: Collection[str]) -> None:
        started = time.monotonic()
        with connection.transaction(), connection.cursor() as cursor:
            self._begin(connection, run)
            run_section(cursor, file, file.rollback.statements)
            self._settle(connection)
            left = [line for line in self._drift(connection, file.number - 1) if line not in known]
            if left:
                raise MigrationError(
                    f"the rollback of {file.filename} does not lead back to the schema before it: "
                    f"{'; '.join(left[:5])}; nothing was rolled back, correct its rollback section"
                )
            forget(cursor, self._schema, file, _elapsed_ms(started), reason=self._reason)

    def _drift(self, connection: Connection, number: int) -> list[str]:
        """How the live schema differs from what the files up to number make: what was done by hand stays as it is."""
        target = self.targets.catalogue_at(number)
        return diff(target, read_catalogue(connection, self._schema))

    def _retrying(self, connection: Connection, file: MigrationFile, run: _Run, attempt: Callable[[], None]) -> None:
        """Try again, after a pause with jitter, while only a lock is in the way; then say who holds locks."""
        limits = self._limits
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_lock_trouble),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=limits.retry_pause_max_s),
            stop=tenacity.stop_after_delay(limits.retry_budget_s),
            before_sleep=lambda state: run.tell(f"{file.filename} waits for a lock, try {state.attempt_number}"),
            reraise=True,
        )
        try:
            retrying(attempt)
        except StatementFailed as error:
            if not is_lock_trouble(error):
                raise
            blockers = lock_blockers(connection, self._schema) or "nobody any more"
            raise StatementFailed(
                f"{error}; tried for {limits.retry_budget_s:g} s, "
                f"locks on tables of {self._schema} are held by {blockers}",
                error.sqlstate,
            ) from error
        except psycopg.Error as error:
            if connection.broken:
                raise
            raise MigrationError(
                f"{file.filename} failed at its end: {error}; nothing of this file was kept"
            ) from error


def _load(source: Traversable | str | Sequence[MigrationFile]) -> tuple[str | None, tuple[MigrationFile, ...]]:
    folder = Path(source) if isinstance(source, str) else source
    if not isinstance(folder, Traversable):
        return None, ordered(folder)
    files = load_folder(folder)
    sums = folder / SUM_FILE
    return (sums.read_text(encoding="utf-8") if sums.is_file() else None), files


def _elapsed_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
