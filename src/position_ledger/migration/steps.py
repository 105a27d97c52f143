"""The steps of `migrate up` and `migrate down`: one file in its transaction, or a change set handed to its rebuild."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import psycopg
import tenacity
from psycopg import sql

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import forget, read_applied, remember
from position_ledger.migration.catalogue import diff
from position_ledger.migration.classify import ProjectedChange, sets_to_undo
from position_ledger.migration.execute import StatementFailed, is_lock_trouble, run_section, verify_section
from position_ledger.migration.index_build import apply_index, undo_index
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.scratch import Targets
from position_ledger.migration.session import Connection, Limits, lock_blockers, use_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from position_ledger.migration.bookkeeping import Action, State
    from position_ledger.migration.files import MigrationFile

__all__ = ["Outcome", "Rebuild", "Run", "Steps", "elapsed_ms"]

Rebuild: TypeAlias = "Callable[[ProjectedChange], None]"
"""Brings a change set about and records its files in the transaction that makes it visible."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The files that a command applied or rolled back, in the order it did, and what it has to say."""

    files: tuple[MigrationFile, ...]
    messages: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """What one command has done so far; each message is also told at once."""

    tell: Callable[[str], None]
    is_log_empty: bool = False
    files: list[MigrationFile] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        """Tell it now, and keep it for the outcome."""
        self.messages.append(message)
        self.tell(message)

    def outcome(self) -> Outcome:
        """What was done."""
        return Outcome(tuple(self.files), tuple(self.messages))


