"""Writing the file of one part: rows come in order, and what has its name is whole and on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from position_ledger.archive.arrow import (
    COMPRESSION,
    DELTAS,
    PAGE_BYTES,
    REPEATED,
    Row,
    batch_of,
    pyarrow,
    row_digest,
    schema,
)
from position_ledger.archive.layout import FORMAT, UNFINISHED, File, Pending, Segment, file_path, sha256_of

ROW_GROUP_EVENTS = 4_096
"""Rows that are written together, and so what a writer holds at a time: some 4 MB, several times over."""

ABOUT = b"position_ledger"
"""Key of what a file says of itself, beside the rows."""


class _Hashed(io.RawIOBase):
    """A file that is only written from its beginning to its end, and its checksum."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """How much is written."""
        return self.size

    def write(self, block: Any) -> int:
        """Write it and take it into the checksum."""
        self.sha256.update(block)
        self.size += len(block)
        self._file.write(block)
        return len(block)

    def close(self) -> None:
        """Close it when it is on the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()


class PartWriter:
    """Writes the file of one part of a segment; the block must end well for the file to have its name."""

    def __init__(self, folder: Path, ledger: str, segment: Pending | Segment, part: int) -> None:
        self._path = file_path(folder, segment.number, part)
        self._unfinished = self._path.with_name(self._path.name + UNFINISHED)
        self._about: dict[str, Any] = about(ledger, segment, part)
        self._waiting: list[Row] = []
        self._digest = self._rows = self._last = 0
        self._first = segment.upto
        self._part = part
        self._written = _Hashed(self._unfinished)
        self._parquet = pyarrow().parquet.ParquetWriter(
            self._written,
            schema(),
            compression=COMPRESSION,
            use_dictionary=list(REPEATED),
            column_encoding=dict(DELTAS),
            data_page_size=PAGE_BYTES,
            write_statistics=["notification_id", "originator_id", "recorded_at", "effective_at"],
        )

    def add(self, rows: Sequence[Row]) -> None:
        """More rows, in order of stream and version."""
        for row in rows:
            self._digest ^= row_digest(row)
        numbers = [row.number for row in rows]
        self._first, self._last = min(self._first, *numbers), max(self._last, *numbers)
        self._rows += len(rows)
        self._waiting += rows
        while len(self._waiting) >= ROW_GROUP_EVENTS:
            self._write(ROW_GROUP_EVENTS)

    def _write(self, count: int) -> None:
        self._parquet.write_batch(batch_of(self._waiting[:count]))
        del self._waiting[:count]

    def finish(self) -> File:
        """Write what is left, and give the file its name."""
        if self._waiting:
            self._write(len(self._waiting))
        facts: dict[str, Any] = {
            "rows": self._rows,
            "first_number": self._first,
            "last_number": self._last,
            "digest": f"{self._digest:016x}",
        }
        self._parquet.add_key_value_metadata({ABOUT.decode(): json.dumps({**self._about, **facts})})
        self._parquet.close()
        self._written.close()
        self._unfinished.replace(self._path)
        return File(part=self._part, size=self._written.size, sha256=self._written.sha256.hexdigest(), **facts)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of the file, if it was not finished."""
        if self._parquet.is_open:
            with suppress(OSError, ValueError, pyarrow().ArrowException):  # a full disk has been told of already
                self._parquet.close()
                self._written.close()


def about(ledger: str, segment: Pending | Segment, part: int) -> dict[str, Any]:
    """What a file says of where it belongs: it is told from one of another export, and can be kept after a kill."""
    return {
        "format": FORMAT,
        "ledger": ledger,
        "segment": segment.number,
        "part": part,
        "after": segment.after,
        "upto": segment.upto,
    }


def kept(folder: Path, ledger: str, segment: Pending | Segment, part: int) -> File | None:
    """What is known of a file that an export has finished before it was killed; None if there is none of this export."""
    path = file_path(folder, segment.number, part)
    if not path.exists():
        return None
    said = said_by(path)
    if said is None or {name: said.get(name) for name in about(ledger, segment, part)} != about(ledger, segment, part):
        return None
    facts = {name: said[name] for name in ("rows", "first_number", "last_number", "digest")}
    return File(part=part, size=path.stat().st_size, sha256=sha256_of(path), **facts)


def said_by(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None if it is none of an archive."""
    pa = pyarrow()
    try:
        metadata = pa.parquet.read_metadata(path).metadata or {}
        said = json.loads(metadata[ABOUT])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None
    return said if isinstance(said, dict) else None
