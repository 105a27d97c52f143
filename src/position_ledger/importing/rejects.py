"""The rejects file: one line for every row that did not become an event. It appears whole or not at all."""

from __future__ import annotations

import csv
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from position_ledger.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["rejects_file", "write_rejects"]

HEADER: Final = ("row", "reason", "sentence")


@contextmanager
def rejects_file(path: Path | None, source: Path) -> Iterator[IO[str] | None]:
    """A file to write rejects to, which takes the place of ``path`` when the block ends well.

    Raises:
        ConfigurationError: before the block, if the place cannot be written or is the imported file itself.
    """
    if path is None:
        yield None
        return
    if path.exists() and path.samefile(source):
        raise ConfigurationError(f"rejects {path} is the imported file itself; name another file")
    if path.is_dir():
        raise ConfigurationError(f"rejects {path} cannot be written: it is a folder; name a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise ConfigurationError(f"rejects {path} cannot be written: {error.strerror or error}") from error
    try:
        os.fchmod(handle, 0o666 & ~_umask())
        with open(handle, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
            yield file
        os.replace(name, path)  # noqa: PTH105 - atomic
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_rejects(file: IO[str], header: Sequence[str], refused: Iterable[tuple[int, str, str, list[str]]]) -> None:
    """Write the header and a line per refused row: number, code, sentence, and the cells as the file had them."""
    writer = csv.writer(file, lineterminator="\n")
    try:
        writer.writerow((*HEADER, *header))
        writer.writerows((number, code, sentence, *cells) for number, code, sentence, cells in refused)
        file.flush()
    except OSError as error:
        message = f"the rows are recorded, but rejects cannot be written ({error.strerror or error}); import again"
        raise LedgerError(message) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
