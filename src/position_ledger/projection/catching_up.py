"""Bringing one generation close to the end of the log while commands go on, beside whatever workers do."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from position_ledger.database import connect, process_name
from position_ledger.events import EVENTS
from position_ledger.projection.crews import work
from position_ledger.projection.definition import Projection
from position_ledger.projection.follower import Follower
from position_ledger.projection.generations import SHARDS, Generation
from position_ledger.projection.pacing import StopFlag
from position_ledger.projection.snapshots import checkpoint
from position_ledger.projection.watching import Progress
from position_ledger.settings import Settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec

SHORT_TAIL_EVENTS = 200
"""The catch-up ends when no more than this is left: whoever asked for it projects the rest under a lock."""

FAR_BEHIND_EVENTS = 20_000
"""With more than that left it is told and shown, and several processes share it: to begin one takes a second."""

STALE_ROUNDS_MAX = 200
"""A catch-up ends that has not come nearer to the end of the log for so many rounds."""

PAUSE_S = 0.005
NAME = "position-ledger catch-up"


def bring_up(
    url: str,
    settings: Settings,
    projection: Projection[Any],
    generation: Generation,
    *,
    processes: int,
    tell: Callable[[str], None],
    progress: Progress,
    look: Callable[[], None] = lambda: None,
) -> int:
    """Project until the tail is short, as `catch_up`, over connections of its own; answers how many rounds that took.

    Far behind, ``processes`` share the work. ``look`` is called now and then; what it raises ends the catch-up.

    Raises:
        FoldFailed, WriteMismatch: the generation cannot go on.
    """
    with connect(url, settings, as_app=True, name=NAME) as connection:
        behind = tail_events(connection, generation)
        is_far = behind > FAR_BEHIND_EVENTS
        if is_far:
            tell(
                f"generation {generation.generation_id} of {projection.table} is {behind:,} events behind: catching up"
            )
            progress.start(behind, f"catching up {projection.table}")

        def looked(left: int) -> None:
            if is_far:
                progress.advance(max(0, behind - left))
            look()

        if is_far and processes > 1:
            share = _Share(url, settings, projection.table, generation.generation_id, min(processes, SHARDS))
            with suppress(BrokenProcessPool):  # what one that was killed has left is done below
                work(share, projection, share.processes, lambda: looked(tail_events(connection, generation)))
        rounds = catch_up(connection, projection, generation, Codec(EVENTS), looked)
        if is_far:
            progress.finish()
        return rounds


def catch_up(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    generation: Generation,
    codec: Codec,
    look: Callable[[int], None] = lambda _left: None,
) -> int:
    """Project until the tail is short, or `STALE_ROUNDS_MAX` rounds have gained nothing; answers how many it took.

    Shards that workers hold are left to them. ``look`` hears after each round how much is left.
    """
    follower = Follower(connection, [projection], codec, name=_name(), share=False, only=generation.generation_id)
    return _follow(follower, lambda: tail_events(connection, generation), look)


def tail_events(connection: psycopg.Connection[Any], generation: Generation) -> int:
    """How many numbers the generation is behind the log."""
    return feed.mark(connection) - checkpoint(connection, generation.generation_id)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a process is told that brings up some shards of a generation."""

    url: str
    settings: Settings
    table: str
    generation_id: int
    processes: int
    gives_way: bool = False
    """Commands go on meanwhile: who gives way to them may never reach their end."""

    def run(self, projection: Projection[Any], number: int, stop: StopFlag) -> int:
        """Bring up the shards of one process; what others hold is left to them."""
        first, last = (SHARDS * part // self.processes for part in (number, number + 1))
        with connect(self.url, self.settings, as_app=True, name=NAME) as connection:
            follower = Follower(
                connection,
                [projection],
                Codec(EVENTS),
                name=_name(),
                share=False,
                only=self.generation_id,
                shards=range(first, last),
            )

            def left() -> int:
                is_over = stop.is_set() or not follower.held
                return 0 if is_over else feed.mark(connection) - follower.position

            return _follow(follower, left)


def _follow(follower: Follower, left: Callable[[], int], look: Callable[[int], None] = lambda _left: None) -> int:
    """Step until little is left, or nothing is gained any more; answers how many rounds it took. Closes the follower."""
    rounds = gained_at = 0
    least: int | None = None
    try:
        while rounds - gained_at < STALE_ROUNDS_MAX:
            worked = follower.step()
            rounds += 1
            now_left = left()
            look(now_left)
            if now_left <= SHORT_TAIL_EVENTS:
                break
            if least is None or now_left < least:
                least, gained_at = now_left, rounds
            if not worked:
                time.sleep(PAUSE_S)  # workers hold the shards
    finally:
        follower.close()
    return rounds


def _name() -> str:
    return f"{process_name()}:{uuid.uuid4().hex[:6]}"
