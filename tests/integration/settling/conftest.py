"""A ledger on a fresh database of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """Opened with workers that never come: the caller projects."""
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused", wait_timeout_s=60) as opened:
        yield opened
