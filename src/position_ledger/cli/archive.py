"""The archive: the event log as Parquet files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import LedgerGroup, as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.progress import Bar
from position_ledger.cli.running import ANSWER_IS_NO, note
from position_ledger.operations import archive_against_log, archive_export, archive_verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.operations import ArchiveReport, ExportReport

MB = 1_000_000

group = LedgerGroup(
    name="archive",
    help="""The event log as Parquet files: a rebuild can read them instead of the database.

    An archive is no backup: nothing here puts events back into a database. Go on making backups.

    \b
    Examples:
      position-ledger archive export /srv/archive
      position-ledger archive verify /srv/archive
      rebuild-projection positions --archive /srv/archive""",
)

folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))


@command(
    """Write the events that the archive in DIR does not have yet, as its next segment. A new folder begins an archive.

    Everyone may go on working meanwhile. After a kill, run it again: it goes on where it was. On a standby it ends
    where the projected tables there end.

    \b
    Examples:
      position-ledger archive export /srv/archive
      position-ledger archive export /srv/archive --json
    """
)
@folder
@as_json
def export(*, folder: Path, as_json: bool) -> None:
    """Export and say what was written."""
    with open_servers() as (settings, reached), Bar() as bar:
        report = archive_export(settings, reached, folder, tell=note, progress=bar)
    if as_json:
        write_json(asdict(report))
    else:
        write_lines(_exported(report))


def _exported(report: ExportReport) -> Iterator[str]:
    if report.segment is None:
        yield f"nothing new: {report.folder} has every event up to {report.upto}" if report.upto else "the log is empty"
    else:
        yield (
            f"segment {report.segment}: {report.events:,} events with numbers {report.after + 1} to {report.upto} in "
            f"{report.files} files, {report.size / MB:.1f} MB, {report.size // report.events} bytes an event"
        )
        yield f"{report.folder} has {report.total_events:,} events up to {report.upto}, {report.total_size / MB:.1f} MB"
    yield from (f"note: {note}" for note in report.notes)


@command(
    """Is the archive what was exported, and a whole log? Reads every byte and asks no database.

    Every file has its checksum and its rows, versions of a stream are 1, 2, 3 … without gaps, and the chain of hashes
    holds. With --against-log the database computes counts and digests of the same events, and every column is compared.

    Exit code 1, and a line for each problem, if not.

    \b
    Examples:
      position-ledger archive verify /srv/archive
      position-ledger archive verify /srv/archive --against-log --json
    """
)
@folder
@click.option("--against-log", is_flag=True, help="Compare it with the log of the database too.")
@as_json
def verify(*, folder: Path, against_log: bool, as_json: bool) -> int:
    """Verify and say what was found."""
    with Bar() as bar:
        report = archive_verify(folder, progress=bar)
    if against_log:
        with open_servers() as (settings, reached):
            report = archive_against_log(settings, reached, report)
    if as_json:
        write_json({"holds": report.holds, **asdict(report)})
    else:
        write_lines(_verified(report))
    return 0 if report.holds else ANSWER_IS_NO


def _verified(report: ArchiveReport) -> Iterator[str]:
    yield from report.problems
    yield from (f"note: {note}" for note in report.notes)
    has = f"{report.folder} has {report.events:,} events up to {report.upto}"
    if not report.holds:
        yield f"{has}, and {len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}"
        return
    equals = ", and equals the log" if report.compared else ""
    yield (
        f"{has} of {report.streams:,} streams in {report.segments} segment{'s' if report.segments > 1 else ''}: "
        f"checksums, counts, versions and hashes hold{equals}"
    )


group.add_command(export)
group.add_command(verify)
