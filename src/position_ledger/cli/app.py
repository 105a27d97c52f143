"""The tree of commands: a table of names, so that help is written without loading what the commands stand on."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Entry(NamedTuple):
    """Where a command is, and its line in the list of commands."""

    place: str
    help: str


class LazyGroup(click.Group):
    """A group that imports a command when it runs, or when its own help is asked for."""

    def __init__(self, *, table: Mapping[str, Entry], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature of click
        """The names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """The command, loaded now; None if there is none of that name."""
        return self.command_named(cmd_name) if cmd_name in self.table else None

    def command_named(self, name: str) -> click.Command:
        """Load one command of the table."""
        module, _, attribute = self.table[name].place.partition(":")
        command: click.Command = getattr(import_module(f"position_ledger.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong name is refused with the nearest right one."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.table, n=1)
            hint = f"did you mean {near[0]}" if near else f"there are {', '.join(self.table)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.table.items()])


COMMANDS = {
    "demo": Entry("demo:demo", "Run the whole main job with real servers and say what it measured."),
    "init": Entry("init:init", "Make a folder with migrations, projections and workers of your own."),
    "doctor": Entry("doctor:doctor", "Say what is wrong with this installation, and what to do."),
    "status": Entry("status:status", "Servers, schema, and how far behind each projection is."),
    "import": Entry("imports:group", "Turn files of other systems into events."),
    "positions": Entry("positions:positions", "List positions, now, as of a time, or as known at one."),
    "show": Entry("positions:show", "One position, every column exactly."),
    "history": Entry("positions:history", "All versions of one position."),
    "events": Entry("positions:events", "The events behind one position."),
    "markets": Entry("listings:markets", "List markets: terms, quotes, outcome."),
    "trades": Entry("listings:trades", "List trades, busted and corrected ones too."),
    "accounts": Entry("listings:accounts", "List accounts: cash, locked and free."),
    "edges": Entry("listings:edges", "List edges and what became of them."),
    "games": Entry("listings:games", "List games: score, period, clock."),
    "settle": Entry("markets:settle", "Settle a market and pay all its positions."),
    "amend": Entry("markets:amend", "Give a market another outcome and pay the difference."),
    "void": Entry("markets:void", "Void a market and give back what its positions cost."),
    "lots": Entry("lots:lots", "Which entries each exit used up: FIFO, LIFO, HIFO, average."),
    "report": Entry("reports:group", "Exposure, and realized profit and loss by day."),
    "reference": Entry("reference:group", "Strategies, models, platforms and market events."),
    "migrate": Entry("migrating.group:group", "Bring the schema to where the code needs it, and back."),
    "check": Entry("checks:check", "Do code, projections, queries and schema agree?"),
    "docs": Entry("docs:group", "Write or check the reference pages of the schema."),
    "verify": Entry("checks:verify", "Do the tables equal the event log, and do the laws hold?"),
    "archive": Entry("archive:group", "The event log as Parquet files, to rebuild from without reading the database."),
    "worker": Entry("worker:worker", "Project new events as they arrive."),
    "mode": Entry("mode:mode", "Project a table inline or by workers."),
    "rebuild-projection": Entry("rebuild:rebuild_projection", "Rebuild a table from the log beside the live one."),
}

app = LazyGroup(
    name="position-ledger",
    table=COMMANDS,
    help="""The position ledger: immutable events in PostgreSQL, tables projected from them.

    Without POSITION_LEDGER_DATABASE_URL and POSITION_LEDGER_REDIS_URL the embedded servers are started when needed.

    Reading commands take --json: one document on standard output, decimals as strings, times as ISO 8601 in UTC with Z.
    Exit codes: 0 done and true, 1 the answer is no, 2 it could not be run.""",
    epilog="Begin with: position-ledger demo",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _parameter, asked: _version(ctx) if asked else None,
            help="Show the version and end.",
        ),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
    ],
)


def _version(ctx: click.Context) -> None:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - takes as long as all the rest

    try:
        number = version("position-ledger")
    except PackageNotFoundError:
        number = "(not installed: run from source)"
    click.echo(f"position-ledger {number}")
    ctx.exit()
