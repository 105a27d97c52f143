"""Rebuilds of a growing log while others read the table: speed, linearity, memory, and what the readers notice."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from bench.seeding import lives, seed
from position_ledger.operations import RebuildOptions, rebuild

PROCESSES = 2
READERS = 2
READ_EVERY_S = 0.002
MEMORY_MB_MAX = 256.0
FORETOLD_OFF_MAX = 0.15
"""How far off the end may be that was foretold after the first tenth."""

LINEAR_MAX = 1.25
"""How much longer than in proportion the largest rebuild may take; 1 is exactly linear."""

ANSWER_LIMIT_S = 300.0


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Seed to each size in turn and rebuild under readers."""
    runs: list[dict[str, Any]] = []
    with servers.arena() as arena:
        with arena.ledger() as ledger:
            models = lives(arena, ledger)
        there = sum(len(life) for life in models)
        for size in plan.rebuild_events:
            began = time.perf_counter()
            seed(arena, models, size - there)
            there = size
            seed_s = time.perf_counter() - began
            runs.append({**_rebuild(arena), "log": size, "seed_s": seed_s})
    return _lines(runs), {"runs": runs}


def _rebuild(arena: Arena) -> dict[str, Any]:
    with _child(_read, arena, READERS) as readers:
        with _child(_rebuild_once, arena, 1) as worker:
            found = _answer(worker[0])
        for reader in readers:
            reader.send(None)
        seen = [_answer(reader) for reader in readers]
    reads = sum(one["reads"] for one in seen)
    errors = sum(one["errors"] for one in seen)
    return {**found, "reads": reads, "read_errors": errors, "slowest_read_ms": max(one["slowest_ms"] for one in seen)}


def _rebuild_once(arena: Arena, orders: Connection[Any, Any]) -> None:
    began = time.perf_counter()
    report = rebuild(
        arena.settings, arena.reached, "positions", options=RebuildOptions(processes=PROCESSES), tell=lambda _: None
    )
    figures = {name: value for name, value in asdict(report).items() if isinstance(value, (int, float))}
    took_s = time.perf_counter() - began
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = sum(one.ru_utime + one.ru_stime for one in (own, children))
    memory_mb = max(_peak_mb(), children.ru_maxrss / 1024)
    orders.send({**figures, "took_s": took_s, "cpu_us": cpu_s / report.events * 1e6, "memory_mb": memory_mb})


def _peak_mb() -> float:
    """Peak resident memory of this process, from its own address space only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _read(arena: Arena, orders: Connection[Any, Any]) -> None:
    """Read one position by its id again and again until told to stop."""
    reads = errors = 0
    slowest_s = 0.0
    with arena.ledger() as ledger:
        position_id = ledger.positions(market="BENCH-YES")[0]["position_id"]
        while not orders.poll(READ_EVERY_S):
            began = time.perf_counter()
            try:
                ledger.position(position_id)
            except Exception:  # noqa: BLE001 - any error is what is counted
                errors += 1
            slowest_s = max(slowest_s, time.perf_counter() - began)
            reads += 1
    orders.send({"reads": reads, "errors": errors, "slowest_ms": slowest_s * 1000})


@contextmanager
def _child(what: Any, arena: Arena, count: int) -> Iterator[list[Connection[Any, Any]]]:
    """Processes of this module; they are ended with the block."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=what, args=(arena, theirs))
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        yield ends
        for process in processes:
            process.join(ANSWER_LIMIT_S)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(end: Connection[Any, Any]) -> dict[str, Any]:
    if not end.poll(ANSWER_LIMIT_S):
        raise TimeoutError(f"a process of the benchmark gave no answer for {ANSWER_LIMIT_S:.0f} s")
    answer: dict[str, Any] = end.recv()
    return answer


def _lines(runs: list[dict[str, Any]]) -> list[Line]:
    def work_s(run: dict[str, Any]) -> float:
        return float(run["load_s"] + run["index_s"])

    first, last = runs[0], runs[-1]
    linear = work_s(last) / work_s(first) / (last["events"] / first["events"])
    rates = [run["events"] / run["load_s"] for run in runs]
    sizes = ", ".join(f"{run['log'] // 1000}k: {shown(work_s(run), 's')}" for run in runs)
    memory = [float(run["memory_mb"]) for run in runs]
    reads = sum(run["reads"] for run in runs)
    errors = sum(run["read_errors"] for run in runs)
    name = f"{last['events']:,} events"
    foretold = [abs(run["expected_s"] / run["took_s"] - 1) for run in runs[1:] if "expected_s" in run]
    return [
        Line(
            "rebuild, end foretold after a tenth, off by",
            foretold or [1.0],
            "all sizes but the first, which the others learn from",
            "at most",
            FORETOLD_OFF_MAX,
        ),
        Line(f"rebuild of {name}, of proportional", [linear], f"load and indexes: {sizes}", "at most", LINEAR_MAX),
        Line("rebuild, CPU time of its processes an event", [run["cpu_us"] for run in runs], "all sizes", unit="us"),
        Line(
            "rebuild, memory of the largest process", memory, f"{PROCESSES} processes", "at most", MEMORY_MB_MAX, "MB"
        ),
        Line("rebuild, events loaded a second", rates, f"indexes of {name}: {shown(last['index_s'], 's')}", unit="/s"),
        Line(
            "swap, table locked",
            [float(run["swap_lock_ms"]) for run in runs],
            f"{READERS} readers: {reads:,} reads, {errors} errors, slowest "
            f"{shown(max(run['slowest_read_ms'] for run in runs), 'ms')}",
            unit="ms",
        ),
    ]
