"""Proving an archive: its files are those that were written, and what is in them is a whole log.

Alone, or against the log that it was exported from. Each part is read once, in bounded memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from position_ledger.archive import layout
from position_ledger.archive.arrow import DIGEST_SQL, LOG_COLUMNS, OPENED, REFS, Row, row_digest
from position_ledger.archive.exporting import log_rows, require_same_ledger
from position_ledger.archive.history import EPOCH, open_archive
from position_ledger.archive.layout import PARTS, File, Manifest, Segment, file_path, part_of
from position_ledger.archive.numbering import Numbering
from position_ledger.archive.reading import files_of, rows_of
from position_ledger.archive.writing import about, said_by
from position_ledger.errors import ArchiveError, LedgerError
from position_ledger.store.envelope import NO_HASH, chain

PROBLEMS_MAX = 20
"""Problems that are named; more are counted by nobody, since one is enough."""

SHOWN_MAX = 80
"""Characters of a value that are shown."""

ROW_COLUMNS = (*LOG_COLUMNS, OPENED, REFS)
"""The fields of a `Row`, in its order."""

COUNTED = f"""
SELECT width_bucket(e.notification_id, %(begins)s::bigint[]) AS segment, get_byte(uuid_send(e.originator_id), 0) >> 2,
       count(*), {DIGEST_SQL}
  FROM events AS e WHERE e.notification_id <= %(upto)s GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an archive has, and everything that is wrong with it, a sentence each."""

    folder: Path
    segments: int
    files: int
    events: int
    streams: int
    size: int
    upto: int
    problems: tuple[str, ...]
    compared: bool = False
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems


def verify(
    folder: Path,
    *,
    start: Callable[[int], None] = lambda _total: None,
    advance: Callable[[int], None] = lambda _events: None,
) -> ArchiveReport:
    """Check every byte, count, version and hash of an archive; asks no database.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: the folder has no archive that this release reads.
    """
    archive = open_archive(folder)
    manifest = archive.manifest
    start(manifest.events)
    problems = list(manifest_problems(manifest))
    streams = 0
    for part in range(PARTS):
        found: list[str] = []
        streams += _check_part(folder, manifest, part, found, advance)
        problems += found
        if len(problems) >= PROBLEMS_MAX:
            break
    return ArchiveReport(
        folder=folder,
        segments=len(manifest.segments),
        files=sum(len(segment.files) for segment in manifest.segments),
        events=manifest.events,
        streams=streams,
        size=manifest.size,
        upto=manifest.upto,
        problems=tuple(problems[:PROBLEMS_MAX]),
        notes=tuple(_notes(folder, manifest)),
    )


def manifest_problems(manifest: Manifest) -> Iterator[str]:
    """Segments follow each other, their counts are those of their files, and every file is one that is read."""
    after = 0
    for number, segment in enumerate(manifest.segments, 1):
        if (segment.number, segment.after) != (number, after) or segment.upto < segment.after + segment.events:
            yield f"segment {segment.number} does not follow segment {number - 1}, which ends at event {after}"
        if segment.events != sum(file.rows for file in segment.files):
            yield f"segment {segment.number} has {segment.events:,} events and its files have another number"
        parts = [file.part for file in segment.files]
        if parts != sorted(set(parts) & set(range(PARTS))):
            yield f"segment {segment.number} has files of parts {parts}, which are not each once and in order below {PARTS}"
        after = segment.upto


def _notes(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is no failure."""
    if manifest.pending is not None:
        yield (
            f"an export was interrupted (segment {manifest.pending.number}, up to event {manifest.pending.upto}): run "
            f"position-ledger archive export {folder} to finish it"
        )
    known = {file_path(folder, segment.number, file.part) for segment in manifest.segments for file in segment.files}
    pending = layout.segment_folder(folder, manifest.pending.number) if manifest.pending else None
    strangers = sorted(path for path in folder.rglob("*.parquet*") if path not in known and path.parent != pending)
    if strangers:
        yield f"{strangers[0]} is not in the manifest and is not read ({len(strangers)} such files)"


