"""What the commands share: the base command, types of options, and the options that many of them have."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

from position_ledger.domain.vocabulary import Environment

if TYPE_CHECKING:
    from collections.abc import Callable


class LedgerCommand(click.Command):
    """A command with --debug, which may stand anywhere on the line."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
        )


class LedgerGroup(click.Group):
    """A group of such commands."""

    command_class = LedgerCommand


class Moment(click.ParamType[datetime]):
    """A point in time: ISO 8601 with an offset from UTC. A time without one would mean another moment elsewhere."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            in_utc = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time in ISO 8601, such as 2026-03-01T14:30:00Z", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no offset from UTC; append Z or one such as -05:00", param, ctx)
        return in_utc


def command(help_text: str, **attributes: Any) -> Callable[[Callable[..., Any]], LedgerCommand]:
    """Declare a command with its help text, whose examples stand in a paragraph that keeps its lines (see click)."""
    return click.command(cls=LedgerCommand, help=help_text, **attributes)


class Day(click.ParamType[date]):
    """A calendar day: ISO 8601."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day."""
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day in ISO 8601, such as 2026-03-01", param, ctx)


environments = click.option(
    "--environment",
    type=click.Choice([one.value for one in Environment]),
    multiple=True,
    required=True,
    help="Which to report; may be given several times, and each is reported apart.",
)
since = click.option("--since", type=Day(), metavar="DAY", help="First day, included.")
until = click.option("--until", type=Day(), metavar="DAY", help="Last day, included.")
form = click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
as_of = click.option(
    "--as-of",
    type=Moment(),
    metavar="T",
    help="As of that time at the venue: late and corrected facts count at their own time.",
)
known_at = click.option(
    "--known-at", type=Moment(), metavar="T", help="As the ledger knew them then; ISO 8601 with an offset."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
REFERENCE = click.argument("reference", metavar="POSITION")
