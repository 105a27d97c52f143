"""The real dramatiq workers, started as a user starts them, and paused for as long as a backlog is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from bench.arena import Arena

BROKER = "position_ledger.reference.workers.broker:make_broker"
SHARDS_HELD = """
SELECT count(DISTINCT c.holder), count(*) FILTER (WHERE c.lease_until < clock_timestamp())
  FROM projection_checkpoints AS c
"""
VISIBLE = "SELECT min(c.position) FROM projection_checkpoints AS c"
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0


class Workers:
    """Worker processes of one ledger, all following."""

    def __init__(self, group: int) -> None:
        self._group = group

    def pause(self) -> None:
        """Let them stand still; their leases run on, so not for longer than a lease."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them work again."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End what is left of them at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._group, number)


@contextmanager
def workers(arena: Arena, count: int) -> Iterator[Workers]:
    """Start worker processes and wait until they share the shards; they are ended with the block."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "POSITION_LEDGER_DATABASE_URL": arena.database_url,
        "POSITION_LEDGER_REDIS_URL": arena.redis_url,
    }
    command = [sys.executable, "-m", "dramatiq", BROKER, "--processes", str(count), "--threads", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        started = Workers(process.pid)
        try:
            _wait_until_shared(arena, count, process)
            yield started
        finally:
            started.go_on()
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                started.kill()


def _wait_until_shared(arena: Arena, count: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT_S
    with arena.connect() as connection:
        while connection.execute(SHARDS_HELD).fetchone() != (count, 0):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{count} workers did not share the shards within {START_LIMIT_S:.0f} s")
            time.sleep(0.05)


def wait_until_visible(connection: psycopg.Connection[tuple[object, ...]], token: int, limit_s: float = 120.0) -> float:
    """Wait until every event up to the token is projected; answers when that was seen (`time.perf_counter`)."""
    end = time.perf_counter() + limit_s
    while True:
        row = connection.execute(VISIBLE, prepare=True).fetchone()
        now = time.perf_counter()
        if row is not None and isinstance(row[0], int) and row[0] >= token:
            return now
        if now > end:
            raise TimeoutError(f"event {token} was not projected within {limit_s:.0f} s")
        time.sleep(0.002)
