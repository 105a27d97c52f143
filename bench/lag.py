"""From the commit of a command to its visible row, in an idle system, through real dramatiq workers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import cycle
from math import ceil
from typing import Any

import psycopg

from bench.arena import Servers
from bench.plan import Plan
from bench.projecting import WORKERS
from bench.report import Line, shown
from bench.workers import workers
from bench.writers import POSITIONS, PRICES, open_positions
from position_ledger import MarkPosition

P99_MS_MAX = 25.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.01, 0.04
"""Between two commands; random, so that they do not march in step with what polls."""

LOOK_EVERY_S = 0.0005
LIMIT_S = 5.0
ROW = "SELECT 1 FROM positions AS p WHERE p.id = %s"


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Paced commands; another connection looks for the row itself."""
    with (
        servers.arena() as arena,
        workers(arena, WORKERS),
        arena.ledger() as ledger,
        arena.connect() as connection,
    ):
        pairs = zip(cycle(open_positions(ledger, "paced", POSITIONS)), cycle(PRICES), strict=False)
        lags: list[float] = []
        for number, (position_id, price) in enumerate(pairs):
            if number == plan.paced_commands + POSITIONS:
                break
            time.sleep(random.uniform(PAUSE_MIN_S, PAUSE_MAX_S))  # noqa: S311 - pacing
            token = ledger.execute(MarkPosition(position_id=position_id, price=price)).token
            lag_ms = _lag_ms(connection, token)
            if number >= POSITIONS:  # the first ones warm up
                lags.append(lag_ms)
        floor = sorted(_look_ms(connection) for _ in range(100))
    return _lines(lags, plan.rounds, floor), {"lag_ms": [round(lag, 2) for lag in lags]}


def _lag_ms(connection: psycopg.Connection[Any], token: int) -> float:
    began = time.perf_counter()
    while connection.execute(ROW, (token,), prepare=True).fetchone() is None:
        if time.perf_counter() - began > LIMIT_S:
            raise TimeoutError(f"event {token} was not projected within {LIMIT_S:.0f} s")
        time.sleep(LOOK_EVERY_S)
    return (time.perf_counter() - began) * 1000


def _look_ms(connection: psycopg.Connection[Any]) -> float:
    began = time.perf_counter()
    connection.execute(ROW, (0,), prepare=True).fetchone()
    return (time.perf_counter() - began) * 1000


def _lines(lags: Sequence[float], rounds: int, floor: Sequence[float]) -> list[Line]:
    each = ceil(len(lags) / rounds)
    parts = [sorted(lags[start : start + each]) for start in range(0, len(lags), each)]
    whole = sorted(lags)
    words = (
        f"p50 {shown(percentile(whole, 50), 'ms')}, max {shown(whole[-1], 'ms')} of {len(whole)}; "
        f"one look {shown(percentile(floor, 50), 'ms')}"
    )
    return [
        Line("commit to visible row, idle, p99", [percentile(whole, 99)], words, "at most", P99_MS_MAX, "ms"),
        Line("the same, p50 of each round", [percentile(part, 50) for part in parts], unit="ms"),
    ]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest figure that so many percent do not exceed."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]
