"""The command line. Console scripts point here; everything else is loaded by the command that needs it."""

from __future__ import annotations

import sys

from position_ledger.cli.app import app
from position_ledger.cli.running import run

__all__ = ["main", "rebuild_projection"]


def main() -> None:
    """`position-ledger`: run one command and end the process with its exit code."""
    sys.exit(run(app, "position-ledger", sys.argv[1:]))


def rebuild_projection() -> None:
    """`rebuild-projection`: the same as `position-ledger rebuild-projection`, as a program of its own."""
    command = app.command_named("rebuild-projection")
    sys.exit(run(command, "rebuild-projection", sys.argv[1:]))
