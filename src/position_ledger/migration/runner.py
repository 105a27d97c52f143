"""Apply and roll back migrations: one transaction each, under one lock, every step provable afterwards."""

from __future__ import annotations

import time
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from position_ledger.errors import MigrationError, SchemaMismatch
from position_ledger.migration.bookkeeping import ensure_bookkeeping, finish, forget, read_applied
from position_ledger.migration.classify import ProjectedChange
from position_ledger.migration.files import SUM_FILE, load_folder, ordered
from position_ledger.migration.plan import Status, begun_up_to, check_fit, pending_files, status_of, to_roll_back
from position_ledger.migration.rehearsing import rehearse, verify_files
from position_ledger.migration.scratch import Targets
from position_ledger.migration.session import (
    Limits,
    migration_session,
    open_session,
    use_schema,
)
from position_ledger.migration.sets import Abandon, ChangeSets, Outlook, announce
from position_ledger.migration.steps import Outcome, Rebuild, Run, Steps, elapsed_ms
from position_ledger.migration.sums import check_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from psycopg import Cursor

    from position_ledger.migration.files import MigrationFile

__all__ = ["Migrator", "Outcome", "Rebuild"]


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
        self._limits = limits or Limits()
        self._reason = reason
        self._tell = tell
        self.targets = Targets(scratch_url or conninfo, self.files, schema, projected, self._limits)
        self._steps = Steps(schema, projected, events_table, self._limits, self.targets, reason)
        self._sets = ChangeSets(schema, self.targets, self._steps)

    def status(self) -> Status:
        """Folder against database; needs only the right to read, and writes nothing."""
        with open_session(self._conninfo, self._limits) as connection:
            return status_of(self.files, read_applied(connection, self._schema))

    def require_current(self) -> None:
        """Raise SchemaMismatch, naming the gap and the command, unless exactly the folder's migrations are applied.

        Raises MigrationError for an edited file, and for a sum file that does not fit the folder.
        """
        with open_session(self._conninfo, self._limits) as connection:
            applied = read_applied(connection, self._schema)
        check_fit(self.files, applied)
        pending = status_of(self.files, applied).pending
        if pending:
            raise SchemaMismatch(
                f"the database is behind: {', '.join(row.name for row in pending)} not applied; "
                "run `position-ledger migrate up`"
            )
        self._check_sum()

    def differences(self) -> list[str]:
        """How the database differs from what its applied files make, in words; empty: it is exactly that.

        Replays the files in a scratch database. Raises MigrationError without the right to make one.
        """
        with open_session(self._conninfo, self._limits) as connection:
            rows = status_of(self.files, read_applied(connection, self._schema)).rows
            wrong = [f"migration {row.name} is {row.state}" for row in rows if row.state not in {"applied", "pending"}]
            use_schema(connection, self._schema)
            applied = [row.number for row in rows if row.state == "applied"]
            return wrong or self._steps.drift(connection, max(applied, default=0))

    def up(
        self, target: int | None = None, *, rebuild: Rebuild | None = None, outlook: Outlook | None = None
    ) -> Outcome:
        """Apply pending files up to target, or all; a second time it does nothing and says so.

        With events in the log, files that change a projected table are given to ``rebuild`` as a change set: it must
        bring the change about and call ``record_applied`` with the whole set in the transaction that makes it visible.
        ``outlook`` says beforehand what that will take. A set that fails before then is undone.
        Raises MigrationError, SchemaMismatch, DatabaseUnavailable; what was applied before the set or file that failed
        stays applied.
        """
        run = Run(self._tell)
        with migration_session(self._conninfo, self._schema, self._limits, self._tell) as connection:
            applied = read_applied(connection, self._schema)
            self._check(applied)
            files = pending_files(self.files, applied, target)
            ensure_bookkeeping(connection, self._schema)
            if not files:
                run.say(f"nothing to do: {self._named(target)} already applied")
            steps = self._sets.cut(connection, files, run, begun_up_to(applied))
            announce(steps, run, outlook)
            for step in steps:
                if isinstance(step, ProjectedChange):
                    self._sets.take(connection, step, rebuild, run)
                else:
                    self._steps.take(connection, step, run)
        return run.outcome()

    def abort(self, abandon: Abandon) -> Outcome:
        """Undo the change set that has begun and is not applied; ``abandon`` drops what was built of its tables.

        Raises MigrationError, SchemaMismatch, DatabaseUnavailable; run it again to go on.
        """
        run = Run(self._tell)
        with migration_session(self._conninfo, self._schema, self._limits, self._tell) as connection:
            self._check(read_applied(connection, self._schema))
            self._sets.abort(connection, self.files, abandon, run)
        return run.outcome()

    def planned_down(self, number: int) -> tuple[MigrationFile, ...]:
        """The files that `down` would roll back, latest first; raises as it would for what cannot be. Writes nothing."""
        with open_session(self._conninfo, self._limits) as connection:
            applied = read_applied(connection, self._schema)
        self._check(applied)
        return to_roll_back(self.files, applied, number)

    def down(
        self, number: int, *, restore: Rebuild | None = None, only: Sequence[MigrationFile] | None = None
    ) -> Outcome:
        """Roll back number and every later file, latest first, each verified against the catalogue before it.

        With events in the log, files that changed a projected table are given to ``restore`` (``before`` is what the
        database has, ``after`` what it is to have again), which calls ``record_rolled_back`` in its swap transaction.
        ``only`` is what the caller has shown and been told to roll back: MigrationError if it would be others by now.
        """
        run = Run(self._tell)
        with migration_session(self._conninfo, self._schema, self._limits, self._tell) as connection:
            applied = read_applied(connection, self._schema)
            self._check(applied)
            files = to_roll_back(self.files, applied, number)
            _refuse_others(files, only)
            if not files:
                run.say(f"nothing to do: {self.files[number - 1].filename} is not applied")
            else:
                ensure_bookkeeping(connection, self._schema)
            steps = self._steps.cut_back(connection, files[::-1], run)
            self.targets.prepare({near for file in files for near in (file.number - 1, file.number)})
            for step in reversed(steps):
                self._steps.take_back(connection, step, restore, run)
        return run.outcome()

    def record_applied(self, cursor: Cursor[Any], files: Sequence[MigrationFile], *, verify: bool = True) -> None:
        """Record files as applied in the caller's transaction, after their verification has held in it.

        A file that another runner recorded meanwhile fails on the primary key, so the caller's swap never doubles one.
        """
        for file in files:
            started = time.monotonic()
            if verify:
                self.verify(cursor, [file])
            finish(cursor, self._schema, file, elapsed_ms(started))

    def record_rolled_back(self, cursor: Cursor[Any], files: Sequence[MigrationFile]) -> None:
        """Record files (latest first) as rolled back in the caller's transaction."""
        for file in files:
            forget(cursor, self._schema, file, 0, reason=self._reason)

    def verify(self, cursor: Cursor[Any], files: Sequence[MigrationFile]) -> None:
        """Run the verification of files in the caller's transaction; MigrationError for the first that does not hold."""
        verify_files(cursor, [self._schema], files)

    def rehearse(
        self, files: Sequence[MigrationFile], cursor: Cursor[Any], shadows: Sequence[str]
    ) -> Callable[[Cursor[Any]], None]:
        """Verify files on shadows, in schemas of their own; answers what is left to verify in the swap."""
        return rehearse(cursor, self._schema, files, shadows)

    def _check(self, applied: Sequence[Any]) -> None:
        """The database first: that an applied file was edited says more than that the sum file does not fit."""
        check_fit(self.files, applied)
        self._check_sum()

    def _check_sum(self) -> None:
        if self._sum_text is not None:
            check_sum(self.files, self._sum_text)

    def _named(self, target: int | None) -> str:
        if target is None:
            return f"all {len(self.files)} migrations are" if self.files else "there are no migrations, all are"
        return f"{self.files[target - 1].filename} is"


def _refuse_others(files: Sequence[MigrationFile], only: Sequence[MigrationFile] | None) -> None:
    if only is not None and [file.number for file in files] != [file.number for file in only]:
        raise MigrationError(
            f"meanwhile others were applied or rolled back, it would take back {_named(files)} instead of {_named(only)}; "
            "nothing was changed, run the command again"
        )


def _named(files: Sequence[MigrationFile]) -> str:
    return ", ".join(file.name for file in files) or "nothing"


def _load(source: Traversable | str | Sequence[MigrationFile]) -> tuple[str | None, tuple[MigrationFile, ...]]:
    folder = Path(source) if isinstance(source, str) else source
    if not isinstance(folder, Traversable):
        return None, ordered(folder)
    files = load_folder(folder)
    sums = folder / SUM_FILE
    return (sums.read_text(encoding="utf-8") if sums.is_file() else None), files