def _check_part(
    folder: Path, manifest: Manifest, part: int, problems: list[str], advance: Callable[[int], None]
) -> int:
    """Read one part; answers how many streams it has."""
    files = files_of(manifest.segments, part, manifest.upto)
    ledger = str(manifest.first.event_id)
    for segment, file in files:
        try:
            layout.require_as_written(folder, segment, file)
        except ArchiveError as error:
            problems.append(str(error))
            continue
        problems += _of_another_export(folder, ledger, segment, file)
    if problems or not files:
        return 0
    checking = PartCheck(part, files)
    try:
        for row in archived_rows(folder, files):
            problem = checking.problem_of(row)
            if problem is not None:
                problems.append(problem)
                break
        else:
            problems += checking.counted_wrong(folder)
    except ArchiveError as error:
        problems.append(str(error))
    advance(sum(file.rows for _, file in files))
    return checking.streams


def _of_another_export(folder: Path, ledger: str, segment: Segment, file: File) -> Iterator[str]:
    path = file_path(folder, segment.number, file.part)
    said = said_by(path) or {}
    for name, value in about(ledger, segment, file.part).items():
        if said.get(name) != value:
            yield f"{path} says that it is of {name} {said.get(name)} and the manifest says {value}: it is of another export"
            return


def archived_rows(folder: Path, files: Sequence[tuple[Segment, File]]) -> Iterator[Row]:
    """All columns of the files of one part, in order of stream and version."""
    paths = [file_path(folder, segment.number, file.part) for segment, file in files]
    return (Row(*row) for row in rows_of(paths, ROW_COLUMNS))


class PartCheck:
    """What is known of a part while its rows go by."""

    def __init__(self, part: int, files: Sequence[tuple[Segment, File]]) -> None:
        self._part, self._files = part, files
        self._stream, self._version, self._number, self._opened = b"", 0, 0, 0
        self._hash = NO_HASH
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._digests: defaultdict[int, int] = defaultdict(int)
        self._ends = [(segment.upto, segment.number) for segment, _ in files]
        self.streams = 0

    def problem_of(self, row: Row) -> str | None:
        """What is wrong with the next row; None: nothing."""
        if row.stream != self._stream:
            problem = self._begin(row)
        elif row.version != self._version + 1:
            problem = f"version {row.version} follows version {self._version}"
        elif row.number <= self._number:
            problem = f"its number does not rise, the version before it has {self._number}"
        elif row.opened != self._opened:
            problem = f"the number of its stream's first event is {self._opened}, and {row.opened} beside it"
        else:
            problem = None
        problem = problem or _not_chained(self._hash, row)
        self._version, self._number, self._hash = row.version, row.number, row.stream_hash
        segment = next((number for upto, number in self._ends if row.number <= upto), 0)
        self._counts[segment] += 1
        self._digests[segment] ^= row_digest(row)
        if problem is None:
            return None
        return f"event {row.number} (version {row.version} of stream {UUID(bytes=row.stream)}): {problem}"

    def _begin(self, row: Row) -> str | None:
        in_order = row.stream > self._stream and part_of(row.stream) == self._part
        self._stream, self._opened, self._hash = row.stream, row.number, NO_HASH
        self.streams += 1
        if not in_order:
            return f"its stream is out of order in part {self._part}"
        if row.version != 1:
            return f"version {row.version} is the first of its stream"
        return None if row.opened == row.number else "the number of its stream's first event is not its own"

    def counted_wrong(self, folder: Path) -> Iterator[str]:
        """Files whose rows are not those that the manifest counts."""
        for segment, file in self._files:
            path = file_path(folder, segment.number, file.part)
            if self._counts[segment.number] != file.rows:
                yield f"{path} has {self._counts[segment.number]:,} rows of its segment and the manifest says {file.rows:,}"
            elif f"{self._digests[segment.number]:016x}" != file.digest:
                yield f"{path} has other rows than the manifest says"


