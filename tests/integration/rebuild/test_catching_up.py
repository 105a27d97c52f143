"""Catching up with the log: until little is left however much there was, shared by processes, and never for ever."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger.operations import roll_back as operations_roll_back
from position_ledger.projection import catching_up, leases, rolling_back
from position_ledger.projection.catching_up import SHORT_TAIL_EVENTS, STALE_ROUNDS_MAX, catch_up, tail_events
from position_ledger.projection.follower import Follower
from position_ledger.projection.generations import SHARDS, Generation
from tests.support import engine
from tests.support.rebuilding import rebuild

if TYPE_CHECKING:
    from position_ledger import Ledger
    from position_ledger.settings import Settings

TOKENS = "SELECT c.token FROM projection_checkpoints AS c WHERE c.generation_id = %s ORDER BY c.shard"


def behind(ledger: Ledger, seed: int, events: int) -> engine.Traffic:
    """Trade until so many events are in the log."""
    traffic = engine.Traffic(ledger, seed)
    while traffic.token < events:
        traffic.run(50)
    return traffic


def retired_behind(settings: Settings, ledger: Ledger, events: int) -> Generation:
    """Rebuild a table, and trade on until so many events are in the log; answers what one could go back to."""
    behind(ledger, 5, 100)
    engine.project_all(settings)
    retired = engine.active(settings)
    rebuild(settings)
    behind(ledger, 6, events)
    return retired


def tokens(settings: Settings, generation: Generation) -> list[int]:
    with engine.connected(settings) as connection:
        return [row[0] for row in connection.execute(TOKENS, (generation.generation_id,)).fetchall()]


def left(settings: Settings, generation: Generation) -> int:
    with engine.connected(settings) as connection:
        return tail_events(connection, generation)


def test_shards_that_others_hold_are_left_to_them_and_it_ends(settings: Settings, ledger: Ledger) -> None:
    behind(ledger, 9, 2 * SHORT_TAIL_EVENTS + 1)
    generation = engine.active(settings)
    with engine.connected(settings) as holding, engine.connected(settings) as connection:
        held = leases.acquire(holding, generation.generation_id, "somebody", limit=SHARDS, lease_s=60)
        assert catch_up(connection, engine.positions_of(settings), generation, engine.CODEC) == STALE_ROUNDS_MAX + 1
        leases.release(holding, held)
        assert catch_up(connection, engine.positions_of(settings), generation, engine.CODEC) < STALE_ROUNDS_MAX


def test_it_goes_on_for_as_long_as_it_gains_on_the_log(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "STALE_ROUNDS_MAX", 2)
    projection, generation = engine.positions_of(settings), engine.active(settings)
    # Given shards that stand at ten different places, so that a round can only go to the next of them
    traffic = behind(ledger, 4, 100)
    for first in range(1, 11):
        with engine.connected(settings) as connection:
            follower = Follower(
                connection, [projection], engine.CODEC, name="part", share=False, shards=range(first, SHARDS)
            )
            engine.drain(follower)
            follower.close()
        traffic.run(60)
    # When it catches up, then it does not stop before little is left
    with engine.connected(settings) as connection:
        rounds = catch_up(connection, projection, generation, engine.CODEC)
    assert rounds > 2 * catching_up.STALE_ROUNDS_MAX
    assert left(settings, generation) <= SHORT_TAIL_EVENTS
    engine.project_all(settings)
    engine.proven(settings)


@pytest.mark.slow
def test_processes_share_what_is_far_behind(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "FAR_BEHIND_EVENTS", 300)
    # Given a table that was rebuilt, and more new events than one process is to bring up alone
    retired = retired_behind(settings, ledger, 900)
    before, told = tokens(settings, retired), list[str]()
    # When one goes back to the retired table with two processes, then each brings up half of the shards
    report = operations_roll_back(settings, engine.reached(settings), "positions", tell=told.append, processes=2)
    assert report.swapped
    assert f"generation {retired.generation_id} of positions is" in told[0]
    assert told[0].endswith("events behind: catching up")
    # (acquired by a process, by the one that looks whether all is done, and by the swap)
    assert [after - token for after, token in zip(tokens(settings, retired), before, strict=True)] == [3] * SHARDS
    engine.project_all(settings)
    engine.proven(settings)


@pytest.mark.slow
@pytest.mark.chaos
def test_what_a_killed_process_has_left_is_done_by_whoever_goes_on(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "FAR_BEHIND_EVENTS", 300)
    retired_behind(settings, ledger, 900)
    # Given two processes that bring the retired table up
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(
            operations_roll_back, settings, engine.reached(settings), "positions", tell=engine.quiet, processes=2
        )
        while len(children := multiprocessing.active_children()) < 2:
            assert not back.done(), back.result()
            time.sleep(0.01)
        # When one is killed, then the table goes back all the same
        children[0].kill()
        assert back.result(60).swapped
    engine.project_all(settings)
    engine.proven(settings)


def test_the_time_that_a_catch_up_takes_is_not_the_budget_of_the_swap(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling_back, "BUDGET_S", 1.0)
    # Given a retired table that is behind, whose shards somebody holds for a while who does nothing
    retired = retired_behind(settings, ledger, 100 + 3 * SHORT_TAIL_EVENTS)
    with engine.connected(settings) as stuck:
        leases.acquire(stuck, retired.generation_id, "stuck", limit=SHARDS, lease_s=1.3)
    # And a reader whose transaction is open for longer than that
    reader = psycopg.connect(str(settings.database_url))
    reader.execute("SELECT count(*) FROM ledger.positions")
    timer = threading.Timer(1.8, reader.close)
    timer.start()
    began = time.monotonic()
    # When one goes back, then it waits for both
    report = operations_roll_back(settings, engine.reached(settings), "positions", tell=engine.quiet)
    assert report.swapped
    assert time.monotonic() - began > rolling_back.BUDGET_S
    timer.join()
    engine.project_all(settings)
    engine.proven(settings)
