"""How a table is projected: by workers after the commit, or inline with it."""

from __future__ import annotations

from typing import Literal

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import command
from position_ledger.cli.running import note
from position_ledger.cli.tables import known_table
from position_ledger.operations import set_mode


@command(
    """Project a table inline (rows are there when the command returns) or by workers (commands wait for nothing).

    Commands go on meanwhile. Every process that appends needs the code of a table that is projected inline.

    \b
    Examples:
      position-ledger mode positions inline
      position-ledger mode positions worker
    """
)
@click.argument("table")
@click.argument("mode", type=click.Choice(["inline", "worker"]))
def mode(*, table: str, mode: Literal["inline", "worker"]) -> int:
    """Switch the mode and say what it is now."""
    with open_servers() as (settings, reached):
        set_mode(settings, reached, known_table(settings, table), mode, tell=note)
    return 0
