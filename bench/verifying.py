"""How fast verify proves a table, beside what cannot be avoided: one hash of all of it, and folding its log alone."""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

from bench.arena import Arena, Servers
from bench.booked.log import make_log
from bench.plan import Plan
from bench.report import Line, shown
from position_ledger.database import only_row
from position_ledger.events import EVENTS
from position_ledger.operations import RebuildOptions, rebuild
from position_ledger.operations.common import owner, projection_named
from position_ledger.projection import generations
from position_ledger.projection.loading import replayed
from position_ledger.projection.provers import provers
from position_ledger.projection.references import Resolver
from position_ledger.projection.snapshots import reach
from position_ledger.projection.verification import table_equals_log
from position_ledger.store.codec import Codec

TABLE = "positions"
PROCESSES = 2
MEMORY_MB_MAX = 256.0
FLOOR = "SELECT count(*), bit_xor(hash_record_extended(p, 0)) FROM positions AS p"

Run = dict[str, float]


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """One log, one table made of it; the ways to look at it in turn."""
    with servers.arena() as arena:
        events = make_log(arena, plan.verified_events)
        options = RebuildOptions(processes=PROCESSES, accept_differences=True)
        rebuild(arena.settings, arena.reached, TABLE, options=options, tell=lambda _message: None)
        runs = [_round(arena) for _ in range(plan.rounds)]
    return _lines(events, runs), {"events": events, "rounds": runs}


def _round(arena: Arena) -> Run:
    found = {"floor_s": _floor(arena), "fold_s": _alone(arena, 0)["took_s"]}
    for processes in (1, PROCESSES):
        one = _alone(arena, processes)
        found |= {f"verify_{processes}_s": one["took_s"], f"memory_{processes}_mb": one["memory_mb"]}
    return found


def _floor(arena: Arena) -> float:
    with closing(arena.connect()) as connection:
        began = time.perf_counter()
        connection.execute(FLOOR)
        return time.perf_counter() - began


def _alone(arena: Arena, processes: int) -> Run:
    """In a process of its own, whose memory is its own; with none it only folds."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_proven if processes else _folded, arena, processes).result()


def _proven(arena: Arena, processes: int) -> Run:
    projection = projection_named(arena.settings, TABLE)
    with (
        owner(arena.settings, arena.reached) as connection,
        provers(arena.database_url, arena.settings, processes) as crew,
    ):
        live = generations.active(connection, TABLE)
        if live is None:
            raise RuntimeError("there is no live table")
        began = time.perf_counter()
        proof = table_equals_log(connection, projection, live, crew)
        took_s = time.perf_counter() - began
    if proof.difference is not None:
        raise RuntimeError(str(proof.difference))
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"took_s": took_s, "memory_mb": kilobytes / 1024}


def _folded(arena: Arena, _processes: int) -> Run:
    projection = projection_named(arena.settings, TABLE)
    with owner(arena.settings, arena.reached) as connection:
        live = generations.active(connection, TABLE)
        if live is None:
            raise RuntimeError("there is no live table")
        resolver = Resolver(Codec(EVENTS), projection.folds)
        began = time.perf_counter()
        rows = 0
        for chunk in reach(connection, live).chunks():
            rows += sum(len(batch.versions) for batch in replayed(connection, projection, resolver, chunk))
        took_s = time.perf_counter() - began
        (stored,) = only_row(connection.execute("SELECT count(*) FROM positions"))
    if rows != stored:
        raise RuntimeError(f"{rows} rows were folded, the table has {stored}")
    return {"took_s": took_s, "memory_mb": 0.0}


def _lines(events: int, runs: list[Run]) -> list[Line]:
    def rates(name: str) -> list[float]:
        return [events / one[name] for one in runs]

    fold, floor = max(rates("fold_s")), max(rates("floor_s"))
    name = f"verify of {events:,} rows"
    return [
        Line(f"{name}, rows a second", rates("verify_1_s"), f"one hash of the table: {shown(floor)}/s", unit="/s"),
        Line(f"{name}, {PROCESSES} processes", rates(f"verify_{PROCESSES}_s"), unit="/s"),
        Line(
            f"{name}, of folding alone",
            [one["fold_s"] / one["verify_1_s"] for one in runs],
            f"folding its log: {shown(fold)}/s",
        ),
        Line(
            "verify, memory of the largest process",
            [max(one["memory_1_mb"], one[f"memory_{PROCESSES}_mb"]) for one in runs],
            f"1 and {PROCESSES} processes",
            "at most",
            MEMORY_MB_MAX,
            "MB",
        ),
    ]
