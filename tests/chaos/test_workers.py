"""Real dramatiq workers on a real Valkey: kill them, lose, double and reorder their messages, stop their servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from position_ledger import Ledger
from position_ledger.embedded.temporary import TemporaryValkey
from position_ledger.operations import helping
from position_ledger.projection import chunk_ledger
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import visible_up_to
from position_ledger.settings import Settings, load_settings
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.rebuilding import execute, running_rebuild, shadows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger.embedded.temporary import TemporaryPostgres

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.uncounted]

QUEUE = "position-ledger.ledger"
PROCESSES = 2
VISIBLE_LIMIT_S = 30.0


class Workers:
    """`position-ledger worker`: a supervisor, the dramatiq master that it keeps alive, and two worker processes."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "POSITION_LEDGER_DATABASE_URL": str(settings.database_url),
            "POSITION_LEDGER_REDIS_URL": str(settings.redis_url),
        }
        command = [sys.executable, "-m", "position_ledger", "worker", "--processes", str(PROCESSES), "--threads", "2"]
        self._out = log.open("ab")
        self.supervisor = subprocess.Popen(
            command, env=environment, stdout=self._out, stderr=subprocess.STDOUT, cwd="/", start_new_session=True
        )

    def everybody(self) -> list[psutil.Process]:
        """Every process beneath the supervisor."""
        return psutil.Process(self.supervisor.pid).children(recursive=True)

    def master(self) -> psutil.Process:
        """The dramatiq process that forks the workers."""
        return psutil.Process(self.supervisor.pid).children()[0]

    def children(self) -> list[psutil.Process]:
        """The worker processes themselves: those that hold leases."""
        held = {int(name.split(":")[1]) for name in holders(self.settings)}
        return [one for one in self.everybody() if one.pid in held]

    def is_alive(self) -> bool:
        """Whether the supervisor still runs."""
        return self.supervisor.poll() is None

    def stop(self) -> float:
        """Ask everything to stop; how long it took."""
        started = time.monotonic()
        self.supervisor.send_signal(signal.SIGTERM)
        self.supervisor.wait(30)
        return time.monotonic() - started

    def end(self) -> None:
        """Leave no process behind."""
        left = self.everybody() if self.is_alive() else []
        self.supervisor.kill()
        self.supervisor.wait(10)
        for one in left:
            if one.is_running():
                one.kill()
        psutil.wait_procs(left, timeout=10)
        self._out.close()


def holders(settings: Settings) -> set[str]:
    """Names of those who hold a shard now."""
    with engine.connected(settings) as connection:
        rows = connection.execute(
            "SELECT DISTINCT holder FROM projection_checkpoints WHERE holder IS NOT NULL AND lease_until > clock_timestamp()"
        ).fetchall()
    return {row[0] for row in rows}


def shared_out(settings: Settings, workers: int = PROCESSES) -> None:
    """Wait until so many workers hold all shards between them."""
    deadline = time.monotonic() + VISIBLE_LIMIT_S
    while time.monotonic() < deadline:
        with engine.connected(settings) as connection:
            row = connection.execute(
                "SELECT count(*), count(DISTINCT holder) FROM projection_checkpoints"
                " WHERE lease_until > clock_timestamp() AND holder LIKE %s",
                ("%:%",),
            ).fetchone()
        if row == (engine.shards(settings), workers):
            return
        time.sleep(0.05)
    pytest.fail(f"{row} shards and workers, expected {engine.shards(settings)} and {workers}")


def projected_by_workers(settings: Settings, token: int) -> None:
    """Wait, without helping, until workers have projected everything up to a token."""
    deadline = time.monotonic() + VISIBLE_LIMIT_S
    tables = [projection.table for projection in load_projections(settings.projections)]
    with engine.connected(settings) as connection:
        while visible_up_to(connection, tables) < token:
            assert time.monotonic() < deadline, "workers did not project it"
            time.sleep(0.005)


@pytest.fixture
def queue() -> Iterator[TemporaryValkey]:
    """A Valkey of the test's own."""
    with TemporaryValkey() as server:
        yield server


@pytest.fixture
def with_queue(settings: Settings, queue: TemporaryValkey) -> Settings:
    """The settings of the test's database, and of its queue."""
    return settings.model_copy(update={"redis_url": queue.redis_url})


