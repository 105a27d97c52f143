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
from position_ledger.operations.proving import PROCESSES_MAX

if TYPE_CHECKING:
    from position_ledger.checking.text import Place
    from position_ledger.operations import CheckReport, VerifyReport

COLUMNS = (
    Column("table", "table"),
    Column("events", "events", is_number=True),
    Column("position", "up to", 1, is_number=True),
    Column("rows", "rows", is_number=True),
    Column("digest", "digest", 2),
    Column("verdict", "verdict"),
)


@command(
    """Do code, projections, queries and schema agree? Exit code 1, and a line for each, where they do not.

    Every SQL statement of the program, of the projections and workers that the settings name, and of the folders given
    with --code (or the setting POSITION_LEDGER_CODE) is described by the server: nothing is run or written. Row types
    are compared with columns, definitions with the tables that are kept, the catalogue with what the migrations make.

    \b
    Examples:
      position-ledger check
      position-ledger check --code reports/ --code scripts/nightly.py --json
    """
)
@click.option(
    "--code",
    "code",
    multiple=True,
    type=click.Path(exists=True),
    help="A folder or file of Python whose SQL is to be checked too; may be given several times.",
)
@click.option(
    "--verbose", is_flag=True, help="Name the statements that could not be described, and the tables' states."
)
@as_json
def check(*, code: tuple[str, ...], verbose: bool, as_json: bool) -> int:
    """Compare and say what differs."""
    with open_servers() as (settings, reached):
        report = check_all(settings, reached, code)
    if as_json:
        write_json(_checked(report))
    else:
        _say(report, verbose=verbose)
    return 0 if report.agree else ANSWER_IS_NO


def _checked(report: CheckReport) -> dict[str, Any]:
    """Everything that was found; places as file and line, null where there is none."""
    return {
        "agree": report.agree,
        "mismatches": [{"kind": one.kind, "message": one.sentence, **_place(one.place)} for one in report.mismatches],
        "described": report.described,
        "undescribed": [{"statement": one.excerpt, "why": one.why, **_place(one.place)} for one in report.undescribed],
        "projections": [
            {"table": one.table, "state": one.state, "why": one.why, "remedy": one.remedy} for one in report.projections
        ],
        "notes": list(report.notes),
    }


def _place(place: Place | None) -> dict[str, Any]:
    return {"file": str(place.file) if place else None, "line": place.line if place else None}


def _say(report: CheckReport, *, verbose: bool) -> None:
    write_lines(str(one) for one in report.mismatches)
    if verbose:
        write_lines(str(one) for one in report.projections)
        write_lines(f"not described: {one}" for one in report.undescribed)
    write_lines(f"note: {one}" for one in report.notes)
    counted = f"{report.described} statements described"
    if report.undescribed:
        counted += (
            f", {len(report.undescribed)} that only their run can tell{'' if verbose else ' (--verbose names them)'}"
        )
    if report.agree:
        write_lines([f"code, projections, queries and schema agree: {counted}"])
    else:
        many = len(report.mismatches)
        write_lines([f"{many} mismatch{'es' if many > 1 else ''}; {counted}"])


@command(
    """Do the tables equal what the event log says, and do the laws hold? Recomputes every row from the log.

    Then it adds up: quantities, gains and fees of positions from their trades, balances from postings. Notes tell of
    positions that sold more than they held and of overdrawn cash-controlled accounts; they are no failure.

    Exit code 1, and the first cell that differs, where they do not. Everyone may go on working meanwhile. The digest of
    a table is that of its rows in any order: a restored backup that is as far has the same.

    \b
    Examples:
      position-ledger verify
      position-ledger verify positions --json
      position-ledger verify --processes 4
    """
)
@click.argument("table", required=False)
@click.option(
    "--processes",
    type=click.IntRange(1, PROCESSES_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the work. One leaves the other cores to the ledger, which goes on.",
)
@as_json
def verify(*, table: str | None, processes: int, as_json: bool) -> int:
    """Recompute, compare and say what was found."""
    with open_servers() as (settings, reached), Bar() as bar:
        tables = None if table is None else [known_table(settings, table)]
        report = verify_tables(settings, reached, tables, processes=processes, progress=bar)
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
