"""A rebuild while it runs: shared, held to a pace, paused, standing back, interrupted, cancelled; the table is the same."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from position_ledger import Ledger, operations
from position_ledger.errors import MigrationError, RebuildCancelled
from position_ledger.projection import (
    building,
    chunk_ledger,
    crews,
    leases,
    pacing,
    rebuilds,
    shadow,
    watching,
    yielding,
)
from position_ledger.projection import rebuild as rebuilding
from position_ledger.projection.definition import load_projections
from position_ledger.projection.pacing import Pace
from position_ledger.settings import Settings, load_settings
from position_ledger.store import feed
from tests.support import engine
from tests.support.command_line import in_this_process
from tests.support.commands import opening
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.processes import kill, running
from tests.support.rebuilding import execute, left_over, rebuild, row_of, running_rebuild, shadows, steer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

HELP = """
import sys
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_help import LoadHelper
from position_ledger.settings import load_settings
if __name__ == "__main__":
    settings = load_settings(database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0", pool_size_max=1)
    helper = LoadHelper(sys.argv[1], settings, load_projections(settings.projections))
    print(helper.help(int(sys.argv[2]), 20.0), flush=True)
"""

SLOW = 4.0
"""Events a second: no load of a test's history ends before the test has seen what it is about."""

UNPACED = "UPDATE projection_rebuilds SET throttle_per_s = NULL"


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> Traffic:
    """A projected history of some hundred events."""
    traffic = Traffic(ledger, 11)
    traffic.run(120)
    engine.project_all(settings)
    return traffic


@pytest.fixture(autouse=True)
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks on more often than once a second, so that no test waits long."""
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    monkeypatch.setattr(crews, "TICK_S", 0.05)


# Held, and let go on


def test_a_rebuild_is_paused_goes_on_and_is_cancelled(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "HOLD_IN_PART_S", 0.1)
    before = engine.positions_rows(settings)
    # Given a rebuild that takes its time
    with running_rebuild(settings, throttle_per_s=SLOW) as going:
        seen = going.until(lambda row: row.events_done > 0 and row.eta is not None)
        assert (seen.state, seen.wanted, seen.is_running, seen.throttle_per_s) == ("loading", "run", True, SLOW)
        assert 0 < seen.events_done < seen.events_total
        # When it is paused from elsewhere
        assert steer(settings, "pause").generation_id == seen.generation_id
        going.until_told("is paused")
        # Then it stands still, while it goes on to say that it lives
        paused = going.until(lambda row: row.eta is None)
        later = going.until(lambda row: (row.updated_at - paused.updated_at).total_seconds() > 0.5)
        assert later.events_done <= paused.events_done + 300  # what was under way when it heard
        last = going.until(lambda row: (row.updated_at - later.updated_at).total_seconds() > 0.2)
        assert last.events_done == later.events_done < last.events_total
        ((_, schema),) = shadows(settings)
        with engine.connected(settings, as_app=False) as owner:
            while chunk_ledger.holders(owner, schema):  # no transaction stays open meanwhile
                assert not going.future.done(), going.told
                time.sleep(0.02)
        status = in_this_process(str(settings.database_url))
        assert "rebuild of positions (generation 2) is paused while loading" in status("status").out
        (shown,) = status("status", "--json").document["rebuilds"]
        assert (shown["wanted"], shown["is_running"], shown["events_done"]) == ("pause", True, last.events_done)
        # When it is told to go on, then it ends as if nothing had been
        execute(settings, UNPACED)
        steer(settings, "run")
        report = going.report()
    assert report.swapped
    assert engine.positions_rows(settings) == before
    ended = row_of(settings)
    assert ended is not None
    assert (ended.state, ended.events_done, ended.is_running) == ("done", report.events, False)
    # When another one is cancelled, then it says so, and nothing of it is left
    with running_rebuild(settings, throttle_per_s=SLOW) as going:
        going.until(lambda row: row.state == "loading" and row.events_done > 0)
        cancelled = steer(settings, "cancel")
        with pytest.raises(RebuildCancelled, match="was cancelled by another command: nothing of it is left"):
            going.report()
    assert cancelled.generation_id is not None
    ended = row_of(settings)
    assert ended is not None
    assert (ended.state, ended.generation_id) == ("cancelled", cancelled.generation_id)
    assert left_over(settings) == []
    assert engine.positions_rows(settings) == before
    # and there is nothing more to steer
    assert steer(settings, "cancel").generation_id is None
    for wanted in ("pause", "run"):
        with pytest.raises(MigrationError, match="no rebuild of positions is running"):
            steer(settings, wanted)  # type: ignore[arg-type]


def test_a_pace_holds_over_all_processes_together(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a load by two processes that keeps a pace
    pace, events_each = 1000.0, 200
    monkeypatch.setattr(pacing, "ASK_S", 0.02)
    with engine.connected(settings, as_app=False) as owner:
        schema, generation_id = "ledger", engine.active(settings).generation_id
        chunk_ledger.create(owner, schema, upto=1, parts=2)
        rebuilds.open_row(
            owner, generation_id, "positions", state="loading", processes=2, throttle_per_s=pace, total=events_each * 2
        )

        def read(part: int) -> None:
            with engine.connected(settings) as connection:  # with the rights of a worker
                asking = Pace(connection, schema, generation_id, threading.Event())
                asking.gate()
                for done in range(20, events_each + 1, 20):
                    asking.read(part, done, 20)
                asking.gate()

        # When each has read its part
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, range(2)))
        took_s = time.monotonic() - began
        # Then it took as long as the pace says for both, and the last one waited for its turn
        assert took_s >= events_each * 2 / pace
        assert chunk_ledger.progress(owner, schema).events >= 2 * (events_each - 20)


class Waits(threading.Event):
    """Writes down for how long somebody wanted to wait, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


@pytest.mark.parametrize(("gives_way", "throttle_per_s"), [(True, None), (False, None), (True, 1e9)])
def test_a_load_rests_while_commands_append(
    settings: Settings, ledger: Ledger, throttle_per_s: float | None, *, gives_way: bool
) -> None:
    with engine.connected(settings, as_app=False) as owner:
        generation_id = engine.active(settings).generation_id
        chunk_ledger.create(owner, "ledger", upto=1, parts=1)
        rebuilds.open_row(
            owner, generation_id, "positions", state="loading", processes=1, throttle_per_s=throttle_per_s, total=9_000
        )
        # Given a load that reads, alone, then beside a command, then alone again
        waits = Waits()
        asking = Pace(owner, "ledger", generation_id, waits, gives_way=gives_way)
        asking.gate()
        rested: list[float] = []
        for is_beside in (False, False, True, False):
            waits.seconds.clear()
            if is_beside:
                ledger.execute(opening())
            asking.read(0, 2_000, pacing.ASK_EVENTS)
            rested.append(sum(waits.seconds))
        # Then it rested after the command, unless it keeps a pace or is told to give way to nobody
        assert [seconds > 0 for seconds in rested] == [False, False, gives_way and throttle_per_s is None, False]


def test_a_load_that_is_held_for_long_gives_its_part_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "HOLD_IN_PART_S", 0.0)
    monkeypatch.setattr(pacing, "HOLD_POLL_S", 0.01)
    with engine.connected(settings, as_app=False) as owner:
        generation_id = engine.active(settings).generation_id
        chunk_ledger.create(owner, "ledger", upto=1, parts=1)
        rebuilds.open_row(
            owner, generation_id, "positions", state="loading", processes=1, throttle_per_s=None, total=9_000
        )
        asking = Pace(owner, "ledger", generation_id, threading.Event())
        asking.gate()
        asking.read(0, 2_500, 2_500)
        assert chunk_ledger.progress(owner, "ledger").events == 2_500
        # When it is paused in the middle of a part, then the transaction of the part does not stay open
        execute(settings, "UPDATE projection_rebuilds SET wanted = 'pause'")
        with pytest.raises(pacing.GivenBack):
            asking.read(0, 5_000, 2_500)
        # and when the row is gone with its generation, then there is nothing more to load
        execute(settings, "DELETE FROM projection_rebuilds")
        with pytest.raises(pacing.Stopped):
            asking.gate()


