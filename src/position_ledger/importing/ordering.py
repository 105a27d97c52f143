"""Bringing the rows of a file into the order of the venue: read to the end, told by their times, sorted outside memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from position_ledger.importing import reading
from position_ledger.importing.files import FileDamaged, FileMapping, Table
from position_ledger.importing.refusals import RowReason, RowRefused, why_not

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.importing.mapping import TimeReading
    from position_ledger.importing.sorting import Sorter

__all__ = ["EPOCH", "MICROSECOND", "Cells", "Progress", "TimedMapping", "no_progress", "row_of", "sort_rows", "time_of"]

CHUNK_ROWS: Final = 10_000
"""Rows read at a time."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

Cells = Mapping[str, str]
"""Column to text, spaces around it removed."""
Progress = Callable[[int, int | None], None]
"""Told the rows done and their total: first while reading, total None; then while recording."""


class TimedMapping(FileMapping, Protocol):
    """The part of a mapping that says which row was first."""

    @property
    def order(self) -> str:
        """oldest_first, newest_first or by_time."""

    @property
    def time(self) -> TimeReading:
        """How the time of a row is read."""


def no_progress(done: int, total: int | None) -> None:
    """Tell nobody."""


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


def sort_rows(table: Table, mapping: TimedMapping, sorter: Sorter, source: Path, told: Progress) -> int:
    """Read the file to its end and keep its rows by time; the number of rows. Raises `FileDamaged`."""
    neighbours, rows = _Neighbours(), 0
    while chunk := list(islice(table.rows, CHUNK_ROWS)):
        sorter.add_all(_timed(chunk, table.header, mapping, neighbours, sorter))
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
    mapping: TimedMapping,
    neighbours: _Neighbours,
    sorter: Sorter,
) -> list[tuple[int, int, int, list[str]]]:
    """The rows whose time can be read, with their keys for sorting; the others are refused."""
    timed = []
    for number, cells in chunk:
        try:
            at_us = (time_of(row_of(header, cells), mapping) - EPOCH) // MICROSECOND
        except RowRefused as refusal:
            sorter.refuse(number, *why_not(refusal), cells)
            continue
        neighbours.see(at_us)
        timed.append((at_us, -number if mapping.order == "newest_first" else number, number, cells))
    return timed


def row_of(header: Sequence[str], cells: Sequence[str]) -> Cells:
    """The row by column. Raises `RowRefused` if it has not a cell for each, or is damaged."""
    if len(cells) != len(header):
        raise RowRefused(RowReason.RAGGED, value=len(cells), held=len(header))
    if any("\x00" in cell for cell in cells):
        raise RowRefused(RowReason.DAMAGED)
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def time_of(row: Cells, mapping: TimedMapping) -> datetime:
    """When what the row says happened, in UTC. Raises `RowRefused`."""
    return reading.time(row[mapping.columns.time], mapping.time)