@contextmanager
def started(settings: Settings, folder: Path) -> Iterator[Workers]:
    """Workers that have shared out the shards."""
    workers = Workers(settings, folder / "workers.log")
    try:
        shared_out(settings)
        yield workers
    finally:
        workers.end()


@pytest.fixture
def workers(with_queue: Settings, tmp_path: Path) -> Iterator[Workers]:
    """Two workers that share out the shards of the test's ledger."""
    with started(with_queue, tmp_path) as running:
        yield running


def test_killed_workers_are_replaced_and_lose_nothing(workers: Workers, with_queue: Settings, ledger: Ledger) -> None:
    traffic = Traffic(ledger, 1)
    traffic.run(50)
    # When one worker process is killed, then both
    for victims in (1, 2):
        for one in workers.children()[:victims]:
            one.send_signal(signal.SIGKILL)
        # Then others go on where they were
        projected_by_workers(with_queue, traffic.run(50))
        shared_out(with_queue)
    engine.proven(with_queue)


@pytest.mark.soak
def test_a_killed_master_is_replaced_with_its_workers(workers: Workers, with_queue: Settings, ledger: Ledger) -> None:
    # When the process that forked the workers is killed
    old = workers.everybody()
    workers.master().kill()
    # Then its workers do not live on unseen, and others take over
    _, alive = psutil.wait_procs(old, timeout=20)
    assert alive == []
    projected_by_workers(with_queue, Traffic(ledger, 2).run(50))
    shared_out(with_queue)
    engine.proven(with_queue)


def test_without_its_supervisor_nobody_works_on_unseen(workers: Workers, with_queue: Settings, ledger: Ledger) -> None:
    projected_by_workers(with_queue, Traffic(ledger, 2).run(20))
    left = workers.everybody()
    workers.supervisor.kill()
    _, alive = psutil.wait_procs(left, timeout=20)
    for one in alive:
        one.kill()
    assert alive == []


def test_lost_doubled_and_reordered_messages_change_nothing(
    workers: Workers, with_queue: Settings, ledger: Ledger, queue: TemporaryValkey
) -> None:
    traffic = Traffic(ledger, 3)
    traffic.run(30)
    with redis.Redis.from_url(queue.redis_url) as client:
        # When every message is lost
        client.flushall()
        projected_by_workers(with_queue, traffic.run(30))
        # When messages are doubled, out of order, and from long ago
        for _ in range(3):
            _send_many(with_queue, 20)
            projected_by_workers(with_queue, traffic.run(10))
        client.flushall()
    projected_by_workers(with_queue, traffic.run(30))
    shared_out(with_queue)
    assert workers.is_alive()
    engine.proven(with_queue)


def _send_many(settings: Settings, count: int) -> None:
    """Put messages for the actor into the queue, as a confused scheduler would."""
    broker = RedisBroker(url=settings.redis_url)  # type: ignore[no-untyped-call]
    broker.declare_queue(QUEUE)
    messages: list[Message[Any]] = [
        Message(queue_name=QUEUE, actor_name="follow", args=(), kwargs={}, options={}) for _ in range(count)
    ]
    for message in [*reversed(messages), *messages]:
        broker.enqueue(message)
    broker.close()


def without_redis(workers: Workers, settings: Settings, ledger: Ledger, queue: TemporaryValkey, seconds: float) -> None:
    """Stop the queue for a while: commands and projecting go on; start it: everything goes on by itself."""
    traffic = Traffic(ledger, 4)
    traffic.run(20)
    queue.kill9()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        projected_by_workers(settings, traffic.run(20))
    queue.start()
    projected_by_workers(settings, traffic.run(20))
    # Workers that are killed now are replaced by some that find the queue
    for one in workers.children():
        one.send_signal(signal.SIGKILL)
    projected_by_workers(settings, traffic.run(20))
    shared_out(settings)
    engine.proven(settings)


