"""Numbered SQL migrations: parsed, applied, verified, rolled back; and the catalogue that a rebuild stands on."""

from __future__ import annotations

from position_ledger.migration.attached import Attached, attached_to
from position_ledger.migration.catalogue import Catalogue, Table, diff
from position_ledger.migration.classify import Effect, ProjectedChange
from position_ledger.migration.ddl import (
    create_table,
    finish_table,
    grant_statements,
    shadow_path,
    unfit_for_projection,
)
from position_ledger.migration.files import MigrationFile, load_folder, parse_file
from position_ledger.migration.introspect import read_catalogue, read_table
from position_ledger.migration.plan import Status, StatusRow
from position_ledger.migration.runner import Migrator, Outcome, Rebuild
from position_ledger.migration.scratch import Targets
from position_ledger.migration.session import Limits
from position_ledger.migration.sums import check_sum, sum_text, write_sum

__all__ = [
    "Attached",
    "Catalogue",
    "Effect",
    "Limits",
    "MigrationFile",
    "Migrator",
    "Outcome",
    "ProjectedChange",
    "Rebuild",
    "Status",
    "StatusRow",
    "Table",
    "Targets",
    "attached_to",
    "check_sum",
    "create_table",
    "diff",
    "finish_table",
    "grant_statements",
    "load_folder",
    "parse_file",
    "read_catalogue",
    "read_table",
    "shadow_path",
    "sum_text",
    "unfit_for_projection",
    "write_sum",
]
