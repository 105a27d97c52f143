"""Fixtures of the engine's tests; a folder's conftest imports those that it needs."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger
from position_ledger.settings import Settings, load_settings
from tests.support import engine, only_positions

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_QUEUE = "redis://127.0.0.1:1/0"
"""Nobody answers there: whatever these tests do works without a queue."""


@pytest.fixture(scope="session")
def migrated_template(ledger_server_url: str) -> Iterator[str]:
    """The name of a database that was set up by `migrate up` for positions alone, with its records of what was applied."""
    name = f"engine_{os.getpid()}_{secrets.token_hex(3)}"
    url = engine.new_database(ledger_server_url, name)
    engine.migrate(load_settings(database_url=url, redis_url=NO_QUEUE, projections=only_positions.MODULE))
    yield name
    engine.drop_database(ledger_server_url, name)


@pytest.fixture
def settings(ledger_server_url: str, migrated_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a fresh, migrated database of the test's own, for positions alone; processes it starts have them too."""
    monkeypatch.setenv("POSITION_LEDGER_PROJECTIONS", only_positions.MODULE)
    name = f"{migrated_template}_{secrets.token_hex(3)}"
    url = engine.new_database(ledger_server_url, name, migrated_template)
    yield load_settings(database_url=url, redis_url=NO_QUEUE)
    engine.drop_database(ledger_server_url, name)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """A ledger of that database, without workers."""
    with Ledger(settings, engine.reached(settings)) as opened:
        yield opened
