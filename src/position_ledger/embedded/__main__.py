"""For people: python -m position_ledger.embedded [status | stop] [HOME]."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from position_ledger.embedded import locks
from position_ledger.embedded.layout import Layout, database_url, default_home, open_layout, redis_url
from position_ledger.embedded.process import wait_until
from position_ledger.embedded.state import State, read_state
from position_ledger.errors import LedgerError

STOP_LIMIT_S = 40.0


def main(arguments: list[str] | None = None) -> int:
    """Answer or do; exit code 0 they run or were stopped, 1 they do not run or are in use, 2 not possible."""
    parser = argparse.ArgumentParser(prog="python -m position_ledger.embedded", description=__doc__)
    parser.add_argument("action", choices=("status", "stop"), nargs="?", default="status")
    parser.add_argument("home", type=Path, nargs="?")
    options = parser.parse_args(arguments)
    home = options.home or os.environ.get("POSITION_LEDGER_HOME") or default_home()
    try:
        layout = open_layout(Path(home))
        done, text = (status if options.action == "status" else stop)(layout)
    except (LedgerError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(text)  # noqa: T201
    return 0 if done else 1


def status(layout: Layout) -> tuple[bool, str]:
    """Say whether the servers run, where their files are, and how to reach them."""
    state = _live_state(layout)
    if state is None:
        return False, f"stopped; files in {layout.place}"
    folder = Path(state.socket_folder)
    lines = [
        f"{state.phase}; files in {layout.place}",
        f"supervisor {state.supervisor_pid}, PostgreSQL {state.postgres_pid}, Valkey {state.valkey_pid}",
        *([state.problem] if state.problem else [database_url(folder), redis_url(folder)]),
    ]
    return True, "\n".join(lines)


def stop(layout: Layout) -> tuple[bool, str]:
    """Stop the servers now, if nobody uses them; those who join meanwhile wait and start them again."""
    users_fd = locks.open_lock_file(layout.users_lock)
    try:
        state = _live_state(layout)
        if state is None:
            return True, "stopped"
        if not locks.try_lock(users_fd):
            return False, "in use; they stop by themselves when the last process that uses them has ended"
        os.kill(state.supervisor_pid, signal.SIGTERM)
        has_ended = wait_until(lambda: not _is_supervised(layout), STOP_LIMIT_S)
        return has_ended, "stopped" if has_ended else f"not stopped after {STOP_LIMIT_S:g} s"
    finally:
        os.close(users_fd)


def _live_state(layout: Layout) -> State | None:
    """Return the report of a living supervisor."""
    return read_state(layout.state_file) if _is_supervised(layout) else None


def _is_supervised(layout: Layout) -> bool:
    """Whether a supervisor lives; its lock is free otherwise."""
    fd = locks.open_lock_file(layout.supervisor_lock)
    try:
        return not locks.try_lock(fd, shared=True)
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
