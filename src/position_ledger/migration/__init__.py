"""Numbered SQL migrations: parsed, applied, verified, rolled back; and the catalogue that a rebuild stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.lazily import lazily

if TYPE_CHECKING:
    from position_ledger.migration.attached import Attached, attached_to
    from position_ledger.migration.bookkeeping import read_applied
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
    "read_applied",
    "read_catalogue",
    "read_table",
    "shadow_path",
    "sum_text",
    "unfit_for_projection",
    "write_sum",
]

_HOMES = {
    "position_ledger.migration.attached": "Attached attached_to",
    "position_ledger.migration.bookkeeping": "read_applied",
    "position_ledger.migration.catalogue": "Catalogue Table diff",
    "position_ledger.migration.classify": "Effect ProjectedChange",
    "position_ledger.migration.ddl": "create_table finish_table grant_statements shadow_path unfit_for_projection",
    "position_ledger.migration.files": "MigrationFile load_folder parse_file",
    "position_ledger.migration.introspect": "read_catalogue read_table",
    "position_ledger.migration.plan": "Status StatusRow",
    "position_ledger.migration.runner": "Migrator Outcome Rebuild",
    "position_ledger.migration.scratch": "Targets",
    "position_ledger.migration.session": "Limits",
    "position_ledger.migration.sums": "check_sum sum_text write_sum",
}
"""The module of each name."""

__getattr__, __dir__ = lazily(__name__, _HOMES)
