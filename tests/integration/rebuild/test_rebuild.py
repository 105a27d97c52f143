"""The rebuild: the same bytes again, without a gap for anybody, with all that hangs on the table, or not at all."""

from __future__ import annotations

import threading
import time
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from position_ledger import Ledger, MarkPosition, operations
from position_ledger.errors import GenerationNotOurs, MigrationError, SwapBlocked, VerificationFailed
from position_ledger.projection import rebuild as rebuilding
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic
from tests.support.processes import kill, running
from tests.support.rebuilding import (
    Reads,
    busy,
    execute,
    in_loop,
    last_number,
    left_over,
    reader,
    rebuild,
    roll_back,
    row_of,
    team_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.settings import Settings


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> Traffic:
    """A projected history."""
    traffic = Traffic(ledger, 11)
    traffic.run(120)
    engine.project_all(settings)
    return traffic


@pytest.fixture
def team(settings: Settings, tmp_path: Path) -> Settings:
    """The settings of the next release."""
    return team_settings(settings, tmp_path)


def states(settings: Settings) -> list[tuple[Any, ...]]:
    """The generations of positions."""
    with engine.connected(settings) as connection:
        return connection.execute(
            "SELECT generation_id, state, schema_name FROM projection_generations WHERE projection = 'positions'"
            " ORDER BY generation_id"
        ).fetchall()


# The same again


@pytest.mark.parametrize("processes", [1, 2])
def test_a_rebuilt_table_is_the_same_byte_by_byte(settings: Settings, history: Traffic, processes: int) -> None:
    before, first = engine.positions_rows(settings), engine.active(settings).generation_id
    report = rebuild(settings, processes=processes)
    assert report.swapped
    assert report.versions == len(before)
    assert engine.positions_rows(settings) == before
    assert engine.positions_rows(settings, f"ledger_g{first}") == before
    assert left_over(settings) == []
    engine.proven(settings)
    # and life goes on in the new one, also for an open ledger
    history.run(20)
    engine.project_all(settings)
    engine.proven(settings)


@pytest.mark.uncounted
def test_readers_see_no_error_and_no_gap_while_writers_and_workers_go_on(settings: Settings, history: Traffic) -> None:
    # Given writers, a worker, and readers with prepared statements on the table and on its view
    reads = Reads()
    with busy(settings) as working, in_loop(2, reader(settings, reads)):
        # When the table is swapped several times
        reports = [rebuild(settings) for _ in range(3)]
    # Then nobody has read anything wrong, and nothing is lost
    assert reads.wrong == []
    assert reads.reads > 100
    assert all(report.swapped for report in reports)
    assert min(working.accepted) > 10
    engine.project_all(settings)
    engine.proven(settings)
    assert left_over(settings) == []


@pytest.mark.soak
def test_one_older_generation_is_kept(settings: Settings, history: Traffic) -> None:
    for _ in range(3):
        rebuild(settings)
    assert [state for _, state, _ in states(settings)] == ["dropped", "dropped", "retired", "active"]
    assert left_over(settings) == []


@pytest.mark.uncounted
def test_a_rollback_brings_the_retired_rows_back_with_what_came_since(settings: Settings, history: Traffic) -> None:
    rebuild(settings)
    history.run(30)
    assert roll_back(settings).swapped
    assert [state for _, state, _ in states(settings)] == ["active", "retired"]
    engine.project_all(settings)
    engine.proven(settings)
    history.run(10)
    rebuild(settings)
    engine.project_all(settings)
    engine.proven(settings)
    assert left_over(settings) == []


@pytest.mark.uncounted
def test_a_rollback_beside_writers_ends_and_loses_nothing(settings: Settings, history: Traffic) -> None:
    rebuild(settings)
    with busy(settings, writers=3, workers=1):
        for _ in range(2):
            assert roll_back(settings).swapped
    engine.project_all(settings)
    engine.proven(settings)


@pytest.mark.uncounted
def test_nothing_is_done_in_a_dry_run_or_without_a_swap(settings: Settings, history: Traffic) -> None:
    dry = rebuild(settings, dry_run=True)
    assert (dry.swapped, dry.differences) == (False, [])
    assert dry.events > 0
    assert [state for _, state, _ in states(settings)] == ["active", "dropped"]
    assert left_over(settings) == []
    report = rebuild(settings, swap=False)
    assert not report.swapped
    assert [state for _, state, _ in states(settings)] == ["active", "dropped", "building"]
    # and the next one goes on from there
    history.run(5)
    swapped = rebuild(settings)
    assert (swapped.swapped, swapped.generation_id, swapped.events) == (True, report.generation_id, 0)
    assert left_over(settings) == []
    engine.project_all(settings)
    engine.proven(settings)


def test_a_dry_run_says_what_would_differ_and_leaves_it(settings: Settings, history: Traffic) -> None:
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("ALTER TABLE positions DISABLE TRIGGER USER")
        owner.execute("UPDATE positions SET peak_quantity = peak_quantity + 1 WHERE row_current_ind")
        owner.execute("ALTER TABLE positions ENABLE TRIGGER USER")
    dry = rebuild(settings, dry_run=True)
    assert {one.column for one in dry.differences} == {"peak_quantity"}
    assert [state for _, state, _ in states(settings)] == ["active", "dropped"]


@pytest.mark.uncounted
def test_an_empty_log_is_rebuilt_as_well(settings: Settings) -> None:
    assert rebuild(settings).versions == 0
    engine.proven(settings)


# Who is in the way


def test_a_long_reader_is_named_and_not_killed(settings: Settings, history: Traffic) -> None:
    # Given a report that has read the table and keeps its transaction open
    with psycopg.connect(str(settings.database_url), application_name="monthly report") as report:
        report.execute("SELECT count(*) AS the_long_report FROM ledger.positions")
        # When the swap finds no quiet moment within its budget
        with pytest.raises(
            SwapBlocked,
            match=rf"pid {report.info.backend_pid} \(monthly report, idle in transaction, .*the_long_report.*terminate_backend",
        ):
            rebuild(settings, swap_budget_s=0.5)
        # Then the report goes on, and what was built stays
        report.execute("SELECT 1")
    (*_, (built, state, _)) = states(settings)
    row = row_of(settings)
    assert row is not None
    assert (state, row.state, row.generation_id, row.is_kept) == ("building", "failed", built, True)
    assert str(row.problem).startswith("no quiet moment came to swap positions")
    # When it is run again, then it only catches up and swaps
    history.run(5)
    again = rebuild(settings)
    assert (again.swapped, again.generation_id, again.events) == (True, built, 0)
    assert left_over(settings) == []
    engine.project_all(settings)
    engine.proven(settings)


def test_a_reader_that_ends_in_time_only_delays_the_swap(settings: Settings, history: Traffic) -> None:
    with psycopg.connect(str(settings.database_url)) as report:
        report.execute("SELECT count(*) FROM ledger.positions")
        ended = threading.Timer(0.7, report.rollback)
        ended.start()
        assert rebuild(settings, swap_budget_s=20).swapped
        ended.join()


# Differences


def test_a_planted_difference_is_named_and_can_be_repaired(settings: Settings, history: Traffic) -> None:
    # Given one cell that somebody has changed
    before = engine.positions_rows(settings)
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        row = owner.execute(
            "UPDATE positions SET cost = cost + 0.01 WHERE id = (SELECT max(id) FROM positions WHERE quantity > 0)"
            " RETURNING position_id, id"
        ).fetchone()
    assert row is not None
    changed = engine.positions_rows(settings)
    # When it is rebuilt, then key, row and column are named and the live table is as it was
    with pytest.raises(VerificationFailed, match=rf"positions {row[0]}, row {row[1]}: cost is .*--changed cost"):
        rebuild(settings)
    assert engine.positions_rows(settings) == changed
    assert left_over(settings) == []
    # When the operator accepts it, then the table is repaired from the log
    rebuild(settings, accept_differences=True)
    assert engine.positions_rows(settings) == before
    engine.proven(settings)


@pytest.mark.uncounted
@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM positions WHERE id = (SELECT max(id) FROM positions)",
        "UPDATE positions SET id = 0 WHERE id = (SELECT min(id) FROM positions WHERE version = 2)",
    ],
    ids=["a missing row", "a row with another id"],
)
def test_a_missing_or_surplus_row_is_a_difference(settings: Settings, history: Traffic, change: str) -> None:
    before = engine.positions_rows(settings)
    with engine.connected(settings, as_app=False) as owner, owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        owner.execute(change.encode())
    with pytest.raises(VerificationFailed, match="the row is"):
        rebuild(settings)
    rebuild(settings, accept_differences=True)
    assert engine.positions_rows(settings) == before


