"""Reading archived rows: the files of one part side by side, in order of stream and version, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from position_ledger.archive import layout
from position_ledger.archive.arrow import columns_of, pyarrow, schema
from position_ledger.archive.layout import File, Segment
from position_ledger.errors import ArchiveError

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
    folder: Path,
    files: Sequence[tuple[Segment, File]],
    columns: Sequence[str],
    *,
    topics: Sequence[str] | None = None,
    upto: int | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows of the files of one part, as tuples of columns, in order of stream and version.

    The second column must be the stream: files are merged by it. Versions of one stream rise from file to file, so the
    oldest file comes first. ``topics`` and ``upto`` leave out other rows.

    Raises:
        ArchiveError: a file is missing or not as it was written.
    """
    paths = [layout.require_as_written(folder, segment, file) for segment, file in files]
    each = [
        _rows(path, columns, topics, upto if upto is not None and file.last_number > upto else None)
        for path, (_, file) in zip(paths, files, strict=True)
    ]
    return each[0] if len(each) == 1 else heapq.merge(*each, key=itemgetter(1))


def _rows(
    path: Path, columns: Sequence[str], topics: Sequence[str] | None, upto: int | None
) -> Iterator[tuple[Any, ...]]:
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(path, buffer_size=READ_AHEAD_BYTES, pre_buffer=False) as file:
            if not file.schema_arrow.equals(schema()):
                msg = f"{path} has other columns than an archive of this release: export into a new folder"
                raise ArchiveError(msg)
            for batch in file.iter_batches(BATCH_EVENTS, columns=list(columns), use_threads=False):
                yield from zip(*columns_of(_chosen(batch, topics, upto), columns), strict=True)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:200]}): export into a new folder"
        raise ArchiveError(msg) from error


def _chosen(batch: Any, topics: Sequence[str] | None, upto: int | None) -> Any:
    """The rows of a batch that are wanted."""
    pa = pyarrow()
    if topics is not None:
        batch = batch.filter(pa.compute.is_in(batch.column("topic"), value_set=pa.array(topics, pa.string())))
    if upto is not None:
        batch = batch.filter(pa.compute.less_equal(batch.column("notification_id"), upto))
    return batch
