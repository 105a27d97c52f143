"""Exporting events: a new segment of the archive, from the last archived number up to the horizon.

Up to the horizon nothing ever changes, so every later snapshot shows the same events: each range of streams is read in
a transaction of its own, and none is open for as long as the whole takes. A killed export is gone on with, for the same
numbers, and keeps every file that was finished.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
from msgspec import structs
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader

from position_ledger.archive import layout
from position_ledger.archive.arrow import LOG_COLUMNS, Row, pyarrow
from position_ledger.archive.layout import PARTS, Event, File, Manifest, Pending, Segment, part_of
from position_ledger.archive.numbering import Numbering
from position_ledger.archive.writing import PartWriter, kept
from position_ledger.database import only_row
from position_ledger.errors import ArchiveError
from position_ledger.projection.generations import shard_ranges
from position_ledger.store import feed

FETCH_EVENTS = 2_000

SLICE_EVENTS = 100_000
"""Events that one statement is expected to sort: with them sorting stays in the server's memory."""

SERVER_MEMORY = "64MB"
SEGMENTS_ADVISED_MAX = 200
"""With more of them, reading a part side by side takes as many files and some hundred MB."""

SLICE = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.event_id, e.recorded_at,
       e.effective_at, e.stream_hash, e.metadata::text
  FROM events AS e
 WHERE e.originator_id BETWEEN %(from)s AND %(to)s
   AND e.notification_id > %(after)s AND e.notification_id <= %(upto)s
 ORDER BY e.originator_id, e.originator_version
"""
FIRST = """
SELECT e.notification_id, e.event_id FROM events AS e WHERE e.notification_id <= %s ORDER BY e.notification_id LIMIT 1
"""
LAST = """
SELECT e.notification_id, e.event_id FROM events AS e WHERE e.notification_id <= %s
 ORDER BY e.notification_id DESC LIMIT 1
"""
KNOWN = "SELECT e.notification_id, e.event_id FROM events AS e WHERE e.notification_id = ANY(%s)"
LATE = """
SELECT e.notification_id FROM unnest(%s::bigint[], %s::bigint[]) AS s (last, upto)
  JOIN events AS e ON e.notification_id > s.last AND e.notification_id <= s.upto LIMIT 1
