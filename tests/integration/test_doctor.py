"""The doctor: what is wrong, in words, with what to do, whatever the installation lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console

from position_ledger import doctor
from position_ledger.cli.app import app
from position_ledger.cli.running import run
from position_ledger.cli.status import _lines, _seen
from position_ledger.doctor import Finding, Verdict
from position_ledger.settings import load_settings
from position_ledger.setup import Reached
from position_ledger.status import read_status
from position_ledger.store.feed import Holder

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "postgresql:///nowhere?host=/nonexistent"
NO_REDIS = "unix:///nonexistent/redis.sock"


def examined(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> dict[str, Finding]:
    monkeypatch.setenv("POSITION_LEDGER_DATABASE_URL", database_url)
    monkeypatch.setenv("POSITION_LEDGER_REDIS_URL", redis_url)
    return {finding.check: finding for finding in doctor.examine()}


def verdicts(found: dict[str, Finding], *names: str) -> list[Verdict]:
    return [found[name].verdict for name in names]


@pytest.fixture
def poor_url(ledger_database: str) -> Iterator[str]:
    """The database as a user knows it who was given nothing but the schema."""
    with psycopg.connect(ledger_database, autocommit=True) as admin:
        admin.execute("CREATE ROLE doctor_poor LOGIN")
        admin.execute("GRANT USAGE ON SCHEMA ledger TO doctor_poor")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO doctor_poor")
    parts = {**conninfo_to_dict(ledger_database), "user": "doctor_poor"}
    yield make_conninfo("", **parts)
    with psycopg.connect(ledger_database, autocommit=True) as admin:
        admin.execute("DROP OWNED BY doctor_poor; DROP ROLE doctor_poor")


def test_servers_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, NOWHERE, NO_REDIS)
    assert verdicts(found, "python", "dependencies") == [Verdict.OK, Verdict.OK]
    assert verdicts(found, "database", "redis") == [Verdict.WRONG, Verdict.WRONG]
    assert "POSITION_LEDGER_REDIS_URL" in found["redis"].remedy


def test_a_user_without_rights_is_told_which_and_how(
    monkeypatch: pytest.MonkeyPatch, poor_url: str, ledger_redis_url: str
) -> None:
    found = examined(monkeypatch, poor_url, ledger_redis_url)
    rights = ("right to write", "right to try migrations", "right to see sessions")
    assert verdicts(found, *rights) == [Verdict.NOTE] * 3
    assert all("GRANT" in found[name].remedy or "ALTER ROLE" in found[name].remedy for name in rights)


def test_an_empty_database_is_told_the_command(
    monkeypatch: pytest.MonkeyPatch, ledger_database: str, ledger_redis_url: str
) -> None:
    with psycopg.connect(ledger_database, autocommit=True) as admin:
        admin.execute("DROP SCHEMA ledger CASCADE")
    found = examined(monkeypatch, ledger_database, ledger_redis_url)
    assert verdicts(found, "migrations", "projections") == [Verdict.WRONG, Verdict.WRONG]
    assert "position-ledger migrate up" in found["migrations"].remedy


def test_a_good_ledger_has_nothing_wrong(
    monkeypatch: pytest.MonkeyPatch, ledger_database: str, ledger_redis_url: str
) -> None:
    found = examined(monkeypatch, ledger_database, ledger_redis_url)
    assert [name for name, one in found.items() if one.verdict is Verdict.WRONG] == []
    assert found["migrations"].verdict is Verdict.OK


def test_the_state_of_a_server_that_is_away_is_shown_and_not_the_end_of_it() -> None:
    settings = load_settings(database_url=NOWHERE, redis_url=NO_REDIS)
    console = Console(width=200, record=True)
    with console.capture() as shown:
        console.print(_seen(settings, Reached(NOWHERE, NO_REDIS, None), console))
    assert "did not answer" in shown.get()


def test_a_package_that_cannot_be_imported_is_named() -> None:
    assert "no_such_package" in doctor._import_problem("no_such_package")
    assert doctor._import_problem("psycopg") == ""


def test_a_check_that_fails_is_a_finding_itself() -> None:
    def failing() -> Iterator[Finding]:
        yield Finding("never seen", Verdict.OK, "")
        raise psycopg.OperationalError("the server\nwent away")

    (found,) = doctor._guarded("clock", failing)
    assert (found.check, found.verdict, found.sentence) == ("clock", Verdict.WRONG, "the server went away")


def test_the_state_is_shown_in_lines_and_a_table(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ledger_database: str,
    ledger_redis_url: str,
) -> None:
    monkeypatch.setenv("POSITION_LEDGER_DATABASE_URL", ledger_database)
    monkeypatch.setenv("POSITION_LEDGER_REDIS_URL", ledger_redis_url)
    assert run(app, "position-ledger", ["status"]) == 0
    said = capsys.readouterr().out
    assert "positions" in said
    assert "none is alive" in said


def test_who_holds_the_feed_back_is_named(ledger_database: str, ledger_redis_url: str) -> None:
    settings = load_settings(database_url=ledger_database, redis_url=ledger_redis_url)
    found = read_status(settings, Reached(ledger_database, ledger_redis_url, None))
    held = replace(found, holders=[Holder(4711, "", 12.4, "idle in transaction", "SELECT   1")])
    said = "\n".join(_lines(held))
    assert "held back for 12 s by server process 4711 (unnamed, idle in transaction): SELECT 1" in said
