"""Bad input, one table: each a clear sentence with what to do next, the database as before, and no way closed (S24).

Given a migrated database with rows, when `up` meets the trouble, then one sentence says what and what next, catalogue,
rows and records are as they were, and once the trouble is gone the same command brings the rest.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from position_ledger.cli.running import sentence
from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.errors import LedgerError
from position_ledger.migration import Limits, Migrator, parse_file, read_catalogue, write_sum
from position_ledger.migration.bookkeeping import read_applied, read_history
from position_ledger.migration.session import migration_session
from tests.migration.test_migrator_concurrency import is_running, wait_until
from tests.support.migration_files import migration_text

IMPATIENT = Limits(migration_lock_wait_s=0.3, lock_timeout_ms=50, retry_budget_s=0.3, retry_pause_max_s=0.1)
FIRST = "CREATE TABLE desks (id bigint PRIMARY KEY, name text NOT NULL);\nINSERT INTO desks VALUES (1, 'north');"
GOOD = migration_text(2, "ALTER TABLE desks ADD COLUMN note text;", rollback="ALTER TABLE desks DROP COLUMN note;")
SLOW = "CREATE TABLE early (x int);\nSELECT pg_sleep(60);"
Situation = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Bad:
    """One kind of trouble: the files beside 001, what is the matter with the database, and what has to be said."""

    what: str
    says: str
    files: dict[str, str]
    situation: Situation = nullcontext
    is_sum_stale: bool = False


@contextmanager
def another_runner(url: str) -> Iterator[None]:
    with migration_session(url, "ledger", IMPATIENT):
        yield


@contextmanager
def a_long_reader(url: str) -> Iterator[None]:
    with psycopg.connect(url, application_name="month-end report") as reader:
        reader.execute("SELECT count(*) FROM ledger.desks")
        yield


@contextmanager
def a_foreign_object(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.desks ADD COLUMN note integer")
        yield
        connection.execute("ALTER TABLE ledger.desks DROP COLUMN note")


@contextmanager
def a_foreign_index(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE INDEX desks_by_name ON ledger.desks (id)")
        yield
        connection.execute("DROP INDEX ledger.desks_by_name")


@contextmanager
def a_lost_connection(url: str) -> Iterator[None]:
    """The server ends the runner's session in the middle of its second statement."""
    with psycopg.connect(url, autocommit=True) as connection:

        def end_it() -> None:
            wait_until(lambda: is_running(connection, "SELECT pg_sleep(60)"))
            connection.execute(
                "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.datname = current_database()"
                " AND a.query LIKE 'SELECT pg_sleep%'"
            )

        ending = threading.Thread(target=end_it)
        ending.start()
        yield
        ending.join(30)