class Steps:
    """Takes the steps of a run on the session that holds the migration lock."""

    def __init__(
        self,
        schema: str,
        projected: Collection[str],
        events_table: str,
        limits: Limits,
        targets: Targets,
        reason: str | None = None,
    ) -> None:
        """``reason`` is kept in the history beside every rollback."""
        self._schema = schema
        self._projected = frozenset(projected)
        self._events_table = events_table
        self._limits = limits
        self._targets = targets
        self._reason = reason

    def cut_back(
        self, connection: Connection, files: Sequence[MigrationFile], run: Run
    ) -> list[MigrationFile | ProjectedChange]:
        """The steps of a rollback, in the order in which the files were applied."""
        if self.runs_in_place(connection, files, run):
            return list(files)
        return sets_to_undo(self._targets.effects([file.number for file in files]))

    def runs_in_place(self, connection: Connection, files: Sequence[MigrationFile], run: Run) -> bool:
        """Whether no table has rows that only history can give: there is no projected one, or no event."""
        if not files or not self._projected:
            return True
        run.is_log_empty = not self._has_events(connection)
        return run.is_log_empty

    def _knows_events(self, connection: Connection) -> bool:
        name = sql.Identifier(self._schema, self._events_table).as_string(connection)
        return connection.execute("SELECT to_regclass(%s)::oid", [name]).fetchone() != (None,)

    def _has_events(self, connection: Connection) -> bool:
        name = sql.Identifier(self._schema, self._events_table)
        if not self._knows_events(connection):
            return False
        return connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone() is not None

    def take(self, connection: Connection, file: MigrationFile, run: Run) -> None:
        """Apply one file."""
        if file.is_transactional:
            self.run_in_place(connection, file, run)
            return
        started = time.monotonic()
        apply_index(connection, self._schema, file)
        use_schema(connection, self._schema)
        run.files.append(file)
        run.say(f"applied {file.filename} in {elapsed_ms(started)} ms")

    def run_in_place(
        self, connection: Connection, file: MigrationFile, run: Run, *, change_set: int | None = None
    ) -> None:
        """Run and verify one file in one transaction, which records it as applied, or as part of a change set."""
        started = time.monotonic()
        self._retrying(connection, file, run, lambda: self._apply(connection, file, run, started, change_set))
        use_schema(connection, self._schema)
        if change_set is None:
            run.files.append(file)
        run.say(f"{'applied' if change_set is None else 'in place:'} {file.filename} in {elapsed_ms(started)} ms")

    def _apply(
        self, connection: Connection, file: MigrationFile, run: Run, started: float, change_set: int | None
    ) -> None:
        state: State = "done" if change_set is None else "expanded"
        with connection.transaction(), connection.cursor() as cursor:
            self._begin(connection, run)
            run_section(cursor, file, file.forward.statements)
            self._settle(connection)
            verify_section(cursor, file, file.verify)
            remember(cursor, self._schema, file, state, elapsed_ms(started), change_set=change_set)

    def _begin(self, connection: Connection, run: Run) -> None:
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

    def require_strategy(self, change: ProjectedChange, strategy: Rebuild | None, *, undo: bool = False) -> None:
        """Raise MigrationError, naming the command, if nobody here can rebuild."""
        if strategy is not None:
            return
        files = ", ".join(file.filename for file in change.files)
        command = f"rebuild-projection {change.moved[0]}" + (" --rollback" if undo else "")
        raise MigrationError(
            f"{files} {'changed' if undo else 'changes'} the projected table {', '.join(change.moved)}, whose rows come "
            f"from the log, and the log has events: it needs the rebuild; run `{command}`"
        )

    def hand_over(
        self,
        connection: Connection,
        change: ProjectedChange,
        strategy: Rebuild | None,
        run: Run,
        *,
        undo: bool,
    ) -> None:
        """Let the strategy bring a change about, and see that it has recorded every file of it."""
        self.require_strategy(change, strategy, undo=undo)
        order = change.files if undo else change.whole
        tables, files = ", ".join(change.moved), ", ".join(file.filename for file in order)
        run.say(f"{'taking back' if undo else 'rebuilding'} {tables} for {files}")
        if strategy is not None:
            strategy(change)
        recorded = {row.number for row in read_applied(connection, self._schema) if not row.is_begun}
        missing = [file.filename for file in order if (file.number in recorded) == undo]
        if missing:
            raise MigrationError(
                f"the rebuild of {tables} ended without recording {', '.join(missing)}; "
                "see `position-ledger migrate status`"
            )
        run.files += order
        run.say(f"{'rolled back' if undo else 'applied'} {files}")

    def take_back(
        self,
        connection: Connection,
        step: MigrationFile | ProjectedChange,
        restore: Rebuild | None,
        run: Run,
    ) -> None:
        """Roll one step back; what changed projected tables is given to ``restore``."""
        if isinstance(step, ProjectedChange):
            back = ProjectedChange(step.files[::-1], step.tables, step.views, step.after, step.before, step.made)
            self.hand_over(connection, back, restore, run, undo=True)
            return
        if step.is_transactional:
            self.undo_in_place(connection, step, run)
            return
        started = time.monotonic()
        self._targets.prepare([step.number - 1, step.number])
        known = self.drift(connection, step.number)
        undo_index(
            connection, self._schema, step, lambda: self._require_back(connection, step, known), reason=self._reason
        )
        use_schema(connection, self._schema)
        run.files.append(step)
        run.say(f"rolled back {step.filename} in {elapsed_ms(started)} ms")

    def undo_in_place(self, connection: Connection, file: MigrationFile, run: Run, *, action: Action = "down") -> None:
        """Run one rollback section in one transaction, and see that it leads back to the schema before the file."""
        started = time.monotonic()
        self._targets.prepare([file.number - 1, file.number])
        known = self.drift(connection, file.number)
        self._retrying(connection, file, run, lambda: self._undo(connection, file, run, known, action))
        use_schema(connection, self._schema)
        if action == "down":
            run.files.append(file)
        run.say(f"rolled back {file.filename} in {elapsed_ms(started)} ms")

    def _undo(
        self, connection: Connection, file: MigrationFile, run: Run, known: Collection[str], action: Action
    ) -> None:
        started = time.monotonic()
        with connection.transaction(), connection.cursor() as cursor:
            self._begin(connection, run)
            command = "migrate up --abort" if action == "abort" else ""
            run_section(cursor, file, file.rollback.statements, command=command)
            self._settle(connection)
            self._require_back(connection, file, known)
            forget(cursor, self._schema, file, elapsed_ms(started), reason=self._reason, action=action)

    def _require_back(self, connection: Connection, file: MigrationFile, known: Collection[str]) -> None:
        left = [line for line in self.drift(connection, file.number - 1) if line not in known]
        if left:
            raise StatementFailed(
                f"the rollback of {file.filename} does not lead back to the schema before it: {'; '.join(left[:5])}",
                None,
                then="nothing was rolled back, correct its rollback section",
            )

    def drift(self, connection: Connection, number: int) -> list[str]:
        """How the live schema differs from what the files up to number make: what was done by hand stays as it is."""
        target = self._targets.catalogue_at(number)
        return diff(target, read_catalogue(connection, self._schema))

    def _retrying(self, connection: Connection, file: MigrationFile, run: Run, attempt: Callable[[], None]) -> None:
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
            tried = f"tried for {limits.retry_budget_s:g} s, locks on tables of {self._schema} are held by {blockers}"
            then = f"{error.then}; {tried}" if error.then else tried
            raise StatementFailed(error.told, error.sqlstate, then=then) from error
        except psycopg.Error as error:
            if connection.broken:
                raise
            raise MigrationError(
                f"{file.filename} failed at its end: {error}; nothing of this file was kept; "
                "see `position-ledger migrate status`"
            ) from error


def elapsed_ms(started: float) -> int:
    """Whole milliseconds since a reading of the monotonic clock."""
    return round((time.monotonic() - started) * 1000)