"""
COUNT = "SELECT count(*) FROM events AS e WHERE e.notification_id > %s AND e.notification_id <= %s"
COLUMNS = """
SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = 'events'::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
# A checkpoint only moves to a horizon that was read before, and what the standby has replayed it has in the order of
# commits: whoever sees the checkpoint sees every event before it.
REPLAYED = """
SELECT coalesce(max(c.position), 0) FROM projection_checkpoints AS c JOIN projection_generations AS g USING (generation_id)
 WHERE g.mode = 'worker'
"""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did. ``segment`` is None when there was nothing new; totals are those of the whole archive."""

    folder: Path
    segment: int | None
    after: int
    upto: int
    events: int
    files: int
    size: int
    total_events: int
    total_size: int
    segments: int
    notes: tuple[str, ...] = ()


def export(
    connection: psycopg.Connection[Any],
    folder: Path,
    *,
    release: str,
    start: Callable[[int], None] = lambda _total: None,
    advance: Callable[[int], None] = lambda _events: None,
    tell: Callable[[str], None] = lambda _message: None,
) -> ExportReport:
    """Write the events that the archive does not have yet. ``connection`` is autocommit and may read the log.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: the folder is no archive of this log, or another export is running.
        SchemaMismatch: an event cannot be read by this release.
    """
    pyarrow()
    with layout.only_export(folder):
        manifest = _begun(connection, folder, tell)
        if manifest is None or manifest.pending is None:
            return _report(folder, manifest, None)
        _require_known_columns(connection)
        pending = manifest.pending
        there = only_row(connection.execute(COUNT, (pending.after, pending.upto)))[0]
        start(there)
        files = _write(connection, folder, manifest, pending, advance)
        segment = _segment(pending, files, there, release)
        finished = layout.write_manifest(
            folder, structs.replace(manifest, segments=(*manifest.segments, segment), pending=None)
        )
        return _report(folder, finished, segment)


def _bound(connection: psycopg.Connection[Any], wanted: int) -> int:
    """The number up to which the log is whole here: the horizon, or on a standby the last one that was replayed.

    Raises:
        ArchiveError: a standby that has not replayed what the archive has already, or a log that was set back.
    """
    if not feed.is_standby(connection):
        horizon = feed.horizon(connection)
        if horizon < wanted:
            raise ArchiveError(_set_back(f"the log ends at event {horizon} and the archive at {wanted}"))
        return horizon
    replayed = int(only_row(connection.execute(REPLAYED))[0])
    if replayed < wanted:
        msg = (
            f"this standby has replayed the projected events up to {replayed} and the archive goes to {wanted}: wait until "
            "it has, or connect to the primary"
        )
        raise ArchiveError(msg)
    return replayed


def _begun(connection: psycopg.Connection[Any], folder: Path, tell: Callable[[str], None]) -> Manifest | None:
    """The manifest with the segment that is to be written now; without one if there is nothing new; None: no event."""
    if not (folder / layout.MANIFEST).exists():
        bound = _bound(connection, 0)
        row = connection.execute(FIRST, (bound,)).fetchone()
        if row is None:
            return None
        manifest = Manifest(format=layout.FORMAT, first=Event(*row))
    else:
        manifest = layout.read_manifest(folder)
        bound = require_same_log(connection, folder, manifest)
    if manifest.pending is not None:
        tell(f"going on with segment {manifest.pending.number}, whose export was interrupted")
        return manifest
    last = connection.execute(LAST, (bound,)).fetchone()
    if last is None or last[0] <= manifest.upto:
        return manifest
    pending = Pending(len(manifest.segments) + 1, manifest.upto, bound, Event(*last))
    layout.segment_folder(folder, pending.number).mkdir(exist_ok=True)
    return layout.write_manifest(folder, structs.replace(manifest, pending=pending))


def require_same_ledger(connection: psycopg.Connection[Any], folder: Path, manifest: Manifest) -> None:
    """Refuse an archive of another ledger than that of the connection, by the first event. Raises `ArchiveError`."""
    if _others(connection, [manifest.first]):
        msg = f"{folder} is the archive of another ledger: name the one of this ledger, or export into a new folder"
        raise ArchiveError(msg)


def require_same_log(connection: psycopg.Connection[Any], folder: Path, manifest: Manifest) -> int:
    """Refuse an archive of another log than that of the connection; answers up to which number the log is whole here.

    Segments are known by the last event of each, and by the numbers behind it that were never used.

    Raises:
        ArchiveError: says whether it is of another ledger, or of another history of this one.
    """
    require_same_ledger(connection, folder, manifest)
    bound = _bound(connection, max((segment.upto for segment in manifest.begun), default=0))
    others = _others(connection, [segment.last for segment in manifest.begun])
    if others:
        raise ArchiveError(_set_back(f"event {others[0].number} of archive {folder} is not that of the log"))
    ends = ([segment.last.number for segment in manifest.begun], [segment.upto for segment in manifest.begun])
    late = connection.execute(LATE, ends).fetchone()
    if late is not None:
        raise ArchiveError(_set_back(f"event {late[0]} of the log was not there when archive {folder} went past it"))
    return bound


def _set_back(what: str) -> str:
    return (
        f"{what}, so the database was restored from an older backup: keep this archive as evidence and export into a new "
        "folder"
    )


def _others(connection: psycopg.Connection[Any], events: Sequence[Event]) -> list[Event]:
    """Those that are not in the log as they are given."""
    rows = connection.execute(KNOWN, ([one.number for one in events],)).fetchall()
    return [one for one in events if (one.number, one.event_id) not in rows]


def _require_known_columns(connection: psycopg.Connection[Any]) -> None:
    """An archive has all of the log or is none."""
    unknown = sorted({row[0] for row in connection.execute(COLUMNS)} - set(LOG_COLUMNS))
    if unknown:
        msg = f"table events has column {unknown[0]}, which this release would leave out of the archive: update"
        raise ArchiveError(msg)


def _write(
    connection: psycopg.Connection[Any],
    folder: Path,
    manifest: Manifest,
    pending: Pending,
    advance: Callable[[int], None],
) -> list[File]:
    """The files of the segment, those of an interrupted export kept."""
    ledger = str(manifest.first.event_id)
    layout.segment_folder(folder, pending.number).mkdir(exist_ok=True)
    there = {part: kept(folder, ledger, pending, part) for part in range(PARTS)}
    files = [file for file in there.values() if file is not None]
    advance(sum(file.rows for file in files))
    numbering = Numbering()
    for low, high in slices([part for part, file in there.items() if file is None], pending.upto - pending.after):
        with closing(log_rows(connection, pending, low, high, numbering)) as pages:
            files += _write_parts(folder, ledger, pending, pages, advance)
    layout.sync_folder(layout.segment_folder(folder, pending.number))
    layout.sync_folder(folder)
    return sorted(files, key=lambda file: file.part)


def slices(parts: Sequence[int], events: int) -> Iterator[tuple[int, int]]:
    """Parts in a row, first and last, that are read by one statement: of a small segment all of them."""
    at_once = max(1, PARTS * SLICE_EVENTS // max(events, 1))
    run: list[int] = []
    for part in parts:
        if run and (part != run[-1] + 1 or len(run) == at_once):
            yield run[0], run[-1]
            run = []
        run.append(part)
    if run:
        yield run[0], run[-1]


def log_rows(
    connection: psycopg.Connection[Any], segment: Pending | Segment, low: int, high: int, numbering: Numbering
) -> Generator[list[Row], None, None]:
    """The events of some parts in order of stream and version, with all numbers, a bounded number at a time."""
    ranges = shard_ranges(PARTS)
    with connection.transaction(), connection.cursor(name="archive") as cursor:
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SET LOCAL cursor_tuple_fraction = 1")  # all of it is read
        connection.execute(f"SET LOCAL work_mem = '{SERVER_MEMORY}'".encode())
        cursor.adapters.register_loader("uuid", ByteaBinaryLoader)
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
        cursor.execute(
            SLICE,
            {"from": ranges[low][1], "to": ranges[high][2], "after": segment.after, "upto": segment.upto},
            binary=True,
        )
        while fetched := cursor.fetchmany(FETCH_EVENTS):
            yield numbering.numbered(connection, fetched)


def _write_parts(
    folder: Path,
    ledger: str,
    pending: Pending,
    pages: Iterable[Sequence[Row]],
    advance: Callable[[int], None],
) -> list[File]:
    """Write rows that come in order into the files of their parts."""
    files: list[File] = []
    some = ((part, list(rows)) for page in pages for part, rows in groupby(page, key=lambda row: part_of(row.stream)))
    for part, blocks in groupby(some, key=lambda one: one[0]):
        with PartWriter(folder, ledger, pending, part) as writer:
            for _, rows in blocks:
                writer.add(rows)
                advance(len(rows))
            files.append(writer.finish())
    return files


def _segment(pending: Pending, files: Sequence[File], there: int, release: str) -> Segment:
    """The segment as the manifest has it, if it has as many events as the log has between its ends."""
    events = sum(file.rows for file in files)
    if events != there:
        msg = (
            f"segment {pending.number} has {events:,} events and the log {there:,} with numbers {pending.after + 1} to "
            f"{pending.upto}: remove its folder and run the export again, and position-ledger verify"
        )
        raise ArchiveError(msg)
    return Segment(
        number=pending.number,
        after=pending.after,
        upto=pending.upto,
        events=events,
        last=pending.last,
        release=release,
        exported_at=datetime.now(UTC).replace(microsecond=0),
        files=tuple(files),
    )


def _report(folder: Path, manifest: Manifest | None, segment: Segment | None) -> ExportReport:
    known = manifest.segments if manifest else ()
    report = ExportReport(
        folder=folder,
        segment=segment.number if segment else None,
        after=segment.after if segment else (manifest.upto if manifest else 0),
        upto=manifest.upto if manifest else 0,
        events=segment.events if segment else 0,
        files=len(segment.files) if segment else 0,
        size=sum(file.size for file in segment.files) if segment else 0,
        total_events=manifest.events if manifest else 0,
        total_size=manifest.size if manifest else 0,
        segments=len(known),
    )
    if len(known) <= SEGMENTS_ADVISED_MAX:
        return report
    note = f"the archive has {len(known)} segments, which are read side by side: export into a new folder, in one"
    return replace(report, notes=(note,))
