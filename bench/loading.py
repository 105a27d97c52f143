"""The load path alone against one hand-written INSERT … SELECT that makes the same rows and indexes from the same log.

Both begin with an empty table and end with its indexes, one after the other in rotating order, and must make the same
rows. Beside them the library's runner projects the same log with the same folds.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from statistics import median
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from bench.arena import Arena, Servers
from bench.booked.floor import DIGEST, INDEXES, INSERT, TABLE
from bench.booked.log import make_log
from bench.booked.table import BOOKED
from bench.crew import crew
from bench.plan import Plan
from bench.report import Line, shown
from bench.stock import stock_runner
from position_ledger.database import only_row
from position_ledger.projection import chunk_ledger
from position_ledger.projection.estimate import parts_for
from position_ledger.projection.index_building import build_side_by_side
from position_ledger.projection.load_crew import load
from position_ledger.store import feed

PROCESSES = 2
PACKAGE = "bench.booked"
OF_FLOOR_MIN = 0.6
PER_S_MIN = 60_000.0
OF_STOCK_MIN = 100.0
MEMORY_MB_MAX = 256.0
GROWTH_MAX = 1.1
"""How much longer than in proportion five times the events may take: 5.5 / 5."""

FLOOR_MEMORY = "256MB"
Run = dict[str, float]


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Each size in a log of its own."""
    sizes = [_size(servers, plan, events, rounds) for events, rounds in plan.load_events]
    return _lines(sizes), {"sizes": sizes}


def _size(servers: Servers, plan: Plan, events: int, rounds: int) -> dict[str, Any]:
    with servers.arena() as arena:
        made = make_log(arena, events)
        runs: list[dict[str, Run]] = []
        for number in range(rounds):
            order = [("ours", _ours), ("floor", _floor)]
            found = {name: subject(arena) for name, subject in (order if number % 2 else order[::-1])}
            _require_equal(arena)
            runs.append(found)
        return {"events": made, "rounds": runs, "stock_per_s": _row_by_row(arena, plan)}


def _ours(arena: Arena) -> Run:
    """In a process of its own, whose children are the loaders and nobody else."""
    _fresh(arena, "ours")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_load, arena).result()


def _load(arena: Arena) -> Run:
    settings = arena.settings.model_copy(update={"projections": PACKAGE})
    with closing(arena.connect()) as connection:
        upto = feed.horizon(connection)
        chunk_ledger.create(connection, "ours", upto, parts_for(upto, None))
    began = time.perf_counter()
    loaded = load(arena.database_url, settings, BOOKED, "ours", processes=PROCESSES)
    load_s = time.perf_counter() - began
    index_s = _index(arena, "ours")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_us = (children.ru_utime + children.ru_stime) / loaded.events * 1e6
    return {"load_s": load_s, "index_s": index_s, "cpu_us": cpu_us, "memory_mb": children.ru_maxrss / 1024}


def _floor(arena: Arena) -> Run:
    _fresh(arena, "floor")
    with closing(arena.connect()) as connection:
        upto = feed.horizon(connection)
        connection.execute(_path("floor"))
        connection.execute("SELECT set_config('work_mem', %s, false)", (FLOOR_MEMORY,))
        began = time.perf_counter()
        connection.execute(INSERT, {"upto": upto})
        load_s = time.perf_counter() - began
    return {"load_s": load_s, "index_s": _index(arena, "floor")}


def _fresh(arena: Arena, schema: str) -> None:
    """An empty table without indexes, and nothing left to write from before."""
    with closing(arena.connect()) as connection:
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        connection.execute(_path(schema))
        connection.execute(TABLE)
        connection.execute("CHECKPOINT")


def _index(arena: Arena, schema: str) -> float:
    """The same way for both."""
    began = time.perf_counter()
    statements = [SQL(index) for index in INDEXES]
    build_side_by_side(arena.database_url, arena.settings, statements, _path(schema, "SET LOCAL"))
    return time.perf_counter() - began


def _path(schema: str, how: str = "SET") -> Composed:
    """The schema, and the log behind it."""
    return SQL(f"{how} search_path = {{}}, ledger, pg_catalog").format(Identifier(schema))


def _require_equal(arena: Arena) -> None:
    with closing(arena.connect()) as connection:
        ours, floor = (_digest(connection, schema) for schema in ("ours", "floor"))
    if ours != floor:
        raise RuntimeError(f"the load made {ours[0]} rows, the floor {floor[0]}, and they are not the same")


def _digest(connection: psycopg.Connection[Any], schema: str) -> tuple[int, int]:
    connection.execute(_path(schema))
    count, digest = only_row(connection.execute(DIGEST))
    return count, digest


def _row_by_row(arena: Arena, plan: Plan) -> float:
    """Events a second of the library's runner, on a table with the same indexes."""
    with closing(arena.connect()) as connection:
        for statement in (TABLE, *INDEXES):
            connection.execute(statement)
    role = partial(stock_runner, package=PACKAGE, table=BOOKED.table)
    with crew(role, arena, 1) as stock:
        stock.run("stock", plan.stock_window_s)  # warms up
        return stock.run("stock", plan.stock_window_s).per_s


def _lines(sizes: list[dict[str, Any]]) -> list[Line]:
    def total_s(run: Run) -> float:
        return run["load_s"] + run["index_s"]

    def middle(size: dict[str, Any], subject: str) -> float:
        return median(total_s(one[subject]) for one in size["rounds"])

    first, last = sizes[0], sizes[-1]
    lines: list[Line] = []
    for size in sizes:
        events, rounds = size["events"], size["rounds"]
        rates = [events / total_s(one["ours"]) for one in rounds]
        ratios = [total_s(one["floor"]) / total_s(one["ours"]) for one in rounds]
        floor = f"INSERT … SELECT: {shown(events / middle(size, 'floor'))}/s"
        name = f"load of {events:,} events"
        lines += [
            Line(f"{name} and indexes, of INSERT … SELECT", ratios, floor, target=OF_FLOOR_MIN),
            Line(f"{name} and indexes, events a second", rates, f"{PROCESSES} processes", target=PER_S_MIN, unit="/s"),
        ]
    ours = [one["ours"] for size in sizes for one in size["rounds"]]
    stock_per_s = first["stock_per_s"]
    growth = middle(last, "ours") / middle(first, "ours")
    return [
        *lines,
        Line(
            "load and indexes, of the library's runner",
            [first["events"] / total_s(one["ours"]) / stock_per_s for one in first["rounds"]],
            f"ProjectionRunner {shown(stock_per_s)}/s",
            target=OF_STOCK_MIN,
        ),
        Line(
            "load, of proportional",
            [growth / (last["events"] / first["events"])],
            f"{last['events']:,} events took {growth:.2f} x as long as {first['events']:,}",
            "at most",
            GROWTH_MAX,
        ),
        Line(
            "load, memory of the largest process",
            [one["memory_mb"] for one in ours],
            f"{PROCESSES} processes",
            "at most",
            MEMORY_MB_MAX,
            "MB",
        ),
        Line("load, CPU time of its processes an event", [one["cpu_us"] for one in ours], "all sizes", unit="us"),
    ]
