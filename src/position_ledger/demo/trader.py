"""One trading process of the demo: sends commands until its standard input closes, then settles and reports."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Sequence

from position_ledger import Command, Ledger
from position_ledger.demo.market import Trader


def main(arguments: Sequence[str]) -> None:
    """``SEED ACCOUNTS COMMANDS_MIN``: trade at least so many commands, and on until the input closes."""
    seed, accounts, commands_min = int(arguments[0]), arguments[1].split(","), int(arguments[2])
    trader = Trader(seed, accounts)
    commands = events = token = 0
    started = time.perf_counter()
    with Ledger.open() as ledger:

        def send(batch: list[Command]) -> None:
            nonlocal commands, events, token
            results = ledger.execute_many(batch)
            for command, executed in zip(batch, results, strict=True):
                trader.note(command, executed)
            commands += len(batch)
            events += sum(executed.events for executed in results)
            token = max(token, *(executed.token for executed in results))

        while commands < commands_min or not _told_to_finish():
            for batch in trader.round():
                send(batch)
        for batch in trader.settlement():
            send(batch)
    report = {"commands": commands, "events": events, "token": token, "seconds": time.perf_counter() - started}
    sys.stdout.write(json.dumps(report) + "\n")


def _told_to_finish() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main(sys.argv[1:])
