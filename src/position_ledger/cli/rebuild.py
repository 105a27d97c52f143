"""Rebuilding a table from the log."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.progress import Bar
from position_ledger.cli.running import ANSWER_IS_NO, note
from position_ledger.cli.tables import known_table
from position_ledger.operations import (
    RebuildOptions,
    archived_history,
    drop_retired,
    rebuild,
    roll_back_table,
    steer_rebuild,
)
from position_ledger.projection.definition import load_projections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.operations import RebuildReport, Steered
    from position_ledger.operations.steering import Wanted

PROCESSES_MAX = 64
WORKERS_MAX = 256
THROTTLE_MIN = 1.0


@command(
    """Rebuild a table from the log beside the live one, verify it, and swap it in. Readers and writers go on.

    Ids stay the same. The table before is kept, so that --rollback takes it back at once and
    writes an incident note. Killed or interrupted, the same command goes on where it was.
    It stands back by itself while live tables or replicas are behind.

    \b
    Examples:
      rebuild-projection positions --processes 4
      rebuild-projection positions --throttle 20000
      rebuild-projection positions --pause
      rebuild-projection positions --dry-run
      rebuild-projection positions --archive /srv/archive
      rebuild-projection positions --rollback
    """
)
@click.argument("table", required=False)
@click.option("--all", "every", is_flag=True, help="Every table, one after the other.")
@click.option("--rollback", is_flag=True, help="Swap the table before the last rebuild back in.")
@click.option("--reason", metavar="TEXT", help="Why it is rolled back; for the history and the incident note.")
@click.option("--dry-run", is_flag=True, help="Build and verify, say what would differ, and throw it away.")
@click.option(
    "--processes",
    type=click.IntRange(1, PROCESSES_MAX),
    metavar="N",
    help="Processes that load, or bring up what --rollback goes back to.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    metavar="N",
    help="Worker processes that are asked to help to load.",
)
@click.option(
    "--throttle", type=click.FloatRange(THROTTLE_MIN), metavar="EVENTS", help="Events a second that are read at most."
)
@click.option(
    "--pause", "steered", flag_value="pause", help="Have the rebuild that is running wait, from another terminal."
)
@click.option("--resume", "steered", flag_value="run", help="Let the one that was paused go on.")
@click.option(
    "--cancel", "steered", flag_value="cancel", help="End one that is running or was interrupted, and drop it."
)
@click.option(
    "--drop-retired", is_flag=True, help="Drop the table to which --rollback goes back, before its time is over."
)
@click.option("--no-swap", is_flag=True, help="Build, catch up and verify; the next rebuild swaps it.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Load from the archive there (position-ledger archive export), and only what came later from the log.",
)
@click.option("--accept-differences", is_flag=True, help="Swap even if columns differ that were not declared changed.")
@click.option("--changed", multiple=True, metavar="COLUMN", help="A column whose values may change; may be repeated.")
@as_json
def rebuild_projection(  # noqa: PLR0913 - the options
    *,
    table: str | None,
    every: bool,
    rollback: bool,
    reason: str | None,
    dry_run: bool,
    processes: int | None,
    workers: int | None,
    throttle: float | None,
    steered: Wanted | None,
    drop_retired: bool,
    no_swap: bool,
    archive: Path | None,
    accept_differences: bool,
    changed: tuple[str, ...],
    as_json: bool,
) -> int:
    """Rebuild each table and say what happened."""
    building = any([dry_run, no_swap, archive, changed, workers, throttle, accept_differences])
    alone = steered is not None or drop_retired
    _refuse_contradictions(table, every=every, rollback=rollback, alone=alone, processes=processes, building=building)
    if drop_retired and table is not None:
        return _drop_retired(table, as_json=as_json)
    if steered is not None and table is not None:
        return _steer(table, steered, as_json=as_json)
    if reason is not None and not rollback:
        raise click.UsageError("--reason is that of a rollback; add --rollback or leave it out")
    if archive is not None and workers:
        raise click.UsageError("--workers would read the log that --archive is to spare; leave one of them out")
    options = RebuildOptions(
        dry_run=dry_run,
        swap=not no_swap,
        processes=processes or 1,
        accept_differences=accept_differences,
        changed=changed,
        throttle_per_s=throttle,
        workers=workers or 0,
    )
    reports = []
    with open_servers() as (settings, reached), Bar() as bar:
        if archive is not None:
            options = replace(options, history=archived_history(settings, reached, archive))
        known = [known_table(settings, table)] if table else [p.table for p in load_projections(settings.projections)]
        for name in known:
            if rollback:
                report = roll_back_table(
                    settings, reached, name, reason=reason, processes=options.processes, tell=note, progress=bar
                )
            else:
                report = rebuild(settings, reached, name, options=options, tell=note, progress=bar)
            reports.append(report)
    if as_json:
        write_json([asdict(report) for report in reports] if every else asdict(reports[0]))
    else:
        write_lines(line for report in reports for line in _lines(report, rollback=rollback))
    return ANSWER_IS_NO if any(report.differences and not accept_differences for report in reports) else 0


def _steer(table: str, wanted: Wanted, *, as_json: bool) -> int:
    """Pause, resume or cancel; 1 if there was nothing to cancel."""
    with open_servers() as (settings, reached):
        done = steer_rebuild(settings, reached, known_table(settings, table), wanted)
    if as_json:
        write_json(asdict(done))
    else:
        write_lines([_steered(done)])
    return ANSWER_IS_NO if done.generation_id is None else 0


def _steered(done: Steered) -> str:
    name = f"{done.table}: generation {done.generation_id}"
    if done.generation_id is None:
        return f"{done.table}: no rebuild is running or half built"
    if done.wanted == "cancel":
        return f"{name} is cancelled, nothing of it is left"
    return f"{name} waits, --resume lets it go on" if done.wanted == "pause" else f"{name} goes on"


def _drop_retired(table: str, *, as_json: bool) -> int:
    """Drop it; 1 if there was none."""
    with open_servers() as (settings, reached):
        name = known_table(settings, table)
        dropped = drop_retired(settings, reached, name)
    number, release = (dropped.generation_id, dropped.release) if dropped else (None, None)
    if as_json:
        write_json({"table": name, "generation_id": number, "release": release})
    elif dropped:
        write_lines([f"{name}: generation {number} of release {release} is dropped, nothing is left to go back to"])
    else:
        write_lines([f"{name}: no retired generation is kept"])
    return 0 if dropped else ANSWER_IS_NO


def _refuse_contradictions(
    table: str | None, *, every: bool, rollback: bool, alone: bool, processes: int | None, building: bool
) -> None:
    if alone and (table is None or every or rollback or building or processes):
        raise click.UsageError(
            "--pause, --resume, --cancel and --drop-retired are for one table, and go with no other option"
        )
    if (table is None) != every:
        raise click.UsageError("name one table, or --all for every table")
    if rollback and building:
        raise click.UsageError(
            "--rollback builds nothing, so of the options of a rebuild it goes with --processes only"
        )


def _lines(report: RebuildReport, *, rollback: bool) -> Iterator[str]:
    name = f"{report.table}: generation {report.generation_id}"
    if rollback:
        yield f"{name} is live again, swapped in {report.swap_lock_ms:.0f} ms"
        return
    yield (
        f"{name} from {report.events:,} events, {report.versions:,} versions; loaded in {report.load_s:.1f} s, "
        f"indexed in {report.index_s:.1f} s, caught up in {report.catch_up_rounds} rounds"
    )
    for difference in report.differences:
        yield f"  {difference}"
    if report.swapped:
        yield f"swapped in: readers waited at most {report.swap_lock_ms:.0f} ms (try {report.swap_attempts})"
    else:
        yield "not swapped: the live table is as it was"