def test_an_id_that_a_foreign_key_holds_is_never_dropped(settings: Settings, history: Traffic) -> None:
    # Given a row that no event made, and a table of the team that refers to it
    columns = [one for one in engine.positions_of(settings).columns if one not in {"id", "position_id", "version"}]
    names = ", ".join(columns)
    with engine.connected(settings, as_app=False) as owner:
        found = owner.execute("SELECT min(notification_id) FROM events WHERE topic NOT LIKE 'position.%'").fetchone()
    assert found is not None
    free = found[0]
    execute(
        settings,
        f"INSERT INTO positions (id, position_id, version, {names}) SELECT {free}, 'POS-{free}', 1, {names}"
        " FROM positions WHERE row_current_ind LIMIT 1",
        "CREATE TABLE users_notes (row_id bigint REFERENCES positions (id))",
        f"INSERT INTO users_notes VALUES ({free})",
    )
    # When the rebuild would drop it, then it says which foreign key holds which row, also if differences are accepted
    with pytest.raises(VerificationFailed, match=rf"users_notes_row_id_fkey of ledger.users_notes holds row {free}"):
        rebuild(settings, accept_differences=True)
    assert left_over(settings) == []


# Two at once


@pytest.mark.uncounted
def test_two_rebuilds_at_once_exclude_each_other(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "LET_GO_S", 0.1)
    with engine.connected(settings, as_app=False) as other, rebuilding.alone(other, "positions"):
        for attempt in (rebuild, roll_back):
            with pytest.raises(MigrationError, match="another rebuild of positions is running"):
                attempt(settings)
        with pytest.raises(MigrationError, match="another rebuild of positions is running"):
            operations.set_mode(settings, engine.reached(settings), "positions", "inline", tell=engine.quiet)
    assert rebuild(settings).swapped