def _not_chained(before: bytes, row: Row) -> str | None:
    """What is wrong with an event behind one with that hash; None: it is what its own hash was made of."""
    try:
        metadata = msgspec.json.decode(row.metadata)
    except msgspec.DecodeError:
        return "its metadata is not JSON"
    made = chain(before, UUID(bytes=row.stream), row.version, row.topic, row.state, metadata)
    return None if made == row.stream_hash else "topic, body or metadata is not what its hash was made of"


def compare_with_log(connection: psycopg.Connection[Any], report: ArchiveReport) -> ArchiveReport:
    """Compare the archive with the log: counts and digests of each part of each segment, computed by the server.

    Every column counts. Where a part differs its rows are compared one by one, and the first difference is named.

    Raises:
        ArchiveError: the archive is of another log.
    """
    manifest = layout.read_manifest(report.folder)
    require_same_ledger(connection, report.folder, manifest)
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")
        begins = [segment.after + 1 for segment in manifest.segments]
        rows = connection.execute(COUNTED, {"begins": begins, "upto": manifest.upto}).fetchall()
    there = {(segment, part): (count, digest % 2**64) for segment, part, count, digest in rows}
    here = {
        (segment.number, file.part): (file.rows, int(file.digest, 16))
        for segment in manifest.segments
        for file in segment.files
    }
    different = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    problems = [
        f"segment {number}, part {part}: {_difference(connection, report.folder, manifest.segments[number - 1], part)}"
        for number, part in different[:PROBLEMS_MAX]
    ]
    return replace(report, problems=(*report.problems, *problems)[:PROBLEMS_MAX], compared=True)


def _difference(connection: psycopg.Connection[Any], folder: Path, segment: Segment, part: int) -> str:
    """Where the rows of a part differ from those of the log, which have another digest."""
    files = [(segment, file) for file in segment.files if file.part == part]
    ours = archived_rows(folder, files) if files else iter(())
    try:
        with closing(log_rows(connection, segment, part, part, Numbering())) as pages:
            theirs = (row for page in pages for row in page)
            differences = (row_difference(*both) for both in zip_longest(ours, theirs))
            return next(
                filter(None, differences), "the digests differ and the rows do not, so a file was changed meanwhile"
            )
    except LedgerError as error:
        return str(error)


def row_difference(ours: Row | None, theirs: Row | None) -> str | None:
    """The first difference of two rows of one place, in words; None if they are equal."""
    if ours is None or theirs is None or (ours.stream, ours.version) != (theirs.stream, theirs.version):
        ahead = theirs is None or (ours is not None and (ours.stream, ours.version) < (theirs.stream, theirs.version))
        row, where, lacks = (ours, "archive", "log") if ahead else (theirs, "log", "archive")
        return f"the {where} has {_named(row)} and the {lacks} does not" if row is not None else None
    for field, column in zip(Row._fields, LOG_COLUMNS, strict=False):
        mine, other = getattr(ours, field), getattr(theirs, field)
        if mine != other:
            return (
                f"{_named(ours)}: {column} is {_shown(column, other)} in the log, {_shown(column, mine)} in the archive"
            )
    return None


def _named(row: Row) -> str:
    return f"event {row.number} (version {row.version} of stream {UUID(bytes=row.stream)})"


def _shown(column: str, value: Any) -> str:
    """A value of a row for people, shortened."""
    if column in ("recorded_at", "effective_at"):
        return (EPOCH + timedelta(microseconds=value)).isoformat()
    if column == "state":
        return repr(value.decode(errors="replace")[:SHOWN_MAX])
    return value.hex() if isinstance(value, bytes) else str(value)[:SHOWN_MAX]
