"""A rebuild beside trading: what writers, readers and the live tables notice of its load and of its swap."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from bench.arena import Arena, Servers
from bench.crew import Crew, Subjects, Window, crew
from bench.lag import LIMIT_S, LOOK_EVERY_S, ROW, percentile
from bench.plan import Plan
from bench.projecting import WORKERS
from bench.report import Line, shown
from bench.seeding import lives, seed
from bench.workers import workers
from bench.writers import POSITIONS, PRICES, open_positions, writer
from position_ledger import MarkPosition
from position_ledger.operations import RebuildOptions, rebuild

WRITERS = 8
WRITE_EVERY_S = 0.04
"""Beside a swap: 200 commands a second in all, so that readers wait for the swap and not for a core."""

READERS = 4
READ_EVERY_S = 0.002
"""2,000 reads a second in all."""

LONG_READ_S = 2.0
LONG_READ_EVERY_S = 5.0
LAG_EVERY_S = 0.03

LOCK_MS_MAX = 10.0
SLOWEST_MORE_MS_MAX = 50.0
LAG_MAX = 5.0
APPENDS_MIN = 0.8


@contextmanager
def reader(arena: Arena, number: int) -> Iterator[Subjects]:
    """Reads one current position after the other by prepared statement, or holds the table for two seconds."""
    with closing(arena.connect()) as connection:
        rows = connection.execute(
            "SELECT p.position_id FROM positions AS p WHERE p.row_current_ind LIMIT 50"
        ).fetchall()
        ids = cycle([row[0] for row in rows][number:] + [row[0] for row in rows][:number])

        def read() -> int:
            statement = "SELECT p.id, p.quantity FROM positions AS p WHERE p.position_id = %s AND p.row_current_ind"
            return _found(connection, statement, next(ids))

        def hold() -> int:
            return _found(connection, "SELECT p.id, pg_sleep(%s) FROM positions AS p LIMIT 1", LONG_READ_S)

        yield {"read": read, "hold": hold}


def _found(connection: psycopg.Connection[Any], statement: str, parameter: object) -> int:
    """1, or 0 for any error and for a row that is not there."""
    try:
        return len(connection.execute(statement, (parameter,), prepare=True).fetchall())
    except psycopg.Error:
        return 0


@contextmanager
def prober(arena: Arena, number: int) -> Iterator[Subjects]:
    """One command after the other, each until another connection sees its row."""
    with arena.ledger() as ledger, closing(arena.connect()) as connection:
        pairs = zip(cycle(open_positions(ledger, f"probe {number}", POSITIONS)), cycle(PRICES), strict=False)

        def until_visible() -> int:
            position_id, price = next(pairs)
            token = ledger.execute(MarkPosition(position_id=position_id, price=price)).token
            end = time.perf_counter() + LIMIT_S
            while connection.execute(ROW, (token,), prepare=True).fetchone() is None:
                if time.perf_counter() > end:
                    return 0
                time.sleep(LOOK_EVERY_S)
            return 1

        yield {"probe": until_visible}


@dataclass(frozen=True, slots=True)
class Seen:
    """What everybody saw in one window."""

    written: Window
    read: Window
    probed: Window


class Traders:
    """Everybody who is at work beside the rebuild."""

    def __init__(self, stack: ExitStack, arena: Arena) -> None:
        self._writers = stack.enter_context(crew(writer, arena, WRITERS))
        self._readers = stack.enter_context(crew(reader, arena, READERS + 1))
        self._prober = stack.enter_context(crew(prober, arena, 1))
        self._holder = Crew(self._readers.orders[READERS:], ())
        self._pool = stack.enter_context(ThreadPoolExecutor(4, "windows"))

    def work(self, seconds: float, *, write_every_s: float, reads: bool) -> Callable[[], Seen]:
        """Let everybody begin; the answer waits until the window is over."""
        begin = self._pool.submit
        written = begin(self._writers.run, "ledger", seconds, every_s=write_every_s)
        probed = begin(self._prober.run, "probe", seconds, every_s=LAG_EVERY_S)
        read: Future[Window] | None = None
        if reads:
            held = begin(self._holder.run, "hold", seconds, every_s=LONG_READ_EVERY_S)
            read = begin(self._readers.run, "read", seconds, count=READERS, every_s=READ_EVERY_S)

        def seen() -> Seen:
            if read is None:
                return Seen(written.result(), Window(0, 0.0, 0.0, 0, ()), probed.result())
            held.result()
            return Seen(written.result(), read.result(), probed.result())

        return seen


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Each round: trading alone, trading beside a swap; trading at full speed alone, and beside a rebuild that loads."""
    swaps: list[dict[str, Any]] = []
    loads: list[dict[str, Any]] = []
    with ExitStack() as stack:
        arena = stack.enter_context(servers.arena())
        with arena.ledger() as ledger:
            models = lives(arena, ledger)
        seed(arena, models, plan.living_events)
        _rebuild(arena, RebuildOptions(processes=2))  # the table as large as the log
        stack.enter_context(workers(arena, WORKERS))
        traders = Traders(stack, arena)
        for _ in range(plan.rounds):
            swaps.append(_swap_round(arena, traders, plan.living_window_s))
            loads.append(_load_round(arena, traders, plan.living_window_s))
    return _lines(swaps, loads), {"swaps": swaps, "loads": loads}


