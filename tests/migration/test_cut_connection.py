"""The connection, or the runner with it, is lost at each message in turn: every file is whole or not there (S24).

What a killed runner leaves behind is what a cut connection leaves behind: the server sees the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger.errors import DatabaseUnavailable
from position_ledger.migration import Catalogue, Migrator, read_catalogue
from position_ledger.migration.bookkeeping import read_applied, read_history
from tests.support.cutting import Cut, CuttingProxy, cutting
from tests.support.migration_files import T1, T2, T3

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.parametrize("server_url", ["18"], indirect=True)
FILES = (T1, T2, T3)
ALL = pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(1800)], id="all")
"""Each n-th message is tried; the long form tries them all."""


@pytest.fixture
def proxy(database_url: str) -> Iterator[CuttingProxy]:
    with tempfile.TemporaryDirectory(prefix="cut-", dir="/tmp") as folder, cutting(Path(folder), database_url) as proxy:
        yield proxy


@pytest.fixture
def made(database_url: str, connection: psycopg.Connection) -> dict[int, Catalogue]:
    """The catalogue after each number of files; the database is empty again."""
    found = {0: read_catalogue(connection, "ledger")}
    migrator = Migrator(database_url, FILES)
    for number in range(1, len(FILES) + 1):
        migrator.up(number)
        found[number] = read_catalogue(connection, "ledger")
    empty(connection)
    return found


def empty(connection: psycopg.Connection) -> None:
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SCHEMA IF EXISTS ledger CASCADE")


def check(connection: psycopg.Connection, made: dict[int, Catalogue]) -> None:
    """What is recorded as done is what is there; only an index on its way may be there or not."""
    applied = read_applied(connection, "ledger")
    done = [row.number for row in applied if row.state == "done"]
    assert done == list(range(1, len(done) + 1))
    on_its_way = [row for row in applied if row.state != "done"]
    assert len(on_its_way) <= 1
    found = read_catalogue(connection, "ledger")
    if on_its_way:
        indexes = found.tables["strategies"].indexes.keys() - {"strategies_pkey"}
        assert indexes <= {"strategies_name"}
    elif done:
        assert found == made[len(done)]
    else:
        assert not found.tables


def moments(proxy: CuttingProxy, every: int) -> list[tuple[int, Cut]]:
    """Which messages of the run just made are cut, and how: by turns, so that each message is met in both ways."""
    ways = list(Cut)
    return [(number, ways[number // every % 2]) for number in range(1, proxy.messages + 1, every)]


@pytest.mark.parametrize("every", [11, ALL])
def test_up_is_cut_at_each_message_and_goes_on(
    database_url: str, connection: psycopg.Connection, proxy: CuttingProxy, made: dict[int, Catalogue], every: int
) -> None:
    Migrator(proxy.conninfo, FILES).up()
    assert proxy.messages > 60, "the runner sends its statements one by one"
    for number, cut in moments(proxy, every):
        empty(connection)
        proxy.cut_at(number, cut)
        with pytest.raises(DatabaseUnavailable, match=r"connection was lost while migrating|refused the connection"):
            Migrator(proxy.conninfo, FILES).up()
        check(connection, made)
        Migrator(database_url, FILES).up()
        assert read_catalogue(connection, "ledger") == made[3], (number, cut)
        assert [row.number for row in read_history(connection, "ledger") if row.action == "up"] == [1, 2, 3]


@pytest.mark.uncounted
@pytest.mark.parametrize("every", [37, ALL])
def test_down_is_cut_at_each_message_and_goes_on(
    database_url: str, connection: psycopg.Connection, proxy: CuttingProxy, made: dict[int, Catalogue], every: int
) -> None:
    """S60."""
    Migrator(database_url, FILES).up()
    Migrator(proxy.conninfo, FILES, scratch_url=database_url).down(2)
    for number, cut in moments(proxy, every):
        Migrator(database_url, FILES).up()
        proxy.cut_at(number, cut)
        with pytest.raises(DatabaseUnavailable, match=r"connection was lost while migrating|refused the connection"):
            Migrator(proxy.conninfo, FILES, scratch_url=database_url).down(2)
        check(connection, made)
        Migrator(database_url, FILES).down(2)
        assert read_catalogue(connection, "ledger") == made[1], (number, cut)
