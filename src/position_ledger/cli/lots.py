"""Lots of one position: which entries each exit used up, by a method of choice."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from position_ledger.cli.opening import open_for_reading
from position_ledger.cli.options import REFERENCE, as_json, command
from position_ledger.cli.output import Column, plain, write_json, write_lines, write_table
from position_ledger.domain.lots import Method

if TYPE_CHECKING:
    from position_ledger.domain.lots import Lots

EXITS = (
    Column("left_at", "left (UTC)"),
    Column("quantity", "quantity", is_number=True),
    Column("price", "price", is_number=True),
    Column("amount", "amount", 2, is_number=True),
    Column("fee", "fee", 3, is_number=True),
    Column("gross", "gross", is_number=True),
    Column("net", "net", 1, is_number=True),
    Column("lots", "lots", 4, is_number=True),
)
OPEN = (
    Column("entered_at", "entered (UTC)"),
    Column("quantity", "quantity", is_number=True),
    Column("price", "price", is_number=True),
    Column("cost", "cost", is_number=True),
    Column("fees", "fees", 1, is_number=True),
)


@command(
    """Which entries each exit of a position used up, what each realized that way, and the lots that are left.

    A report over the same events; the ledger itself books at average cost. Busted trades are out, corrections are in,
    and fills count in the order of the venue.

    \b
    Examples:
      position-ledger lots POS-1 --method fifo
      position-ledger lots POS-1 --method hifo --json
    """
)
@REFERENCE
@click.option(
    "--method",
    type=click.Choice([method.value for method in Method]),
    default=Method.FIFO.value,
    show_default=True,
    help="What an exit uses up first.",
)
@as_json
def lots(*, reference: str, method: str, as_json: bool) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        report = ledger.lots(reference, method=method)
    if as_json:
        write_json(asdict(report))
    else:
        _write(report)


def _write(report: Lots) -> None:
    exits = [asdict(one) | {"lots": len(one.used)} for one in report.exits]
    if exits:
        write_table(EXITS, exits)
    write_lines(
        [f"{len(exits):,} exits by {report.method.value}: gross {plain(report.gross)}, net {plain(report.net)}"]
    )
    if report.open:
        write_table(OPEN, [asdict(lot) for lot in report.open])
    write_lines([f"{len(report.open):,} open lots"])
