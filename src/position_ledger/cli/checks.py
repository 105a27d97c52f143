"""Proofs: that code and schema agree, and that the tables equal the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import Column, plain, write_json, write_lines, write_table
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
    Column("keys", "keys", is_number=True),
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
    return {"holds": report.holds, "chains": report.chains, "tables": _rows(report)}


def _rows(report: VerifyReport) -> list[dict[str, Any]]:
    return [
        {"table": one.table, "events": one.events, "keys": one.keys, "rows": one.rows, "difference": one.difference}
        for one in report.tables
    ]


def _write(report: VerifyReport) -> None:
    rows = _rows(report)
    verdicts = [{**row, "verdict": "DIFFERS" if row["difference"] else "equals the log"} for row in rows]
    write_table(COLUMNS, verdicts)
    write_lines(f"{row['table']}: {_words(row['difference'])}" for row in rows if row["difference"])
    if not report.chains:
        write_lines(["the chain of hashes over the events is broken: the log was changed by hand"])


def _words(difference: object) -> str:
    return difference if isinstance(difference, str) else str(plain(difference))
