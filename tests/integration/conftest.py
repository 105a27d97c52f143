from __future__ import annotations

import pytest


@pytest.fixture
def ledger_url(ledger_database: str) -> str:
    """The address of a fresh, migrated database."""
    return ledger_database
