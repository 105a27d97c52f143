"""The state of the ledger, once or again and again."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import Column, table_lines, terminal, write_json
from position_ledger.cli.running import printable, sentence
from position_ledger.domain.errors import LedgerError
from position_ledger.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import Console, RenderableType

    from position_ledger.projection.rebuilds import RebuildStatus
    from position_ledger.settings import Settings
    from position_ledger.setup import Reached
    from position_ledger.status import LedgerStatus, ProjectionStatus

COLUMNS = (
    Column("table", "table"),
    Column("generation_id", "generation", 6, is_number=True),
    Column("fingerprint", "code", 5),
    Column("state", "state"),
    Column("mode", "mode", 7),
    Column("position", "position", 3, is_number=True),
    Column("lag", "lag (events)", 1, is_number=True),
    Column("lag_s", "lag (s)", 2, is_number=True),
    Column("shards", "shards held", 4, is_number=True),
)
FINGERPRINT_SHOWN = 8
QUERY_SHOWN = 60


@command(
    """Servers, schema version, and how far behind the log each table is.

    The lag in seconds is the age of the oldest event that is not in the table yet.

    \b
    Examples:
      position-ledger status
      position-ledger status --watch
      position-ledger status --json
    """
)
@click.option("--watch", is_flag=True, help="Look again until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, help="Seconds between looks."
)
@as_json
def status(*, watch: bool, interval: float, as_json: bool) -> None:
    """Read and render."""
    if watch and as_json:
        raise click.UsageError("--watch shows one state after the other, and --json is one document: choose one")
    with open_servers() as (settings, reached):
        if watch:
            _watch(settings, reached, interval)
        elif as_json:
            write_json(document(read_status(settings, reached)))
        else:
            console = terminal()
            console.print(rendered(read_status(settings, reached), console))


def document(found: LedgerStatus) -> dict[str, Any]:
    """The whole state with what follows from it."""
    projections = [{**asdict(one), "shards_free": one.shards_free} for one in found.projections]
    return {**asdict(found), "projections": projections, "workers_alive": len(found.workers)}


def _watch(settings: Settings, reached: Reached, interval_s: float) -> None:
    """Look again and again; a server that is away is shown, not the end of it."""
    console = terminal()
    if not console.is_terminal:
        while True:
            console.print(_seen(settings, reached, console), "")
            sys.stdout.flush()
            time.sleep(interval_s)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_seen(settings, reached, console), refresh=True)
            time.sleep(interval_s)


def _seen(settings: Settings, reached: Reached, console: Console) -> RenderableType:
    try:
        return rendered(read_status(settings, reached), console)
    except LedgerError as error:
        return Text(sentence(error))


def rendered(found: LedgerStatus, console: Console) -> RenderableType:
    """The state as lines and a table, as wide as the terminal."""
    rows = [_row(one) for one in found.projections]
    heading, *lines = table_lines(COLUMNS, rows, console.width)
    above = (Text(printable(line)) for line in _lines(found))
    return Group(*above, Text(), Text(heading, style="bold"), *(Text(line) for line in lines))


def _row(one: ProjectionStatus) -> dict[str, Any]:
    return {
        **asdict(one),
        "fingerprint": one.fingerprint[:FINGERPRINT_SHOWN] + ("" if one.is_ours else " (other code)"),
        "state": one.state
        if one.kept_until is None
        else f"{one.state}, kept until {one.kept_until.astimezone(UTC):%d %b %H:%M} UTC",
        "lag": f">{one.lag_events:,}" if one.lag_is_more else f"{one.lag_events:,}",
        "lag_s": f"{one.lag_s:.1f}",
        "shards": f"{one.shards_held} of {one.shards}",
    }


def _audited(found: LedgerStatus) -> Iterator[str]:
    """How far the audit is, in a line for all tables that it walks over together, and what it has found."""
    rounds: dict[tuple[datetime | None, float], list[str]] = {}
    for one in found.audits:
        rounds.setdefault((one.ended_at, one.done), []).append(one.table)
    for (ended_at, done), tables in rounds.items():
        last = f"last whole round ended {ended_at:%Y-%m-%d %H:%M:%S}Z" if ended_at else "no whole round yet"
        yield f"audit of {', '.join(tables)}: {last}, this one at {done:.0%}"
    for one in found.audits:
        if one.differences:
            yield f"audit: {one.differences} rows of {one.table} differ from the log, rebuild-projection {one.table} mends them"
    yield from (f"  {difference}" for difference in found.differences)


def _lines(found: LedgerStatus) -> Iterator[str]:
    kind = "embedded " if found.is_embedded else ""
    for server in found.servers:
        answer = server.version or f"does not answer: {server.problem}"
        yield f"{kind}{server.kind} {answer} at {server.address}"
    pending = f", {found.migrations_pending} pending" if found.migrations_pending else ""
    unknown = f", {found.migrations_unknown} from a newer release" if found.migrations_unknown else ""
    yield f"schema {found.schema} of {found.database} at {found.schema_version or 'no migration'}{pending}{unknown}"
    about = "about " if found.events_is_estimate else ""
    complete = "" if found.horizon is None else f", complete up to {found.horizon:,}"
    yield f"events {about}{found.events:,}, the last number {found.mark:,}{complete}"
    if found.is_standby:
        yield "this server is a standby: what it has replayed is shown, and whoever writes needs the primary"
    for holder in found.holders:
        query = " ".join(holder.query.split())[:QUERY_SHOWN]
        yield (
            f"held back for {holder.age_s:.0f} s by server process {holder.pid} ({holder.application or 'unnamed'}, "
            f"{holder.state}): {query}"
        )
    for account in found.overdrawn:
        yield (
            f"overdrawn {account.account} in {account.environment} ({account.balance_id}): free is {account.free:f} "
            f"{account.currency}"
        )
    current = sum(one.state == "current" for one in found.definitions)
    yield f"definitions {current} current" + (
        "" if current == len(found.definitions) else f" of {len(found.definitions)}"
    )
    yield from (str(one) for one in found.definitions if one.state != "current")
    yield from _audited(found)
    yield from filter(None, map(_rebuild, found.rebuilds))
    alive = len(found.workers)
    yield f"workers {alive}" + ("" if alive or found.is_standby else ": none is alive, start position-ledger worker")
    yield "messages in the queue " + ("unknown" if found.queue_length is None else str(found.queue_length))


def _rebuild(one: RebuildStatus) -> str | None:
    """A rebuild that runs, or that has left something behind; what came to its end is no news."""
    name = f"rebuild of {one.table} (generation {one.generation_id})"
    if one.state == "done" or not one.is_kept:
        return None
    if one.state == "built":
        return f"{name} is built and not swapped: rebuild-projection {one.table} swaps it in"
    if one.problem is not None:
        return f"{name} failed: {one.problem}; rebuild-projection {one.table} goes on with what is built, --cancel drops it"
    how = _progress(one)
    if not one.is_running:
        return f"{name} was interrupted while {one.state}, {how}: rebuild-projection {one.table} goes on, --cancel drops it"
    if one.wanted == "pause":
        return f"{name} is paused while {one.state}, {how}: rebuild-projection {one.table} --resume"
    held = f", stands back because {one.yields_to}" if one.yields_to else ""
    return f"{name} is {one.state}, {how}{held}"


def _progress(one: RebuildStatus) -> str:
    words = [f"{one.events_done:,} of {one.events_total:,} events"]
    words += [f"{one.events_per_s:,.0f} events/s"] if one.events_per_s is not None and one.state == "loading" else []
    words += [f"at most {one.throttle_per_s:,.0f} events/s"] if one.throttle_per_s is not None else []
    words += (
        [f"ends about {one.eta.astimezone(UTC):%H:%M:%S} UTC"] if one.eta is not None and one.wanted == "run" else []
    )
    return ", ".join(words)
