"""What an archive is on disk: a folder with a manifest, and a folder of Parquet files for each export.

    manifest.json                   what is complete, with the checksum of every file; written last
    segment-0001/part-00.parquet    events of one range of stream ids, of the numbers of the first export

A file is written under another name, synced and renamed, so that what has its name is whole. Nothing is ever changed
but the manifest, which is replaced as a whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from position_ledger.errors import ArchiveError

KindT = TypeVar("KindT")

FORMAT = 1
"""Of folder, manifest and columns together; a reader refuses every other."""

PARTS = 64
"""Ranges of the stream id, equal in size: the upper six bits of its first byte. Part of the format."""

MANIFEST = "manifest.json"
LOCK = ".lock"
UNFINISHED = ".unfinished"
HASHED_AT_ONCE = 1 << 20


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event by which a log is known again: its number, and the random identity that its writer gave it."""

    number: int
    event_id: UUID


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a segment. ``digest`` is that of its rows (see `digest`), in hexadecimal; numbers include both ends."""

    part: int
    rows: int
    first_number: int
    last_number: int
    digest: str
    size: int
    sha256: str


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one export wrote: every event with ``after < number <= upto``. A part without events has no file."""

    number: int
    after: int
    upto: int
    events: int
    last: Event
    release: str
    exported_at: datetime
    files: tuple[File, ...]


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment whose export has begun: the next export goes on with exactly this one. ``last`` is its last event."""

    number: int
    after: int
    upto: int
    last: Event


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive has. ``first`` is the first event of the log: no other ledger has it, whatever its server."""

    format: int
    first: Event
    segments: tuple[Segment, ...] = ()
    pending: Pending | None = None
    checksum: str = ""

    @property
    def upto(self) -> int:
        """The number up to which every event is in the archive."""
        return self.segments[-1].upto if self.segments else 0

    @property
    def begun(self) -> tuple[Segment | Pending, ...]:
        """Every segment, that one included whose export was interrupted."""
        return (*self.segments, *((self.pending,) if self.pending else ()))

    @property
    def events(self) -> int:
        """How many events it has."""
        return sum(segment.events for segment in self.segments)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for segment in self.segments for file in segment.files)


class _Format(msgspec.Struct):
    format: int


def part_of(stream: bytes) -> int:
    """The part that a stream belongs to, by its id."""
    return stream[0] >> 2


def segment_folder(folder: Path, number: int) -> Path:
    """Where the files of a segment are."""
    return folder / f"segment-{number:04}"


def file_path(folder: Path, segment: int, part: int) -> Path:
    """Where the file of a part is."""
    return segment_folder(folder, segment) / f"part-{part:02}.parquet"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an archive.

    Raises:
        ArchiveError: the folder is no archive, has another format, or its manifest is not as it was written.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{folder} is no archive, it has no {MANIFEST}: name the folder that position-ledger archive export wrote"
        raise ArchiveError(msg) from error
    found = _decoded(folder, raw, _Format).format
    if found != FORMAT:
        msg = (
            f"archive {folder} has format {found} and this release reads format {FORMAT}: use the release that wrote it, "
            "or export into a new folder"
        )
        raise ArchiveError(msg)
    manifest = _decoded(folder, raw, Manifest)
    if raw != _written(manifest):
        raise ArchiveError(_damaged(folder))
    return manifest


def _decoded(folder: Path, raw: bytes, kind: type[KindT]) -> KindT:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArchiveError(_damaged(folder)) from error


def _damaged(folder: Path) -> str:
    return f"{folder / MANIFEST} is not as it was written: take the archive from a copy, or export into a new folder"


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Replace the manifest, in one step that survives a loss of power; answers it with its checksum."""
    whole = msgspec.structs.replace(manifest, checksum=_checksum(manifest))
    unfinished = folder / (MANIFEST + UNFINISHED)
    with unfinished.open("wb") as file:
        file.write(_written(whole))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / MANIFEST)
    sync_folder(folder)
    return whole


def _checksum(manifest: Manifest) -> str:
    bare = msgspec.structs.replace(manifest, checksum="")
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def _written(manifest: Manifest) -> bytes:
    """The bytes of the file: a manifest that says something else than its checksum is written differently."""
    whole = msgspec.structs.replace(manifest, checksum=_checksum(manifest))
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The checksum of a file's bytes, read a bounded part at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def require_as_written(folder: Path, segment: Segment, file: File) -> Path:
    """The path of a file that has the checksum of the manifest.

    Raises:
        ArchiveError: it is missing, belongs to another export, or a byte of it is not as it was written.
    """
    problem = _problem_of(folder, segment, file)
    if problem is not None:
        msg = f"{problem}: take it from a copy of the archive, or export into a new folder"
        raise ArchiveError(msg)
    return file_path(folder, segment.number, file.part)


def _problem_of(folder: Path, segment: Segment, file: File) -> str | None:
    path = file_path(folder, segment.number, file.part)
    try:
        size = path.stat().st_size
        if size == file.size and sha256_of(path) == file.sha256:
            return None
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if size != file.size:
        return f"{path} has {size:,} bytes and the manifest says {file.size:,}, so it is cut off or of another export"
    return f"{path} is not as it was written, its checksum differs from that of the manifest"


@contextmanager
def only_export(folder: Path) -> Iterator[None]:
    """Keep other exports away from the folder, which is made if need be; a killed process leaves no lock behind.

    Raises:
        ArchiveError: another one is running, or the folder has something else in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    strangers = sorted(one.name for one in folder.iterdir() if one.name != LOCK and not one.name.startswith(MANIFEST))
    if strangers and not (folder / MANIFEST).exists():
        msg = f"{folder} is no archive and not empty, it has {strangers[0]}: name an archive or a new folder"
        raise ArchiveError(msg)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another export into {folder} is running: wait for it"
            raise ArchiveError(msg) from error
        yield
