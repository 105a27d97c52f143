"""Who may write: leases, fencing, takeover, fair shares, and that nothing is ever half done."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger.projection import leases, projector
from position_ledger.projection.generations import SHARDS, kept
from position_ledger.projection.leases import LEASE_S, LeaseLost, acquire
from position_ledger.projection.projector import Projector
from position_ledger.projection.tail import project_tail
from position_ledger.store import feed
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import CODEC, Traffic
from tests.support.processes import kill, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from position_ledger import Ledger
    from position_ledger.settings import Settings

FOLLOW = """
import sys, threading
from position_ledger.projection.definition import load_projections
from position_ledger.settings import load_settings
from tests.support import engine
settings = load_settings(database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0")
with engine.following(settings, sys.argv[2]) as follower:
    follower.step()
    print(follower.held, flush=True)
    follower.follow(threading.Event())
"""


def checkpoints(settings: Settings) -> list[tuple[Any, ...]]:
    """Of every table."""
    with engine.connected(settings) as connection:
        rows = connection.execute(
            "SELECT shard, position, token, holder FROM projection_checkpoints ORDER BY generation_id, shard"
        )
        return rows.fetchall()


def take_all(connection: psycopg.Connection[Any], name: str, lease_s: float = LEASE_S) -> list[leases.Lease]:
    (generation,) = kept(connection, "positions")
    return acquire(connection, generation.generation_id, name, limit=SHARDS, lease_s=lease_s)


def projector_on(connection: psycopg.Connection[Any], settings: Settings) -> Projector:
    (generation,) = kept(connection, "positions")
    return Projector(connection, generation, engine.positions_of(settings), CODEC)


def test_a_worker_that_wakes_after_its_lease_ran_out_cannot_write(settings: Settings, ledger: Ledger) -> None:
    # Given a worker that holds everything, has projected a little, and then stands still
    traffic = Traffic(ledger, 1)
    traffic.run(20)
    with engine.connected(settings) as slow, engine.connected(settings) as quick:
        late, held = projector_on(slow, settings), take_all(slow, "slow", lease_s=0.05)
        late.project(held, feed.horizon(slow))
        with engine.connected(settings, as_app=False) as owner:
            owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
        # When another one has taken over and gone on
        traffic.run(20)
        taken = take_all(quick, "quick")
        assert len(taken) == SHARDS
        assert all(new.token > old.token for new, old in zip(taken, held, strict=True))
        projector_on(quick, settings).project(taken, feed.horizon(quick))
        rows, positions = engine.positions_rows(settings), checkpoints(settings)
        traffic.run(20)
        # Then what the first one does on waking is refused whole
        with pytest.raises(LeaseLost, match="16 of 16 shards are held by another worker"):
            late.project(held, feed.horizon(slow))
        assert leases.renew(slow, held) == []
        leases.release(slow, held)
        assert engine.positions_rows(settings) == rows
        assert checkpoints(settings) == positions
    engine.project_all(settings)
    engine.proven(settings)


def test_a_worker_that_stops_between_reading_and_writing_cannot_write(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that is stopped after it has read its page and before it writes
    Traffic(ledger, 2).run(30)
    real = feed.page

    def page(connection: Any, **bounds: Any) -> Any:
        rows = real(connection, **bounds)
        monkeypatch.setattr(feed, "page", real)
        with engine.connected(settings, as_app=False) as owner:
            owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
        engine.project_all(settings)
        return rows

    with engine.connected(settings) as connection:
        held = take_all(connection, "slow")
        monkeypatch.setattr(feed, "page", page)
        with pytest.raises(LeaseLost):
            projector_on(connection, settings).project(held, feed.horizon(connection))
    engine.proven(settings)


@pytest.mark.parametrize("place", ["before the checkpoint", "before the rows", "before the commit"])
def test_a_connection_lost_in_a_batch_leaves_nothing_half_done(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    # Given a batch under way
    Traffic(ledger, 3).run(30)
    before = checkpoints(settings)
    with engine.connected(settings) as connection:
        held = take_all(connection, "unlucky")

        def kill_connection() -> None:
            with engine.connected(settings, as_app=False) as owner:
                owner.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

        _kill_at(place, kill_connection, monkeypatch)
        # When its connection is killed between two statements
        with pytest.raises(psycopg.Error):
            projector_on(connection, settings).project(held, feed.horizon(connection))
    # Then neither row nor checkpoint moved
    assert engine.positions_rows(settings) == []
    assert [one[1] for one in checkpoints(settings)] == [one[1] for one in before]
    # and the next one goes on from there
    monkeypatch.undo()
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("UPDATE projection_checkpoints SET lease_until = '-infinity'")
    engine.project_all(settings)
    engine.proven(settings)


def _kill_at(place: str, kill_connection: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "before the checkpoint":
        real_advance = projector.advance

        def advance(*arguments: Any) -> dict[int, str]:
            kill_connection()
            return real_advance(*arguments)

        monkeypatch.setattr(projector, "advance", advance)
        return
    real = projector.write_changes

    def write(*arguments: Any) -> None:
        if place == "before the rows":
            kill_connection()
        real(*arguments)
        if place == "before the commit":
            kill_connection()

    monkeypatch.setattr(projector, "write_changes", write)


def test_a_checkpoint_that_a_follower_has_wrong_is_read_again(settings: Settings, ledger: Ledger) -> None:
    # Given a follower that was interrupted after a commit and before it noted it
    traffic = Traffic(ledger, 4)
    traffic.run(10)
    with engine.following(settings) as follower:
        engine.drain(follower)
        for one in follower._followed.values():
            for lease in one.held:
                lease.position -= 3
        token = traffic.run(10)
        # When it goes on, then it does not stay refused for ever
        deadline = time.monotonic() + 10
        while not _reached(settings, token):
            follower.step()
            assert time.monotonic() < deadline
    engine.proven(settings)


def _reached(settings: Settings, token: int) -> bool:
    return min(one[1] for one in checkpoints(settings)) >= token


def test_a_checkpoint_never_moves_back(settings: Settings, ledger: Ledger) -> None:
    ledger.execute(opening())
    engine.project_all(settings)
    with engine.connected(settings, as_app=False) as owner:
        for change in ("position = position - 1", "token = token - 1"):
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never moves back"):
                owner.execute(f"UPDATE projection_checkpoints SET {change} WHERE shard = 0".encode())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_shards_are_shared_out_fairly(settings: Settings, workers: int) -> None:
    # Given followers that come one after the other
    stop = threading.Event()
    held: dict[int, Callable[[], int]] = {}

    def follow(number: int) -> None:
        with engine.following(settings, f"worker {number}") as follower:
            held[number] = lambda: follower.held
            follower.follow(stop)

    with ThreadPoolExecutor(workers) as pool:
        running_ = [pool.submit(follow, number) for number in range(workers)]
        try:
            # When they have had time to agree
            every = engine.shards(settings)
            share = -(-SHARDS // workers) * every // SHARDS
            deadline = time.monotonic() + 10
            counts: list[int] = []
            while time.monotonic() < deadline and (sum(counts) < every or max(counts) > share or len(counts) < workers):
                stop.wait(0.05)
                counts = [count() for count in held.values()]
        finally:
            stop.set()
        for one in running_:
            one.result(10)
    # Then every shard is held by somebody, and nobody has more than his share
    assert sum(counts) == every, counts
    assert max(counts) <= share, counts
    # and after they ended, nobody holds anything
    assert {one[3] for one in checkpoints(settings)} == {None}


@pytest.mark.uncounted
def test_the_shards_of_a_killed_worker_are_taken_over(settings: Settings, ledger: Ledger) -> None:
    # Given a worker process that holds every shard
    with running("-c", FOLLOW, str(settings.database_url), "victim") as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline().strip() == str(engine.shards(settings))
        token = ledger.execute(opening()).token
        ledger.wait_for(token)
        # When it is killed in the middle of its life
        kill(victim)
    killed = time.monotonic()
    token = Traffic(ledger, 5).run(10)
    # Then another one has all of it as soon as the leases ran out
    with engine.following(settings, "heir") as heir:
        while not _reached(settings, token):
            heir.step()
            assert time.monotonic() - killed < 3 * LEASE_S
    engine.proven(settings)


@pytest.mark.uncounted
def test_a_paused_worker_loses_its_shards_and_gets_them_back(settings: Settings, ledger: Ledger) -> None:
    # Given a worker process that is stopped for longer than its leases
    with running("-c", FOLLOW, str(settings.database_url), "sleeper") as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        sleeper.send_signal(signal.SIGSTOP)
        token = Traffic(ledger, 6).run(30)
        # When somebody waits for rows meanwhile
        ledger.wait_for(token, timeout_s=3 * LEASE_S)
        # Then he has projected them himself, and when the worker wakes it goes on and writes nothing twice
        sleeper.send_signal(signal.SIGCONT)
        token = Traffic(ledger, 7).run(30)
        ledger.wait_for(token, timeout_s=3 * LEASE_S)
    engine.proven(settings)


def test_a_tail_takes_every_lease_away(settings: Settings, ledger: Ledger) -> None:
    # Given a worker with rows in memory
    opened = ledger.execute(opening())
    with engine.connected(settings) as worker, engine.connected(settings, as_app=False) as owner:
        held = take_all(worker, "worker")
        mine = projector_on(worker, settings)
        mine.project(held, feed.horizon(worker))
        Traffic(ledger, 8).run(20)
        # When an operator projects the tail
        (generation,) = kept(owner, "positions")
        with owner.transaction():
            project_tail(owner, generation, engine.positions_of(settings), CODEC, feed.horizon(owner))
        # Then the worker has to begin again
        with pytest.raises(LeaseLost):
            mine.project(held, feed.horizon(worker))
    ledger.wait_for(opened.token)
    engine.proven(settings)


def test_a_worker_goes_on_before_the_migration_by_which_it_tells_how_far_the_log_is(
    settings: Settings, ledger: Ledger
) -> None:
    before = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.connected(settings, as_app=False) as owner, engine.following(settings, "worker") as follower:
        owner.execute("ALTER TABLE projection_workers RENAME COLUMN mark TO nobodys")
        Traffic(ledger, 5).run(5)
        engine.drain(follower)
        assert [name for names in leases.workers_alive(owner).values() for name in names] == ["worker"]
        assert leases.told_of(owner, before) is None
        # When the migration has come, it tells
        owner.execute("ALTER TABLE projection_workers RENAME COLUMN nobodys TO mark")
        leases.heartbeat(owner, "worker", ["f"])
        told = leases.told_of(owner, before)
        assert told is not None
        assert told[1] == feed.mark(owner)
        assert leases.told_of(owner, told[0]) is None  # what was recorded at that very moment may still come
    engine.proven(settings)
