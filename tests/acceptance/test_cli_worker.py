"""`position-ledger worker`: projecting goes on whatever is killed, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from position_ledger import Ledger, OpenPosition
from position_ledger.embedded.process import wait_until
from tests.support.command_line import on

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIVE = (
    "SELECT count(*) FROM ledger.projection_workers AS w "
    "WHERE w.seen_at > clock_timestamp() - interval '2 seconds' AND w.started_at > %s"
)
BEHIND = (
    "SELECT min(c.position) < (SELECT max(e.notification_id) FROM ledger.events AS e) "
    "FROM ledger.projection_checkpoints AS c"
)
HELD = "SELECT count(*) FROM ledger.projection_checkpoints AS c WHERE c.lease_until > clock_timestamp()"
LIMIT_S = 40.0
STOP_LIMIT_S = 12.0

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


class Workers:
    """A running `position-ledger worker` with two processes, and the database that it works on."""

    def __init__(self, wrapper: subprocess.Popen[str], database: str, ledger: Ledger) -> None:
        self.wrapper = wrapper
        self.ledger = ledger
        self._owner = psycopg.connect(database, autocommit=True)
        self.began = self._one("SELECT clock_timestamp()")

    def _one(self, query: str, *parameters: object) -> object:
        row = self._owner.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return row[0]

    def wait_for_two(self) -> None:
        """Wait until two workers that started since the last call say that they live."""
        assert wait_until(lambda: self._one(ALIVE, self.began) == 2, LIMIT_S)
        self.began = self._one("SELECT clock_timestamp()")

    def trade_and_wait(self) -> None:
        """Execute a command and wait until workers have made its row; nobody here helps them."""
        self.ledger.execute(
            OpenPosition(
                account="main",
                market="KXNBA-CLE",
                strategy=1,
                model=2,
                side="YES",
                quantity=1,
                entry_price=Decimal("0.5"),
                environment="paper",
            )
        )
        assert wait_until(lambda: self._one(BEHIND) is False, LIMIT_S)

    @property
    def shards_held(self) -> object:
        return self._one(HELD)

    @property
    def master(self) -> psutil.Process:
        (master,) = psutil.Process(self.wrapper.pid).children()
        return master

    @property
    def processes(self) -> list[psutil.Process]:
        return list(psutil.Process(self.wrapper.pid).children(recursive=True))

    def close(self) -> None:
        self._owner.close()


@contextmanager
def _running(database: str, redis_url: str) -> Iterator[Workers]:
    wrapper = on(database, redis_url).start("worker", "--processes", "2")
    left: list[psutil.Process] = []
    with Ledger.open(database_url=database, redis_url=redis_url) as ledger:
        workers = Workers(wrapper, database, ledger)
        try:
            workers.wait_for_two()
            yield workers
        finally:
            with suppress(psutil.NoSuchProcess):
                left = workers.processes
            workers.close()
            wrapper.kill()
            wrapper.communicate(timeout=LIMIT_S)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture
def workers(ledger_database: str, ledger_redis_url: str) -> Iterator[Workers]:
    with _running(ledger_database, ledger_redis_url) as running:
        yield running


def _all_gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


@pytest.mark.uncounted
def test_projecting_goes_on_after_a_kill_and_stops_when_told(workers: Workers) -> None:
    """Given two worker processes, when one and then their master is killed with -9, then projecting goes on.

    When the command is then asked to stop, every process ends, every shard is given back, and the exit code is 0.
    """
    workers.trade_and_wait()

    workers.master.children()[0].kill()
    workers.wait_for_two()
    workers.trade_and_wait()
    workers.master.kill()
    workers.wait_for_two()
    workers.trade_and_wait()

    everyone = workers.processes
    assert len(everyone) == 3
    workers.wrapper.send_signal(signal.SIGTERM)
    _, said = workers.wrapper.communicate(timeout=STOP_LIMIT_S)
    assert workers.wrapper.returncode == 0
    assert _all_gone(everyone)
    assert workers.shards_held == 0
    assert said.count("starting them again") == 2
    assert "Traceback" not in said


def test_nothing_outlives_the_command(workers: Workers) -> None:
    """Given running workers, when the command itself is killed with -9, then all that it started ends by itself."""
    everyone = workers.processes
    assert len(everyone) == 3

    os.kill(workers.wrapper.pid, signal.SIGKILL)

    assert wait_until(lambda: _all_gone(everyone), STOP_LIMIT_S)
    assert workers.shards_held == 0
