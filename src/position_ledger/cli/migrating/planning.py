"""`position-ledger migrate plan`: as text, JSON or Markdown; exit code 1 if something in it is unsafe."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.migrating.applying import NUMBER
from position_ledger.cli.migrating.plan_pages import markdown, text
from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.operations import migrate_plan

if TYPE_CHECKING:
    from position_ledger.operations.plan_document import Plan


@command(
    """Say what `migrate up` (or up NNN) would do, without doing it. Every pending file runs in a scratch database with
    rows of the live tables; a sample of the log is projected into the tables that they lead to; the rollback is tried.

    Exit code 1 if something is unsafe; the safe form is shown beside it.

    \b
    Examples:
      position-ledger migrate plan
      position-ledger migrate plan 014 --markdown > plan-014.md
    """
)
@click.argument("number", type=NUMBER, required=False, metavar="[NNN]")
@as_json
@click.option("--markdown", "as_markdown", is_flag=True, help="The plan document, for a review.")
def plan(*, number: int | None, as_json: bool, as_markdown: bool) -> int:
    """Plan and render."""
    with open_servers(needs_schema=False) as (settings, reached):
        found = migrate_plan(settings, reached, number)
    if as_json:
        write_json(document(found))
    else:
        write_lines(markdown(found) if as_markdown else text(found))
    return 0 if found.is_safe or found.is_applied else ANSWER_IS_NO


def document(found: Plan) -> dict[str, Any]:
    """The plan as JSON has it."""
    return {
        "safe": found.is_safe,
        "pending": [one.filename for one in found.files] + list(found.untraced),
        **asdict(found),
    }
