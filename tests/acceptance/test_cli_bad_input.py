"""Every bad command, file, setting or database state: one sentence, exit code 2, and nothing on standard output."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from position_ledger.cli.app import app
from position_ledger.cli.running import run as main_of
from position_ledger.testing.databases import address_of
from tests.support.command_line import REBUILD, Answer, as_role, in_this_process, on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from position_ledger.testing.databases import Template


class Bad(NamedTuple):
    """A command that cannot be run, and words that its sentence must have: what, and what helps."""

    arguments: str
    words: tuple[str, ...]
    settings: Mapping[str, str] = MappingProxyType({})


CASES = {
    "unknown position": Bad("show POS-999", ("position POS-999 not found", "position-ledger positions")),
    "nonsense position": Bad("history nonsense", ("position nonsense not found",)),
    "unknown command": Bad("positoins", ("positoins", "did you mean positions")),
    "unknown option": Bad("positions --statuss open", ("--statuss", "position-ledger positions --help")),
    "unknown status": Bad("positions --status opne", ("opne", "open")),
    "time without zone": Bad("positions --known-at 2026-03-01T10:00", ("no offset from UTC", "Z")),
    "no time": Bad("positions --known-at yesterday", ("yesterday", "ISO 8601")),
    "time beyond the calendar": Bad("positions --known-at 9999-12-31T23:59:59-14:00", ("ISO 8601",)),
    "unknown table": Bad("verify nonsense", ("'nonsense'", "positions")),
    "unknown migration": Bad("migrate up 77", ("077", "001")),
    "watch as one document": Bad("status --watch --json", ("--watch", "--json")),
    "no such file": Bad(
        "import fills /nowhere/fills.csv --map polymarket-scrape --environment paper", ("/nowhere/fills.csv",)
    ),
    "unknown preset": Bad(
        "import fills /nowhere/fills.csv --map nonsense --environment paper", ("nonsense", "polymarket-scrape")
    ),
    "missing mapping file": Bad(
        "import fills /nowhere/fills.csv --map /nowhere/map.toml --environment paper", ("/nowhere/map.toml",)
    ),
    "environment not given": Bad("import fills fills.csv --map polymarket-scrape", ("--environment",)),
    "unknown environment": Bad("import fills fills.csv --map polymarket-scrape --environment real", ("real", "paper")),
    "worker without processes": Bad("worker --processes 0", ("--processes", "0")),
    "database that is no address": Bad(
        "positions", ("setting database_url", "postgresql://"), {"POSITION_LEDGER_DATABASE_URL": "nonsense"}
    ),
    "database that does not answer": Bad(
        "positions",
        ("did not answer", "/nowhere", "position-ledger doctor"),
        {"POSITION_LEDGER_DATABASE_URL": "postgresql://me@/db?host=/nowhere"},
    ),
    "database that does not exist": Bad(
        "positions", ("does not exist", "position-ledger doctor"), {"POSITION_LEDGER_DATABASE_URL": "dbname=nowhere"}
    ),
    "migrating where nothing answers": Bad(
        "migrate up", ("/nowhere",), {"POSITION_LEDGER_DATABASE_URL": "postgresql://me@/db?host=/nowhere"}
    ),
    "redis that is no address": Bad(
        "positions", ("setting redis_url", "redis://"), {"POSITION_LEDGER_REDIS_URL": "http://me:secret@host"}
    ),
    "setting out of range": Bad("positions", ("pool_size_max", "'0'"), {"POSITION_LEDGER_POOL_SIZE_MAX": "0"}),
    "setting that is no choice": Bad("doctor", ("consistency", "'maybe'"), {"POSITION_LEDGER_CONSISTENCY": "maybe"}),
    "projections that are nowhere": Bad(
        "positions", ("setting projections", "nowhere.at.all"), {"POSITION_LEDGER_PROJECTIONS": "nowhere.at.all"}
    ),
    "migrations that are nowhere": Bad(
        "migrate status", ("setting migrations", "nowhere.at.all"), {"POSITION_LEDGER_MIGRATIONS": "nowhere.at.all"}
    ),
    "workers that are nowhere": Bad(
        "worker", ("setting workers", "nowhere.at.all"), {"POSITION_LEDGER_WORKERS": "nowhere.at.all"}
    ),
    "schema name": Bad("positions", ("schema name",), {"POSITION_LEDGER_SCHEMA": "Robert'); DROP"}),
}


@pytest.fixture(scope="module")
def database(ledger_template: Template) -> Iterator[str]:
    with ledger_template.clone() as url:
        yield url


def refused(answer: Answer, *words: str) -> str:
    """Check how a command said that it could not be run, and answer its sentence."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("position-ledger")
    assert "Traceback" not in answer.err
    assert "unexpected" not in answer.err
    assert [word for word in words if word not in answer.err] == []
    return answer.err


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_run_says_why_in_one_sentence(
    case: str, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a good ledger, when a command, file or setting is bad, then one sentence says what and what helps.

    In this process, by the function that the console script ends with: thirty interpreters would say the same.
    """
    bad = CASES[case]
    settings = dict(bad.settings)
    if settings.get("POSITION_LEDGER_DATABASE_URL") == "dbname=nowhere":
        settings["POSITION_LEDGER_DATABASE_URL"] = address_of(database, "nowhere")
    for name, value in {**on(database).settings, **settings}.items():
        monkeypatch.setenv(name, value)

    code = main_of(app, "position-ledger", bad.arguments.split())

    said = refused(Answer(code, *capsys.readouterr()), *bad.words)
    assert "secret" not in said


@pytest.mark.parametrize(
    "arguments", ["positions", "status", "check", "verify", "worker", "rebuild-projection positions"]
)
def test_a_database_without_migrations_is_told_the_command(arguments: str, ledger_server_url: str) -> None:
    """Given a database that was never migrated, when anything needs the schema, then it says: migrate up."""
    refused(
        in_this_process(address_of(ledger_server_url, "postgres"))(*arguments.split()), "position-ledger migrate up"
    )


def test_a_ledger_without_the_record_of_its_migrations_is_sent_to_baseline(ledger_template: Template) -> None:
    """Given a ledger that was restored without the runner's tables, when migrating, then it is told how to adopt it."""
    with ledger_template.clone() as url:
        with psycopg.connect(url) as owner:
            owner.execute("DROP TABLE ledger.schema_migrations, ledger.schema_migration_history")

        refused(in_this_process(url)("migrate", "up"), "no record of its migrations", "migrate baseline 0")
        last = max(Path("migrations").glob("*.sql")).name[:3]
        assert in_this_process(url)("migrate", "baseline", last).code == 0
        assert in_this_process(url)("migrate", "up").code == 0


def test_a_database_from_the_future_is_left_alone(ledger_template: Template) -> None:
    """Given a migration that this release does not know, when migrating, then it refuses and names the migration."""
    with ledger_template.clone() as url:
        run = in_this_process(url)
        with psycopg.connect(url) as owner:
            owner.execute(
                "INSERT INTO ledger.schema_migrations SELECT 99, '099_later', m.state, m.checksum, m.checksum_header, "
                "m.checksum_forward, m.checksum_verify, m.checksum_rollback, m.applied_at, m.applied_by, m.host, "
                "m.duration_ms FROM ledger.schema_migrations AS m WHERE m.number = 1"
            )

        refused(run("migrate", "up"), "ahead of this release", "099_later", "install the release")
        refused(run("migrate", "down", "1"), "ahead of this release")
        refused(run("rebuild-projection", "positions"), "ahead of this release", "migration 099")
        said = run("migrate", "status").out
        assert "ahead of this folder: 099_later" in said
        assert "run position-ledger migrate up" not in said
        assert run("check").code == 1
        states = {row["number"]: row["state"] for row in run("migrate", "status", "--json").document["migrations"]}
        assert states["099"] == "unknown"


def test_a_user_who_may_only_read_reads_and_is_refused_the_rest(ledger_template: Template, tmp_path: Path) -> None:
    """Given a role with the right to read, when it reads, then it can; when it writes, then it is told which role may."""
    fills = tmp_path / "fills.csv"
    fills.write_text("account,market,side,action,quantity,price,time\nmain,M,YES,buy,1,0.5,2026-03-01T10:00:00Z\n")
    mapping = tmp_path / "map.toml"
    fields = ("account", "market", "side", "action", "quantity", "price", "time")
    mapping.write_text('order = "oldest_first"\n[columns]\n' + "".join(f'{name} = "{name}"\n' for name in fields))
    with ledger_template.clone() as url, psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS only_reads")
        owner.execute("CREATE ROLE only_reads LOGIN IN ROLE position_ledger_reader")
        try:
            run = in_this_process(as_role(url, "only_reads"))

            assert run("positions", "--json").document == []
            importing = ("import", "fills", str(fills), "--map", str(mapping), "--environment", "paper")
            refused(run(*importing), "position_ledger_app")
            refused(run("migrate", "down", "3"), "only_reads")
            assert owner.execute("SELECT count(e.notification_id) FROM ledger.events AS e").fetchone() == (0,)
        finally:
            owner.execute("DROP ROLE only_reads")


def test_debug_adds_the_traceback(database: str) -> None:
    """Given an error, when run with --debug, then the traceback comes before the sentence."""
    answer = on(database)("show", "POS-999", "--debug")

    assert answer.code == 2
    assert answer.err.startswith("Traceback")
    assert answer.err.splitlines()[-1].startswith("position-ledger: position POS-999 not found")


def test_the_rebuild_has_a_program_of_its_own(database: str) -> None:
    """Given the other console script, when used wrongly, then it speaks of itself, with the same exit code."""
    answer = on(database)("positions", "--rollback", "--dry-run", entry=REBUILD)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "rebuild-projection: --rollback builds nothing, so of the options of a rebuild it goes with --processes only; "
        "see rebuild-projection --help\n"
    )
