"""Servers of both PostgreSQL versions for the whole suite; databases and ledgers come from the test kit itself."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import coverage
import pytest

import position_ledger.testing
from position_ledger.embedded.temporary import TemporaryPostgres
from tests.support import postgresql_15

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from position_ledger.testing.databases import Template

NEWEST = 18
OLDEST = 15
ON_BOTH_VERSIONS = ("tests/integration/", "tests/migration/")
NEWEST_IS_ENOUGH = (
    "tests/integration/archive/",
    "tests/integration/importing/",
    "tests/integration/execution/",
    "tests/integration/reporting/",
    "tests/integration/sessions/test_poolers.py",
    "tests/integration/settling/",
    "tests/integration/auditing/",
    "tests/integration/projection/test_inline.py",
    "tests/integration/rebuild/test_edges.py",
    "tests/integration/rebuild/test_given_by_hand.py",
    "tests/integration/rebuild/test_load_help.py",
    "tests/integration/rebuild/test_parents.py",
    "tests/integration/rebuild/test_planted.py",
    "tests/integration/store/test_history_rules.py",
    "tests/integration/testing/",
    "tests/integration/rebuild/test_running.py",
    "tests/integration/rebuild/test_views_change.py",
    "tests/integration/test_as_of.py",
    "tests/integration/test_doctor.py",
    "tests/integration/test_schema_pages.py",
    "tests/migration/test_enum_values.py",
    "tests/integration/projection/test_known_at.py",
    "tests/integration/projection/test_leases.py",
    "tests/integration/projection/test_loading.py",
    "tests/integration/projection/test_many_tables.py",
    "tests/integration/projection/test_proofs.py",
    "tests/integration/projection/test_service.py",
    "tests/integration/projection/test_verified_laws.py",
    "tests/integration/rebuild/test_attached.py::test_a_blocker",
    "tests/integration/rebuild/test_retention.py",
    "tests/integration/rebuild/test_side_by_side.py",
    "tests/integration/rebuild/test_rebuild.py::test_a_column",
    "tests/integration/rebuild/test_rebuild.py::test_a_dry_run",
    "tests/integration/rebuild/test_rebuild.py::test_a_missing",
    "tests/integration/rebuild/test_full_disk.py",
    "tests/integration/rebuild/test_rebuild.py::test_a_planted",
    "tests/integration/rebuild/test_rebuild.py::test_a_rollback",
    "tests/integration/rebuild/test_rebuild.py::test_an_empty",
    "tests/integration/rebuild/test_rebuild.py::test_nothing",
    "tests/integration/rebuild/test_rebuild.py::test_one_older",
    "tests/integration/rebuild/test_rebuild.py::test_readers",
    "tests/integration/rebuild/test_rebuild.py::test_two",
    "tests/integration/rebuild/test_rebuild.py::test_workers",
    "tests/integration/test_round_trips.py",
    "tests/integration/store/test_bad_databases.py",
    "tests/integration/store/test_chain.py",
    "tests/integration/store/test_library.py",
    "tests/integration/store/test_lost_answers.py",
    "tests/integration/store/test_read_apart.py",
    "tests/integration/store/test_reads.py",
    "tests/integration/store/test_reference_data.py",
    "tests/integration/store/test_repeats.py",
    "tests/integration/store/test_snapshots.py",
)
"""Folders whose database tests run on the oldest version too, without those whose SQL is the same; the variable: all."""
ALL_ON_BOTH = "POSITION_LEDGER_TEST_ALL_ON_BOTH"


def pytest_configure(config: pytest.Config) -> None:
    """Load the test kit as its users do, also where the project is not installed and has no entry point.

    A run that a shell began in the background ignores Ctrl-C, and so would every program that a test starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.pluginmanager.has_plugin("position_ledger"):
        config.pluginmanager.register(position_ledger.testing, "position_ledger")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that needs a database on 18, those of some folders on 15 as well."""
    if "postgres_major" not in metafunc.fixturenames:
        return
    versions = [pytest.param(NEWEST, id="pg18")]
    place = metafunc.definition.nodeid
    on_both = place.startswith(ON_BOTH_VERSIONS) and not place.startswith(NEWEST_IS_ENOUGH)
    if on_both or os.environ.get(ALL_ON_BOTH):
        versions.append(pytest.param(OLDEST, id="pg15", marks=pytest.mark.pg15))
    metafunc.parametrize("postgres_major", versions, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Count no lines in tests that say so, nor in those that the newest version runs as well."""
    if {"uncounted", "pg15"} & {marker.name for marker in item.iter_markers()}:
        with _uncounted():
            return (yield)
    return (yield)


@contextmanager
def _uncounted() -> Iterator[None]:
    """Without coverage, in this process and in those that it starts: counting takes half the time of what it counts."""
    counting = coverage.Coverage.current()
    if counting is None:
        yield
        return
    counting.stop()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    try:
        with patch.dict(os.environ, environment, clear=True):
            yield
    finally:
        counting.start()


@pytest.fixture(scope="session")
def postgres_major(request: pytest.FixtureRequest) -> int:
    """The PostgreSQL version that the test runs on."""
    return int(request.param)


@pytest.fixture(scope="session")
def _postgres_of() -> Iterator[Callable[[int], TemporaryPostgres]]:
    """One server for each version, started when first needed; they end with this process, whatever happens."""
    servers: dict[int, TemporaryPostgres] = {}

    def server(major: int) -> TemporaryPostgres:
        if major not in servers:
            folder = postgresql_15.bin_folder() if major == OLDEST else None
            servers[major] = TemporaryPostgres(folder, is_durable=False)
            assert servers[major].major == major
        return servers[major]

    yield server
    for one in servers.values():
        one.close()


@pytest.fixture(scope="session")
def ledger_server_url(postgres_major: int, _postgres_of: Callable[[int], TemporaryPostgres]) -> str:
    """The shared server of the version under test."""
    return _postgres_of(postgres_major).database_url


@pytest.fixture(scope="module")
def shared_database(ledger_template: Template) -> Iterator[str]:
    """The address of a migrated database for all tests of a module, which leave it as they found it."""
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def own_postgres(postgres_major: int) -> Iterator[TemporaryPostgres]:
    """A durable server of the test's own, to be killed, stopped and started; as slow as a server's start."""
    with TemporaryPostgres(postgresql_15.bin_folder() if postgres_major == OLDEST else None) as server:
        yield server


@pytest.fixture
def redis_url(ledger_redis_url: str) -> str:
    """The address of a Valkey with an empty queue."""
    return ledger_redis_url
