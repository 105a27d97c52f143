"""What an operator does to a ledger: migrate, check, verify, rebuild, roll back. Each function is one command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.lazily import lazily

if TYPE_CHECKING:
    from position_ledger.archive import Archive, ArchiveReport, ExportReport
    from position_ledger.operations.archiving import (
        archive_against_log,
        archive_export,
        archive_verify,
        archived_history,
    )
    from position_ledger.operations.backup import BackupState, backup_state
    from position_ledger.operations.checking import CheckReport, check
    from position_ledger.operations.common import RELEASE, NoProgress, migrations_folder
    from position_ledger.operations.defined import around_of, definition_states
    from position_ledger.operations.documenting import Written, compare_pages, schema_pages, write_pages
    from position_ledger.operations.migrating import (
        migrate_abort,
        migrate_down,
        migrate_up,
        migrate_verify,
        migration_status,
    )
    from position_ledger.operations.planning import migrate_plan
    from position_ledger.operations.proving import VerifyReport, verify
    from position_ledger.operations.rebuilding import drop_retired, rebuild, roll_back, set_mode
    from position_ledger.operations.recording import accept_checksum, migrate_baseline, migration_history
    from position_ledger.operations.requiring import require_ledger
    from position_ledger.operations.rolling_back import (
        Impact,
        RolledBack,
        roll_back_migrations,
        roll_back_table,
        rollback_impact,
    )
    from position_ledger.operations.steering import Steered, steer_rebuild
    from position_ledger.operations.writing import SumReport, new_migration, renew_sum, sum_fits
    from position_ledger.projection.rebuild import Progress, RebuildOptions, RebuildReport

__all__ = [
    "RELEASE",
    "Archive",
    "ArchiveReport",
    "BackupState",
    "CheckReport",
    "ExportReport",
    "Impact",
    "NoProgress",
    "Progress",
    "RebuildOptions",
    "RebuildReport",
    "RolledBack",
    "Steered",
    "SumReport",
    "VerifyReport",
    "Written",
    "accept_checksum",
    "archive_against_log",
    "archive_export",
    "archive_verify",
    "archived_history",
    "around_of",
    "backup_state",
    "check",
    "compare_pages",
    "definition_states",
    "drop_retired",
    "migrate_abort",
    "migrate_baseline",
    "migrate_down",
    "migrate_plan",
    "migrate_up",
    "migrate_verify",
    "migration_history",
    "migration_status",
    "migrations_folder",
    "new_migration",
    "rebuild",
    "renew_sum",
    "require_ledger",
    "roll_back",
    "roll_back_migrations",
    "roll_back_table",
    "rollback_impact",
    "schema_pages",
    "set_mode",
    "steer_rebuild",
    "sum_fits",
    "verify",
    "write_pages",
]

_HOMES = {
    "position_ledger.archive": "Archive ArchiveReport ExportReport",
    "position_ledger.operations.archiving": "archive_against_log archive_export archive_verify archived_history",
    "position_ledger.operations.backup": "BackupState backup_state",
    "position_ledger.operations.checking": "CheckReport check",
    "position_ledger.operations.common": "RELEASE NoProgress migrations_folder",
    "position_ledger.operations.defined": "around_of definition_states",
    "position_ledger.operations.documenting": "Written compare_pages schema_pages write_pages",
    "position_ledger.operations.migrating": "migrate_abort migrate_down migrate_up migrate_verify migration_status",
    "position_ledger.operations.planning": "migrate_plan",
    "position_ledger.operations.proving": "VerifyReport verify",
    "position_ledger.operations.rebuilding": "drop_retired rebuild roll_back set_mode",
    "position_ledger.operations.recording": "accept_checksum migrate_baseline migration_history",
    "position_ledger.operations.requiring": "require_ledger",
    "position_ledger.operations.rolling_back": "Impact RolledBack roll_back_migrations roll_back_table rollback_impact",
    "position_ledger.operations.steering": "Steered steer_rebuild",
    "position_ledger.operations.writing": "SumReport new_migration renew_sum sum_fits",
    "position_ledger.projection.rebuild": "Progress RebuildOptions RebuildReport",
}
"""The module of each name."""

__getattr__, __dir__ = lazily(__name__, _HOMES)
