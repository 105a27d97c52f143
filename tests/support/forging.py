"""Archives that are wrong although every checksum in them is right: what a broken export, or a forger, would leave."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from msgspec import structs

from position_ledger.archive import layout
from position_ledger.archive.verifying import archived_rows
from position_ledger.archive.writing import PartWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from position_ledger.archive.arrow import Row
    from position_ledger.archive.layout import File, Manifest, Segment


def manifest_with(folder: Path, segment: int, **changes: Any) -> Manifest:
    """Write a manifest whose segment of that number says something else, with the right checksum."""
    manifest = layout.read_manifest(folder)
    changed = tuple(structs.replace(one, **changes) if one.number == segment else one for one in manifest.segments)
    return layout.write_manifest(folder, structs.replace(manifest, segments=changed))


def with_file(segment: Segment, file: File) -> dict[str, Any]:
    """What changes of a segment when the file of that part is another one."""
    files = tuple(file if one.part == file.part else one for one in segment.files)
    return {"files": files, "events": sum(one.rows for one in files)}


def only_first_segment(folder: Path) -> None:
    """Leave away everything behind the first export, which alone is an archive as well."""
    manifest = layout.read_manifest(folder)
    for segment in manifest.segments[1:]:
        shutil.rmtree(layout.segment_folder(folder, segment.number))
    layout.write_manifest(folder, structs.replace(manifest, segments=manifest.segments[:1]))


@dataclass(frozen=True)
class Chosen:
    """A file of the first segment with several streams, and where in it a stream of three events begins."""

    folder: Path
    segment: Segment
    file: File
    rows: list[Row]
    at: int

    @property
    def path(self) -> Path:
        return layout.file_path(self.folder, self.segment.number, self.file.part)

    def write(self, rows: list[Row], ledger: str | None = None) -> None:
        """Have these rows in the file, and everything else say so."""
        first = str(layout.read_manifest(self.folder).first.event_id)
        with PartWriter(self.folder, ledger or first, self.segment, self.file.part) as writer:
            writer.add(rows)
            written = writer.finish()
        manifest_with(self.folder, self.segment.number, **with_file(self.segment, written))

    def write_one(self, place: int, change: Callable[[Row], Row]) -> Row:
        """Have another row in that place behind the beginning of the stream; answers the row."""
        row = change(self.rows[self.at + place])
        self.write([*self.rows[: self.at + place], row, *self.rows[self.at + place + 1 :]])
        return row


def a_part(folder: Path) -> Chosen:
    """The first such file."""
    segment = layout.read_manifest(folder).segments[0]
    for file in segment.files:
        rows = list(archived_rows(folder, [(segment, file)]))
        streams = [list(some) for _, some in groupby(rows, key=lambda row: row.stream)]
        long = next((some for some in streams if len(some) >= 3), None)
        if long is not None and len(streams) > 1:
            return Chosen(folder, segment, file, rows, rows.index(long[0]))
    msg = f"no file of {folder} has two streams, one of them with three events"
    raise AssertionError(msg)
