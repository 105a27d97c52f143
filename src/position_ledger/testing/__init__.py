"""The test kit: a pytest plugin with real databases, and pure helpers for events, commands and projections.

Fixtures, there as soon as position-ledger is installed:

* ``ledger``: a fresh, migrated `Ledger` of its own for each test, on real servers;
* ``db_pool``: a pool of connections with the rights of trading code; ``db_cursor``: a cursor of the database's owner;
* ``clean_test_data``: empties the test's ledger and answers the function that does it again;
* to override in a conftest: ``ledger_settings`` (your projections and migrations) and ``ledger_server_url``;
* also: ``ledger_database`` (the address of a fresh, migrated database) and ``ledger_redis_url``.

The servers are temporary ones from the wheels, or those that the environment names: POSITION_LEDGER_TEST_DATABASE_URL
(a database of a user who may create databases and roles) and POSITION_LEDGER_TEST_REDIS_URL. Each test process migrates
one template and clones it for each test, so pytest-xdist needs no arrangement.

Functions: `given` … `when` … `then`, `like`, `fold`, `replay`, `record`, `rows`, `differences`, `reset`. Those for
events and commands are pure: no database, no clock.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg_pool import ConnectionPool

    from position_ledger.ledger import Ledger
    from position_ledger.testing.databases import OwnerCursor, Template, mark_as_test_database, reset
    from position_ledger.testing.recording import Difference, differences, fold, record, replay, rows
    from position_ledger.testing.scenario import Given, Like, Outcome, given, like

__all__ = [
    "Difference",
    "Given",
    "Like",
    "Outcome",
    "differences",
    "fold",
    "given",
    "like",
    "mark_as_test_database",
    "record",
    "replay",
    "reset",
    "rows",
]

DATABASE_VARIABLE = "POSITION_LEDGER_TEST_DATABASE_URL"
REDIS_VARIABLE = "POSITION_LEDGER_TEST_REDIS_URL"

_HOMES = {
    "databases": ("mark_as_test_database", "reset"),
    "recording": ("Difference", "differences", "fold", "record", "replay", "rows"),
    "scenario": ("Given", "Like", "Outcome", "given", "like"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: pytest imports this module in every run, also of other projects."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


@pytest.fixture(scope="session")
def ledger_settings() -> Mapping[str, object]:
    """Settings of the test ledgers beside the addresses; override it to name your projections and migrations."""
    return {}


@pytest.fixture(scope="session")
def ledger_server_url() -> Iterator[str]:
    """The address on a PostgreSQL server where test databases are made; a temporary server unless one is named."""
    named = os.environ.get(DATABASE_VARIABLE)
    if named:
        yield named
        return
    from position_ledger.embedded.temporary import TemporaryPostgres  # noqa: PLC0415 - light import

    with TemporaryPostgres(is_durable=False) as server:
        yield server.database_url


@pytest.fixture(scope="session")
def _ledger_queue_url() -> Iterator[str]:
    from position_ledger.testing.databases import mark_as_test_queue  # noqa: PLC0415 - light import

    named = os.environ.get(REDIS_VARIABLE)
    if named:
        mark_as_test_queue(named)
        yield named
        return
    from position_ledger.embedded.temporary import TemporaryValkey  # noqa: PLC0415 - light import

    with TemporaryValkey() as server:
        mark_as_test_queue(server.redis_url)
        yield server.redis_url


@pytest.fixture
def ledger_redis_url(_ledger_queue_url: str) -> str:
    """The address of a Redis or Valkey with an empty queue."""
    from position_ledger.testing.databases import empty_queue  # noqa: PLC0415 - light import

    empty_queue(_ledger_queue_url)
    return _ledger_queue_url


@pytest.fixture(scope="session")
def ledger_template(ledger_server_url: str, ledger_settings: Mapping[str, object]) -> Iterator[Template]:
    """The migrated database that is cloned for each test; made once for each test process."""
    from position_ledger.settings import load_settings  # noqa: PLC0415 - light import
    from position_ledger.testing.databases import Template  # noqa: PLC0415

    with Template.make(ledger_server_url, load_settings(**ledger_settings)) as template:
        yield template


@pytest.fixture
def ledger_database(ledger_template: Template) -> Iterator[str]:
    """The address of a fresh, migrated database, dropped after the test."""
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def ledger(ledger_database: str, ledger_redis_url: str, ledger_settings: Mapping[str, object]) -> Iterator[Ledger]:
    """A fresh, migrated ledger on real servers."""
    from position_ledger.ledger import Ledger  # noqa: PLC0415 - light import

    urls = {"database_url": ledger_database, "redis_url": ledger_redis_url}
    with Ledger.open(**{**ledger_settings, **urls}) as opened:
        yield opened


@pytest.fixture
def db_pool(ledger_database: str, ledger_template: Template) -> Iterator[ConnectionPool[Any]]:
    """A pool of connections to the test's database, with the rights of trading code; rows answer by place and by name."""
    from position_ledger.testing.databases import pool_for_tests  # noqa: PLC0415 - light import

    with pool_for_tests(ledger_database, ledger_template.settings) as pool:
        yield pool


@pytest.fixture
def db_cursor(ledger_database: str, ledger_template: Template) -> Iterator[OwnerCursor]:
    """A cursor of the owner of the test's database, in autocommit; its rows answer by name and by place."""
    from position_ledger.testing.databases import owner_cursor  # noqa: PLC0415 - light import

    with owner_cursor(ledger_database, ledger_template.settings) as cursor:
        yield cursor


@pytest.fixture
def clean_test_data(ledger: Ledger) -> Callable[[], None]:
    """Empty the test's ledger, and give the function that empties it again: events, rows, checkpoints and queue."""
    from position_ledger.testing.databases import reset  # noqa: PLC0415 - light import

    reset(ledger)
    return lambda: reset(ledger)
