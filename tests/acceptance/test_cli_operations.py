"""Commands of operators: import, migrate, check, verify, rebuild, doctor; what they answer and with which exit code."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from position_ledger.embedded import EmbeddedServers
from tests.support.command_line import REBUILD, CommandLine, in_this_process, on
from tests.support.embedded import remove, stop_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

FILLS = """account,market,side,action,quantity,price,time
main,KXNBA-CLE,YES,buy,100,0.42,2026-03-01T10:00:00Z
main,KXNBA-CLE,YES,sell,40,0.61,2026-03-01T11:00:00Z
,KXNBA-CLE,YES,buy,1,0.5,2026-03-01T12:00:00Z
main,KXNBA-CLE,YES,sell,1000,0.7,2026-03-01T13:00:00Z
"""
MAPPING = 'order = "oldest_first"\n[columns]\n' + "".join(
    f'{name} = "{name}"\n' for name in FILLS.splitlines()[0].split(",")
)


@pytest.fixture
def database(ledger_template: Template) -> Iterator[str]:
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def run(database: str) -> CommandLine:
    return in_this_process(database)


@pytest.fixture
def importing(tmp_path: Path) -> list[str]:
    """The arguments that import four rows, two of them good."""
    (tmp_path / "fills.csv").write_text(FILLS)
    (tmp_path / "map.toml").write_text(MAPPING)
    arguments = ["import", "fills", str(tmp_path / "fills.csv"), "--map", str(tmp_path / "map.toml")]
    return [*arguments, "--environment", "paper"]


def test_every_row_is_recorded_or_rejected(run: CommandLine, importing: list[str], tmp_path: Path) -> None:
    """Given good and bad rows, when imported twice, then each is an event or a reject, and the second adds nothing."""
    rejects = tmp_path / "rejects.csv"

    first = run(*importing, "--rejects", str(rejects))
    rejected = list(csv.reader(rejects.read_text(encoding="utf-8").splitlines()))
    second = run(*importing, "--strict", "--json")
    (position,) = run("positions", "--json").document

    assert first.code == 0
    assert "4 rows: 2 accepted (paper), 2 rejected, 0 recorded before" in first.out
    assert len(rejected) == 1 + 2
    assert second.code == 1
    found = second.document
    assert [found[name] for name in ("rows", "accepted", "rejected", "duplicates", "events")] == [4, 0, 2, 2, 0]
    assert Decimal(position["quantity"]) == 60
    assert position["execution_environment"] == "paper"


@pytest.mark.uncounted
def test_verify_and_check_find_what_was_changed_by_hand(run: CommandLine, database: str, importing: list[str]) -> None:
    """Given a table that equals its log, when a row and then the schema are changed by hand, then the answers are no."""
    assert run(*importing).code == 0
    proof = run("verify", "--json").document
    assert proof["holds"] is True
    assert {len(table["digest"]) for table in proof["tables"]} == {16}
    assert all(table["position"] == table["highest"] for table in proof["tables"])
    sound = run("check", "--json").document
    assert (sound["agree"], sound["mismatches"]) == (True, [])
    assert run("migrate", "verify", "--json").document == {"holds": True, "differences": []}

    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("ALTER TABLE ledger.positions DISABLE TRIGGER USER")
        owner.execute("UPDATE ledger.positions SET market_id = 'OTHER' WHERE version = 1")
        changed = run("verify", "positions", "--json")
        owner.execute("ALTER TABLE ledger.positions ENABLE TRIGGER USER, ADD COLUMN by_hand integer")
    told = run("verify", "positions")
    check, schema = run("check"), run("migrate", "verify")

    assert changed.code == 1
    difference = changed.document["tables"][0]["difference"]
    assert (difference["column"], difference["found"]) == ("market_id", "OTHER")
    assert told.code in {1, 2}
    assert (check.code, schema.code) == (1, 1)
    assert "by_hand" in check.out
    assert "by_hand" in schema.out


@pytest.mark.uncounted
def test_the_rebuild_keeps_every_id(run: CommandLine, importing: list[str]) -> None:
    """Given a table with rows, when built dry, rebuilt and rolled back, then rows and ids are as they were."""
    run(*importing)
    (position,) = run("positions", "--json").document
    before = run("history", position["position_id"], "--json").document

    dry = run("positions", "--dry-run", "--json", entry=REBUILD)
    rebuilt = run("rebuild-projection", "positions", "--json")
    back = run("positions", "--rollback", entry=REBUILD)

    assert (dry.code, dry.document["swapped"]) == (0, False)
    assert (rebuilt.code, rebuilt.document["swapped"], rebuilt.document["differences"]) == (0, True, [])
    assert rebuilt.document["versions"] == len(before) == 2
    assert back.code == 0
    assert "live again" in back.out
    assert run("history", position["position_id"], "--json").document == before
    assert run("verify").code == 0


def test_the_way_back_is_given_up_by_name(run: CommandLine, importing: list[str]) -> None:
    """Given a rebuilt table, when the retired one is dropped, then it says so, and a rollback that nothing is left."""
    run(*importing)
    run("rebuild-projection", "positions")
    states = run("status", "--json").document["projections"]
    (retired,) = [one for one in states if one["table"] == "positions" and one["state"] == "retired"]

    dropped = run("positions", "--drop-retired", entry=REBUILD)
    again = run("positions", "--drop-retired", "--json", entry=REBUILD)
    back = run("positions", "--rollback", entry=REBUILD)

    assert dropped.code == 0
    assert f"generation {retired['generation_id']} of release {retired['release']} is dropped" in dropped.out
    assert (again.code, again.document["generation_id"]) == (1, None)
    assert back.code != 0
    assert "no retired generation" in back.err
    assert "no retired generation is kept" in run("positions", "--drop-retired", entry=REBUILD).out


def test_a_table_is_projected_inline_and_by_workers_again(run: CommandLine, importing: list[str]) -> None:
    """Given a ledger without workers, when a table is switched, then each step is told and rows stay those of the log."""
    run(*importing)
    there = run("mode", "positions", "inline")
    again = run("mode", "positions", "inline")
    back = run("mode", "positions", "worker")

    assert (there.code, again.code, back.code) == (0, 0, 0)
    assert "inline from now on" in there.err
    assert "inline already" in again.err
    assert "by workers from now on" in back.err
    assert run("verify").code == 0
    assert run("mode", "positions", "both").code == 2


def test_migrations_go_down_and_up_again(run: CommandLine, importing: list[str]) -> None:
    """Given an empty ledger, when the latest migrations are taken back and applied, then each step is told."""
    shipped = sorted(path.name for path in Path("migrations").glob("*.sql"))
    last, of_positions = run("migrate", "down", "--json"), run("migrate", "down", "003", "--json")
    pending = run("migrate", "status", "--json").document
    behind = run("positions")
    up = run("migrate", "up")
    again = run("migrate", "up", "--json")

    assert (last.code, last.document["files"]) == (0, [shipped[-1]])
    assert (of_positions.code, of_positions.document["files"]) == (0, shipped[2:-1][::-1])
    assert [row["state"] for row in pending["migrations"]] == ["applied"] * 2 + ["pending"] * (len(shipped) - 2)
    assert pending["current"] is False
    assert behind.code == 2
    assert "migrate up" in behind.err
    assert up.code == 0
    assert all(f"applied {name}" in up.out for name in shipped[2:])
    assert again.document["files"] == []
    assert run(*importing).code == 0


def test_the_doctor_finds_faults_and_keeps_secrets(database: str) -> None:
    """Given a mistyped setting, a password and no Redis, when examined, then both faults are told, the password not."""
    url = make_conninfo(database, password="hunter2")  # noqa: S106 - a secret to look for
    run = on(url, "redis://:hunter2@127.0.0.1:1/0")

    answer = run("doctor", "--json", POSITION_LEDGER_DATABSE_URL="mistyped")

    assert answer.code == 1
    assert "hunter2" not in answer.out + answer.err
    wrong = {one["check"]: one for one in answer.document["findings"] if one["verdict"] == "wrong"}
    assert wrong.keys() == {"settings", "redis"}
    assert "POSITION_LEDGER_DATABSE_URL" in wrong["settings"]["sentence"]
    assert all(one["remedy"] for one in wrong.values())


def test_the_doctor_finds_nothing_wrong_with_a_good_ledger(database: str, ledger_redis_url: str) -> None:
    """Given servers, schema and rights as they should be, when examined, then nothing is wrong and the code is 0."""
    answer = on(database, ledger_redis_url)("doctor")

    assert answer.code == 0, answer
    assert answer.out.splitlines()[-1] == "nothing is wrong"


@pytest.mark.slow
def test_a_fresh_data_folder_needs_no_set_up(tmp_path: Path) -> None:
    """Given no address and an empty folder, when positions are listed, then there are none, and the schema is there."""
    home = tmp_path / "home"
    run = CommandLine({"POSITION_LEDGER_HOME": str(home)})
    with EmbeddedServers.start(home) as servers:
        layout = servers._layout
        try:
            first = run("positions", "--json")
            second = run("positions")
            status = run("status", "--json")
        finally:
            servers.close()
            stop_now(layout)
            remove(layout.place)

    assert (first.code, first.document) == (0, [])
    assert "migrations are applied first" in first.err
    assert (second.code, second.out, second.err) == (0, "0 positions\n", "")
    assert status.document["is_embedded"] is True
