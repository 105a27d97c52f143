"""Proofs: that code and schema agree, and that the tables equal the log."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import Column, write_json, write_lines, write_table
from position_ledger.cli.progress import Bar
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.cli.tables import known_table
from position_ledger.operations import check as check_all
from position_ledger.operations import verify as verify_tables

if TYPE_CHECKING:
    from position_ledger.operations import VerifyReport

COLUMNS = (
    Column("table", "table"),
    Column("events", "events", is_number=True),
    Column("position", "up to", 1, is_number=True),
    Column("rows", "rows", is_number=True),
    Column("verdict", "verdict"),
)


@command(
    """Do code, projections, queries and schema agree? Exit code 1, and a line for each, where they do not.

    \b
    Example:
      position-ledger check
    """
)
@as_json
def check(*, as_json: bool) -> int:
    """Compare and say what differs."""
    with open_servers() as (settings, reached):
        mismatches = check_all(settings, reached)
    if as_json:
        write_json({"agree": not mismatches, "mismatches": mismatches})
    else:
        write_lines(mismatches or ["code, projections, queries and schema agree"])
    return ANSWER_IS_NO if mismatches else 0


@command(
    """Do the tables equal what the event log says, and do the laws hold? Recomputes every row from the log.

    Then it adds up: quantities, gains and fees of positions from their trades, balances from postings. Notes tell of
    positions that sold more than they held and of overdrawn cash-controlled accounts; they are no failure.

    Exit code 1, and the first difference, where they do not. Everyone may go on working meanwhile.

    \b
    Examples:
      position-ledger verify
      position-ledger verify positions --json
    """
)
@click.argument("table", required=False)
@as_json
def verify(*, table: str | None, as_json: bool) -> int:
    """Recompute, compare and say what was found."""
    with open_servers() as (settings, reached), Bar() as bar:
        tables = None if table is None else [known_table(settings, table)]
        report = verify_tables(settings, reached, tables, progress=bar)
    if as_json:
        write_json(_document(report))
    else:
        _write(report)
    return 0 if report.holds else ANSWER_IS_NO


def _document(report: VerifyReport) -> dict[str, Any]:
    """Everything that was compared, and everything that is wrong as sentences."""
    return {
        "holds": report.holds,
        "problems": list(report.problems),
        "broken_laws": list(report.broken_laws),
        "broken_chain": report.broken_chain,
        "notes": list(report.notes),
        "tables": [asdict(proof) for proof in report.tables],
    }


def _write(report: VerifyReport) -> None:
    rows = [
        {**asdict(proof), "verdict": "equals the log" if proof.difference is None else "DIFFERS"}
        for proof in report.tables
    ]
    write_table(COLUMNS, rows)
    write_lines(report.problems)
    write_lines(f"note: {note}" for note in report.notes)
