"""One reading process of the demo: reads all the time, and tells the longest it ever had to wait.

It says so in a line when it has read for the first time, and reports in another when its input closes.
"""

from __future__ import annotations

import json
import select
import sys
import time

from position_ledger.database import connect
from position_ledger.settings import load_settings

READ = """
SELECT p.position_id, p.quantity, p.unrealized_pnl FROM positions AS p
 WHERE p.row_current_ind AND p.id > %s ORDER BY p.id DESC LIMIT 20
"""
READ_VIEW = """
SELECT o.position_id, o.quantity, o.unrealized_pnl FROM open_positions AS o ORDER BY o.entry_time DESC LIMIT 20
"""
PAUSE_S = 0.002


def main() -> None:
    """Read table and view by turns, prepared, until the input closes; report reads, errors and the longest read."""
    settings = load_settings()
    reads = errors = 0
    longest_s = 0.0
    with connect(str(settings.database_url), settings, as_app=True, name="demo reader") as connection:
        while not reads or not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            started = time.perf_counter()
            try:
                if reads % 2:
                    connection.execute(READ_VIEW, prepare=True).fetchall()
                else:
                    connection.execute(READ, (0,), prepare=True).fetchall()
            except Exception as error:  # noqa: BLE001 - every kind counts
                errors += 1
                sys.stderr.write(f"read failed: {error}\n")
            longest_s = max(longest_s, time.perf_counter() - started)
            reads += 1
            if reads == 1:
                sys.stdout.write("reading\n")
                sys.stdout.flush()
    sys.stdout.write(json.dumps({"reads": reads, "errors": errors, "longest_ms": longest_s * 1000}) + "\n")


if __name__ == "__main__":
    main()
