"""The archive: export events, prove what was exported, and rebuild from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from position_ledger import archive
from position_ledger.archive import Archive, ArchiveReport, ExportReport
from position_ledger.database import translated
from position_ledger.operations.common import RELEASE, NoProgress, Tell, owner
from position_ledger.projection.rebuild import Progress
from position_ledger.settings import Settings
from position_ledger.setup import Reached


def _adding_up(progress: Progress) -> Callable[[int], None]:
    """Say how much is done by now, to be told how much more is."""
    done = 0

    def more(events: int) -> None:
        nonlocal done
        done += events
        progress.advance(done)

    return more


def archive_export(
    settings: Settings, reached: Reached, folder: Path, *, tell: Tell, progress: Progress | None = None
) -> ExportReport:
    """Write the events that the archive in a folder lacks, up to the horizon, as its next segment.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: the folder is no archive of this log, or another export is running.
    """
    showing = progress or NoProgress()
    with translated(), owner(settings, reached) as connection:
        report = archive.export(
            connection,
            folder,
            release=RELEASE,
            start=lambda total: showing.start(total, "archiving events"),
            advance=_adding_up(showing),
            tell=tell,
        )
    showing.finish()
    return report


def archive_verify(folder: Path, *, progress: Progress | None = None) -> ArchiveReport:
    """Check every byte, count, version and hash of an archive; needs no database.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: the folder has no archive that this release reads.
    """
    showing = progress or NoProgress()
    report = archive.verify(
        folder, start=lambda total: showing.start(total, "verifying the archive"), advance=_adding_up(showing)
    )
    showing.finish()
    return report


def archive_against_log(settings: Settings, reached: Reached, report: ArchiveReport) -> ArchiveReport:
    """Compare an archive that was verified with the log, each part of each segment; every column counts.

    Raises:
        ArchiveError: it is the archive of another log.
    """
    with translated(), owner(settings, reached) as connection:
        return archive.compare_with_log(connection, report)


def archived_history(settings: Settings, reached: Reached, folder: Path) -> Archive:
    """The archive in a folder, to rebuild from.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: there is none that this release reads, or it is of another log than the database has.
    """
    opened = archive.open_archive(folder)
    with translated(), owner(settings, reached) as connection:
        opened.require_of(connection)
    return opened
