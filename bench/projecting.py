"""Live projecting by real workers: how fast they drain a backlog, against its writers and against the library's runner."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.append import WRITERS
from bench.arena import Arena, Servers
from bench.crew import crew
from bench.plan import Plan
from bench.report import Line, shown
from bench.stock import stock_runner
from bench.workers import Workers, wait_until_visible, workers
from bench.writers import POSITIONS, PRICES, open_positions, writer
from position_ledger import Ledger, MarkPosition
from position_ledger.store import feed

WORKERS = 2
OF_WRITERS_MIN = 2.0
OF_STOCK_MIN = 20.0
BATCH_COMMANDS = 500


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """In each round: writers alone, then the workers alone on what they left, then the library's runner on the same."""
    rounds: list[dict[str, float]] = []
    with (
        servers.arena() as arena,
        arena.ledger() as ledger,
        workers(arena, WORKERS) as followers,
        crew(writer, arena, WRITERS) as writers,
        crew(stock_runner, arena, 1) as stock,
    ):
        top_up = _batches(ledger)
        for round_number in range(plan.rounds + 1):
            followers.pause()
            appended = writers.run("ledger", plan.window_s)
            backlog = appended.done + top_up(plan.backlog_events - appended.done)
            drained_per_s = _drain(arena, followers, backlog)
            row_by_row = stock.run("stock", plan.stock_window_s)
            if round_number:  # the first one warms up
                rounds.append(
                    {
                        "appended_per_s": appended.per_s,
                        "backlog_events": backlog,
                        "drained_per_s": drained_per_s,
                        "stock_per_s": row_by_row.per_s,
                        "stock_cpu_us": row_by_row.cpu_us,
                    }
                )
    return _lines(rounds), {"rounds": rounds}


def _batches(ledger: Ledger) -> Callable[[int], int]:
    """Appends marks in large batches, to make a backlog that takes a while; answers how many."""
    ids = open_positions(ledger, "backlog", 10 * POSITIONS)
    marks = [MarkPosition(position_id=one, price=price) for price in PRICES for one in ids]

    def top_up(events: int) -> int:
        batches = max(0, events) // BATCH_COMMANDS
        for number in range(batches):
            begin = number * BATCH_COMMANDS % (len(marks) - BATCH_COMMANDS)
            ledger.execute_many(marks[begin : begin + BATCH_COMMANDS])
        return batches * BATCH_COMMANDS

    return top_up


def _drain(arena: Arena, followers: Workers, backlog: int) -> float:
    """Events per second from the moment the workers go on until the last event is visible."""
    with arena.connect() as connection:
        token = feed.mark(connection)
        began = time.perf_counter()
        followers.go_on()
        return backlog / (wait_until_visible(connection, token) - began)


def _lines(rounds: list[dict[str, float]]) -> list[Line]:
    def ratios(below: str) -> list[float]:
        return [one["drained_per_s"] / one[below] for one in rounds]

    def middle(name: str) -> str:
        return shown(median(one[name] for one in rounds))

    drained = middle("drained_per_s")
    return [
        Line(
            f"projecting by {WORKERS} workers, of {WRITERS} writers",
            ratios("appended_per_s"),
            f"drained {drained}/s, appended {middle('appended_per_s')}/s",
            target=OF_WRITERS_MIN,
        ),
        Line(
            "the same, of the library's runner",
            ratios("stock_per_s"),
            f"ProjectionRunner {middle('stock_per_s')}/s, drained {drained}/s",
            target=OF_STOCK_MIN,
        ),
    ]
