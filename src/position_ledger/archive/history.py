"""An archive as the history that a load folds, instead of the log: no statement of the load reads the table events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.archive import layout
from position_ledger.archive.arrow import OPENED, REFS, Ref, pyarrow
from position_ledger.archive.exporting import require_same_log
from position_ledger.archive.layout import PARTS, File, Manifest, Segment, file_path
from position_ledger.archive.reading import Streams, counted, files_of, rows_of
from position_ledger.errors import ArchiveError
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import shard_ranges
from position_ledger.projection.loading import PAGE_EVENTS, Chunk, EventPages, Pages
from position_ledger.projection.references import NOTHING, Pair, pairs_of, paths_of
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded

COLUMNS = (
    "notification_id",
    "originator_id",
    "originator_version",
    "topic",
    "state",
    "recorded_at",
    "effective_at",
    OPENED,
    REFS,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was opened: immutable, and sent to every process of a load."""

    folder: Path
    manifest: Manifest

    @property
    def upto(self) -> int:
        """The number up to which it has every event."""
        return self.manifest.upto

    def __str__(self) -> str:
        """What it is, for people."""
        return f"archive {self.folder}"

    def require_of(self, connection: psycopg.Connection[Any]) -> None:
        """Refuse it, if it is not of the log of the connection; reads one event for each segment. Raises `ArchiveError`."""
        require_same_log(connection, self.folder, self.manifest)

    def events_of(self, projection: Projection[Any], upto: int) -> int:
        """How many events up to a number concern a projection.

        Raises:
            ArchiveError: a file is missing or not as it was written; so nothing is begun with a damaged archive.
        """
        files = [(segment, file) for segment in self.manifest.segments for file in segment.files]
        paths = [layout.require_as_written(self.folder, segment, file) for segment, file in files]
        return sum(counted(path, projection.topics, upto) for path in paths)

    def reading(self, projection: Projection[Any], codec: Codec) -> Pages:
        """What gives the events of some streams that concern a projection, a page at a time, each stream whole."""
        return _Reading(self, projection, codec).pages


def open_archive(folder: Path) -> Archive:
    """The archive in a folder.

    Raises:
        ConfigurationError: pyarrow is not installed.
        ArchiveError: the folder has none that this release reads, or one without a finished segment.
    """
    pyarrow()
    manifest = layout.read_manifest(folder)
    if not manifest.segments:
        msg = f"archive {folder} has no finished segment: run position-ledger archive export {folder}"
        raise ArchiveError(msg)
    return Archive(folder.absolute(), manifest)


class _Reading:
    """Decodes archived rows for one projection."""

    def __init__(self, archive: Archive, projection: Projection[Any], codec: Codec) -> None:
        self._archive = archive
        self._topics = projection.topics
        self._codec = codec
        self._paths = paths_of(projection.folds)
        self._whole: set[Path] = set()

    def pages(self, chunk: Chunk) -> EventPages:
        """The events of a range of streams up to its number.

        Raises:
            ArchiveError: the archive does not go so far, or is not as it was written.
            SchemaMismatch: an event cannot be read by this release.
        """
        if chunk.upto > self._archive.upto:
            msg = (
                f"{self._archive} ends at event {self._archive.upto} and the load goes to {chunk.upto}: run position-ledger "
                f"archive export {self._archive.folder} first"
            )
            raise ArchiveError(msg)
        for part, low, high in shard_ranges(PARTS):
            if low <= chunk.stream_to and high >= chunk.stream_from:
                is_whole = low >= chunk.stream_from and high <= chunk.stream_to
                streams = None if is_whole else (chunk.stream_from.bytes, chunk.stream_to.bytes)
                yield from self._pages_of(part, chunk.upto, streams)

    def _pages_of(self, part: int, upto: int, within: Streams | None) -> EventPages:
        archive = self._archive
        files = files_of(archive.manifest.segments, part, upto)
        paths = [self._checked(segment, file) for segment, file in files]
        rows = rows_of(paths, COLUMNS, topics=self._topics, upto=upto, streams=within)
        streams: dict[bytes, UUID] = {}
        while page := list(islice(rows, PAGE_EVENTS)):
            yield self._recorded(page, streams)

    def _checked(self, segment: Segment, file: File) -> Path:
        """Where a file is that has its checksum; each is looked at once, before its first row is read."""
        path = file_path(self._archive.folder, segment.number, file.part)
        if path not in self._whole:
            self._whole.add(layout.require_as_written(self._archive.folder, segment, file))
        return path

    def _recorded(self, page: Sequence[tuple[Any, ...]], streams: dict[bytes, UUID]) -> list[Recorded[Any]]:
        """Rows as events, with one object for the id of all events of a stream."""
        bodies = self._codec.decode_structs([(row[3], row[4]) for row in page])
        last = page[-1][1]
        known = {raw: streams.get(raw) or UUID(bytes=raw) for raw in dict.fromkeys(row[1] for row in page)}
        streams.clear()
        streams[last] = known[last]
        return [
            Recorded(
                number,
                known[stream],
                version,
                topic,
                body,
                EPOCH + timedelta(microseconds=recorded),
                EPOCH + timedelta(microseconds=effective),
                opened,
                self._numbered(number, topic, body, refs),
            )
            for (number, stream, version, topic, _, recorded, effective, opened, refs), body in zip(
                page, bodies, strict=True
            )
        ]

    def _numbered(self, number: int, topic: str, body: Any, refs: Sequence[Ref]) -> Mapping[Pair, int]:
        """Numbers of what a body refers to, as the archive has them."""
        paths = self._paths[topic]
        if not paths:
            return NOTHING
        wanted = pairs_of(paths, body)
        if not wanted:
            return NOTHING
        found = {(UUID(bytes=stream), version): at for stream, version, at in refs}
        if not found.keys() >= set(wanted):
            msg = (
                f"event {number} ({topic}) refers to an event whose number {self._archive} does not have, because another "
                "release wrote it: export into a new folder, or rebuild without --archive"
            )
            raise ArchiveError(msg)
        return {pair: found[pair] for pair in wanted}
