"""Roll back with open eyes: what would be lost is shown first, and an incident note says afterwards what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from position_ledger.database import translated
from position_ledger.errors import LedgerError, MigrationError
from position_ledger.migration.bookkeeping import origin
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.impact import Loss, losses
from position_ledger.migration.runner import Migrator, Outcome
from position_ledger.migration.session import Limits, open_session, use_schema
from position_ledger.operations.common import Tell, migrator_of, owner, projection_named, projections
from position_ledger.operations.incidents import Incident, now, write_incident
from position_ledger.operations.migrating import migrate_down
from position_ledger.operations.rebuilding import roll_back
from position_ledger.projection.rebuild import Progress, RebuildReport
from position_ledger.settings import Settings
from position_ledger.setup import Reached, masked

ResultT = TypeVar("ResultT")
MIGRATIONS_OF_ACTIVE = (
    "SELECT g.migrations FROM projection_generations AS g WHERE g.projection = %s AND g.state = 'active'"
)
NEXT = (
    "`position-ledger migrate status` shows where the database is. Put the correction into the file before it is applied "
    "again with `position-ledger migrate up`; events were never touched."
)


@dataclass(frozen=True, slots=True)
class Impact:
    """The migrations that a rollback takes back, latest first, and what would be lost."""

    files: tuple[MigrationFile, ...]
    lost: tuple[Loss, ...]


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What was done, and where the incident note is; None if nothing was done or it could not be written."""

    outcome: Outcome
    note: Path | None


def rollback_impact(settings: Settings, reached: Reached, number: int | None = None) -> Impact:
    """What rolling back to before ``number``, or only the latest migration, would take back and lose. Writes nothing.

    Raises:
        MigrationError, SchemaMismatch: as the rollback would, or there is nothing to roll back.
    """
    with translated():
        migrator = migrator_of(settings, reached)
        chosen = number or latest(migrator)
        files = migrator.planned_down(chosen)
        return Impact(files, _losses(settings, reached, migrator, files))


def latest(migrator: Migrator) -> int:
    """The number of the latest migration that is applied; MigrationError for none."""
    applied = [row.number for row in migrator.status().rows if row.applied is not None]
    if not applied:
        raise MigrationError(
            "no migration is applied, so there is nothing to roll back; see position-ledger migrate status"
        )
    return max(applied)


def roll_back_migrations(
    settings: Settings, reached: Reached, impact: Impact, number: int, *, reason: str | None, tell: Tell
) -> RolledBack:
    """Roll back exactly what the impact showed, and write the incident note, of a failure too.

    Raises:
        MigrationError: other migrations were applied since; nothing was changed. Otherwise as `migrate_down`.
    """
    act = partial(migrate_down, settings, reached, number, tell, reason=reason, only=impact.files)
    if not impact.files:
        return RolledBack(act(), None)
    names = [file.name for file in impact.files]
    incident = _Recorder(settings, reached, f"rollback of {names[-1]}", f"migrate down {number:03}", reason, tell)
    with translated():
        outcome, note = incident.around(act, impact)
    return RolledBack(outcome, note)


def roll_back_table(
    settings: Settings,
    reached: Reached,
    table: str,
    *,
    reason: str | None = None,
    processes: int = 1,
    tell: Tell,
    progress: Progress | None = None,
) -> RebuildReport:
    """Put the retired generation of a table back, and write the incident note, of a failure too.

    Raises:
        As `roll_back`.
    """
    impact = _impact_of_table(settings, reached, table)
    subject, action = f"rollback of the table {table}", f"rebuild-projection {table} --rollback"
    incident = _Recorder(settings, reached, subject, action, reason, tell)
    act = partial(roll_back, settings, reached, table, tell=tell, reason=reason, processes=processes, progress=progress)
    report, _note = incident.around(act, impact)
    return report


def _impact_of_table(settings: Settings, reached: Reached, table: str) -> Impact:
    """The migrations that became applied with the active generation; none: the same columns, made by other code."""
    with translated():
        projection_named(settings, table)
        with owner(settings, reached) as connection:
            row = connection.execute(MIGRATIONS_OF_ACTIVE, (table,)).fetchone()
        numbers = set(row[0]) if row else set()
        migrator = migrator_of(settings, reached)
        files = tuple(file for file in reversed(migrator.files) if file.number in numbers)
        return Impact(files, _losses(settings, reached, migrator, files))


def _losses(
    settings: Settings, reached: Reached, migrator: Migrator, files: Sequence[MigrationFile]
) -> tuple[Loss, ...]:
    """Counted in the live tables; the catalogues are those that the files make."""
    if not files:
        return ()
    last, first = files[0].number, files[-1].number
    migrator.targets.prepare([first - 1, last])
    now_, then = migrator.targets.catalogue_at(last), migrator.targets.catalogue_at(first - 1)
    tables = [projection.table for projection in projections(settings)]
    with open_session(reached.database_url, Limits()) as connection:
        use_schema(connection, settings.ledger_schema)
        return losses(connection, settings.ledger_schema, now_, then, files, tables)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Writes the note about one rollback, whatever becomes of it."""

    settings: Settings
    reached: Reached
    subject: str
    action: str
    reason: str | None
    tell: Tell

    def around(self, act: Callable[[], ResultT], impact: Impact) -> tuple[ResultT, Path | None]:
        """Act, and write the note of what happened; an error goes on after it."""
        began_at = now()
        try:
            done = act()
        except BaseException as error:
            status, lost = self._after(error, impact)
            self._write(began_at, impact, status, lost)
            raise
        return done, self._write(began_at, impact, "done", [str(loss) for loss in impact.lost])

    def _write(self, began_at: datetime, impact: Impact, status: str, lost: Sequence[str]) -> Path | None:
        incident = Incident(
            self.subject,
            self.action,
            [file.filename for file in impact.files],
            began_at,
            now(),
            self.reason,
            origin(),
            f"{masked(self.reached.database_url)}, schema {self.settings.ledger_schema}",
            status,
            lost,
            NEXT,
        )
        return write_incident(self.settings.incidents, incident, self.tell)

    def _after(self, error: BaseException, impact: Impact) -> tuple[str, list[str]]:
        """How far it came before the error, and what that cost."""
        said = str(error) or type(error).__name__
        try:
            rows = migrator_of(self.settings, self.reached).status().rows
        except LedgerError:
            return f"failed: {said}; how far it came is not known, the database does not answer", _perhaps(impact)
        applied = {row.number for row in rows if row.applied is not None}
        gone = [file.filename for file in impact.files if file.number not in applied]
        if not gone:
            return f"failed: {said}; nothing was rolled back", []
        return f"failed: {said}; rolled back before that: {', '.join(gone)}", _perhaps(impact)


def _perhaps(impact: Impact) -> list[str]:
    return [f"at most: {loss}" for loss in impact.lost]
