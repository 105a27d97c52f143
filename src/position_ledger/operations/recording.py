"""What is recorded of migrations: adopt a database, accept an edited file, and the history of everything."""

from __future__ import annotations

from position_ledger.database import translated
from position_ledger.migration import recording
from position_ledger.migration.bookkeeping import HistoryRow, read_history
from position_ledger.migration.recording import Place, Recorded
from position_ledger.migration.session import Limits, open_session
from position_ledger.operations.common import migrator_of
from position_ledger.settings import Settings
from position_ledger.setup import Reached


def migrate_baseline(settings: Settings, reached: Reached, number: int | None = None) -> Recorded:
    """Record migrations as applied in a database whose schema is exactly what they make; as `recording.baseline`."""
    with translated():
        return recording.baseline(_place(settings, reached), number)


def accept_checksum(
    settings: Settings, reached: Reached, number: int, *, reason: str | None = None, is_forced: bool = False
) -> Recorded:
    """Record an applied migration as its file is now; as `recording.accept_checksum`."""
    with translated():
        return recording.accept_checksum(_place(settings, reached), number, reason=reason, is_forced=is_forced)


def migration_history(settings: Settings, reached: Reached) -> tuple[HistoryRow, ...]:
    """Every migration and rollback ever run in this database, oldest first. Writes nothing."""
    with translated(), open_session(reached.database_url, Limits()) as connection:
        return read_history(connection, settings.ledger_schema)


def _place(settings: Settings, reached: Reached) -> Place:
    migrator = migrator_of(settings, reached)
    return Place(reached.database_url, settings.ledger_schema, migrator.files, migrator.targets, Limits())
