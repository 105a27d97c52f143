"""Reports over all positions: exposure, and realized profit and loss by day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_for_reading
from position_ledger.cli.options import LedgerGroup, as_json, command, environments, form, since, until
from position_ledger.cli.output import Column, write_rows
from position_ledger.cli.stale import warn_if_stale
from position_ledger.reporting import exposure as exposures
from position_ledger.reporting import pnl as pnls

if TYPE_CHECKING:
    from collections.abc import Sequence

EXPOSURE = (
    Column("positions", "positions", 5, is_number=True),
    Column("cost", "cost", is_number=True),
    Column("market_value", "value", 1, is_number=True),
    Column("net_value", "net value", 4, is_number=True),
    Column("unrealized_pnl", "unrealized", 2, is_number=True),
    Column("worst_case_loss", "can lose", is_number=True),
    Column("unbounded", "unbounded", 6, is_number=True),
)
GROUPS = {"market": True, "strategy": False, "account": True}
"""By what exposure can be grouped, and whether its names may be long."""
PNL = (
    Column("day", "day"),
    Column("execution_environment", "env"),
    Column("currency", "currency"),
    Column("realized_pnl", "realized", is_number=True),
    Column("restatement", "restatement", 1, is_number=True),
    Column("effective_pnl", "effective", 2, is_number=True),
    Column("recorded_pnl", "recorded", 3, is_number=True),
)

group = LedgerGroup(
    name="report",
    help="""What a desk asks of all positions together.

    Every report names its environments, and nothing is ever summed over environments or currencies.

    \b
    Examples:
      position-ledger report exposure --environment live
      position-ledger report pnl --environment live --zone America/New_York""",
)

plot = click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw it too; needs matplotlib."
)


@command(
    """Exposure of open positions: cost, value at the last marks, what is unrealized, and the most that they can lose.

    YES and NO of one market do not offset each other. What a SHORT can lose has no bound: its group says none.

    \b
    Examples:
      position-ledger report exposure --environment live
      position-ledger report exposure --environment paper --by strategy --json
    """
)
@environments
@click.option(
    "--by", type=click.Choice(list(exposures.BY)), default="market", show_default=True, help="What a line is about."
)
@plot
@form
@as_json
def exposure(*, environment: Sequence[str], by: str, plot: Path | None, form: str, as_json: bool) -> None:
    """Read, draw and render."""
    with open_for_reading() as ledger:
        warn_if_stale(ledger, "positions")
        rows = ledger.exposure(environment=environment, by=by)
    column = exposures.BY[by]
    if plot is not None:
        from position_ledger.reporting.plot import plot_exposure  # noqa: PLC0415 - rarely asked for

        plot_exposure(rows, column, plot)
    named = [Column(column, by, is_long=GROUPS[by])] if column else []
    leading = [Column("execution_environment", "env"), Column("currency", "currency")]
    names = [*(one.name for one in (*leading, *named)), *exposures.COLUMNS]
    write_rows([*named, *leading, *EXPOSURE], names, rows, "group", "json" if as_json else form)


@command(
    """Realized profit and loss by day, net of fees.

    By effective day: what happened on it, with present knowledge. By recorded day: what the ledger booked on it.
    restatement is the first less the second: what was learned about the day afterwards.

    \b
    Examples:
      position-ledger report pnl --environment live --zone America/New_York
      position-ledger report pnl --environment live --by recorded --since 2026-03-01 --plot pnl.png
    """
)
@environments
@click.option(
    "--by", type=click.Choice(pnls.AXES), default="effective", show_default=True, help="Which day money is put on."
)
@click.option("--zone", default="UTC", show_default=True, metavar="ZONE", help="Time zone in which days begin and end.")
@since
@until
@click.option("--account", metavar="A", help="Only of this account.")
@click.option("--market", metavar="M", help="Only in this market.")
@click.option("--strategy", type=click.IntRange(min=1), metavar="S", help="Only of this strategy.")
@plot
@form
@as_json
def pnl(*, plot: Path | None, form: str, as_json: bool, by: str, zone: str, **asked: Any) -> None:
    """Read, draw and render."""
    with open_for_reading() as ledger:
        warn_if_stale(ledger, "positions")
        rows = ledger.pnl(by=by, zone=zone, **asked)
    if plot is not None:
        from position_ledger.reporting.plot import plot_pnl  # noqa: PLC0415 - rarely asked for

        plot_pnl(rows, by, zone, plot)
    write_rows(PNL, pnls.COLUMNS, rows, "line", "json" if as_json else form)


group.add_command(exposure)
group.add_command(pnl)