AT_ITS_PROOF = """
import sys
from position_ledger.database import connect
from position_ledger.projection.rebuild import alone
from position_ledger.settings import load_settings
connection = connect(sys.argv[1], load_settings(database_url=sys.argv[1]), as_app=False)
connection.execute("SET statement_timeout = 0")
with alone(connection, "positions"):
    print("alone", flush=True)
    connection.execute("SELECT pg_sleep(600)")
"""


def test_who_is_killed_in_a_long_statement_lets_go_at_once(settings: Settings, history: Traffic) -> None:
    # Given a rebuild that is killed while the server works at a statement of its own
    with running("-c", AT_ITS_PROOF, str(settings.database_url)) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().strip() == "alone"
        time.sleep(0.2)  # in its statement
        kill(killed)
    # Then the command goes on when it is run again
    assert rebuild(settings).swapped


# A column whose value only history knows


@pytest.mark.uncounted
def test_a_column_that_only_history_knows(settings: Settings, team: Settings, ledger: Ledger, history: Traffic) -> None:
    # Given a position whose marks went down and up again
    opened = ledger.execute(opening(entry_price="0.42"))
    for price in ("0.40", "0.31", "0.55", "0.33"):
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price=price))
    engine.project_all(settings)
    old_rows = engine.positions_rows(settings)
    # When the next release is migrated to, while old writers and workers of both releases go on
    with busy(settings, workers=1), busy(team, writers=0, workers=1):
        outcome = operations.migrate_up(team, engine.reached(team), None, engine.quiet)
    assert [file.number for file in outcome.files] == [last_number(team)]
    # Then the new column has for every old version what history says, and everything else is as it was
    with Ledger(team, engine.reached(team)) as new:
        rows = new.history(str(opened.position_id))
        assert [f"{row['worst_mark']:f}" for row in rows] == ["0.42", "0.4", "0.31", "0.31", "0.31"]
        new.wait_for(new.execute(opening()).token)
        old_columns = ", ".join(f"t.{column}::text" for column in engine.positions_of(settings).columns)
        with engine.connected(team, as_app=False) as owner:
            found = owner.execute(
                f"SELECT {old_columns} FROM positions AS t WHERE t.id <= %s ORDER BY t.id".encode(),
                (int(old_rows[-1][0]),),
            ).fetchall()
        assert [row[1] for row in found] == [row[1] for row in old_rows]
        assert {row[0] for row in old_rows} == {row[0] for row in found}
    engine.project_all(team)
    engine.proven(team)
    # and the retired table was kept current by the old workers and their callers
    token = ledger.execute(opening()).token
    with engine.following(settings, "old worker") as old_worker:
        engine.drain(old_worker)
        # When it is rolled back after new events, then schema and rows are those of the old release
        operations.migrate_down(team, engine.reached(team), last_number(team), engine.quiet)
    ledger.wait_for(token)
    engine.project_all(settings)
    engine.proven(settings)
    assert operations.check(settings, engine.reached(settings)).agree
    assert engine.positions_rows(settings)[: len(old_rows) - 1][0] == old_rows[0]
    assert left_over(settings) == []


