"""Writers that are paused, killed and cut off while readers follow: what did each reader lose or see twice?"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.feed_writer import APPLICATION, connect
from tests.support.processes import kill, paused, running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    import psycopg

    Process = subprocess.Popen[str]
    Connection = psycopg.Connection[Any]

TICK_S = 0.03
END_LIMIT_S = 60.0
ENDED_BACKEND, KILLED_WRITER, PAUSED_WRITER = 0.10, 0.115, 0.35
"""Up to which draw of [0, 1) each disturbance happens at a tick."""

KINDS = 3
"""Kinds of disturbance: a run goes on until each has happened."""

END_A_BACKEND = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a
 WHERE a.application_name = %s AND a.datname = current_database() ORDER BY random() LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """What one reader made of the log."""

    events: int
    lost: int
    doubled: int
    invented: int

    @property
    def is_exact(self) -> bool:
        """Every event once, and nothing else."""
        return self.events > 0 and (self.lost, self.doubled, self.invented) == (0, 0, 0)


@dataclass(slots=True)
class Harness:
    """Runs writers and readers against one database."""

    url: str
    seed: int
    disturbances: Counter[str] = field(default_factory=Counter)

    def run(
        self, *, writers: Sequence[str], readers: Sequence[str], seconds: float, events_min: int = 0
    ) -> dict[str, Followed]:
        """Let them run so long and until there are so many events; then compare each reader with the log.

        ``writers`` and ``readers`` are the kinds that `feed_writer` and `feed_reader` know.
        """
        chance = random.Random(self.seed)
        with ExitStack() as stack, closing(connect(self.url, "feed harness")) as watcher:
            following = {
                kind: stack.enter_context(running("-m", "tests.support.feed_reader", self.url, kind))
                for kind in readers
            }
            writing = [_Writer(self.url, kind, chance.randrange(10**9), stack) for kind in writers]
            until = time.monotonic() + seconds
            while time.monotonic() < until or _count(watcher) < events_min or len(self.disturbances) < KINDS:
                time.sleep(TICK_S)
                self._disturb(watcher, writing, chance)
            for writer in writing:
                writer.end()
            _end_prepared(watcher, alive=())
            log = {row[0] for row in watcher.execute("SELECT notification_id FROM events").fetchall()}
            return {kind: _compare(log, _answer(process)) for kind, process in following.items()}

    def _disturb(self, watcher: Connection, writing: Sequence[_Writer], chance: random.Random) -> None:
        """Now and then end a backend, kill a writer, or let one stand still wherever it is."""
        fate, writer = chance.random(), chance.choice(writing)
        if fate < ENDED_BACKEND:
            watcher.execute(END_A_BACKEND, (APPLICATION,))
            self.disturbances["backends ended"] += 1
        elif fate < KILLED_WRITER:
            writer.kill_and_replace(chance.randrange(10**9))
            self.disturbances["writers killed"] += 1
        elif fate < PAUSED_WRITER:
            with paused(writer.process.pid):
                time.sleep(chance.uniform(0, 0.1))
            self.disturbances["writers paused"] += 1
        _end_prepared(watcher, alive=[one.process.pid for one in writing])


class _Writer:
    """One writing process, and the next one when it was killed."""

    def __init__(self, url: str, kind: str, seed: int, stack: ExitStack) -> None:
        self._url, self._kind, self._stack = url, kind, stack
        self.process = self._start(seed)

    def _start(self, seed: int) -> Process:
        return self._stack.enter_context(running("-m", "tests.support.feed_writer", self._url, str(seed), self._kind))

    def kill_and_replace(self, seed: int) -> None:
        kill(self.process)
        self.process = self._start(seed)

    def end(self) -> None:
        """Let it finish what it does, and end."""
        assert self.process.poll() is None, "a writer has ended by itself"
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(END_LIMIT_S) == 0, "a writer failed"


def _end_prepared(watcher: Connection, alive: Sequence[int]) -> None:
    """End the prepared transactions of writers that are no more: they would hold the horizon for ever."""
    for (name,) in watcher.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'feed-%'").fetchall():
        found = re.match(r"feed-(\d+)-", name)
        if found and int(found[1]) not in alive:
            watcher.execute(f"COMMIT PREPARED '{name}'")


def _count(watcher: Connection) -> int:
    row = watcher.execute("SELECT count(*) FROM events").fetchone()
    return int(row[0]) if row else 0


def _answer(process: Process) -> list[int]:
    """Let a reader come to its end, and take what it has seen."""
    out, _ = process.communicate(timeout=END_LIMIT_S)
    assert process.returncode == 0, "a reader failed"
    numbers: list[int] = json.loads(out)
    return numbers


def _compare(log: set[int], seen: Sequence[int]) -> Followed:
    times = Counter(seen)
    return Followed(
        events=len(log),
        lost=len(log - times.keys()),
        doubled=sum(count - 1 for count in times.values()),
        invented=len(times.keys() - log),
    )
