"""Reading a whole file into the order of its times: what every kind of import begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from position_ledger.domain.vocabulary import Environment
from position_ledger.errors import ConfigurationError
from position_ledger.importing.files import FileDamaged, Table, TableMapping, digest_of
from position_ledger.importing.refusals import REFUSALS, RowReason, RowRefused, why_not
from position_ledger.importing.rows import Cells
from position_ledger.importing.sorting import Sorter

__all__ = [
    "BATCH_ROWS_MAX",
    "EPOCH",
    "MICROSECOND",
    "ImportResult",
    "Progress",
    "environment_of",
    "provenance_of",
    "row_of",
    "silence",
    "sort_rows",
]

BATCH_ROWS_MAX: Final = 500
"""Rows in one atomic append: few round trips, and a lock on the feed of some milliseconds."""
CHUNK_ROWS: Final = 10_000
"""Rows read at a time."""
NAME_CHARACTERS_MAX: Final = 200
DIGEST_CHARACTERS: Final = 16
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

Progress = Callable[[int, int | None], None]
"""Told the rows done and their total: first while reading, total None; then while recording."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did; ``rows = accepted + rejected + duplicates``."""

    rows: int
    """Rows of the file, header and blank lines not counted."""
    accepted: int
    rejected: int
    duplicates: int
    """Rows that had been recorded before, with the same content; in a feed also those that told nothing new."""
    events: int
    """Events that were appended."""
    token: int
    """Number to wait for before the rows of the import are read; 0: nothing was appended."""
    reasons: Mapping[str, int]
    """Code of a reason to the rows rejected for it, the most frequent first."""


def environment_of(environment: Environment | str) -> Environment:
    """The environment of an import. Raises `ConfigurationError` for a word that is none."""
    try:
        return Environment(environment)
    except ValueError:
        known = ", ".join(Environment)
        raise ConfigurationError(f"environment cannot be {environment!r}; it must be one of {known}") from None


def provenance_of(source: Path) -> str:
    """Which file it is, for every event of it. Raises `FileDamaged` if it cannot be read."""
    return f"import:{digest_of(source)[:DIGEST_CHARACTERS]}:{_printable(source.name)}"


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:NAME_CHARACTERS_MAX])


def silence(done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


@dataclass(slots=True)
class _Neighbours:
    """How often a row is older than the one above it, and how often newer: what the order of a file is by its times."""

    older: int = 0
    newer: int = 0
    _last_us: int | None = None

    def see(self, at_us: int) -> None:
        """Compare with the row above."""
        if self._last_us is not None:
            self.older += at_us < self._last_us
            self.newer += at_us > self._last_us
        self._last_us = at_us

    def contradicts(self, order: str) -> bool:
        """Whether more rows speak against the order that the mapping claims than for it."""
        return (order == "oldest_first" and self.older > self.newer) or (
            order == "newest_first" and self.newer > self.older
        )


def sort_rows(
    table: Table,
    mapping: TableMapping,
    time_of: Callable[[Cells], datetime],
    sorter: Sorter,
    source: Path,
    told: Progress,
) -> int:
    """Read the file to its end and keep its rows by time; the number of rows. Raises `FileDamaged`."""
    neighbours, rows = _Neighbours(), 0
    while chunk := list(islice(table.rows, CHUNK_ROWS)):
        sorter.add_all(_timed(chunk, table.header, mapping.order, time_of, neighbours, sorter))
        rows = chunk[-1][0]
        told(rows, None)
    if neighbours.contradicts(mapping.order):
        raise FileDamaged(
            f"file {source} is not {mapping.order.replace('_', ' ')} as mapping {mapping.name} says: "
            f"{neighbours.older} rows are older than the row above, {neighbours.newer} newer; correct order, "
            'or say "by_time" if its rows are in no order; nothing was imported'
        )
    return rows


def _timed(
    chunk: Sequence[tuple[int, list[str]]],
    header: Sequence[str],
    order: str,
    time_of: Callable[[Cells], datetime],
    neighbours: _Neighbours,
    sorter: Sorter,
) -> list[tuple[int, int, int, list[str]]]:
    """The rows whose time can be read, with their keys for sorting; the others are refused."""
    timed = []
    for number, cells in chunk:
        try:
            at_us = (time_of(row_of(header, cells)) - EPOCH) // MICROSECOND
        except REFUSALS as refusal:
            sorter.refuse(number, *why_not(refusal), cells)
            continue
        neighbours.see(at_us)
        timed.append((at_us, -number if order == "newest_first" else number, number, cells))
    return timed


def row_of(header: Sequence[str], cells: Sequence[str]) -> Cells:
    """The row by column. Raises `RowRefused` if it has not a cell for each, or is damaged."""
    if len(cells) != len(header):
        raise RowRefused(RowReason.RAGGED, value=len(cells), held=len(header))
    if any("\x00" in cell for cell in cells):
        raise RowRefused(RowReason.DAMAGED)
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
