"""The sum file: one chained line per migration, so that two branches with one number meet as a git conflict."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TYPE_CHECKING

from position_ledger.errors import MigrationError
from position_ledger.migration.files import SUM_FILE, load_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from position_ledger.migration.files import MigrationFile

__all__ = ["chain_of", "check_sum", "sum_text", "write_sum"]

_COMMENT = "# One chained line per migration. A conflict here: two branches took one number; renumber one of them."


def _lines(files: Iterable[MigrationFile]) -> list[str]:
    lines, link = [], ""
    for file in files:
        link = hashlib.sha256(f"{link}\n{file.filename}\n{file.checksums.whole}".encode()).hexdigest()
        lines.append(f"{file.filename} {link}")
    return lines


def chain_of(files: Iterable[MigrationFile]) -> str:
    """One checksum that stands for these files in this order; "" for none."""
    lines = _lines(files)
    return lines[-1].rpartition(" ")[2] if lines else ""


def sum_text(files: Iterable[MigrationFile]) -> str:
    """The content of the sum file: line n covers files 1 to n, by name and content."""
    return "\n".join([_COMMENT, *_lines(files), ""])


def check_sum(files: Iterable[MigrationFile], text: str) -> None:
    """Raise MigrationError naming the first file in which the sum file and the folder differ."""
    written = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for found, expected in zip_longest(written, _lines(files), fillvalue=""):
        if found != expected:
            raise MigrationError(
                f"{SUM_FILE} does not fit {(expected or found).partition(' ')[0]}: the file was added, removed, "
                "renamed or edited since the sums were written; look at the difference, then write them again"
            )


def write_sum(folder: Path) -> Path:
    """Write the sum file of a folder beside its migrations and return its path."""
    path = folder / SUM_FILE
    path.write_text(sum_text(load_folder(folder)), encoding="utf-8", newline="\n")
    return path
