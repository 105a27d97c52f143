"""Settling a market of many positions with one command: how long its longest transaction is, and what memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from position_ledger import Ledger, OpenPosition, RegisterMarket

MARKET = "SETTLED"
ACCOUNTS = 50
BATCH = 500
TRANSACTION_MS_MAX = 1_000.0
GROWTH_MIB_MAX = 256.0
"""More than the streams that a ledger keeps in memory (setting streams_cached_max); whatever the market holds."""
LOOK_EVERY_S = 0.002
LONGEST = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0) * 1000
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
   AND a.backend_type = 'client backend'
"""


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Open positions, settle them in a process of its own, and look at the transactions all the while."""
    with servers.arena() as arena:
        _open(arena, plan.settled_positions)
        with _watched(arena) as longest_ms:
            found = _settle(arena)
    if found["settled"] != plan.settled_positions:
        msg = f"{found['settled']} of {plan.settled_positions} positions were settled"
        raise RuntimeError(msg)
    words = (
        f"{plan.settled_positions:,} positions in {shown(found['took_s'], 's')}, rows included; "
        f"{plan.settled_positions / found['took_s']:,.0f}/s"
    )
    lines = [
        Line("settle: longest transaction", [max(longest_ms)], words, "at most", TRANSACTION_MS_MAX, "ms"),
        Line("settle: memory beyond the idle process", [found["growth_mib"]], "", "at most", GROWTH_MIB_MAX, "MiB"),
    ]
    return lines, {"positions": plan.settled_positions, **found}


def _open(arena: Arena, positions: int) -> None:
    with arena.ledger() as ledger:
        ledger.execute(RegisterMarket(environment="paper", market=MARKET, kind="binary"))
        token = 0
        for start in range(0, positions, BATCH):
            numbers = range(start, min(start + BATCH, positions))
            done = ledger.execute_many([_opening(number) for number in numbers])
            token = max(one.token for one in done)
        ledger.wait_for(token, timeout_s=600)


def _opening(number: int) -> OpenPosition:
    return OpenPosition(
        environment="paper",
        account=f"account {number % ACCOUNTS}",
        market=MARKET,
        strategy=number // ACCOUNTS + 1,
        side=("YES", "NO")[number % 2],
        quantity=number % 20 + 1,
        entry_price=Decimal(number % 90 + 5) / 100,
    )


@contextmanager
def _watched(arena: Arena) -> Iterator[list[float]]:
    """The age of the oldest transaction, looked at all the while."""
    ages, stop = [0.0], threading.Event()

    def look() -> None:
        with closing(arena.connect()) as connection:
            while not stop.wait(LOOK_EVERY_S):
                row = connection.execute(LONGEST, prepare=True).fetchone()
                ages.append(float(str(row[0])) if row else 0.0)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield ages
    finally:
        stop.set()
        watcher.join()


def _settle(arena: Arena) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.settling", arena.database_url, arena.redis_url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(database_url: str, redis_url: str) -> None:
    """Settle, and say how long it took and how much memory."""
    with Ledger.open(database_url=database_url, redis_url=redis_url) as ledger:
        idle_kib = _memory_kib("VmRSS")
        began = time.perf_counter()
        done = ledger.settle_market("paper", MARKET, 1)
        took_s = time.perf_counter() - began
        peak_kib = _memory_kib("VmHWM")
    found = {"settled": done.settled, "took_s": round(took_s, 2), "growth_mib": round((peak_kib - idle_kib) / 1024, 1)}
    print(json.dumps(found))


def _memory_kib(field: str) -> int:
    """VmRSS: resident now; VmHWM: the most that it ever was, since this program began."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
