"""Rolling back: what would be lost is shown, then asked, then done, then noted."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.migrating.applying import NUMBER, told
from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.running import ANSWER_IS_NO, note
from position_ledger.operations import roll_back_migrations, rollback_impact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.operations import Impact


@command(
    """Roll back NNN and every later migration, or only the latest. Events are never lost.

    What would be lost is shown first, and at a terminal you are asked. An incident note is written to the folder of the
    setting incidents, and the history keeps the reason. Exit code 1 if the answer is no.

    \b
    Examples:
      position-ledger migrate down --dry-run
      position-ledger migrate down --reason "wrong default"
      position-ledger migrate down 004 --yes
    """
)
@click.argument("number", type=NUMBER, required=False, metavar="[NNN]")
@click.option("--dry-run", is_flag=True, help="Only show what would be lost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history and in the incident note.")
@as_json
def down(*, number: int | None, dry_run: bool, yes: bool, reason: str | None, as_json: bool) -> int:
    """Show, ask, roll back and say so."""
    with open_servers(needs_schema=False) as (settings, reached):
        impact = rollback_impact(settings, reached, number)
        document = _document(impact)
        if not as_json:
            write_lines(_lines(impact))
        if dry_run:
            if as_json:
                write_json({**document, "messages": [], "incident": None, "dry_run": True})
            return 0
        if impact.files and not yes and sys.stdin.isatty() and not click.confirm("Roll back?", err=True):
            note("nothing was changed")
            return ANSWER_IS_NO
        chosen = number or impact.files[-1].number
        done = roll_back_migrations(settings, reached, impact, chosen, reason=reason, tell=told(as_json=as_json))
    if as_json:
        files = [file.filename for file in done.outcome.files]
        write_json({**document, "files": files, "messages": list(done.outcome.messages), "incident": done.note})
    return 0


def _lines(impact: Impact) -> Iterator[str]:
    if not impact.files:
        return
    yield f"rolling back {', '.join(file.filename for file in impact.files)}"
    yield from (f"  lost: {loss}" for loss in impact.lost)
    if not impact.lost:
        yield "  nothing is lost"


def _document(impact: Impact) -> dict[str, Any]:
    return {"files": [file.filename for file in impact.files], "lost": [asdict(loss) for loss in impact.lost]}