def test_commands_and_projecting_go_on_without_redis(
    workers: Workers, with_queue: Settings, ledger: Ledger, queue: TemporaryValkey
) -> None:
    without_redis(workers, with_queue, ledger, queue, 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_minute_without_redis_and_more(
    workers: Workers, with_queue: Settings, ledger: Ledger, queue: TemporaryValkey
) -> None:
    without_redis(workers, with_queue, ledger, queue, 150)  # longer than the time limit of a message


def test_workers_that_start_without_redis_project_at_once(
    with_queue: Settings, ledger: Ledger, queue: TemporaryValkey, tmp_path: Path
) -> None:
    queue.kill9()
    token = Traffic(ledger, 5).run(30)
    with started(with_queue, tmp_path) as workers:
        projected_by_workers(with_queue, token)
        queue.start()
        projected_by_workers(with_queue, Traffic(ledger, 6).run(30))
        assert workers.is_alive()
    engine.proven(with_queue)


@pytest.mark.timeout(240)
def test_a_database_that_is_killed_comes_back(
    own_postgres: TemporaryPostgres, queue: TemporaryValkey, tmp_path: Path
) -> None:
    # Given a durable server, workers and a ledger that stays open
    url = engine.new_database(own_postgres.database_url, "chaos")
    settings = load_settings(database_url=url, redis_url=queue.redis_url)
    engine.migrate(settings)
    with started(settings, tmp_path) as workers, Ledger(settings, engine.reached(settings)) as ledger:
        traffic = Traffic(ledger, 7)
        for _ in range(2):
            traffic.run(80)
            # When the database is killed while rows are being written
            own_postgres.kill9()
            own_postgres.start()
            # Then commands and workers go on by themselves
            token = traffic.run(30)
            projected_by_workers(settings, token)
        assert workers.is_alive()
        shared_out(settings)
    engine.proven(settings)


def test_a_worker_that_is_asked_to_stop_stops_within_seconds(
    workers: Workers, with_queue: Settings, ledger: Ledger
) -> None:
    projected_by_workers(with_queue, Traffic(ledger, 8).run(30))
    seconds = workers.stop()
    assert workers.supervisor.returncode == 0
    assert seconds < 10
    # and gives its shards back, so that nobody has to wait for its leases
    assert holders(with_queue) == set()
    with engine.connected(with_queue) as connection:
        assert connection.execute("SELECT count(*) FROM projection_workers").fetchone() == (0,)


def test_an_idle_ledger_shows_each_command_soon(workers: Workers, with_queue: Settings, ledger: Ledger) -> None:
    traffic = Traffic(ledger, 9)
    waits = []
    for _ in range(30):
        token = traffic.run(1)
        started_at = time.monotonic()
        projected_by_workers(with_queue, token)
        waits.append(time.monotonic() - started_at)
        time.sleep(0.02)
    # A message for each event would take about a second each; the bound leaves room for a busy machine.
    assert sorted(waits)[len(waits) // 2] < 0.5, waits


def test_workers_help_to_load_a_rebuild_while_they_follow(with_queue: Settings, ledger: Ledger, tmp_path: Path) -> None:
    # Given workers that follow the log
    Traffic(ledger, 8).run(100)
    engine.project_all(with_queue)
    before = engine.positions_rows(with_queue)
    with started(with_queue, tmp_path):
        # When a rebuild calls them
        with running_rebuild(with_queue, throttle_per_s=2.0, workers=2) as going:
            going.until_told("called 2 worker processes")
            ((_, schema),) = shadows(with_queue)
            with engine.connected(with_queue, as_app=False) as owner:
                while len(chunk_ledger.holders(owner, schema)) < 2:
                    assert not going.future.done(), going.told
                    time.sleep(0.01)
            execute(with_queue, "UPDATE projection_rebuilds SET throttle_per_s = NULL")
            # Then new events are projected meanwhile, the work is shared, and the table is the same
            report = going.report()
        assert report.helped_events > 0
        assert engine.positions_rows(with_queue) == before
        projected_by_workers(with_queue, Traffic(ledger, 9).run(3))
        # and a message that comes late finds nothing to do
        helping.call_workers(with_queue, engine.reached(with_queue), report.generation_id or 0, 3, engine.quiet)
        with redis.Redis.from_url(str(with_queue.redis_url)) as client:
            deadline = time.monotonic() + VISIBLE_LIMIT_S
            while client.llen(f"dramatiq:{QUEUE}.load"):
                assert time.monotonic() < deadline, "a late message was not taken"
                time.sleep(0.05)
    engine.project_all(with_queue)
    engine.proven(with_queue)
