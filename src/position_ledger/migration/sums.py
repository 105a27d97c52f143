"""The sum file: one chained line per migration, so that two branches with one number meet as a git conflict."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple

from position_ledger.errors import MigrationError
from position_ledger.migration.files import SUM_FILE, load_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from position_ledger.migration.files import MigrationFile

__all__ = ["SumChange", "chain_of", "check_sum", "sum_changes", "sum_text", "write_sum"]

LINE_WORDS = 2
_COMMENT = "# One chained line per migration. A conflict here: two branches took one number; renumber one of them."


class SumChange(NamedTuple):
    """What happened to one migration since the sum file was written."""

    what: Literal["added", "changed", "removed"]
    name: str


def _lines(files: Iterable[MigrationFile]) -> list[str]:
    lines, link = [], ""
    for file in files:
        link = _link(link, file)
        lines.append(f"{file.filename} {link}")
    return lines


def _link(before: str, file: MigrationFile) -> str:
    return hashlib.sha256(f"{before}\n{file.filename}\n{file.checksums.whole}".encode()).hexdigest()


def _written(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def chain_of(files: Iterable[MigrationFile]) -> str:
    """One checksum that stands for these files in this order; "" for none."""
    lines = _lines(files)
    return lines[-1].rpartition(" ")[2] if lines else ""


def sum_text(files: Iterable[MigrationFile]) -> str:
    """The content of the sum file: line n covers files 1 to n, by name and content."""
    return "\n".join([_COMMENT, *_lines(files), ""])


def check_sum(files: Iterable[MigrationFile], text: str) -> None:
    """Raise MigrationError naming the first file in which the sum file and the folder differ."""
    if any(line.startswith(("<<<<<<<", ">>>>>>>")) for line in text.splitlines()):
        raise MigrationError(
            f"{SUM_FILE} has conflict markers of git: two branches have changed the migrations; give one of two files with "
            "the same number the next free one, then run `position-ledger migrate sum`"
        )
    for found, expected in zip_longest(_written(text), _lines(files), fillvalue=""):
        if found != expected:
            raise MigrationError(
                f"{SUM_FILE} does not fit {(expected or found).partition(' ')[0]}: the file was added, removed, "
                "renamed or edited since the sums were written; look at the difference, then run "
                "`position-ledger migrate sum`"
            )


def sum_changes(files: Iterable[MigrationFile], text: str) -> tuple[SumChange, ...]:
    """What happened to the files since the sum file was written; a file that was renamed is removed and added.

    The chain is followed from what the sum file says of the file before, so one edit does not taint all later files.
    """
    written = dict(line.split() for line in _written(text) if len(line.split()) == LINE_WORDS)
    left, before = set(written), ""
    changes: list[SumChange] = []
    for file in files:
        left.discard(file.filename)
        link = written.get(file.filename)
        if link is None:
            changes.append(SumChange("added", file.filename))
        elif link != _link(before, file):
            changes.append(SumChange("changed", file.filename))
        before = link or _link(before, file)
    return (*changes, *(SumChange("removed", name) for name in sorted(left)))


def write_sum(folder: Path) -> Path:
    """Write the sum file of a folder beside its migrations and return its path."""
    path = folder / SUM_FILE
    path.write_text(sum_text(load_folder(folder)), encoding="utf-8", newline="\n")
    return path
