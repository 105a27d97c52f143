"""The demo."""

from __future__ import annotations

from position_ledger.cli.options import command
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.demo import run


@command(
    """Run the main job end to end with real servers: a trading session through the command API, positions as they
    change, a column whose value only history knows, a rebuild under load, and the proof that tables equal log.

    \b
    Example:
      position-ledger demo
    """
)
def demo() -> int:
    """Run it; exit code 1 if what it proves does not hold."""
    return 0 if run() else ANSWER_IS_NO
