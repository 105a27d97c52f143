"""Several tables from one feed: one page, one transaction, the same shards; and one that fails holds nobody back."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from bench.counting import Count, counted
from position_ledger import Ledger, MarkPosition, ProjectionStuck, operations
from position_ledger.operations import RebuildOptions
from position_ledger.projection import generations, projector
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import SHARDS
from position_ledger.settings import load_settings
from position_ledger.status import read_status
from position_ledger.store import feed
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.many_tables import EXTRA, HOLDINGS, POSITIONS, VALUATIONS, failing, many_settings, migrated
from tests.support.rebuilding import last_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger.projection.follower import Follower
    from position_ledger.settings import Settings

TABLES = sorted(one.table for one in (POSITIONS, *EXTRA))
FIXED = 7
"""Mark, horizon, page, BEGIN, locks, checkpoints and COMMIT: whatever the number of tables."""


@pytest.fixture
def many(settings: Settings, tmp_path: Path) -> Settings:
    """The settings of a release with four tables, in a migrated database without events."""
    return migrated(settings, tmp_path)


@pytest.fixture
def ledger(many: Settings) -> Iterator[Ledger]:
    with Ledger(many, engine.reached(many)) as opened:
        yield opened


def checkpoints(settings: Settings) -> dict[str, set[int]]:
    """The positions of the shards of each of our tables that workers project."""
    with engine.connected(settings) as connection:
        rows = connection.execute(
            "SELECT g.projection, c.position FROM projection_checkpoints AS c JOIN projection_generations AS g"
            " USING (generation_id) WHERE g.state = 'active' AND g.mode = 'worker' AND g.projection = ANY(%s)",
            (TABLES,),
        ).fetchall()
    found: dict[str, set[int]] = {}
    for table, position in rows:
        found.setdefault(table, set()).add(position)
    return found


def all_rows(settings: Settings) -> dict[str, list[tuple[str, ...]]]:
    with engine.connected(settings, as_app=False) as connection:
        return {one.table: engine.table_rows(connection, one) for one in load_projections(settings.projections)}


def set_mode(settings: Settings, table: str, mode: Any) -> bool:
    return operations.set_mode(settings, engine.reached(settings), table, mode, tell=engine.quiet)


# Setting up


@pytest.mark.uncounted
@pytest.mark.parametrize("whose", ["ours", "shipped"])
def test_a_fresh_database_has_every_table_after_one_command(ledger_server_url: str, tmp_path: Path, whose: str) -> None:
    name = f"many_{secrets.token_hex(4)}"
    url = engine.new_database(ledger_server_url, name)
    fresh = load_settings(database_url=url, redis_url=NO_QUEUE)
    fresh = many_settings(fresh, tmp_path) if whose == "ours" else fresh
    tables = sorted(one.table for one in load_projections(fresh.projections))
    try:
        engine.migrate(fresh)
        assert operations.check(fresh, engine.reached(fresh)).agree
        with Ledger(fresh, engine.reached(fresh)) as ledger:
            ledger.wait_for(Traffic(ledger, 1).run(30), timeout_s=10)
            assert [ledger.lag(table).events for table in tables] == [0] * len(tables)
        report = operations.verify(fresh, engine.reached(fresh), None)
        assert report.holds, report.problems
        assert sorted(proof.table for proof in report.tables) == tables
        assert all(proof.rows > 0 for proof in report.tables if proof.table in TABLES)
    finally:
        engine.drop_database(ledger_server_url, name)


@pytest.mark.uncounted
def test_tables_that_come_to_a_log_with_history_are_filled_from_its_first_event(
    settings: Settings, tmp_path: Path
) -> None:
    # Given a ledger that has projected positions for a while
    with Ledger(settings, engine.reached(settings)) as before:
        Traffic(before, 2).run(60)
    engine.project_all(settings)
    # When a release with three tables more is migrated to
    many = migrated(settings, tmp_path)
    engine.project_all(many)
    # Then they are what they would be, had they been there from the beginning
    engine.proven(many)
    assert all(all_rows(many).values())
    assert len({frozenset(positions) for positions in checkpoints(many).values()}) == 1


def test_status_and_lag_tell_of_every_table(many: Settings, ledger: Ledger) -> None:
    Traffic(ledger, 3).run(30)
    behind = {table: ledger.lag(table).events for table in TABLES}
    with engine.connected(many) as connection:
        written = feed.mark(connection)
    engine.project_all(many)
    told = {one.table: one for one in read_status(many, engine.reached(many)).projections}

    assert set(behind.values()) == {written}
    assert [ledger.lag(table).events for table in TABLES] == [0] * len(TABLES)
    assert told.keys() >= set(TABLES)
    assert {told[table].position for table in TABLES} == {written}


# One page, one transaction


@pytest.mark.parametrize("events", [1, 200])
def test_all_tables_move_on_with_one_page_and_the_same_round_trips(many: Settings, ledger: Ledger, events: int) -> None:
    """Given four tables that know a position, when it is marked, then it costs the statements that its tables need."""
    opened = str(ledger.execute(opening()).position_id)
    with engine.following(many, share=False) as follower:
        engine.drain(follower)
        follower._upkeep_due = follower._seek_due = float("inf")
        counts = []
        for _ in range(2):
            ledger.execute_many([MarkPosition(position_id=opened, price=f"0.{10 + n % 80}") for n in range(events)])
            with counted(follower._connection) as count:
                assert follower.step()
            counts.append(count)
    # positions and valuations have rows of a mark, holdings and book_counts have none
    assert counts[-1] == Count(statements=FIXED + 2, round_trips=FIXED + 1)
    assert {table: len(rows) for table, rows in all_rows(many).items()} == {
        "positions": 2 * events + 1, "valuations": 2 * events + 1, "holdings": 1, "book_counts": 1,
    }  # fmt: skip
    engine.proven(many)


def test_rows_and_checkpoints_of_all_tables_are_committed_together(
    many: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch for every table, whose connection is lost after the rows and before the commit
    Traffic(ledger, 4).run(40)
    real = projector.write_changes

    def lost(connection: psycopg.Connection[Any], *arguments: Any) -> None:
        real(connection, *arguments)
        with engine.connected(many, as_app=False) as owner:
            owner.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    monkeypatch.setattr(projector, "write_changes", lost)
    with engine.connected(many) as connection, pytest.raises(psycopg.Error):
        follower = _follower(many, connection)
        engine.drain(follower)
    # Then no table has moved, and the next worker brings all of them to the same place
    assert not any(all_rows(many).values())
    assert set().union(*checkpoints(many).values()) == {0}
    monkeypatch.undo()
    with engine.connected(many, as_app=False) as owner:
        owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
    engine.project_all(many)
    engine.proven(many)
    assert len(set().union(*checkpoints(many).values())) == 1


def _follower(settings: Settings, connection: psycopg.Connection[Any]) -> Follower:
    from position_ledger.projection.follower import Follower

    return Follower(connection, load_projections(settings.projections), engine.CODEC, name="lost", share=False)


def test_tables_that_stand_apart_come_together_and_hold_the_same_rows(many: Settings, ledger: Ledger) -> None:
    """Given tables of which one was projected further, and shards that stand apart, then soon all stand at one place."""
    Traffic(ledger, 5).run(60)
    project_only(many, "holdings")
    Traffic(ledger, 6).run(30)
    with engine.connected(many) as connection:
        (positions, *_) = (g for g in generations.kept(connection) if g.projection == "positions")
        held = projector_leases(connection, positions.generation_id, 5)
        projection = next(p for p in load_projections(many.projections) if p.table == "positions")
        projector.Projector(connection, positions, projection, engine.CODEC).project(held, 40, limit=7)
    with engine.connected(many, as_app=False) as owner:
        owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
    apart = set().union(*checkpoints(many).values())
    engine.project_all(many)

    assert len(apart) >= 3
    assert len(set().union(*checkpoints(many).values())) == 1
    engine.proven(many)


def project_only(settings: Settings, table: str) -> None:
    """Bring one table to the end of the log."""
    from position_ledger.projection.catching_up import catch_up

    projection = next(one for one in load_projections(settings.projections) if one.table == table)
    with engine.connected(settings) as connection:
        generation = generations.active(connection, table)
        assert generation is not None
        catch_up(connection, projection, generation, engine.CODEC)


def projector_leases(connection: psycopg.Connection[Any], generation_id: int, limit: int) -> list[Any]:
    from position_ledger.projection.leases import acquire

    return acquire(connection, generation_id, "apart", limit=limit)


# One that fails


def test_a_table_that_refuses_its_rows_holds_no_other_back(
    many: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker that is up to date, and a table whose constraint its rows break
    token = Traffic(ledger, 7).run(20)
    with engine.following(many) as follower:
        engine.drain(follower)
        with failing(many, "valuations"):
            token = ledger.execute(opening()).token
            # When it goes on, then all others have everything
            until(
                lambda: all(min(checkpoints(many)[table]) >= token for table in TABLES if table != "valuations"),
                follower,
            )
            assert max(checkpoints(many)["valuations"]) < token
            assert list(follower.failures) == ["valuations"]
            assert "table valuations" in caplog.text
            assert "poison" in str(follower.failures["valuations"])
            # and go on having it while the sick one is tried again and again
            token = Traffic(ledger, 8).run(30)
            until(lambda: min(checkpoints(many)["positions"]) >= token, follower)
        # When it is healed, then it comes to where the others are
        until(lambda: not follower.failures and min(checkpoints(many)["valuations"]) >= token, follower)
    engine.proven(many)


def until(done: Any, follower: Follower) -> None:
    """Let the follower go on until something holds."""
    deadline = time.monotonic() + 20
    while not done():
        follower.step()
        assert time.monotonic() < deadline


def test_when_no_table_can_go_on_the_follower_says_so(many: Settings, ledger: Ledger) -> None:
    with ExitStack() as stack:
        for table in TABLES:
            stack.enter_context(failing(many, table))
        ledger.execute(opening())
        follower = stack.enter_context(engine.following(many, share=False))
        with pytest.raises(psycopg.errors.CheckViolation, match="poison"):
            engine.drain(follower)
    engine.project_all(many)
    engine.proven(many)


def test_who_waits_for_a_table_that_cannot_go_on_hears_why(many: Settings, ledger: Ledger) -> None:
    token = ledger.execute(opening()).token
    with (
        failing(many, "holdings"),
        pytest.raises(ProjectionStuck, match=r"table holdings does not take .*poison.*committed"),
    ):
        ledger.wait_for(token, timeout_s=10)
    assert min(checkpoints(many)["positions"]) >= token
    ledger.wait_for(token, timeout_s=10)


def test_a_lease_of_one_table_that_was_lost_costs_the_others_nothing(many: Settings, ledger: Ledger) -> None:
    # Given a worker that does not know yet that somebody took the shards of one table
    Traffic(ledger, 9).run(20)
    with engine.following(many, share=False) as follower:
        engine.drain(follower)
        with engine.connected(many, as_app=False) as owner:
            owner.execute(
                "UPDATE projection_checkpoints AS c SET token = c.token + 1, holder = 'other', lease_until = 'infinity'"
                "  FROM projection_generations AS g WHERE g.generation_id = c.generation_id AND g.projection = 'holdings'"
            )
        token = ledger.execute(opening()).token
        # When it goes on, then the others have moved and that one has not
        follower.step()
        stands = {table: min(positions) for table, positions in checkpoints(many).items()}
        assert {table for table, position in stands.items() if position >= token} == set(TABLES) - {"holdings"}
        assert follower.held == SHARDS * (len(TABLES) - 1)
        assert not follower.failures
    with engine.connected(many, as_app=False) as owner:
        owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
    engine.project_all(many)
    engine.proven(many)


# Workers, modes, rebuilds


def test_workers_hold_the_same_shards_of_every_table(many: Settings) -> None:
    """However they come and go, so that each reads a page once for all of its tables."""
    with engine.following(many, "b") as second, engine.following(many, "a") as first:
        for followers in ((second,), (second, first)):
            settle(followers)
            for follower in followers:
                held = [{lease.shard for lease in one.held} for one in follower._followed.values()]
                assert len(held) == len(TABLES)
                assert all(shards == held[0] for shards in held)
                assert len(held[0]) == SHARDS // len(followers)


def settle(followers: tuple[Follower, ...]) -> None:
    """Let them agree who holds what."""
    deadline = time.monotonic() + 10
    while sum(one.held for one in followers) < SHARDS * len(TABLES) or len({one.held for one in followers}) > 1:
        for one in followers:
            one.step()
        assert time.monotonic() < deadline


@pytest.mark.uncounted
@pytest.mark.parametrize("inline", [("holdings",), tuple(TABLES)], ids=["one", "all"])
def test_tables_are_projected_inline_beside_others_and_together(
    many: Settings, ledger: Ledger, inline: tuple[str, ...]
) -> None:
    # Given a history, and some tables in inline mode
    traffic = Traffic(ledger, 10)
    traffic.run(30)
    for table in inline:
        assert set_mode(many, table, "inline")
    # When commands are executed
    token = traffic.run(40)
    # Then the rows of those are there at once, of the others as soon as somebody has waited
    assert all(ledger.lag(table).events == 0 for table in inline)
    assert checkpoints(many).keys() == set(TABLES) - set(inline)
    ledger.wait_for(token, timeout_s=10)
    engine.proven(many)
    # and the way back loses nothing
    for table in inline:
        assert set_mode(many, table, "worker")
    ledger.wait_for(traffic.run(20), timeout_s=10)
    engine.proven(many)


@pytest.mark.uncounted
def test_one_table_is_rebuilt_while_the_others_go_on(many: Settings, ledger: Ledger) -> None:
    # Given writers and a worker of all tables
    Traffic(ledger, 11).run(60)
    stop = threading.Event()

    def work() -> None:
        with engine.following(many, "beside") as follower:
            follower.follow(stop)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        # When two of the tables are rebuilt one after the other
        for table in ("valuations", "positions"):
            report = operations.rebuild(
                many, engine.reached(many), table, options=RebuildOptions(processes=1), tell=engine.quiet
            )
            assert report.swapped
            token = Traffic(ledger, 12).run(10)
        ledger.wait_for(token, timeout_s=20)
    finally:
        stop.set()
        thread.join(10)
    # Then everything is as the log says, and the retired rows are kept current as well
    engine.proven(many)


def test_verify_names_the_table_that_is_wrong(many: Settings, ledger: Ledger) -> None:
    Traffic(ledger, 13).run(20)
    engine.project_all(many)
    with engine.connected(many, as_app=False) as owner:
        owner.execute(f"UPDATE {HOLDINGS.table} SET fills = fills + 1 WHERE row_current_ind")
    report = operations.verify(many, engine.reached(many), None)
    alone = operations.verify(many, engine.reached(many), [VALUATIONS.table])

    assert not report.holds
    assert [problem.split()[0] for problem in report.problems] == ["holdings"]
    assert sorted(proof.table for proof in report.tables) == TABLES
    assert alone.holds
    assert [proof.table for proof in alone.tables] == ["valuations"]


@pytest.mark.uncounted
def test_a_table_that_was_rolled_back_and_comes_again_has_all_of_its_rows(
    settings: Settings, many: Settings, ledger: Ledger
) -> None:
    # Given tables with rows, one of them in inline mode
    token = Traffic(ledger, 14).run(30)
    ledger.wait_for(token, timeout_s=10)
    assert set_mode(many, "valuations", "inline")
    first = last_number(settings) + 1
    # When the migrations that made them are rolled back, then commands and positions go on without them
    operations.migrate_down(many, engine.reached(many), first, engine.quiet)
    with Ledger(settings, engine.reached(settings)) as old:
        old.wait_for(Traffic(old, 15).run(20), timeout_s=10)
    assert generations_of(settings, "valuations") == ["dropped"]
    # and when they come again, then with the rows of the whole log
    engine.migrate(many)
    assert generations_of(settings, "valuations") == ["dropped", "active"]
    engine.project_all(many)
    engine.proven(many)
    assert all(all_rows(many).values())


def generations_of(settings: Settings, table: str) -> list[str]:
    with engine.connected(settings) as connection:
        rows = connection.execute(
            "SELECT state FROM projection_generations WHERE projection = %s ORDER BY generation_id", (table,)
        ).fetchall()
    return [row[0] for row in rows]
