"""Processes that do one thing as fast as they can for a window of time, all at once, when told."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench.arena import Arena

START_AHEAD_S = 0.05
"""Every process is told the same moment to begin, this far ahead."""

ANSWER_LIMIT_S = 120.0
FAILED = "failed"

Subjects = Mapping[str, Callable[[], int]]
"""By name: what one process does again and again; answers how many it has done."""

Role = Callable[[Arena, int], AbstractContextManager[Subjects]]
"""Prepares one process (given its number) and gives what it can do. A module-level function."""


@dataclass(frozen=True, slots=True)
class Window:
    """What some processes did in one window of time, together."""

    done: int
    per_s: float
    cpu_us: float
    """CPU time of the processes themselves (user and system) for each thing done, in microseconds."""
    failed: int
    """Calls that did nothing."""
    times_ms: Sequence[float]
    """How long each call took, in order of length, in milliseconds; the pauses between them are not in it."""


class Crew:
    """Processes of one role, waiting for orders."""

    def __init__(self, orders: Sequence[Connection[Any, Any]], processes: Sequence[Any]) -> None:
        self.orders = orders
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        """The process ids."""
        return [process.pid for process in self._processes]

    def run(self, what: str, seconds: float, *, count: int | None = None, every_s: float = 0.0) -> Window:
        """Let the first ``count`` processes (None: all) do something for a while, side by side.

        Each begins a call every ``every_s`` seconds, or when the one before has ended if that is later.
        """
        chosen = self.orders[:count]
        begin = time.monotonic() + START_AHEAD_S
        for order in chosen:
            order.send((what, begin, seconds, every_s))
        answers = [_answer(order) for order in chosen]
        done = sum(answer[0] for answer in answers)
        cpu_s = sum(answer[2] for answer in answers)
        times_ms = sorted(time_ms for answer in answers for time_ms in answer[3])
        per_s = sum(answer[0] / answer[1] for answer in answers)
        return Window(done, per_s, cpu_s / max(done, 1) * 1e6, sum(answer[4] for answer in answers), times_ms)


@contextmanager
def crew(role: Role, arena: Arena, count: int) -> Iterator[Crew]:
    """Start the processes of a role and wait until all are prepared; they end with the block."""
    context = multiprocessing.get_context("spawn")
    orders, processes = [], []
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(role, arena, number, theirs), daemon=True)
            process.start()
            theirs.close()
            orders.append(ours)
            processes.append(process)
        for order in orders:
            _answer(order)
        yield Crew(orders, processes)
        for order in orders:
            order.send(None)
        for process in processes:
            process.join(ANSWER_LIMIT_S)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(order: Connection[Any, Any]) -> Any:
    if not order.poll(ANSWER_LIMIT_S):
        raise TimeoutError(f"a process of the benchmark gave no answer for {ANSWER_LIMIT_S:.0f} s")
    answer = order.recv()
    if answer and answer[0] == FAILED:
        raise RuntimeError(f"a process of the benchmark failed: {answer[1]}")
    return answer


def _serve(role: Role, arena: Arena, number: int, orders: Connection[Any, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with role(arena, number) as subjects:
            orders.send(())
            while (order := orders.recv()) is not None:
                orders.send(_window(subjects[order[0]], *order[1:]))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - told to the process that shows it
        orders.send((FAILED, f"{type(error).__name__}: {error}"))


def _window(
    do: Callable[[], int], begin: float, seconds: float, every_s: float
) -> tuple[int, float, float, list[float], int]:
    """Do it until the time is up: how many, wall seconds, CPU seconds, milliseconds of each call, calls without result."""
    time.sleep(max(0.0, begin - time.monotonic()))
    started, cpu, end, done, failed = time.perf_counter(), time.process_time(), begin + seconds, 0, 0
    times_ms: list[float] = []
    due = begin
    while time.monotonic() < end:
        called = time.perf_counter()
        some = do()
        times_ms.append((time.perf_counter() - called) * 1000)
        done += some
        failed += not some
        if every_s:
            due = max(due + every_s, time.monotonic())
            time.sleep(max(0.0, min(due, end) - time.monotonic()))
    return done, time.perf_counter() - started, time.process_time() - cpu, times_ms, failed
