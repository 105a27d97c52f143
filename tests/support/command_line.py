"""The command line as users meet it: a process of its own, its exit code, and what it writes where."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from psycopg.conninfo import make_conninfo

from position_ledger.cli import running as cli_running
from position_ledger.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from click import Command

LIMIT_S = 60.0
MAIN = "from position_ledger.cli import main; main()"
REBUILD = "from position_ledger.cli import rebuild_projection; rebuild_projection()"
"""What the two console scripts run."""

PROGRAMS: dict[str, tuple[str, Callable[[], Command]]] = {
    MAIN: ("position-ledger", lambda: app),
    REBUILD: ("rebuild-projection", lambda: app.command_named("rebuild-projection")),
}
"""The same by name and command."""


@dataclass(frozen=True)
class Answer:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output; fails if there is anything else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Runs commands with the settings of one environment."""

    settings: Mapping[str, str]

    def __call__(self, *arguments: str, entry: str = MAIN, **more: str) -> Answer:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", entry, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            env=self.environment(**more),
            timeout=LIMIT_S,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command whose life the test decides about."""
        return subprocess.Popen(
            [sys.executable, "-P", "-c", MAIN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Ours without its settings of the ledger and the width of a terminal, with those of the test."""
        dropped = ("POSITION_LEDGER_", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        return {**kept, "PYTHONPATH": path, "PYTHONUTF8": "1", **self.settings, **more}


@dataclass(frozen=True)
class InThisProcess(CommandLine):
    """Runs commands where the test runs: what they read and write is the same, and nothing has to start first.

    For what a command says. Its life as a process (signals, kills, a closed pipe, what it imports) needs one of its own.
    """

    def __call__(self, *arguments: str, entry: str = MAIN, **more: str) -> Answer:
        """Run a command to its end."""
        if entry not in PROGRAMS:
            return super().__call__(*arguments, entry=entry, **more)
        program, command = PROGRAMS[entry]
        out, err = StringIO(), StringIO()
        environment = patch.dict(os.environ, self.environment(**more), clear=True)
        with environment, redirect_stdout(out), redirect_stderr(err):
            code = cli_running.run(command(), program, arguments)
        return Answer(code, out.getvalue(), err.getvalue())


def in_this_process(database_url: str) -> CommandLine:
    """The command line for a database, without a process for each command."""
    return InThisProcess(on(database_url).settings)


def on(database_url: str, redis_url: str = "unix:///nowhere/valkey.sock") -> CommandLine:
    """The command line for servers that a test has."""
    return CommandLine(
        {
            "POSITION_LEDGER_DATABASE_URL": database_url,
            "POSITION_LEDGER_REDIS_URL": redis_url,
            "POSITION_LEDGER_INCIDENTS": incidents(),
        }
    )


@cache
def incidents() -> str:
    """Where the incident notes of tests go, instead of into the working directory; removed at the end."""
    folder = tempfile.mkdtemp(prefix="position-ledger-incidents-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def as_role(database_url: str, role: str) -> str:
    """The same database, entered as another role."""
    return make_conninfo(database_url, user=role)
