"""`migrate history`, `accept-checksum` and `baseline` through the command line, on the migrations that ship."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.support.command_line import InThisProcess, on

PRODUCT = Path("migrations")
COUNT = len(list(PRODUCT.glob("*.sql")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A team's copy of the migrations."""
    return Path(shutil.copytree(PRODUCT, tmp_path / "migrations"))


@pytest.fixture
def run(ledger_database: str, folder: Path) -> InThisProcess:
    return InThisProcess({**on(ledger_database).settings, "POSITION_LEDGER_MIGRATIONS": str(folder)})


def test_the_history_says_who_did_what(run: InThisProcess) -> None:
    rows = run("migrate", "history", "--json").document
    assert [row["number"] for row in rows] == [f"{number:03}" for number in range(1, COUNT + 1)]
    assert all(row["action"] == "up" and row["host"] and row["done_by"] for row in rows)
    assert all(row["done_at"].endswith("Z") and row["duration_ms"] >= 0 for row in rows)
    shown = run("migrate", "history").out.splitlines()
    assert shown[0].split()[:2] == ["when", "(UTC)"]
    assert "001_events" in shown[1]
    assert shown[-1] == f"{COUNT} changes"


def test_an_edit_is_refused_accepted_and_remembered(run: InThisProcess, folder: Path) -> None:
    """Given an applied file with another summary, when it is accepted and the sums renewed, then up goes on."""
    assert run("migrate", "accept-checksum", "008").out == "nothing to do: 008 is as it was applied\n"
    file = folder / "008_game_states.sql"
    file.write_text(file.read_text(encoding="utf-8").replace("Drops table and view.", "Drops the table and its view."))
    refused = run("migrate", "up")
    assert (refused.code, "run `position-ledger migrate accept-checksum 008`" in refused.err) == (2, True)
    accepted = run("migrate", "accept-checksum", "8", "--reason", "wording")
    assert accepted.out == "008_game_states.sql is accepted as it is now; next: position-ledger migrate sum\n"
    assert run("migrate", "sum").out.splitlines()[0] == "changed: 008_game_states.sql"
    assert run("migrate", "up").code == 0
    assert run("migrate", "status", "--json").document["current"] is True
    last = run("migrate", "history", "--json").document[-1]
    assert (last["action"], last["reason"], len(last["old_checksum"])) == ("accept", "wording", 64)
    # Given sums that were renewed before, then there is nothing left to do after it is accepted
    file.write_text(file.read_text(encoding="utf-8").replace("Drops the table and its view.", "Drops both."))
    run("migrate", "sum")
    assert run("migrate", "accept-checksum", "8").out == "008_game_states.sql is accepted as it is now\n"


def test_a_ledger_whose_schema_was_dropped_begins_anew(run: InThisProcess, ledger_database: str) -> None:
    """Given `DROP SCHEMA ledger CASCADE`, then up says what else is left of it, and makes a new ledger without it."""
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA ledger CASCADE")
        connection.execute("CREATE SCHEMA ledger_g3")
        refused = run("migrate", "up")
        assert (refused.code, "run DROP SCHEMA ledger_g3 CASCADE, then this command again" in refused.err) == (2, True)
        connection.execute("DROP SCHEMA ledger_g3")
    assert run("migrate", "up").code == 0
    assert run("migrate", "status", "--json").document["current"] is True


def test_a_ledger_that_lost_its_records_is_adopted(run: InThisProcess, ledger_database: str) -> None:
    """Given the schema that ships and no record of it, when it is adopted, then up finds nothing to do."""
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        connection.execute("DROP TABLE ledger.schema_migrations, ledger.schema_migration_history")
        connection.execute("DROP FUNCTION ledger.schema_migration_history_is_append_only()")
        connection.execute("CREATE INDEX by_hand ON ledger.trades (side)")
        refused = run("migrate", "baseline")
        assert (refused.code, "index by_hand is new" in refused.err) == (2, True)
        connection.execute("DROP INDEX ledger.by_hand")
    done = run("migrate", "baseline")
    assert (done.code, done.err) == (0, "")
    assert "as applied, nothing was run; next: position-ledger migrate up" in done.out.splitlines()[-1]
    assert run("migrate", "up", "--json").document["files"] == []
    assert run("migrate", "status", "--json").document["current"] is True
    again = run("migrate", "baseline", "--json")
    assert (again.code, f"has {COUNT} migrations recorded" in again.err) == (2, True)
