"""Reading the CSV file: unpacked by its content, cut into rows; a fault of the file as a whole is one sentence."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Final, Protocol

from position_ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from position_ledger.importing.mapping import FileLayout

__all__ = ["FileDamaged", "Table", "TableMapping", "digest_of", "open_table"]

GZIP: Final = b"\x1f\x8b"
ARCHIVES: Final = {b"PK\x03\x04": "a zip archive", b"BZh": "packed by bzip2", b"\xfd7zXZ\x00": "packed by xz"}
BYTE_ORDER_MARK: Final = "\ufeff"


class FileDamaged(LedgerError):
    """The file cannot be read as the mapping describes; nothing was imported. The message names what is wrong."""


class TableMapping(Protocol):
    """What reading a file needs to know of a mapping, whatever its rows become."""

    @property
    def name(self) -> str:
        """Of the preset or the file, for messages."""

    @property
    def order(self) -> str:
        """oldest_first, newest_first or by_time."""

    @property
    def file(self) -> FileLayout:
        """How the text is cut into rows and cells."""

    @property
    def needed(self) -> Mapping[str, str]:
        """Every field, and the column that the file must have for it."""


@dataclass(frozen=True, slots=True)
class Table:
    """The header, and the rows as they come; each row is what the file has, spaces included."""

    header: tuple[str, ...]
    rows: Iterator[tuple[int, list[str]]]
    """1-based number of the row, header and blank lines not counted, and its cells."""


def digest_of(path: Path) -> str:
    """SHA-256 of the file as it is, in hex. Raises `FileDamaged` if it cannot be read."""
    try:
        if not path.is_file():
            what = "is a folder or device, not a file" if path.exists() else "does not exist"
            raise FileDamaged(f"file {path} {what}; nothing was imported")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileDamaged(f"file {path} cannot be read: {error.strerror or error}; nothing was imported") from error


@contextmanager
def open_table(path: Path, mapping: TableMapping) -> Iterator[Table]:
    """Open the file for reading once, from its first row to its last.

    Raises:
        FileDamaged: here or while rows are read: it is truncated, of another encoding, no CSV, or lacks a column.
    """
    layout = mapping.file
    with path.open("rb") as file, _unpacked(file, path) as data:
        text = TextIOWrapper(data, encoding=layout.encoding, errors="strict", newline="")
        records = _records(text, layout, path)
        header = tuple(layout.columns) or _header(records, path)
        _require_columns(header, mapping, path)
        yield Table(header, enumerate((cells for cells in records if cells), 1))


def _unpacked(file: IO[bytes], path: Path) -> IO[bytes]:
    start = file.read(8)
    file.seek(0)
    for magic, what in ARCHIVES.items():
        if start.startswith(magic):
            raise FileDamaged(f"file {path} is {what}; unpack it, or pack it with gzip; nothing was imported")
    return gzip.open(file) if start.startswith(GZIP) else file  # type: ignore[return-value] # it reads like one


def _records(text: TextIOWrapper, layout: FileLayout, path: Path) -> Iterator[list[str]]:
    """The records of the file; its faults become one error."""
    reader = csv.reader(_lines(text, layout), delimiter=layout.delimiter, strict=True)
    try:
        yield from reader
    except UnicodeDecodeError as error:
        what = (
            f"is not {layout.encoding} after line {reader.line_num}: {error.reason}; set file.encoding in the mapping"
        )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"is a damaged or truncated gzip ({str(error).rstrip('.')}); get it again"
    except csv.Error as error:
        what = f"is no well-formed CSV at line {reader.line_num + layout.skip_lines} ({error}); correct it there"
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
    else:
        return
    raise FileDamaged(f"file {path} {what}; nothing was imported")


def _lines(text: TextIOWrapper, layout: FileLayout) -> Iterator[str]:
    for number, line in enumerate(text, 1):
        bare = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if number > layout.skip_lines:
            yield bare


def _header(records: Iterator[list[str]], path: Path) -> tuple[str, ...]:
    header = next((cells for cells in records if cells), None)
    if header is None:
        raise FileDamaged(f"file {path} is empty, it has not even a header; nothing was imported")
    return tuple(name.strip() for name in header)


def _require_columns(header: Sequence[str], mapping: TableMapping, path: Path) -> None:
    for field, column in mapping.needed.items():
        found = header.count(column)
        if found != 1:
            what = "has no column" if not found else f"has {found} columns"
            raise FileDamaged(
                f"file {path} {what} {column!r}, which mapping {mapping.name} needs once for {field}; "
                f"its columns are: {', '.join(header)}; nothing was imported"
            )
