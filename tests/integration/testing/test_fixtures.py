"""The test kit on real servers: fresh ledgers, one call that empties one, and a suite of a user's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from psycopg.errors import InsufficientPrivilege

import position_ledger
from position_ledger import ConfigurationError, Handle, Ledger
from position_ledger.database import connect
from position_ledger.domain.references import REFERENCE_TABLES
from position_ledger.projection.definition import load_projections
from position_ledger.projection.follower import Follower
from position_ledger.settings import Settings
from position_ledger.testing import differences, mark_as_test_database, record, replay, reset, rows
from position_ledger.testing.databases import EMPTIED, QUEUE_MARK, TEST_MARK, address_of, is_left_over
from projections.positions import POSITIONS
from tests.support.commands import closing as close
from tests.support.commands import events_of, marking, opening, reducing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from psycopg_pool import ConnectionPool

    from position_ledger.testing.databases import OwnerCursor, Template


TABLES = [projection.table for projection in load_projections(Settings().projections)]
"""What the ledger projects."""

LIFE = [
    opening(handle="x"),
    marking(Handle("x"), "0.50"),
    reducing(Handle("x"), 40, "0.60", fee="0.01"),
    close(Handle("x"), "0.30"),
]
"""What happens to a position of `trade`, which opens another after it."""


def trade(ledger: Ledger, positions: int = 2) -> None:
    """A few positions with everything that happens to them, projected."""
    for number in range(1, positions + 1):
        opened = ledger.execute(opening(strategy=number, command_id=f"open-{number}"))
        ledger.execute(marking(opened.position_id or "", "0.50"))
        ledger.execute(reducing(opened.position_id or "", 40, "0.60", fee="0.01"))
        ledger.execute(close(opened.position_id or "", "0.30"))
        again = ledger.execute(opening(strategy=number))
        ledger.wait_for(again.token)


# Fixtures


@pytest.mark.parametrize("_", range(3))
def test_every_test_has_a_ledger_of_its_own(ledger: Ledger, db_cursor: OwnerCursor, _: int) -> None:
    assert db_cursor.execute("SELECT count(*) AS n FROM events").fetchone() == {"n": 0}
    assert ledger.execute(opening(command_id="the same every time")).is_repeat is False


def test_rows_of_the_cursor_answer_by_name_and_by_place(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    ledger.wait_for(ledger.execute(opening()).token)
    row = db_cursor.execute("SELECT id, position_id, quantity FROM positions").fetchone()
    assert row is not None
    assert row["position_id"] == row[1] == f"POS-{row[0]}"
    assert row[-1] == Decimal(100)


def test_rows_of_the_pool_answer_by_name_and_by_place(db_pool: ConnectionPool[Any]) -> None:
    """As trading code may expect either of its own pool."""
    with db_pool.connection() as connection:
        row = connection.execute("SELECT 7 AS seven, 'x' AS letter").fetchone()
    assert row == (7, "x")
    assert row is not None
    assert (row[0], row["seven"], row["letter"], row[-1]) == (7, 7, "x", "x")
    with pytest.raises(KeyError, match="eight"):
        row["eight"]


def test_the_pool_has_the_rights_of_trading_code(db_pool: ConnectionPool[Any], db_cursor: OwnerCursor) -> None:
    with db_pool.connection() as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("position_ledger_app",)
        with pytest.raises(InsufficientPrivilege):
            connection.execute("DELETE FROM positions")
    assert db_cursor.execute("DELETE FROM projection_workers").rowcount == 0


def test_the_queue_is_empty_in_every_test(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        assert client.keys("dramatiq:*") == []
        client.set("dramatiq:default", "a message of this test")


# Emptying


def test_one_call_empties_a_ledger(
    ledger: Ledger, db_cursor: OwnerCursor, redis_url: str, clean_test_data: Callable[[], None]
) -> None:
    """S42, S70: events, keys, rows, checkpoints and queue."""
    # given a ledger with a history, a message in the queue, and a stranger's key beside it
    trade(ledger)
    with closing(redis.Redis.from_url(redis_url)) as queue:
        queue.rpush("dramatiq:default", "message")
        queue.set("stranger", "1")
        # when it is emptied
        clean_test_data()
        # then nothing is left
        assert queue.keys("dramatiq:*") == []
        assert queue.get("stranger") == b"1"
    for table in (*EMPTIED, *TABLES, "projection_workers"):
        assert db_cursor.execute(f"SELECT count(*) AS n FROM {table}").fetchone() == {"n": 0}, table
    assert db_cursor.execute("SELECT max(position) AS p, bool_or(holder IS NOT NULL) AS h FROM projection_checkpoints"
    ).fetchone() == {"p": 0, "h": False}  # fmt: skip
    # and the ledger goes on as on its first day: numbers begin at 1, no command was ever given
    done = ledger.execute(opening(strategy=1, command_id="open-1"))
    assert (done.token, done.is_repeat) == (events_of(opening()), False)
    ledger.wait_for(done.token)
    assert [row["version"] for row in ledger.history(done.position_id or "")] == [1]


def test_the_fences_stand_again_after_emptying(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    trade(ledger)
    reset(ledger)
    trade(ledger)
    for statement in ("DELETE FROM events", "DELETE FROM append_keys", "DELETE FROM positions"):
        with pytest.raises(InsufficientPrivilege):
            db_cursor.execute(statement)
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        db_cursor.execute("UPDATE projection_checkpoints SET position = position - 1")


def test_a_worker_that_runs_goes_on_after_emptying(ledger: Ledger, ledger_database: str) -> None:
    # given a follower that holds every shard and has projected something
    stop = threading.Event()
    with closing(connect(ledger_database, Settings(), as_app=True)) as connection:
        follower = Follower(connection, ledger.projections, ledger.codec, name="test")
        worker = threading.Thread(target=follower.follow, args=(stop,))
        worker.start()
        try:
            trade(ledger, positions=1)
            # when the ledger is emptied under it, and used again
            reset(ledger)
            trade(ledger, positions=2)
        finally:
            stop.set()
            worker.join(20)
    # then the table is what the log says
    assert {row["status"] for row in rows(ledger, POSITIONS)} == {"open", "closed"}
    assert len(rows(ledger, POSITIONS)) == 10


def test_every_table_of_the_schema_is_emptied_or_kept_on_purpose(db_cursor: OwnerCursor) -> None:
    """A new table has to be put into one of these lists, or be projected."""
    references = set(REFERENCE_TABLES.values())
    kept = {
        "feed",
        "projection_generations",
        "projection_rebuilds",
        "schema_migrations",
        "schema_migration_history",
    } | references
    in_part = {"projection_checkpoints", "projection_workers"}
    found = db_cursor.execute(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')"
    ).fetchall()
    tables = {row[0] for row in found}
    assert tables - kept - in_part == {*EMPTIED, *TABLES}


def test_a_database_that_is_not_marked_is_never_emptied(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    trade(ledger, positions=1)
    before = db_cursor.execute("SELECT count(*) AS n FROM events").fetchone()
    name = db_cursor.connection.info.dbname
    db_cursor.execute(f"COMMENT ON DATABASE {name} IS 'production'")
    with pytest.raises(ConfigurationError, match=f"database {name} is not marked as a test database"):
        reset(ledger)
    assert db_cursor.execute("SELECT count(*) AS n FROM events").fetchone() == before
    mark_as_test_database(ledger.database_url)
    reset(ledger)
    assert db_cursor.execute("SELECT count(*) AS n FROM events").fetchone() == {"n": 0}


def test_a_queue_that_is_not_marked_is_never_emptied(ledger: Ledger, db_cursor: OwnerCursor, redis_url: str) -> None:
    trade(ledger, positions=1)
    with closing(redis.Redis.from_url(redis_url)) as queue:
        queue.delete(QUEUE_MARK)
        try:
            queue.rpush("dramatiq:default", "message")
            with pytest.raises(ConfigurationError, match="is not marked as one for tests"):
                reset(ledger)
            assert queue.llen("dramatiq:default") == 1
        finally:
            queue.set(QUEUE_MARK, "1")
    row = db_cursor.execute("SELECT count(*) AS n FROM events").fetchone()
    assert row is not None
    assert row["n"] > 0


def test_a_clone_of_a_test_database_is_no_test_database_by_itself(
    ledger_template: Template, db_cursor: OwnerCursor
) -> None:
    """The mark does not travel with the data: a restored or copied database has none."""
    name = f"{ledger_template.name}_copy"
    db_cursor.execute(f"CREATE DATABASE {name} TEMPLATE {ledger_template.name}")
    try:
        marks = db_cursor.execute(
            "SELECT shobj_description(d.oid, 'pg_database') AS mark FROM pg_database AS d WHERE d.datname = %s", (name,)
        ).fetchone()
        assert marks == {"mark": None}
    finally:
        db_cursor.execute(f"DROP DATABASE {name}")


# Recording and replaying


def test_a_recorded_ledger_replays_to_the_rows_it_has(ledger: Ledger, tmp_path: Path) -> None:
    trade(ledger, positions=3)
    assert record(ledger, tmp_path / "all.jsonl") == 3 * events_of(*LIFE, opening())
    replayed = replay(tmp_path / "all.jsonl", ledger.projections)
    for projection in ledger.projections:
        assert differences(projection, rows(ledger, projection), replayed[projection.table]) == []
    assert len(replayed["positions"]) == 15
    assert len(replayed["account_balance"]) == 12


def test_one_position_is_recorded_with_the_numbers_of_what_it_refers_to(ledger: Ledger, tmp_path: Path) -> None:
    trade(ledger, positions=1)
    last = rows(ledger, POSITIONS)[-1]
    assert last["previous_position_id"] is not None
    assert record(ledger, tmp_path / "one.jsonl", last["position_id"]) == 1
    assert replay(tmp_path / "one.jsonl", POSITIONS)["positions"] == [last]


def test_what_a_ledger_shows_of_a_position_can_be_replayed(ledger: Ledger) -> None:
    trade(ledger, positions=1)
    first = rows(ledger, POSITIONS)[0]
    replayed = replay(ledger.events(first["position_id"]), POSITIONS)["positions"]
    assert replayed == [row for row in rows(ledger, POSITIONS) if row["position_id"] == first["position_id"]]


def test_an_unknown_position_is_not_recorded_and_leaves_no_file(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(position_ledger.CommandRejected, match="POS-77 not found"):
        record(ledger, tmp_path / "none.jsonl", "POS-77")
    assert list(tmp_path.iterdir()) == []


# Addresses and left-overs


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("postgresql://u:p@h:5/x?sslmode=require", "postgresql://u:p@h:5/new?sslmode=require"),
        ("postgresql:///x?host=%2Ftmp%2Fa&user=u", "postgresql:///new?host=%2Ftmp%2Fa&user=u"),
        ("postgres://h", "postgres://h/new"),
        ("user=u dbname=x host=/tmp/a", "user=u dbname=new host=/tmp/a"),
    ],
)
def test_the_address_of_a_test_database_is_that_of_its_server(server: str, address: str) -> None:
    assert address_of(server, "new") == address


def test_only_old_test_databases_are_left_overs() -> None:
    now = datetime(2026, 5, 5, tzinfo=UTC)
    marks = {age: f"{TEST_MARK}, made {(now - age).isoformat()}" for age in (timedelta(hours=1), timedelta(days=2))}
    assert [is_left_over(mark, now) for mark in marks.values()] == [False, True]
    assert not is_left_over(None, now)
    assert not is_left_over("production", now)


# A suite of somebody else


SUITE = """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_trading(ledger, db_cursor, n):
    from position_ledger import OpenPosition
    done = ledger.execute(OpenPosition(account="a", market="m", side="YES", quantity=1, entry_price="0.5",
                                       environment="paper", command_id="c"))
    assert not done.is_repeat
    assert done.token == done.events

def test_nothing_is_started_for_a_test_that_needs_nothing():
    pass
"""


@pytest.mark.slow
def test_a_suite_of_a_users_own_runs_in_parallel_on_the_server_that_he_names(
    tmp_path: Path, ledger_server_url: str, redis_url: str
) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    with closing(psycopg.connect(ledger_server_url)) as server:
        before = databases(server)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                *plugin(),
                "-n",
                "2",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "POSITION_LEDGER_TEST_DATABASE_URL": ledger_server_url,
                "POSITION_LEDGER_TEST_REDIS_URL": redis_url,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert "5 passed" in done.stdout, done.stdout + done.stderr
        server.rollback()
        assert databases(server) == before


def plugin() -> list[str]:
    """What names the plugin where the project is not installed, so that nothing else does."""
    installed = any(entry.name == "position_ledger" for entry in entry_points(group="pytest11"))
    return [] if installed else ["-p", "position_ledger.testing"]


def databases(connection: psycopg.Connection[Any]) -> set[str]:
    return {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
