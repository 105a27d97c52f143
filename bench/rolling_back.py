"""Going back to the retired table, at once and after a day's events: how long it takes, and how long the table is locked."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from bench.seeding import lives, seed
from bench.workers import wait_until_visible, workers
from position_ledger.operations import RebuildOptions, rebuild, roll_back, verify
from position_ledger.store import feed

TABLE = "positions"
WORKERS = 2
PROCESSES = 2
ROUNDS = 2
SECONDS_MAX = 10.0
"""What *in seconds* means: beyond it, whoever waits begins to do something about it."""

PROJECTED_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Back:
    """One way back: all of it, and the lock in it; times in seconds and milliseconds."""

    took_s: float
    lock_ms: float


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Three times a rebuild and back: at once, after a day that workers projected, after a day without them; then proof."""
    rounds: list[dict[str, Back]] = []
    with servers.arena() as arena:
        with arena.ledger() as ledger:
            models = lives(arena, ledger)
        seed(arena, models, plan.rebuild_events[-1])
        _rebuild(arena)
        for _ in range(ROUNDS):
            _rebuild(arena)
            at_once = _back(arena)
            _rebuild(arena)
            with workers(arena, WORKERS):
                seed(arena, models, plan.day_events)
                _wait_until_projected(arena)
                followed = _back(arena)
            _rebuild(arena)
            seed(arena, models, plan.day_events)
            rounds.append({"at_once": at_once, "followed": followed, "unfollowed": _back(arena)})
        if problems := verify(arena.settings, arena.reached, [TABLE], processes=PROCESSES).problems:
            raise RuntimeError(problems[0])
    return _lines(plan, rounds), {"rounds": [{name: asdict(one) for name, one in each.items()} for each in rounds]}


def _rebuild(arena: Arena) -> None:
    rebuild(arena.settings, arena.reached, TABLE, options=RebuildOptions(processes=PROCESSES), tell=lambda _: None)


def _back(arena: Arena) -> Back:
    began = time.perf_counter()
    report = roll_back(arena.settings, arena.reached, TABLE, tell=lambda _: None, processes=PROCESSES)
    return Back(time.perf_counter() - began, report.swap_lock_ms)


def _wait_until_projected(arena: Arena) -> None:
    with closing(arena.connect()) as connection:
        wait_until_visible(connection, feed.mark(connection), PROJECTED_WITHIN_S)


def _lines(plan: Plan, rounds: list[dict[str, Back]]) -> list[Line]:
    day = f"{plan.day_events:,} new events"
    size = f"{plan.rebuild_events[-1]:,} before them"
    locks = [one.lock_ms for each in rounds for one in each.values()]

    def took(name: str) -> list[float]:
        return [each[name].took_s for each in rounds]

    return [
        Line("rollback at once", took("at_once"), size, "at most", SECONDS_MAX, "s"),
        Line(f"rollback after {day}, followed by workers", took("followed"), size, "at most", SECONDS_MAX, "s"),
        Line(
            f"rollback after {day} that nobody followed",
            took("unfollowed"),
            f"{PROCESSES} processes bring it up first; table locked at most {shown(max(locks), 'ms')}",
            unit="s",
        ),
    ]
