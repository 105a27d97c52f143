"""`migrate down` and `rebuild-projection --rollback`: shown first, asked, done, and noted (S59, S60, S62)."""

from __future__ import annotations

import io
import sys
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from position_ledger import Ledger, OpenPosition
from tests.support.command_line import REBUILD, InThisProcess, on

LATEST = max(Path("migrations").glob("*.sql")).stem


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the notes of the test go."""
    return tmp_path / "notes of the desk"


@pytest.fixture
def run(ledger_database: str, folder: Path) -> InThisProcess:
    return InThisProcess({**on(ledger_database).settings, "POSITION_LEDGER_INCIDENTS": str(folder)})


@pytest.fixture
def traded(ledger: Ledger) -> Ledger:
    """A ledger in which two positions were opened."""
    for market in ("A", "B"):
        done = ledger.execute(
            OpenPosition(
                environment="paper",
                account="desk",
                market=market,
                strategy=1,
                side="YES",
                quantity=10,
                entry_price=Decimal("0.4"),
            )
        )
    ledger.wait_for(done.token)
    return ledger


def history(run: InThisProcess) -> list[tuple[str, str, str | None]]:
    rows = run("migrate", "history", "--json").document
    return [(row["action"], row["name"], row["reason"]) for row in rows if row["action"] != "up"]


@pytest.mark.usefixtures("traded")
def test_what_would_be_lost_is_shown_and_nothing_is_changed(run: InThisProcess, folder: Path) -> None:
    """S59."""
    shown = run("migrate", "down", "010", "--dry-run")
    assert shown.code == 0
    assert f"rolling back {LATEST}.sql" in shown.out
    for line in (
        "lost: table trades with 2 rows (from the log: they come back with the migration)",
        "lost: column positions.restatements with 2 values (from the log: they come back with the migration)",
        "lost: view current_trades",
        "lost: constraint positions_shortfall: of positions, CHECK",
        "lost: index positions_known_at: of positions",
    ):
        assert line in shown.out
    document = run("migrate", "down", "010", "--dry-run", "--json").document
    assert document["dry_run"] is True
    assert {
        "kind": "table",
        "name": "trades",
        "count": 2,
        "is_exact": True,
        "is_from_log": True,
        "detail": "",
    } in document["lost"]
    assert run("migrate", "status", "--json").document["current"] is True
    assert not folder.exists()


@pytest.mark.uncounted
@pytest.mark.usefixtures("traded")
def test_a_rollback_is_noted_with_its_reason(run: InThisProcess, folder: Path) -> None:
    """S62."""
    done = run("migrate", "down", "--reason", "wrong | default", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.document["files"] == [f"{LATEST}.sql"]
    [note] = folder.iterdir()
    assert done.document["incident"] == str(note)
    assert note.name.endswith(f"Z-rollback-of-{LATEST}.md")
    text = note.read_text(encoding="utf-8")
    for line in (
        f"# Incident: rollback of {LATEST}",
        f"| Migration | {LATEST}.sql |",
        "| Reason | wrong \\| default |",
        f"| Action | `migrate down {LATEST[:3]}` |",
        "| Status | done |",
    ):
        assert line in text.splitlines()
    assert "- table trades with 2 rows" in text or LATEST != "012_trades"
    assert history(run) == [("down", LATEST, "wrong | default")]
    assert run("migrate", "up").code == 0
    assert run("verify").code == 0


def test_at_a_terminal_one_is_asked(run: InThisProcess, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    refused = run("migrate", "down")
    assert refused.code == 1
    assert "Roll back? [y/N]" in refused.out + refused.err
    assert "nothing was changed" in refused.err
    assert run("migrate", "status", "--json").document["current"] is True
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run("migrate", "down").code == 0
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert run("migrate", "down", "--yes").code == 0
    assert len(list(folder.iterdir())) == 2


def test_a_rollback_that_fails_is_noted_too(run: InThisProcess, folder: Path, ledger_database: str) -> None:
    """Given a view that somebody made by hand, when its table is rolled back, then it fails, and the note says how far."""
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        connection.execute("CREATE VIEW ledger.of_the_desk AS SELECT t.id FROM ledger.trades AS t")
    later = sorted(path.name for path in Path("migrations").glob("*.sql") if path.stem > "012_trades")
    notes: list[Path] = []
    for _ in range(2):
        failed = run("migrate", "down", "012", "--reason", "test")
        assert failed.code == 2
        assert "other objects depend on it" in failed.err
        [note] = set(folder.iterdir()) - set(notes)
        notes.append(note)
    halfway, nowhere = (note.read_text(encoding="utf-8") for note in notes)
    assert "| Status | failed: 012_trades.sql line" in halfway
    assert f"rolled back before that: {', '.join(later[::-1])} |" in halfway
    assert "- at most: table trades with 0 rows" in halfway
    assert "nothing was rolled back |" in nowhere
    assert "- nothing\n" in nowhere
    pending = [
        row["name"] for row in run("migrate", "status", "--json").document["migrations"] if row["state"] != "applied"
    ]
    assert [f"{name}.sql" for name in pending] == later


def test_a_note_that_cannot_be_written_is_told_whole(run: InThisProcess, folder: Path) -> None:
    folder.write_text("a file is in the way")
    done = run("migrate", "down", "--reason", "the disk")
    assert done.code == 0
    assert f"the incident note cannot be written to {folder}" in done.out
    assert "| Reason | the disk |" in done.out


@pytest.mark.usefixtures("traded")
def test_a_table_that_is_swapped_back_is_noted(run: InThisProcess, folder: Path) -> None:
    assert run("rebuild-projection", "trades", "--json").code == 0
    back = run("rebuild-projection", "trades", "--rollback", "--processes", "2", "--reason", "slower")
    assert back.code == 0
    [note] = folder.iterdir()
    text = note.read_text(encoding="utf-8")
    assert "| Action | `rebuild-projection trades --rollback` |" in text
    assert "| Reason | slower |" in text
    assert "| Migration | none |" in text
    assert run("trades", "--reason", "x", entry=REBUILD).code == 2


def test_nothing_to_roll_back_leaves_no_note(run: InThisProcess, folder: Path) -> None:
    assert run("migrate", "down", LATEST[:3]).code == 0
    again = run("migrate", "down", LATEST[:3])
    assert (again.code, again.out) == (0, f"nothing to do: {LATEST}.sql is not applied\n")
    assert len(list(folder.iterdir())) == 1