def _swap_round(arena: Arena, traders: Traders, seconds: float) -> dict[str, Any]:
    """The same window without and with a swap; the new table is built before."""
    alone = traders.work(seconds, write_every_s=WRITE_EVERY_S, reads=True)()
    _rebuild(arena, RebuildOptions(swap=False))
    watch = traders.work(seconds, write_every_s=WRITE_EVERY_S, reads=True)
    time.sleep(seconds / 4)
    report = _rebuild(arena, RebuildOptions())
    beside = watch()
    return {
        "lock_ms": report.swap_lock_ms,
        "attempts": report.swap_attempts,
        "reads": beside.read.done,
        "errors": beside.read.failed + beside.written.failed + beside.probed.failed,
        "slowest_ms": beside.read.times_ms[-1],
        "slowest_alone_ms": alone.read.times_ms[-1],
        "written": beside.written.done,
    }


def _load_round(arena: Arena, traders: Traders, seconds: float) -> dict[str, Any]:
    """Writers without a pause, alone and beside rebuilds that go on for the whole window."""
    alone = traders.work(seconds, write_every_s=0.0, reads=False)()
    with _rebuilding(arena) as begun:
        beside = traders.work(seconds, write_every_s=0.0, reads=False)()
        rebuilds = begun()
    return {
        "appends": beside.written.per_s,
        "appends_alone": alone.written.per_s,
        "lag_p99_ms": percentile(beside.probed.times_ms, 99),
        "lag_p99_alone_ms": percentile(alone.probed.times_ms, 99),
        "rebuilds": rebuilds,
    }


def _rebuild(arena: Arena, options: RebuildOptions) -> Any:
    return rebuild(arena.settings, arena.reached, "positions", options=options, tell=lambda _: None)


@contextmanager
def _rebuilding(arena: Arena) -> Iterator[Callable[[], int]]:
    """Rebuild again and again in a process of its own; the answer ends that, and says how many were begun."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_rebuild_until_told, args=(arena, theirs))
    process.start()

    def begun() -> int:
        ours.send(None)
        answer: int = ours.recv()
        return answer

    try:
        ours.recv()
        yield begun
    finally:
        process.join(60)
        process.kill()


def _rebuild_until_told(arena: Arena, orders: Connection[Any, Any]) -> None:
    orders.send(0)
    begun = 0
    while not orders.poll():
        _rebuild(arena, RebuildOptions(dry_run=True))
        begun += 1
    orders.send(begun)


def _lines(swaps: Sequence[dict[str, Any]], loads: Sequence[dict[str, Any]]) -> list[Line]:
    more = [one["slowest_ms"] - one["slowest_alone_ms"] for one in swaps]
    reads, errors = (sum(one[name] for one in swaps) for name in ("reads", "errors"))
    alone = sorted(one["slowest_alone_ms"] for one in swaps)
    appends = [one["appends"] / one["appends_alone"] for one in loads]
    lag = [one["lag_p99_ms"] / one["lag_p99_alone_ms"] for one in loads]
    rate = sorted(one["appends_alone"] for one in loads)[len(loads) // 2]
    idle = sorted(one["lag_p99_alone_ms"] for one in loads)[len(loads) // 2]
    return [
        Line(
            "swap beside trading, table locked",
            [one["lock_ms"] for one in swaps],
            f"{reads:,} reads, {errors} errors, tries {max(one['attempts'] for one in swaps)}",
            "at most",
            LOCK_MS_MAX,
            "ms",
        ),
        Line(
            "the same, slowest read beyond that without a swap",
            more,
            f"without: {shown(alone[len(alone) // 2], 'ms')}",
            "at most",
            SLOWEST_MORE_MS_MAX,
            "ms",
        ),
        Line(
            f"appends of {WRITERS} writers beside a rebuild, of those alone",
            appends,
            f"alone: {rate:,.0f}/s",
            "at least",
            APPENDS_MIN,
        ),
        Line(
            "lag p99 beside a rebuild, of that alone",
            lag,
            f"alone: {shown(idle, 'ms')}",
            "at most",
            LAG_MAX,
        ),
    ]
