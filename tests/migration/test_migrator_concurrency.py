"""Two runners, a killed runner, readers in the way: nothing half-applied, nobody deadlocked."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger.errors import DatabaseUnavailable, MigrationError
from position_ledger.migration import Limits, Migrator, read_catalogue
from position_ledger.migration.session import lock_holder, lock_key, migration_session
from tests.support.migration_files import T1, T2, T3, migration, migration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from position_ledger.migration import MigrationFile

IMPATIENT = Limits(migration_lock_wait_s=0.4, retry_budget_s=0.5, retry_pause_max_s=0.1)
RUNNER = """
import sys
from position_ledger.migration import Migrator
url, folder, command = sys.argv[1:4]
getattr(Migrator(url, folder), command)(*map(int, sys.argv[4:]))
"""


def wait_until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Poll the server for a state of another session: it cannot be awaited otherwise."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the awaited state never came"
        time.sleep(0.01)


def is_running(connection: psycopg.Connection, query_part: str) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND datname = current_database() AND strpos(query, %s) > 0",
        [query_part],
    ).fetchone()
    return row is not None and row[0] > 0


@contextlib.contextmanager
def runner_process(database_url: str, folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, database_url, str(folder), *(command or ("up",))], stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_runners_at_once_apply_each_file_once(database_url: str, connection: psycopg.Connection) -> None:
    files = [T1, T2, T3]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: Migrator(database_url, files).up(), range(4)))
    assert sorted(file.number for outcome in outcomes for file in outcome.files) == [1, 2, 3]
    history = connection.execute("SELECT number FROM ledger.schema_migration_history WHERE action = 'up' ORDER BY id")
    assert history.fetchall() == [(1,), (2,), (3,)]


def test_the_holder_of_the_lock_is_named(database_url: str) -> None:
    with migration_session(database_url, "ledger", IMPATIENT) as holding:
        pid = holding.info.backend_pid
        expected = (
            rf"another migration of schema ledger is running: server process {pid} \(position-ledger migrate .*since 20"
        )
        told: list[str] = []
        with pytest.raises(MigrationError, match=expected):
            Migrator(database_url, [T1], limits=IMPATIENT, tell=told.append).up()
        assert "waiting up to" in told[0]
        assert f"server process {pid} " in told[0]
        Migrator(database_url, [migration(1, "CREATE TABLE a (x int);")], "other", limits=IMPATIENT).up()
    assert Migrator(database_url, [T1], limits=IMPATIENT).up().files


def test_a_runner_killed_in_the_middle_leaves_nothing_half_applied(
    database_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "001_first.sql").write_text(migration_text(1, "CREATE TABLE a (x int);"))
    (tmp_path / "002_slow.sql").write_text(migration_text(2, "CREATE TABLE b (x int); SELECT pg_sleep(60);"))
    with runner_process(database_url, tmp_path) as process:
        wait_until(lambda: is_running(connection, "pg_sleep(60)"))
        process.kill()
    killed_at = time.monotonic()
    wait_until(lambda: lock_holder(connection, lock_key(connection.info.dbname, "ledger")) is None)
    assert time.monotonic() - killed_at < 10, "the server should notice the dead runner within seconds"
    assert set(read_catalogue(connection, "ledger").tables) == {"a"}
    (tmp_path / "002_slow.sql").write_text(migration_text(2, "CREATE TABLE b (x int); SELECT pg_sleep(0);"))
    assert [file.number for file in Migrator(database_url, tmp_path).up().files] == [2]


def test_a_lost_connection_in_the_middle_is_one_sentence(database_url: str, connection: psycopg.Connection) -> None:
    slow = migration(2, "CREATE TABLE b (x int); SELECT pg_sleep(60);")
    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(Migrator(database_url, [T1, slow]).up)
        wait_until(lambda: is_running(connection, "pg_sleep(60)"))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()"
        )
        with pytest.raises(DatabaseUnavailable, match=r"connection was lost while migrating .*whole or not at all"):
            applying.result(timeout=20)
    assert [row.state for row in Migrator(database_url, [T1, slow]).status().rows] == ["applied", "pending"]


def test_a_blocking_reader_is_waited_for_in_short_tries(database_url: str, connection: psycopg.Connection) -> None:
    """A long reader delays the migration; other readers are never held up for longer than one lock_timeout."""
    Migrator(database_url, [T1]).up()
    done, slowest_s = threading.Event(), [0.0]

    def read_in_a_loop() -> None:
        with psycopg.connect(database_url, autocommit=True) as reader:
            while not done.is_set():
                started = time.monotonic()
                reader.execute("SELECT count(*) FROM ledger.strategies")
                slowest_s[0] = max(slowest_s[0], time.monotonic() - started)

    with psycopg.connect(database_url) as blocker, ThreadPoolExecutor(2) as pool:
        blocker.execute("SELECT count(*) FROM ledger.strategies")
        reading = pool.submit(read_in_a_loop)
        applying = pool.submit(Migrator(database_url, [T1, T2], limits=Limits(lock_timeout_ms=50)).up)
        try:
            tries = [False, False]
            wait_until(lambda: tries.__setitem__(0, tries[0] or is_running(connection, "ALTER TABLE")) or tries[0])
            wait_until(lambda: not is_running(connection, "ALTER TABLE"))
            wait_until(lambda: is_running(connection, "ALTER TABLE"))
            blocker.rollback()
            assert [file.number for file in applying.result(timeout=20).files] == [2]
        finally:
            done.set()
        reading.result(timeout=20)
    assert slowest_s[0] < 1.0


def test_a_reader_that_never_goes_is_named(database_url: str) -> None:
    Migrator(database_url, [T1]).up()
    with psycopg.connect(database_url, application_name="report") as blocker:
        blocker.execute("SELECT count(*) FROM ledger.strategies")
        pid = blocker.info.backend_pid
        with pytest.raises(
            MigrationError, match=rf"lock not available: .*held by server process {pid} \(report, role admin"
        ):
            Migrator(database_url, [T1, T2], limits=IMPATIENT).up()
    assert len(Migrator(database_url, [T1, T2], limits=IMPATIENT).up().files) == 1


def test_an_index_is_built_concurrently_while_another_runner_polls(
    database_url: str, connection: psycopg.Connection
) -> None:
    """A waiter blocked in pg_advisory_lock would deadlock here; ours holds no snapshot."""
    Migrator(database_url, [T1, T2]).up()
    with psycopg.connect(database_url) as old_snapshot, ThreadPoolExecutor(2) as pool:
        old_snapshot.execute("INSERT INTO ledger.strategies VALUES (1, 'one')")
        builder = pool.submit(Migrator(database_url, [T1, T2, T3]).up)
        wait_until(lambda: is_running(connection, "CREATE INDEX CONCURRENTLY"))
        waiter = pool.submit(Migrator(database_url, [T1, T2, T3]).up)
        wait_until(
            lambda: (
                connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE strpos(query, 'pg_try_advisory_lock') > 0"
                    " AND datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchone()
                != (0,)
            )
        )
        old_snapshot.commit()
        assert [file.number for file in builder.result(timeout=20).files] == [3]
        assert waiter.result(timeout=20).files == ()


def test_an_index_build_killed_half_way_is_resumed(
    database_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    for file, forward in ((1, T1.forward.text), (2, T2.forward.text)):
        (tmp_path / f"00{file}_step.sql").write_text(migration_text(file, forward))
    (tmp_path / "003_step.sql").write_text(
        migration_text(3, T3.forward.text, T3.verify.text, T3.rollback.text, transactional=False)
    )
    Migrator(database_url, tmp_path).up(2)
    with psycopg.connect(database_url) as old_snapshot:
        old_snapshot.execute("INSERT INTO ledger.strategies VALUES (1, 'one')")
        with runner_process(database_url, tmp_path) as process:
            wait_until(lambda: is_running(connection, "CREATE INDEX CONCURRENTLY"))
            process.kill()
        wait_until(lambda: lock_holder(connection, lock_key(connection.info.dbname, "ledger")) is None)
    assert [row.state for row in Migrator(database_url, tmp_path).status().rows] == ["applied", "applied", "running"]
    assert read_catalogue(connection, "ledger").tables["strategies"].indexes["strategies_name"].valid is False
    assert [file.number for file in Migrator(database_url, tmp_path).up().files] == [3]
    assert read_catalogue(connection, "ledger").tables["strategies"].indexes["strategies_name"].valid is True


def test_a_runner_killed_after_the_build_finds_the_index_done(
    database_url: str, connection: psycopg.Connection
) -> None:
    migrator = Migrator(database_url, [T1, T2, T3])
    migrator.up()
    built = connection.execute("SELECT 'ledger.strategies_name'::regclass::oid").fetchone()
    connection.execute("UPDATE ledger.schema_migrations SET state = 'running' WHERE number = 3")
    assert [file.number for file in migrator.up().files] == [3]
    assert connection.execute("SELECT 'ledger.strategies_name'::regclass::oid").fetchone() == built
    assert migrator.status().is_current


def test_a_build_that_was_killed_can_be_given_up(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, [T1, T2, T3])
    migrator.up()
    connection.execute("UPDATE ledger.schema_migrations SET state = 'running' WHERE number = 3")
    assert [file.number for file in migrator.down(3).files] == [3]
    assert [row.state for row in migrator.status().rows] == ["applied", "applied", "pending"]


def test_a_verification_that_waits_for_a_lock_is_tried_again(database_url: str, connection: psycopg.Connection) -> None:
    """While it waits, the locks of the file stand in the way of everybody."""
    reading = migration(2, "CREATE TABLE b (x int);", "SELECT count(*) = 0 FROM strategies;")
    Migrator(database_url, [T1]).up()
    with psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE ledger.strategies IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(MigrationError, match=r"002_step.sql line 14: .*lock not available"):
            Migrator(database_url, [T1, reading], limits=IMPATIENT).up()
    assert "b" not in read_catalogue(connection, "ledger").tables


@pytest.mark.uncounted
def test_an_index_drop_killed_half_way_is_resumed(
    database_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "001_step.sql").write_text(migration_text(1, T1.forward.text, rollback="DROP TABLE strategies;"))
    (tmp_path / "002_step.sql").write_text(
        migration_text(2, T3.forward.text, T3.verify.text, T3.rollback.text, transactional=False)
    )
    migrator = Migrator(database_url, tmp_path)
    migrator.up()
    with psycopg.connect(database_url) as old_snapshot:
        old_snapshot.execute("INSERT INTO ledger.strategies VALUES (1, 'one')")
        with runner_process(database_url, tmp_path, "down", "2") as process:
            wait_until(lambda: is_running(connection, "DROP INDEX CONCURRENTLY"))
            process.kill()
        wait_until(lambda: lock_holder(connection, lock_key(connection.info.dbname, "ledger")) is None)
    assert migrator.status().rows[1].state == "reverting"
    with pytest.raises(MigrationError, match=r"rollback of 002_step was interrupted; finish it first with .* down 002"):
        migrator.up()
    assert [file.number for file in migrator.down(2).files] == [2]
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert [file.number for file in migrator.up().files] == [2]


def test_a_failed_index_build_is_cleaned_up_at_once(database_url: str, connection: psycopg.Connection) -> None:
    rows = migration(2, "INSERT INTO strategies VALUES (1, 'same'), (2, 'same');", rollback="DELETE FROM strategies;")
    unique = migration(
        3,
        "CREATE UNIQUE INDEX CONCURRENTLY one_name ON strategies (name);",
        rollback="DROP INDEX CONCURRENTLY one_name;",
        transactional=False,
    )
    with pytest.raises(MigrationError, match=r"003_step.sql line 12: 'CREATE UNIQUE .* failed: unique violation"):
        Migrator(database_url, [T1, rows, unique]).up()
    assert "one_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert [row.state for row in Migrator(database_url, [T1, rows, unique]).status().rows] == [
        "applied",
        "applied",
        "pending",
    ]


def test_an_index_of_another_making_is_in_the_way(database_url: str, connection: psycopg.Connection) -> None:
    Migrator(database_url, [T1, T2]).up()
    connection.execute("CREATE INDEX strategies_name ON ledger.strategies (note)")
    with pytest.raises(MigrationError, match=r"foreign object in the way: strategies_name exists already"):
        Migrator(database_url, [T1, T2, T3]).up()
    assert "note" in read_catalogue(connection, "ledger").tables["strategies"].indexes["strategies_name"].definition


def test_an_index_whose_verification_fails_is_taken_away(database_url: str, connection: psycopg.Connection) -> None:
    untrue = migration(
        3, T3.forward.text, verify="SELECT false;", rollback=T3.rollback.text.strip(), transactional=False
    )
    with pytest.raises(MigrationError, match=r"003_step.sql line 1\d: the verification 'SELECT false' returned"):
        Migrator(database_url, [T1, T2, untrue]).up()
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert [row.state for row in Migrator(database_url, [T1, T2, T3]).status().rows][2] == "pending"


DROPPED = migration(
    4,
    "DROP INDEX CONCURRENTLY strategies_name;",
    "SELECT to_regclass('ledger.strategies_name') IS NULL;",
    "CREATE UNIQUE INDEX CONCURRENTLY strategies_name ON strategies (name);",
    transactional=False,
)
UNIQUE = migration(
    3,
    "CREATE UNIQUE INDEX CONCURRENTLY strategies_name ON strategies (name);",
    rollback="DROP INDEX CONCURRENTLY strategies_name;",
    transactional=False,
)


def test_an_index_is_dropped_concurrently_and_built_again(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, [T1, T2, UNIQUE, DROPPED])
    Migrator(database_url, [T1, T2, UNIQUE]).up()
    before = read_catalogue(connection, "ledger")
    assert [file.number for file in migrator.up().files] == [4]
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert [file.number for file in migrator.down(4).files] == [4]
    assert read_catalogue(connection, "ledger") == before


def test_an_index_that_cannot_be_built_again_leaves_its_drop_applied(
    database_url: str, connection: psycopg.Connection
) -> None:
    migrator = Migrator(database_url, [T1, T2, UNIQUE, DROPPED])
    migrator.up()
    connection.execute("INSERT INTO ledger.strategies VALUES (1, 'same'), (2, 'same')")
    with pytest.raises(MigrationError, match=r"004_step.sql line 1\d: 'CREATE UNIQUE .* unique violation.*down 004"):
        migrator.down(4)
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert migrator.status().is_current


def test_another_index_built_in_the_place_of_the_dropped_one_is_refused(
    database_url: str, connection: psycopg.Connection
) -> None:
    other = migration(
        4,
        DROPPED.forward.text.strip(),
        rollback="CREATE INDEX CONCURRENTLY strategies_name ON strategies (note);",
        transactional=False,
    )
    migrator = Migrator(database_url, [T1, T2, UNIQUE, other])
    migrator.up()
    with pytest.raises(
        MigrationError, match=r"004_step.sql does not lead back to the schema before it: .*strategies_name"
    ):
        migrator.down(4)
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
    assert migrator.status().is_current


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            replace(DROPPED, verify=migration(4, "SELECT 1;", "SELECT false;").verify),
            r"the verification 'SELECT false' returned",
        ),
        (
            migration(
                4,
                "DROP INDEX CONCURRENTLY absent;",
                rollback="CREATE INDEX CONCURRENTLY absent ON strategies (name);",
                transactional=False,
            ),
            r"004_step.sql: there is no index absent to drop",
        ),
        (
            migration(
                4,
                "DROP INDEX CONCURRENTLY strategies_pkey;",
                rollback="CREATE UNIQUE INDEX CONCURRENTLY strategies_pkey ON strategies (id);",
                transactional=False,
            ),
            r"004_step.sql line 1\d: .*cannot drop index strategies_pkey because constraint",
        ),
    ],
)
def test_a_drop_that_fails_leaves_the_index(
    database_url: str, connection: psycopg.Connection, bad: MigrationFile, message: str
) -> None:
    Migrator(database_url, [T1, T2, UNIQUE]).up()
    before = read_catalogue(connection, "ledger")
    migrator = Migrator(database_url, [T1, T2, UNIQUE, bad])
    with pytest.raises(MigrationError, match=message):
        migrator.up()
    assert read_catalogue(connection, "ledger") == before
    assert [row.state for row in migrator.status().rows][3] == "pending"


def test_a_drop_that_was_killed_is_resumed_or_given_up(database_url: str, connection: psycopg.Connection) -> None:
    """A killed DROP INDEX CONCURRENTLY leaves an index that is not valid any more, as this does."""
    migrator = Migrator(database_url, [T1, T2, UNIQUE, DROPPED])
    Migrator(database_url, [T1, T2, UNIQUE]).up()
    before = read_catalogue(connection, "ledger")
    for gives_up in (True, False):
        with psycopg.connect(database_url) as old_snapshot:
            old_snapshot.execute("LOCK TABLE ledger.strategies IN ROW EXCLUSIVE MODE")
            runner = ThreadPoolExecutor().submit(migrator.up)
            wait_until(lambda: is_running(connection, "DROP INDEX CONCURRENTLY"))
            wait_until(
                lambda: not read_catalogue(connection, "ledger").tables["strategies"].indexes["strategies_name"].valid
            )
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONCURRENTLY%'"
            )
            with pytest.raises(DatabaseUnavailable, match="the connection was lost"):
                runner.result()
        assert [row.state for row in migrator.status().rows][3] == "running"
        finished = migrator.down(4) if gives_up else migrator.up()
        assert [file.number for file in finished.files] == [4]
        if gives_up:
            assert read_catalogue(connection, "ledger") == before
    assert migrator.status().is_current
    assert "strategies_name" not in read_catalogue(connection, "ledger").tables["strategies"].indexes
