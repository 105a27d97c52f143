"""How long `check` and `docs schema --check` take, as the command line runs them, the start of Python included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line

LIMIT_S = 3.0
MAIN = "from position_ledger.cli import main; main()"


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Seconds of each command on a migrated database; `check` has its limit from the issue that asked for it."""
    with servers.arena() as arena:
        rounds = [{name: _seconds(arena, *words) for name, words in COMMANDS.items()} for _ in range(plan.rounds)]
    figures = {name: [each[name] for each in rounds] for name in COMMANDS}
    lines = [
        Line(
            "check",
            figures["check"],
            f"a command that only starts: {min(figures['start']):.2f} s",
            "at most",
            LIMIT_S,
            "s",
        ),
        Line("docs schema --check", figures["pages"], "replays every migration", "at most", None, "s"),
    ]
    return lines, {"seconds": figures}


COMMANDS = {
    "start": ("migrate", "status"),
    "check": ("check",),
    "pages": ("docs", "schema", "--check"),
}


def _seconds(arena: Arena, *words: str) -> float:
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAIN, *words],
        env={**os.environ, "PYTHONPATH": path, "POSITION_LEDGER_DATABASE_URL": arena.database_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        msg = f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    return time.perf_counter() - begun
