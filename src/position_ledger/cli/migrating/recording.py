"""What is recorded of migrations: the history, adopting a database as it is, accepting an edited file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.migrating.applying import NUMBER
from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import Column, write_json, write_lines, write_listing
from position_ledger.operations import accept_checksum, migrate_baseline, migration_history, sum_fits

if TYPE_CHECKING:
    from position_ledger.migration.bookkeeping import HistoryRow

COLUMNS = (
    Column("done_at", "when (UTC)"),
    Column("action", "what"),
    Column("name", "migration", is_long=True),
    Column("done_by", "role", 2, is_long=True),
    Column("host", "from", 1, is_long=True),
    Column("duration_ms", "ms", 3, is_number=True),
    Column("reason", "reason", 1, is_long=True),
)


@command(
    """Everything that was ever done to the schema: who, when, from which host, how long it took and why. Append-only.

    \b
    Actions:
      up              applied               down      rolled back
      start, revert   an index build or its removal began, outside of transactions
      baseline        recorded without running      accept    an edited file accepted

    \b
    Example:
      position-ledger migrate history --json
    """
)
@as_json
def history(*, as_json: bool) -> None:
    """Read and render."""
    with open_servers(needs_schema=False) as (settings, reached):
        rows = [_row(row) for row in migration_history(settings, reached)]
    if as_json:
        write_json(rows)
    else:
        write_listing(COLUMNS, rows, "change")


@command(
    """Record migrations 001 to NNN, or all, as applied, without running them: for a database that has the schema already.

    Refused, with the differences, unless the schema is exactly what the files make.

    \b
    Examples:
      position-ledger migrate baseline
      position-ledger migrate baseline 012
    """
)
@click.argument("number", type=NUMBER, required=False, metavar="[NNN]")
@as_json
def baseline(*, number: int | None, as_json: bool) -> None:
    """Record and say so."""
    with open_servers(needs_schema=False) as (settings, reached):
        done = migrate_baseline(settings, reached, number)
    names = [file.filename for file in done.files]
    if as_json:
        write_json({"files": names, "unproven": list(done.unproven)})
        return
    write_lines(f"note: {line}" for line in done.unproven)
    write_lines([f"recorded {names[0]} to {names[-1]} as applied, nothing was run; next: position-ledger migrate up"])


@command(
    """Accept the file of an applied migration as it is now, after an edit that changes nothing in the database.

    Refused unless the files as they are make exactly the schema that the database has. The history keeps the checksum
    before, who accepted it and why.

    \b
    Example:
      position-ledger migrate accept-checksum 004 --reason "comment corrected"
    """
)
@click.argument("number", type=NUMBER, metavar="NNN")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@click.option("--force", is_flag=True, help="Accept what could not be proven; it is listed.")
@as_json
def accept(*, number: int, reason: str | None, force: bool, as_json: bool) -> None:
    """Accept and say so."""
    with open_servers(needs_schema=False) as (settings, reached):
        done = accept_checksum(settings, reached, number, reason=reason, is_forced=force)
    if as_json:
        write_json({"files": [file.filename for file in done.files], "unproven": list(done.unproven)})
        return
    write_lines(f"not proven: {line}" for line in done.unproven)
    if done.files:
        following = "" if sum_fits(settings) else "; next: position-ledger migrate sum"
        write_lines([f"{done.files[0].filename} is accepted as it is now{following}"])
    else:
        write_lines([f"nothing to do: {number:03} is as it was applied"])


def _row(row: HistoryRow) -> dict[str, Any]:
    return {**asdict(row), "number": f"{row.number:03}"}
