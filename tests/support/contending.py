"""Many callers on one account at once: what a test starts in threads, or ``python -m tests.support.contending`` runs.

Arguments of the module: address of the database, number of this process, threads. It says when it is ready, begins when
it is told to, and answers how often each of its commands was appended.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from position_ledger import Command, Deposit, Ledger, OpenPosition, Withdraw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NO_QUEUE = "redis://127.0.0.1:1/0"
END_LIMIT_S = 60.0


def commands_of(number: int, count: int) -> list[Command]:
    """So many commands of one caller on the account «busy»: a third each pays in, pays out, and opens a position."""
    return [_command(number, index) for index in range(count)]


def _command(number: int, index: int) -> Command:
    where: dict[str, Any] = {"environment": "paper", "account": "busy"}
    if index % 3 == 0:
        return Deposit(**where, amount=3)
    if index % 3 == 1:
        return Withdraw(**where, amount=1)
    market = f"MARKET-{number}-{index}"
    return OpenPosition(**where, market=market, side="YES", quantity=10, entry_price="0.1", fee="0.01")


@contextmanager
def counting_appends(ledger: Ledger) -> Iterator[Callable[[], int]]:
    """Count, for each thread, how often the ledger asks the database to append; answers the count of the caller's."""
    executor, counts = ledger._executor, threading.local()
    append = executor._append

    def counted(*arguments: Any) -> Any:
        counts.appends = getattr(counts, "appends", 0) + 1
        return append(*arguments)

    executor._append = counted
    try:
        yield lambda: int(getattr(counts, "appends", 0))
    finally:
        executor._append = append


def all_at_once(ledger: Ledger, commands: Sequence[Command]) -> list[int]:
    """Execute each command in a thread of its own, all begun together; answers how often each was appended.

    Raises whatever a command raises.
    """
    gate = threading.Barrier(len(commands))
    with counting_appends(ledger) as appends, ThreadPoolExecutor(len(commands)) as pool:

        def run(command: Command) -> int:
            gate.wait(END_LIMIT_S)
            ledger.execute(command)
            return appends()

        return list(pool.map(run, commands, timeout=END_LIMIT_S))


def main(url: str, number: str, threads: str) -> None:
    """Run one process of a test."""
    with Ledger.open(database_url=url, redis_url=NO_QUEUE) as ledger:
        say("ready")
        sys.stdin.readline()
        say(json.dumps(all_at_once(ledger, commands_of(int(number), int(threads)))))


def say(line: str) -> None:
    """Tell whoever has started this process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