@pytest.mark.uncounted
def test_it_stands_back_while_a_followed_table_is_behind(settings: Settings, ledger: Ledger, history: Traffic) -> None:
    settings = settings.model_copy(update={"rebuild_lag_max_s": 0.2})
    active = engine.active(settings)
    # Given a worker that holds shards of the live table, and an event that it has not projected
    with engine.connected(settings) as worker:
        held = leases.acquire(worker, active.generation_id, "slow worker", limit=16, lease_s=60.0)
        ledger.execute(opening())
        while (yielding.furthest_behind(worker) or yielding.Behind("", 0.0)).lag_s <= 0.2:
            time.sleep(0.02)
        # When the table is rebuilt meanwhile, then it stands back
        with running_rebuild(settings, throttle_per_s=SLOW) as going:
            going.until_told("stands back: table positions is")
            still = going.until(lambda row: row.yields_to is not None and row.updated_at > row.started_at)
            later = going.until(lambda row: (row.updated_at - still.updated_at).total_seconds() > 0.6)
            last = going.until(lambda row: (row.updated_at - later.updated_at).total_seconds() > 0.2)
            assert last.events_done == later.events_done < last.events_total
            # When the worker has done its work, then it goes on
            leases.release(worker, held)
            engine.project_all(settings)
            execute(settings, UNPACED)
            assert going.report().swapped
    told = [message.split(":")[0] for message in going.told if "the load of" in message]
    # once, or more often where the machine is so slow that the table falls behind again
    assert told[:2] == ["the load of positions stands back", "the load of positions goes on"]
    assert told == told[:2] * (len(told) // 2)
    engine.proven(settings)


def test_a_table_that_stays_behind_does_not_hold_a_rebuild_up_for_ever(
    settings: Settings, ledger: Ledger, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yielding, "PATIENCE_S", 0.6)
    monkeypatch.setattr(watching, "STILL_TOLD_AFTER_S", 0.2)
    settings = settings.model_copy(update={"rebuild_lag_max_s": 0.1})
    active = engine.active(settings)
    # Given a worker that holds the live table and never brings it up
    with engine.connected(settings) as worker:
        held = leases.acquire(worker, active.generation_id, "stuck worker", limit=16, lease_s=60.0)
        ledger.execute(opening())
        while yielding.furthest_behind(worker) is None:
            time.sleep(0.02)
        # When the table is rebuilt, then it stands back, and loads in turns of its own
        with running_rebuild(settings, throttle_per_s=SLOW) as going:
            going.until_told("stands back: table positions is")
            going.until_told("something else holds it up, so the load goes on for 10 s at a time")
            assert not [message for message in going.told if message.startswith("waiting for parts")]
            execute(settings, UNPACED)
            going.until(lambda row: row.events_done == row.events_total)
            leases.release(worker, held)
            engine.project_all(settings)
            assert going.report().swapped
    engine.proven(settings)


def test_a_table_that_nobody_follows_holds_nothing_up(settings: Settings, ledger: Ledger, history: Traffic) -> None:
    ledger.execute(opening())
    with engine.connected(settings) as connection:
        assert yielding.furthest_behind(connection) is None


# Shared


def test_a_part_that_a_stranger_holds_is_waited_for(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STILL_TOLD_AFTER_S", 0.2)
    before = engine.positions_rows(settings)
    # Given a rebuild, and a stranger that has taken a part of it
    with running_rebuild(settings, throttle_per_s=SLOW) as going:
        going.until(lambda row: row.events_done > 0)
        ((_, schema),) = shadows(settings)
        with psycopg.connect(str(settings.database_url), application_name="a stranger") as stranger:
            part = chunk_ledger.claim(stranger.cursor(), schema)
            assert part is not None
            pid = stranger.info.backend_pid
            # When all the others are done, then it says who is at the last one
            execute(settings, UNPACED)
            load = going.until(lambda row: row.throttle_per_s is None)
            going.until_told(f"server process {pid} (a stranger)")
            assert load.state == "loading"
            # When the stranger's connection is gone, then the part is free and the load ends
        report = going.report()
    assert report.versions == len(before)
    assert engine.positions_rows(settings) == before


@pytest.mark.uncounted
def test_helpers_on_other_machines_may_be_killed_at_any_time(settings: Settings, history: Traffic) -> None:
    before = engine.positions_rows(settings)
    # Given a rebuild, and two machines of workers that take parts of it, with settings of their own
    with running_rebuild(settings, throttle_per_s=SLOW) as going:
        generation_id = str(going.until(lambda row: row.state == "loading").generation_id)
        arguments = ("-c", HELP, str(settings.database_url), generation_id)
        with running(*arguments) as killed, running(*arguments) as helper:
            ((_, schema),) = shadows(settings)
            with engine.connected(settings, as_app=False) as owner:
                while len(chunk_ledger.holders(owner, schema)) < 3:
                    assert not going.future.done(), going.told
                    time.sleep(0.005)
            # When one is killed in the middle of a part
            kill(killed)
            execute(settings, UNPACED)
            report = going.report()
            assert helper.stdout is not None
            assert helper.stdout.readline() == "False\n"  # nothing is left to help with
    # Then they have done some of the work, and the table is the same
    assert 0 < report.helped_events < report.events
    assert report.versions == len(before)
    assert engine.positions_rows(settings) == before
    engine.proven(settings)
    assert left_over(settings) == []


# Interrupted


@pytest.mark.uncounted
def test_indexes_that_were_built_are_not_built_again(
    settings: Settings, history: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.positions_rows(settings)
    # Given a rebuild that was interrupted behind its indexes, of which one was lost and one is another
    with monkeypatch.context() as patched:
        patched.setattr(shadow, "finish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            rebuild(settings)
    ((_, schema),) = shadows(settings)
    built = indexes(settings, schema)
    assert len(built) > 3
    gone, other, *kept = sorted(built)
    execute(
        settings,
        f"DROP INDEX {schema}.{gone}",
        f"DROP INDEX {schema}.{other}",
        f"CREATE INDEX {other} ON {schema}.positions (market_id)",
        f"CREATE INDEX surplus ON {schema}.positions (market_id)",
    )
    # When it is run again, then what was right is the very same index, and the rest was made
    report = rebuild(settings)
    assert report.swapped
    live = indexes(settings, "ledger")
    assert live.keys() == built.keys()
    assert {name: live[name] for name in kept} == {name: built[name] for name in kept}
    assert engine.positions_rows(settings) == before
    assert operations.check(settings, engine.reached(settings)).agree


def test_what_an_interrupted_rebuild_has_left_is_dropped_when_it_is_cancelled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "load", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        rebuild(settings)
    ((generation_id, _),) = shadows(settings)
    row = row_of(settings)
    assert row is not None
    assert (row.state, row.problem, row.is_kept) == ("failed", "it was interrupted", True)
    assert steer(settings, "cancel").generation_id == generation_id
    assert left_over(settings) == []


def _interrupted(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_a_loading_process_that_is_killed_costs_its_part_only(settings: Settings, history: Traffic) -> None:
    before = engine.positions_rows(settings)
    # Given a rebuild with two loading processes, both at a part
    with running_rebuild(settings, processes=2, throttle_per_s=SLOW) as going:
        generation_id = going.until(lambda row: row.events_done > 0).generation_id
        ((_, schema),) = shadows(settings)
        with engine.connected(settings, as_app=False) as owner:
            while len(chunk_ledger.holders(owner, schema)) < 2:
                assert not going.future.done(), going.told
                time.sleep(0.005)
        # When one is killed, then the command says so in a sentence, and what is loaded stays
        loading = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
        assert len(loading) == 2
        loading[0].kill()
        with pytest.raises(
            MigrationError, match="a process that loaded positions was killed .*run the same command again"
        ):
            going.report()
    again = rebuild(settings)
    assert (again.swapped, again.generation_id) == (True, generation_id)
    assert engine.positions_rows(settings) == before
    assert left_over(settings) == []


def indexes(settings: Settings, schema: str) -> dict[str, int]:
    """The oids of the indexes of positions in a schema, by name."""
    with engine.connected(settings, as_app=False) as owner:
        rows = owner.execute(
            "SELECT c.relname, c.oid::bigint FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = (%s || '.positions')::regclass",
            (schema,),
        ).fetchall()
    return dict(rows)


def test_a_ledger_before_migration_014_is_rebuilt_without_a_row(settings: Settings, history: Traffic) -> None:
    execute(settings, "DROP TABLE projection_rebuilds")
    before = engine.positions_rows(settings)
    assert rebuild(settings).swapped
    assert engine.positions_rows(settings) == before
    with pytest.raises(MigrationError, match="keeps no pace before migration 014"):
        rebuild(settings, throttle_per_s=100.0)
    with pytest.raises(MigrationError, match="cannot be steered before migration 014"):
        steer(settings, "pause")
    assert left_over(settings) == []


# Side by side


@pytest.fixture
def whole(ledger_template: Template) -> Iterator[Settings]:
    """Settings of a database with all tables."""
    with ledger_template.clone() as url:
        yield load_settings(database_url=url, redis_url=NO_QUEUE, projections="position_ledger.reference.projections")


@pytest.mark.uncounted
def test_different_tables_are_rebuilt_at_once(whole: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(whole, engine.reached(whole)) as ledger:
        Traffic(ledger, 3).run(60)
    engine.project_all(whole)
    # Given a rebuild of positions that stands still
    with running_rebuild(whole, throttle_per_s=SLOW) as going:
        going.until(lambda row: row.state == "loading")
        steer(whole, "pause")
        going.until_told("is paused")
        # When another table is rebuilt, then that one ends
        report = operations.rebuild(
            whole, engine.reached(whole), "account_balance", options=operations.RebuildOptions(), tell=engine.quiet
        )
        assert report.swapped
        assert not going.future.done()
        # and another rebuild of the same table is refused
        monkeypatch.setattr(rebuilding, "LET_GO_S", 0.1)
        with pytest.raises(MigrationError, match=r"another rebuild of positions is running.*--cancel"):
            rebuild(whole)
        execute(whole, UNPACED)
        steer(whole, "run")
        assert going.report().swapped
    engine.proven(whole)


def test_how_much_there_is_to_load_is_known_of_a_log_that_nobody_has_analyzed(
    whole: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore: a sample is asked, here of all blocks, not what the planner remembers."""
    monkeypatch.setattr(rebuilds, "COUNTED_MAX", 0)
    with Ledger(whole, engine.reached(whole)) as ledger:
        Traffic(ledger, 3).run(60)
    with engine.connected(whole) as connection:
        upto = feed.horizon(connection)
        for table, topics in (("positions", r"position\.%"), ("markets", r"market\.%")):
            (projection,) = (one for one in load_projections(whole.projections) if one.table == table)
            counting = "SELECT count(*) FROM events WHERE topic LIKE %s"
            there = connection.execute(counting, (topics,)).fetchone()
            assert there is not None
            assert rebuilds.to_load(connection, projection, upto) == pytest.approx(there[0], abs=1)
