"""What an operator does to a ledger: migrate, check, verify, rebuild, roll back. Each function is one command."""

from position_ledger.operations.common import RELEASE, NoProgress, migrations_folder
from position_ledger.operations.migrating import (
    migrate_down,
    migrate_up,
    migrate_verify,
    migration_status,
    require_ledger,
)
from position_ledger.operations.planning import migrate_plan
from position_ledger.operations.proving import VerifyReport, check, verify
from position_ledger.operations.rebuilding import rebuild, roll_back, set_mode
from position_ledger.projection.rebuild import Progress, RebuildOptions, RebuildReport

__all__ = [
    "RELEASE",
    "NoProgress",
    "Progress",
    "RebuildOptions",
    "RebuildReport",
    "VerifyReport",
    "check",
    "migrate_down",
    "migrate_plan",
    "migrate_up",
    "migrate_verify",
    "migration_status",
    "migrations_folder",
    "rebuild",
    "require_ledger",
    "roll_back",
    "set_mode",
    "verify",
]
