"""Before `migrate up`, what is known of the last backup is said, or nothing is done without one (S6)."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.operations import backup, backup_state
from position_ledger.settings import load_settings
from position_ledger.setup import Reached
from tests.support.command_line import InThisProcess, on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ELSEWHERE = timezone(timedelta(hours=-5))


@pytest.fixture
def database_url(ledger_server_url: str) -> Iterator[str]:
    """A fresh, empty database beside those of the other tests."""
    name = f"backup_{datetime.now(UTC):%H%M%S%f}"
    with psycopg.connect(ledger_server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(ledger_server_url, dbname=name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def saying(text: str, code: int = 0) -> str:
    """A backup command that prints a text and ends with a code."""
    return shlex.join([sys.executable, "-c", f"print({text!r}); raise SystemExit({code})"])


ANSWERS: dict[str, tuple[Callable[[], str], bool, str]] = {
    "time": (lambda: saying(ago(3).isoformat()), True, "the last backup is of"),
    "offset": (lambda: saying(ago(3).astimezone(ELSEWHERE).isoformat() + "\nmore"), True, "UTC, 3.0 h ago"),
    "now": (lambda: saying(f"{ago(0):%Y-%m-%dT%H:%M:%SZ}"), True, "UTC, 0.0 h ago"),
    "old": (lambda: saying(ago(30).isoformat()), False, "30 h ago, more than 24 h"),
    "future": (lambda: saying(ago(-1).isoformat()), False, "which has not come yet"),
    "naive": (lambda: saying(f"{ago(0):%Y-%m-%dT%H:%M:%S}"), False, "which has no offset from UTC"),
    "words": (lambda: saying("done"), True, "the backup command says that there is one"),
    "silence": (lambda: saying(""), True, "the backup command says that there is one"),
    "failure": (lambda: saying("2026-01-01T00:00:00Z", 3), False, "the backup command ended with 3 (no message)"),
    "missing": (lambda: "/nowhere/backup --last", False, "the backup command cannot be run"),
    "quote": (lambda: "'open", False, "the backup command cannot be run (No closing quotation)"),
}


def ago(hours: float) -> datetime:
    """That long before now, in UTC."""
    return datetime.now(UTC) - timedelta(hours=hours)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_command_says_whether_and_of_when(ledger_server_url: str, name: str) -> None:
    command, is_recent, message = ANSWERS[name]
    with psycopg.connect(ledger_server_url) as connection:
        state = backup_state(load_settings(backup_command=command()), connection)
    assert (state.source, state.is_recent) == ("command", is_recent)
    assert message in state.message


def test_a_command_that_hangs_is_given_up(ledger_server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "COMMAND_LIMIT_S", 0.2)
    with psycopg.connect(ledger_server_url) as connection:
        state = backup_state(load_settings(backup_command="sleep 60"), connection)
    assert (state.is_recent, state.message) == (False, "the backup command did not answer within 0.2 s")


def test_a_server_that_archives_nothing_has_no_known_backup(ledger_server_url: str) -> None:
    with psycopg.connect(ledger_server_url) as connection:
        state = backup_state(load_settings(), connection)
    assert (state.source, state.is_recent, state.at) == ("none", False, None)


@pytest.fixture
def run(database_url: str) -> InThisProcess:
    """A ledger that lacks the last migration."""
    line = InThisProcess(on(database_url).settings)
    fresh = line("migrate", "up", "11")
    assert fresh.code == 0, fresh.err
    assert "backup" not in fresh.out, "a database without anything in it has nothing to lose"
    return line


def test_without_a_backup_up_warns_or_refuses_before_anything_is_done(run: InThisProcess) -> None:
    refused = run("migrate", "up", POSITION_LEDGER_BACKUP_POLICY="refuse")
    assert (refused.code, refused.out) == (2, "")
    assert "no backup is known" in refused.err
    assert "nothing was changed; make one, and name what finds it with POSITION_LEDGER_BACKUP_COMMAND" in refused.err
    assert run("migrate", "status", "--json").document["current"] is False
    warned = run("migrate", "up", "12")
    assert warned.code == 0
    assert warned.out.splitlines()[0].startswith("warning: no backup is known: no backup command is set")
    assert "backup" not in run("migrate", "up", "12").out, "nothing to apply, nothing to back up for"


def test_with_a_backup_up_says_of_when(run: InThisProcess) -> None:
    command = saying((datetime.now(UTC) - timedelta(hours=2)).isoformat())
    strict = {"POSITION_LEDGER_BACKUP_POLICY": "refuse", "POSITION_LEDGER_BACKUP_COMMAND": command}
    refused = run("migrate", "up", POSITION_LEDGER_BACKUP_MAX_AGE_H="1", **strict)
    assert (refused.code, "2 h ago, more than 1 h" in refused.err) == (2, True)
    done = run("migrate", "up", "12", "--json", **strict)
    assert done.code == 0
    assert done.document["messages"][0].startswith("backup: the last backup is of")


def test_off_does_not_look(run: InThisProcess) -> None:
    done = run("migrate", "up", "12", POSITION_LEDGER_BACKUP_POLICY="off", POSITION_LEDGER_BACKUP_COMMAND="/nowhere/x")
    assert (done.code, "backup" in done.out) == (0, False)


@pytest.mark.uncounted
@pytest.mark.slow
def test_a_server_that_archives_its_log_is_believed_until_it_fails(tmp_path: Path) -> None:
    """Also what is advised for an embedded database: run as it stands, it makes a dump that can be read."""
    with TemporaryPostgres() as server:
        with psycopg.connect(server.database_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET archive_mode = on")
            connection.execute("ALTER SYSTEM SET archive_command = 'true'")
        server.restart()
        with psycopg.connect(server.database_url, autocommit=True) as connection:
            assert backup_state(load_settings(), connection).message == "the server has archived nothing of its log yet"
            archived = archived_now(connection, "last_archived_time")
            state = backup_state(load_settings(), connection)
            assert (state.source, state.is_recent, state.at) == ("archiver", True, archived)
            late = backup_state(load_settings(backup_max_age_h=1e-9), connection)
            assert (late.is_recent, late.at) == (False, archived)
            connection.execute("ALTER SYSTEM SET archive_command = 'false'")
            connection.execute("SELECT pg_reload_conf()")
            archived_now(connection, "last_failed_time")
            failed = backup_state(load_settings(), connection)
            assert (failed.is_recent, failed.at) == (False, archived)
            assert "the server fails to archive its log since" in failed.message
        advice = backup._advice(load_settings(), Reached(server.database_url, "", None))
        command = shlex.split(advice.removeprefix("back the embedded database up with "))
        subprocess.run(command, check=True, timeout=60, cwd=tmp_path)
        listing = [str(Path(command[0]).with_name("pg_restore")), "--list", str(tmp_path / "ledger.dump")]
        assert (
            "Format: CUSTOM" in subprocess.run(listing, check=True, timeout=60, capture_output=True, text=True).stdout
        )


def archived_now(connection: psycopg.Connection, column: str) -> datetime:
    """Have the server end a segment of its log, and wait for what its archiver says of it."""
    connection.execute("SELECT pg_logical_emit_message(false, 'test', 'something to archive')")
    connection.execute("SELECT pg_switch_wal()")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        row = connection.execute(f"SELECT a.{column} FROM pg_stat_archiver AS a".encode()).fetchone()
        if row is not None and isinstance(row[0], datetime):
            return row[0]
        connection.execute("SELECT pg_sleep(0.05)")
    pytest.fail(f"the archiver never reported {column}")
