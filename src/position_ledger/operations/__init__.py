"""What an operator does to a ledger: migrate, check, verify, rebuild, roll back. Each function is one command."""

from position_ledger.operations.checking import CheckReport, check
from position_ledger.operations.common import RELEASE, NoProgress, migrations_folder
from position_ledger.operations.migrating import (
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
from position_ledger.operations.writing import SumReport, new_migration, renew_sum
from position_ledger.projection.rebuild import Progress, RebuildOptions, RebuildReport

__all__ = [
    "RELEASE",
    "CheckReport",
    "NoProgress",
    "Progress",
    "RebuildOptions",
    "RebuildReport",
    "SumReport",
    "VerifyReport",
    "accept_checksum",
    "check",
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
    "set_mode",
    "verify",
]
