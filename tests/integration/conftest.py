"""A fresh, migrated database for each test, under the name that the tests of import and batches know it by."""

from __future__ import annotations

import pytest


@pytest.fixture
def ledger_url(ledger_database: str) -> str:
    """The address of the database."""
    return ledger_database
