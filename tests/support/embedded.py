"""Processes that use the embedded servers, for tests that start, kill and count them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import position_ledger.embedded
from position_ledger.embedded.__main__ import stop
from position_ledger.embedded.process import holders, wait_until
from position_ledger.embedded.state import Phase, State, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from position_ledger.embedded.layout import Layout

SOURCE = Path(position_ledger.embedded.__file__).parents[2]
LIMIT_S = 30.0
USER = """
import json, sys
from pathlib import Path
from position_ledger.embedded import EmbeddedServers
from position_ledger.errors import LedgerError
try:
    servers = EmbeddedServers.start(Path(sys.argv[1]))
except LedgerError as error:
    answer = {"error": type(error).__name__, "text": str(error)}
else:
    answer = {"database_url": servers.database_url, "redis_url": servers.redis_url, "place": str(servers.place)}
print(json.dumps(answer), flush=True)
sys.stdin.read()
"""
"""Joins, says so on one line, and stays until its standard input ends."""


class UserProcess:
    """A process of its own that uses the servers of `home` from its first answer until `leave` or `kill9`."""

    def __init__(self, home: Path, *, prefix: Sequence[str] = (sys.executable,), code: str = USER) -> None:
        self._process = subprocess.Popen(
            [*prefix, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._answer: dict[str, Any] | None = None

    @property
    def answer(self) -> Mapping[str, Any]:
        """What the process found; waits for it."""
        if self._answer is None:
            assert self._process.stdout is not None
            self._answer = json.loads(self._process.stdout.readline())
        return self._answer

    def leave(self) -> None:
        """Let the process end by itself, and wait for its end."""
        self._process.communicate(timeout=LIMIT_S)

    def kill9(self) -> None:
        """End the process as no process wants to end."""
        self._process.kill()
        self._process.communicate(timeout=LIMIT_S)


def environment() -> dict[str, str]:
    """Our environment for a child, with our source on its path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *filter(None, sys.path)])}


def ready_state(layout: Layout, *, other_than: State | None = None) -> State:
    """Wait until the servers run, all of them with other process ids than those of an earlier state that changed."""
    found: list[State] = []

    def is_ready() -> bool:
        state = read_state(layout.state_file)
        if state is None or state.phase is not Phase.READY or state == other_than:
            return False
        found.append(state)
        return True

    assert wait_until(is_ready, LIMIT_S), f"not ready: {read_state(layout.state_file)}"
    return found[-1]


def kill9(pid: int) -> None:
    """Kill a process with SIGKILL and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: is_gone(pid), LIMIT_S)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    return True


def server_processes(layout: Layout) -> list[int]:
    """Every process of the two servers, by the locks that all of them hold."""
    return [*holders(layout.control / "postgres.lock"), *holders(layout.control / "valkey.lock")]


def wait_until_stopped(layout: Layout, limit_s: float = LIMIT_S) -> float:
    """Wait until no process of the servers and no supervisor is left; return how long that took."""
    began_s = time.monotonic()
    locks = ("postgres.lock", "valkey.lock", "users.lock")  # the supervisor has the last one open
    assert wait_until(lambda: not any(holders(layout.control / name) for name in locks), limit_s), "still running"
    return time.monotonic() - began_s


def stop_now(layout: Layout) -> None:
    """Stop servers that nobody uses any more without waiting out their linger time."""
    assert stop(layout) == (True, "stopped")
    wait_until_stopped(layout)


def remove(folder: Path) -> None:
    """Remove a data folder, again when servers that were still running wrote to it meanwhile."""

    def is_removed() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    assert wait_until(is_removed, LIMIT_S), f"{folder} stays"