@contextmanager
def a_read_only_server(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        yield
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


def bad(forward: str = "SELECT 1;", verify: str = "SELECT true;") -> dict[str, str]:
    return {"002_second.sql": migration_text(2, forward, verify, rollback="SELECT 1;")}


TABLE = (
    Bad("no header", r"002_second.sql: the header line '-- Migration:' is missing or empty; write it", {
        "002_second.sql": "-- forward\nSELECT 1;\n-- verify\nSELECT true;\n-- rollback\nSELECT 1;\n"
    }),
    Bad("no sections", r"002_second.sql: the section '-- forward' is missing", {"002_second.sql": "SELECT 1;\n"}),
    Bad("an empty file", r"002_second.sql: the section '-- forward' is missing", {"002_second.sql": ""}),
    Bad("no verification", r"002_second.sql: the section '-- verify' has no statement; write at least one", bad(verify="")),
    Bad("no verification section", r"'-- verify' is missing|'-- rollback' is out of place", {
        "002_second.sql": GOOD.replace("-- verify\nSELECT true;\n", "")
    }),
    Bad("a duplicate number", r"002_other.sql and 002_second.sql have the same number 002; give the later one the next", {
        "002_second.sql": GOOD, "002_other.sql": GOOD
    }),
    Bad("a gap", r"number 002 is missing between 001_first.sql and 003_third.sql; restore the file or renumber", {
        "003_third.sql": migration_text(3, "SELECT 1;")
    }),
    Bad("a bad name", r"2-second.SQL.sql: the name of a migration is NNN_descriptive_name.sql", {"2-second.SQL.sql": GOOD}),
    Bad("an edited applied file", r"001_first.sql was edited after it was applied on .* UTC: section forward; restore the", {
        "001_first.sql": migration_text(1, FIRST.replace("north", "south"), rollback="DROP TABLE desks;")
    }),
    Bad("a stale sum file", r"migrations.sum does not fit 002_second.sql: .* run `position-ledger migrate sum`", {
        "002_second.sql": GOOD
    }, is_sum_stale=True),
    Bad("a failing statement", r"002_second.sql line 12: 'SELECT 1/0' failed: division by zero; nothing of this file was kept; "
        r"correct the file, then run `position-ledger migrate up` again", bad("CREATE TABLE early (x int);\nSELECT 1/0;")),
    Bad("rows that are null", r"NOT NULL violation: .*give the rows that exist a value first, or a default, then run "
        r"`position-ledger migrate up` again", bad("CREATE TABLE early (x int);\nALTER TABLE desks ADD COLUMN x int NOT NULL;")),
    Bad("a verification that does not hold", r"line 14: the verification 'SELECT false' returned \(False,\) instead of one row "
        r"with one true; nothing of this file was kept; correct .* run `position-ledger migrate up` again",
        bad("CREATE TABLE early (x int);", "SELECT false;")),
    Bad("a lost connection", r"the connection was lost while migrating .* see `position-ledger migrate status`, then run it",
        bad(SLOW), a_lost_connection),
    Bad("another runner", r"another migration of schema ledger is running: server process \d+ .*run the command again when",
        {"002_second.sql": GOOD}, another_runner),
    Bad("a foreign column", r"foreign object in the way: column \"note\" .* already exists; nothing .*find out who made "
        r"the column, then drop or rename it, then run `position-ledger migrate up`", {"002_second.sql": GOOD}, a_foreign_object),
    Bad("a foreign index", r"002_second.sql: foreign object in the way: desks_by_name exists already .*find out who did", {
        "002_second.sql": migration_text(2, "CREATE INDEX CONCURRENTLY desks_by_name ON desks (name);",
                                         rollback="DROP INDEX CONCURRENTLY desks_by_name;", transactional=False)
    }, a_foreign_index),
    Bad("a long reader", r"lock not available: .* run `position-ledger migrate up` again; tried for 0.3 s, .* are held by "
        r"server process \d+ \(month-end report, role admin", {"002_second.sql": GOOD}, a_long_reader),
    Bad("a read-only server", r"role admin may not migrate schema ledger .*; run the command on the primary server",
        {"002_second.sql": GOOD}, a_read_only_server),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Path:
    """A folder with one migration, which is applied."""
    (tmp_path / "001_first.sql").write_text(migration_text(1, FIRST, rollback="DROP TABLE desks;"))
    write_sum(tmp_path)
    Migrator(database_url, tmp_path).up()
    return tmp_path


def contents(connection: psycopg.Connection) -> tuple[object, ...]:
    """Everything of the ledger: structure, rows, records and history."""
    rows = connection.execute("SELECT d.* FROM ledger.desks AS d ORDER BY 1").fetchall()
    return (
        read_catalogue(connection, "ledger"),
        rows,
        read_applied(connection, "ledger"),
        read_history(connection, "ledger"),
    )


@pytest.mark.parametrize("server_url", ["18"], indirect=True)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in TABLE])
def test_bad_input_is_one_sentence_and_changes_nothing(
    case: Bad, folder: Path, database_url: str, connection: psycopg.Connection
) -> None:
    first = (folder / "001_first.sql").read_text()
    for name, text in case.files.items():
        (folder / name).write_text(text)
    if not case.is_sum_stale:
        (folder / "migrations.sum").unlink()
    with case.situation(database_url):
        before = contents(connection)
        with pytest.raises(LedgerError, match=case.says) as refused:
            Migrator(database_url, folder, limits=IMPATIENT).up()
        assert "\n" not in sentence(refused.value)
        assert "Traceback" not in sentence(refused.value)
        assert contents(connection) == before
    for name in case.files:
        (folder / name).unlink()
    (folder / "001_first.sql").write_text(first)
    (folder / "002_second.sql").write_text(GOOD)
    write_sum(folder)
    assert [file.number for file in Migrator(database_url, folder, limits=IMPATIENT).up().files] == [2]


@pytest.fixture
def narrow_server() -> Iterator[str]:
    """A server whose files cannot grow beyond 24 MiB: to it, that is what a full disk or a quota is like.

    The limit of file sizes is inherited by the processes that are started while it is set here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24 * 2**20, hard))
    try:
        server = TemporaryPostgres(is_durable=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with server:
        yield server.database_url


def test_a_disk_that_is_full_is_named_and_nothing_is_kept(narrow_server: str) -> None:
    files = [
        (1, FIRST, "DROP TABLE desks;"),
        (2, "CREATE TABLE big AS SELECT repeat('x', 500) AS x FROM generate_series(1, 80000);", "DROP TABLE big;"),
    ]
    parsed = [
        parse_file(f"{n:03}_step.sql", migration_text(n, forward, rollback=back).encode()) for n, forward, back in files
    ]
    Migrator(narrow_server, parsed[:1]).up()
    with psycopg.connect(narrow_server, autocommit=True) as connection:
        before = contents(connection)
        with pytest.raises(
            LedgerError,
            match=r"002_step.sql line 11: .* failed: disk full: could not extend file .*; nothing of "
            r"this file was kept; make room on the server's disk, then run `position-ledger migrate up` again",
        ):
            Migrator(narrow_server, parsed).up()
        assert contents(connection) == before
        left = connection.execute("SELECT pg_database_size(current_database()) < 24 * 1024 * 1024").fetchone()
        assert left == (True,), "what was written before the disk was full is given back"
