"""Migrations: what is applied, up, down, and whether the schema is what the files make."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import Column, write_json, write_lines, write_table
from position_ledger.cli.progress import Bar
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.operations import migrate_abort, migrate_up, migrate_verify, migration_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from position_ledger.migration.plan import Status, StatusRow
    from position_ledger.migration.runner import Outcome

COLUMNS = (
    Column("number", "number"),
    Column("name", "name", is_long=True),
    Column("state", "state"),
    Column("applied_at", "applied (UTC)", 1),
    Column("applied_by", "by", 2, is_long=True),
    Column("duration_ms", "ms", 3, is_number=True),
)
NUMBER = click.IntRange(min=1, max=999)


@command(
    """Show every migration of folder and database: applied, pending, running, reverting, edited or unknown.

    \b
    Example:
      position-ledger migrate status --json
    """
)
@as_json
def status(*, as_json: bool) -> None:
    """Read and render."""
    with open_servers(needs_schema=False) as (settings, reached):
        found = migration_status(settings, reached)
    rows = [_row(row) for row in found.rows]
    if as_json:
        write_json({"current": found.is_current, "migrations": rows})
        return
    write_table(COLUMNS, [{**row, "state": _state(row)} for row in rows])
    write_lines([_verdict(found)])


@command(
    """Apply pending migrations, up to NNN or all. A table whose rows come from the log is rebuilt beside the live
    one and swapped in, while everyone goes on.

    \b
    Examples:
      position-ledger migrate up
      position-ledger migrate up 004
      position-ledger migrate up --abort
    """
)
@click.argument("number", type=NUMBER, required=False, metavar="[NNN]")
@click.option("--abort", is_flag=True, help="Undo a change set that was interrupted before it was applied.")
@as_json
def up(*, number: int | None, abort: bool, as_json: bool) -> None:
    """Apply and say so."""
    if abort and number is not None:
        raise click.UsageError("--abort undoes the whole change set that has begun: give no number with it")
    with open_servers(needs_schema=False) as (settings, reached):
        if abort:
            _report(migrate_abort(settings, reached, told(as_json=as_json)), as_json=as_json)
            return
        with Bar() as bar:
            outcome = migrate_up(settings, reached, number, told(as_json=as_json), progress=bar)
        _report(outcome, as_json=as_json)


@command(
    """Is the schema what the applied migrations make, and are their files as they were when they were applied?

    Replays the files in a scratch database and compares. Exit code 1 if something differs.
    """
)
@as_json
def verify(*, as_json: bool) -> int:
    """Compare and say what differs."""
    with open_servers(needs_schema=False) as (settings, reached):
        differences = migrate_verify(settings, reached)
    if as_json:
        write_json({"holds": not differences, "differences": differences})
    else:
        write_lines(differences or ["the schema is what the migrations make"])
    return ANSWER_IS_NO if differences else 0


def _verdict(found: Status) -> str:
    if found.is_current:
        return "up to date"
    if found.begun:
        first, last = found.begun[0].number, max(row.applied.change_set or 0 for row in found.begun if row.applied)
        return (
            f"the change set {first:03} to {last:03} has begun and is not applied: go on with position-ledger migrate up, "
            "or undo it with position-ledger migrate up --abort"
        )
    odd = next((row for row in found.rows if row.state in _ODD), None)
    if odd is not None:
        return _ODD[odd.state].format(name=odd.name, number=f"{odd.number:03}")
    return f"{len(found.pending)} pending: run position-ledger migrate up"


_ODD = {
    "unknown": "the database is ahead of this folder: {name} is applied and not in it; use the folder or release that has it",
    "edited": "{name} was edited after it was applied: restore the file, or, if the edit changes nothing in the database, "
    "run position-ledger migrate accept-checksum {number} --reason TEXT",
    "reverting": "the rollback of {name} was interrupted: finish it with position-ledger migrate down {number}",
}
"""What keeps `migrate up` from running, and what to do about it."""


def _row(row: StatusRow) -> dict[str, Any]:
    applied = asdict(row.applied) if row.applied is not None else {}
    return {
        "number": f"{row.number:03}",
        "name": row.name,
        "state": row.state,
        "edited": list(row.edited),
        "change_set": f"{row.applied.change_set:03}" if row.applied and row.applied.change_set else None,
        "applied_at": applied.get("applied_at"),
        "applied_by": applied.get("applied_by"),
        "duration_ms": applied.get("duration_ms"),
    }


def _state(row: dict[str, Any]) -> str:
    return f"{row['state']} ({', '.join(row['edited'])})" if row["edited"] else str(row["state"])


def told(*, as_json: bool) -> Callable[[str], None]:
    """Where messages go while something is done: standard output, or nowhere beside a document."""
    return _nothing if as_json else line


def line(message: str) -> None:
    """One line on standard output."""
    write_lines([message])


def _nothing(message: str) -> None:
    """The JSON document has the messages."""


def _report(outcome: Outcome, *, as_json: bool) -> None:
    """What was done, as a document; lines were written as it happened."""
    if as_json:
        write_json({"files": [file.filename for file in outcome.files], "messages": list(outcome.messages)})