@pytest.mark.uncounted
def test_a_rollback_to_rows_that_nobody_keeps_is_refused(
    settings: Settings, team: Settings, ledger: Ledger, history: Traffic
) -> None:
    # Given a table of the new release, and no process of the old one
    operations.migrate_up(team, engine.reached(team), None, engine.quiet)
    with Ledger(team, engine.reached(team)) as new:
        new.execute(opening())
    # When the new release tries to go back, then it is told which one can
    with pytest.raises(
        GenerationNotOurs, match=r"built by other code \([0-9a-f]{8} of release .*\): start a worker with that code"
    ):
        roll_back(team)
    # and the old release alone does not know what to undo
    with pytest.raises(
        MigrationError,
        match=rf"migrations \[{last_number(team)}\] are applied and not in .*: roll positions back with the",
    ):
        roll_back(settings)
    # When the old release has a worker that has caught up, then it goes
    with engine.following(settings, "old worker") as worker:
        engine.drain(worker)
        roll_back(team)
    engine.project_all(settings)
    engine.proven(settings)


@pytest.mark.uncounted
def test_workers_of_the_new_release_keep_the_shadow_current_before_the_swap(
    settings: Settings, team: Settings, ledger: Ledger, history: Traffic
) -> None:
    # Given a shadow that was built and not swapped
    rebuild(team, swap=False)
    assert [state for _, state, _ in states(settings)] == ["active", "building"]
    # When events come, then workers of each release project its own table
    token = history.run(20)
    for code in (settings, team):
        engine.project_all(code)
    with engine.connected(settings) as connection:
        positions = connection.execute(
            "SELECT generation_id, min(c.position) FROM projection_checkpoints AS c"
            " JOIN projection_generations AS g USING (generation_id) WHERE g.projection = 'positions' GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert all(position >= token for _, position in positions)
    assert len(positions) == 2


def test_readers_wait_for_two_messages_and_the_commit(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a swap with all its views, when the table is locked, then what follows is sent at once, and checked."""
    sent: list[tuple[bool, str]] = []
    execute = psycopg.Cursor.execute

    def noting(cursor: psycopg.Cursor[Any], query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor[Any]:
        text = (
            query if isinstance(query, bytes) else str(getattr(query, "as_string", lambda _=None: query)(None)).encode()
        )
        sent.append((cursor.connection.info.transaction_status == TransactionStatus.INTRANS, text.decode()))
        return execute(cursor, query, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Cursor, "execute", noting)
        rebuild(settings)

    [locked] = [place for place, (_, text) in enumerate(sent) if "IN ACCESS EXCLUSIVE MODE" in text]
    under_lock = [text for _, text in takewhile(itemgetter(0), sent[locked + 1 :])]
    assert len(under_lock) == 2
    assert under_lock[0].count("SET SCHEMA") == 2
    assert under_lock[0].count("CREATE OR REPLACE VIEW") == 4
