"""Reading archived rows: the files of one part side by side, in order of stream and version, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from position_ledger.archive.arrow import columns_of, pyarrow, schema
from position_ledger.archive.layout import File, Segment
from position_ledger.errors import ArchiveError

Streams = tuple[bytes, bytes]
"""First and last stream of a range, both included."""

COUNTED_EVENTS = 65_536

BATCH_EVENTS = 2_000
"""Rows of one file that are made at a time."""

READ_AHEAD_BYTES = 64 * 1024


def files_of(segments: Iterable[Segment], part: int, upto: int) -> list[tuple[Segment, File]]:
    """The files of a part that have numbers up to the given one, the oldest first."""
    return [
        (segment, file)
        for segment in segments
        for file in segment.files
        if file.part == part and file.first_number <= upto
    ]


def rows_of(
    paths: Sequence[Path],
    columns: Sequence[str],
    *,
    topics: Sequence[str] | None = None,
    upto: int | None = None,
    streams: Streams | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows of the files of one part, as tuples of columns, in order of stream and version.

    The second column must be the stream: files are merged by it. Versions of one stream rise from file to file, so the
    oldest file comes first. ``topics``, ``upto`` (a number) and ``streams`` leave out other rows.

    Raises:
        ArchiveError: a file cannot be read.
    """
    wanted = _Wanted(topics, upto, streams)
    each = [_rows(path, columns, wanted) for path in paths]
    return each[0] if len(each) == 1 else heapq.merge(*each, key=itemgetter(1))


def counted(path: Path, topics: Sequence[str], upto: int) -> int:
    """How many rows of a file have one of the topics and a number up to the given one. Raises `ArchiveError`."""
    wanted = _Wanted(topics, upto, None)
    with _opened(path) as file:
        batches = file.iter_batches(COUNTED_EVENTS, columns=["notification_id", "topic"], use_threads=False)
        return sum(len(wanted.of(batch)) for batch in batches)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which rows are read."""

    topics: Sequence[str] | None
    upto: int | None
    streams: Streams | None

    def groups(self, file: Any) -> list[int]:
        """The row groups of a file that may have such rows, as its statistics tell."""
        everything = range(file.metadata.num_row_groups)
        if self.streams is None:
            return list(everything)
        first, last = self.streams
        place = file.schema_arrow.get_field_index("originator_id")
        each = ((group, file.metadata.row_group(group).column(place).statistics) for group in everything)
        return [group for group, known in each if known is None or (known.min <= last and known.max >= first)]

    def of(self, batch: Any) -> Any:
        """The rows of a batch that are wanted."""
        pa = pyarrow()
        if self.topics is not None:
            topics = pa.array(self.topics, pa.string())
            batch = batch.filter(pa.compute.is_in(batch.column("topic"), value_set=topics))
        if self.upto is not None:
            batch = batch.filter(pa.compute.less_equal(batch.column("notification_id"), self.upto))
        return batch


def _rows(path: Path, columns: Sequence[str], wanted: _Wanted) -> Iterator[tuple[Any, ...]]:
    streams = wanted.streams
    with _opened(path) as file:
        batches = file.iter_batches(
            BATCH_EVENTS, row_groups=wanted.groups(file), columns=list(columns), use_threads=False
        )
        for batch in batches:
            rows = zip(*columns_of(wanted.of(batch), columns), strict=True)
            if streams is None:
                yield from rows
            else:
                yield from (row for row in rows if streams[0] <= row[1] <= streams[1])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of an archive; whatever goes wrong while it is read is told of the file."""
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(path, buffer_size=READ_AHEAD_BYTES, pre_buffer=False) as file:
            if not file.schema_arrow.equals(schema()):
                msg = f"{path} has other columns than an archive of this release: export into a new folder"
                raise ArchiveError(msg)
            yield file
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:200]}): export into a new folder"
        raise ArchiveError(msg) from error
