from __future__ import annotations

from tests.support.engine_fixtures import ledger, migrated_template, settings

__all__ = ["ledger", "migrated_template", "settings"]
