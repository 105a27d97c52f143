"""What an operator does to a ledger: migrate, check, verify, rebuild, roll back. Each function is one command."""

from position_ledger.archive import Archive, ArchiveReport, ExportReport
from position_ledger.operations.archiving import archive_against_log, archive_export, archive_verify, archived_history
from position_ledger.operations.backup import BackupState, backup_state
from position_ledger.operations.checking import CheckReport, check
from position_ledger.operations.common import RELEASE, NoProgress, migrations_folder
from position_ledger.operations.documenting import Written, compare_pages, schema_pages, write_pages
from position_ledger.operations.migrating import (
    migrate_abort,
    migrate_down,
    migrate_up,
    migrate_verify,
    migration_status,
    require_ledger,
)
from position_ledger.operations.planning import migrate_plan
from position_ledger.operations.proving import VerifyReport, verify
from position_ledger.operations.rebuilding import rebuild, roll_back, set_mode
from position_ledger.operations.recording import accept_checksum, migrate_baseline, migration_history
from position_ledger.operations.rolling_back import (
    Impact,
    RolledBack,
    roll_back_migrations,
    roll_back_table,
    rollback_impact,
)
from position_ledger.operations.writing import SumReport, new_migration, renew_sum
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
    "SumReport",
    "VerifyReport",
    "Written",
    "accept_checksum",
    "archive_against_log",
    "archive_export",
    "archive_verify",
    "archived_history",
    "backup_state",
    "check",
    "compare_pages",
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
    "verify",
    "write_pages",
]
