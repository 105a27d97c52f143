"""Upgrades of a ledger with data in every table: a dump of the previous release, restored and brought to this one."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from position_ledger import ClosePosition, Ledger
from position_ledger.demo.team import add_migration
from position_ledger.embedded.binaries import reachable_binaries
from position_ledger.migration import diff, read_catalogue
from position_ledger.migration.sums import write_sum
from tests.support.command_line import CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

ROOT = Path(__file__).parents[2]
DUMPS = sorted((ROOT / "tests" / "data").glob("ledger_*.sql.gz"))
SCD2 = ("account_balance", "edges", "game_states", "markets", "positions", "trades")
TEAM = "position_ledger.demo.team.projections"


@pytest.fixture(scope="module", params=DUMPS, ids=lambda path: path.name.partition(".")[0])
def restored(
    request: pytest.FixtureRequest, ledger_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a database that psql has restored from a dump."""
    name = f"restored_{request.param.name.partition('.')[0]}"
    file = tmp_path_factory.mktemp("dump") / "ledger.sql"
    file.write_bytes(gzip.decompress(request.param.read_bytes()))
    with psycopg.connect(ledger_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    psql = reachable_binaries().postgres_bin / "psql"
    url = make_conninfo(ledger_server_url, dbname=name)
    subprocess.run(
        [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", file, url], check=True, timeout=60
    )
    yield name
    with psycopg.connect(ledger_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def copy_of(server_url: str, name: str, copy: str) -> Iterator[str]:
    """The address of a copy of a database that nobody is connected to."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name)))
        yield make_conninfo(server_url, dbname=copy)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(copy)))


@pytest.fixture
def old(ledger_server_url: str, restored: str) -> Iterator[str]:
    """The address of a copy of it, for one test."""
    with copy_of(ledger_server_url, restored, f"{restored}_copy") as url:
        yield url


@pytest.fixture(scope="module")
def upgraded(ledger_server_url: str, restored: str) -> Iterator[str]:
    """The name of a copy that was brought to this release."""
    name = f"{restored}_upgraded"
    with copy_of(ledger_server_url, restored, name) as url:
        upgrade(in_this_process(url))
        yield name


@pytest.fixture
def new(ledger_server_url: str, upgraded: str) -> Iterator[str]:
    """The address of a copy of that, for one test."""
    with copy_of(ledger_server_url, upgraded, f"{upgraded}_copy") as url:
        yield url


def rows(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT * FROM ledger.{table} ORDER BY id".encode()).fetchall()


def counts(url: str) -> dict[str, int]:
    """How many rows every table of the ledger has."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r'"
        ).fetchall()
        found = {}
        for (name,) in tables:
            query = sql.SQL("SELECT FROM ledger.{}").format(sql.Identifier(name))
            found[name] = len(connection.execute(query).fetchall())
        return found


REBUILD = re.compile(r"run (rebuild-projection \w+)")


def upgrade(run: CommandLine, **settings: str) -> None:
    """What a team does: migrate, and rebuild each table whose code is another now, as check names it."""
    up = run("migrate", "up", **settings)
    assert up.code == 0, up
    for command in dict.fromkeys(REBUILD.findall(run("check", **settings).out)):
        rebuilt = run(*command.split(), **settings)
        assert rebuilt.code == 0, (command, rebuilt)


def test_a_dump_has_data_in_every_table(old: str) -> None:
    """An upgrade of empty tables proves nothing. (Workers stand in theirs only while they run.)"""
    empty = {name for name, count in counts(old).items() if count == 0}
    assert empty == {"projection_workers"}


@pytest.mark.uncounted
def test_a_ledger_of_the_previous_release_reaches_this_schema(old: str, new: str, ledger_template: Template) -> None:
    """S57: given a dump with data, when upgraded, then the catalogue is that of an empty start, and rows equal the log."""
    run = in_this_process(new)

    with ledger_template.clone() as fresh, psycopg.connect(fresh) as one, psycopg.connect(new) as other:
        assert diff(read_catalogue(one, "ledger"), read_catalogue(other, "ledger")) == []
    for command in (("migrate", "verify"), ("check",), ("verify",)):
        answer = run(*command)
        assert answer.code == 0, (command, answer)
    for table in SCD2:
        assert len(rows(new, table)) == len(rows(old, table)), table
    again = run("migrate", "up", "--json")
    assert (again.code, again.document["files"]) == (0, [])
    assert "nothing to do" in " ".join(again.document["messages"])


@pytest.mark.soak
def test_trading_goes_on_after_the_upgrade(new: str) -> None:
    run = in_this_process(new)
    held = run("positions", "--status", "open", "--json").document
    assert held
    with Ledger.open(database_url=new, redis_url="redis://127.0.0.1:1/0") as ledger:
        for position in held[:3]:
            ledger.execute(ClosePosition(position_id=position["position_id"], price="0.5", reason="manual"))
        ledger.catch_up(30)
    assert len(run("positions", "--status", "open", "--json").document) == len(held) - 3
    assert run("verify").code == 0


@pytest.mark.soak
def test_a_team_s_column_is_filled_from_the_history_of_the_previous_release(new: str, tmp_path: Path) -> None:
    """S3, S57: a NOT NULL column that only history knows, on a log that another release wrote."""
    folder = Path(shutil.copytree(ROOT / "migrations", tmp_path / "migrations"))
    add_migration(folder)
    write_sum(folder)
    run = in_this_process(new)
    team = {"POSITION_LEDGER_MIGRATIONS": str(folder), "POSITION_LEDGER_PROJECTIONS": TEAM}
    before = rows(new, "positions")

    up = run("migrate", "up", **team)

    assert up.code == 0, up
    after = rows(new, "positions")
    assert [row[:-1] for row in after] == before
    assert any(row[-1] != before_row[-1] for row, before_row in zip(after, before, strict=True))
    assert run("verify", "positions", **team).code == 0
