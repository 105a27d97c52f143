"""The command line. Console scripts point here; everything else is loaded by the command that needs it."""

from __future__ import annotations

import gc
import sys

from position_ledger.cli.app import app
from position_ledger.cli.running import run

__all__ = ["main", "rebuild_projection"]


NEW_OBJECTS_MAX = 100_000
"""Objects that a command makes before the collector of cycles looks for some: most commands are over by then, and what they
parse, sources and definitions, would be walked through again and again."""


def main() -> None:
    """`position-ledger`: run one command and end the process with its exit code."""
    gc.set_threshold(NEW_OBJECTS_MAX)
    sys.exit(run(app, "position-ledger", sys.argv[1:]))


def rebuild_projection() -> None:
    """`rebuild-projection`: the same as `position-ledger rebuild-projection`, as a program of its own."""
    command = app.command_named("rebuild-projection")
    sys.exit(run(command, "rebuild-projection", sys.argv[1:]))
