"""Importing fills: read and order the whole file first, then record it in batches, oldest first.

Nothing is appended before the last byte has been read, so a damaged file leaves no event. Every batch is one atomic
append, and ids of fills do not depend on batches, so an import that was killed is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from position_ledger.domain.vocabulary import Environment
from position_ledger.errors import ConfigurationError
from position_ledger.execution.executor import Admit, Executed, Refusal
from position_ledger.importing.files import FileDamaged, Table, digest_of, open_table
from position_ledger.importing.late import require_known_order
from position_ledger.importing.mapping import FillMapping, load_mapping
from position_ledger.importing.refusals import REFUSALS, RowReason, RowRefused, why_not
from position_ledger.importing.rejects import rejects_file, write_rejects
from position_ledger.importing.rows import Candidate, Cells, Rows, time_of
from position_ledger.importing.sorting import Sorter

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.execution.streams import WorkingStreams

__all__ = ["ImportResult", "Progress", "import_fills"]

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


class FillLedger(Protocol):
    """The part of `position_ledger.Ledger` that an import needs."""

    def execute_each(self, commands: Sequence[Command], *, admit: Admit | None = None) -> Sequence[Executed | Refusal]:
        """Execute in one atomic append what is accepted; a refused command is returned in its place."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did; ``rows = accepted + rejected + duplicates``."""

    rows: int
    """Rows of the file, header and blank lines not counted."""
    accepted: int
    rejected: int
    duplicates: int
    """Rows whose fill had been recorded before, with the same content."""
    events: int
    """Events that were appended."""
    token: int
    """Number to wait for before the rows of the import are read; 0: nothing was appended."""
    reasons: Mapping[str, int]
    """Code of a reason to the rows rejected for it, the most frequent first."""


@dataclass(slots=True)
class _Tally:
    accepted: int = 0
    duplicates: int = 0
    events: int = 0
    token: int = 0


def import_fills(
    ledger: FillLedger,
    path: str | Path,
    mapping: str | Path | FillMapping,
    *,
    environment: Environment | str,
    rejects_path: str | Path | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Record every row of a CSV file (plain or gzip) as a fill, or refuse it with a reason; never both, never twice.

    ``mapping`` is the name of a preset, the path of a TOML file, or a mapping. Rows are taken in the order of the
    venue. A sell is judged against what the ledger held at its time.

    Raises:
        ConfigurationError: mapping, environment or rejects file cannot be used; nothing was written.
        FileDamaged: the file cannot be read to its end, or lacks a column; nothing was written.
        ConcurrencyError, DatabaseUnavailable: run the import again, it goes on where it was.
    """
    if not isinstance(mapping, FillMapping):
        mapping = load_mapping(mapping)
    where, source, told = _environment(environment), Path(path), progress or _silence
    provenance = f"import:{digest_of(source)[:DIGEST_CHARACTERS]}:{_printable(source.name)}"
    target = Path(rejects_path) if rejects_path is not None else None
    with rejects_file(target, source) as rejects, Sorter() as sorter:
        with open_table(source, mapping) as table:
            rows = _sort(table, mapping, sorter, source, told)
        tally = _record(ledger, Rows(mapping, where, provenance), table.header, sorter, rows, told)
        if rejects is not None:
            write_rejects(rejects, table.header, sorter.refused())
        reasons = sorter.refused_by_code()
    rejected = sum(reasons.values())
    return ImportResult(rows, tally.accepted, rejected, tally.duplicates, tally.events, tally.token, reasons)


def _environment(environment: Environment | str) -> Environment:
    try:
        return Environment(environment)
    except ValueError:
        known = ", ".join(Environment)
        raise ConfigurationError(f"environment cannot be {environment!r}; it must be one of {known}") from None


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:NAME_CHARACTERS_MAX])


def _silence(done: int, total: int | None) -> None:
    pass


# Reading


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


def _sort(table: Table, mapping: FillMapping, sorter: Sorter, source: Path, told: Progress) -> int:
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
    mapping: FillMapping,
    neighbours: _Neighbours,
    sorter: Sorter,
) -> list[tuple[int, int, int, list[str]]]:
    """The rows whose time can be read, with their keys for sorting; the others are refused."""
    timed = []
    for number, cells in chunk:
        try:
            at_us = (time_of(_row(header, cells), mapping) - EPOCH) // MICROSECOND
        except RowRefused as refusal:
            sorter.refuse(number, *why_not(refusal), cells)
            continue
        neighbours.see(at_us)
        timed.append((at_us, -number if mapping.order == "newest_first" else number, number, cells))
    return timed


def _row(header: Sequence[str], cells: Sequence[str]) -> Cells:
    """The row by column. Raises `RowRefused` if it has not a cell for each, or is damaged."""
    if len(cells) != len(header):
        raise RowRefused(RowReason.RAGGED, value=len(cells), held=len(header))
    if any("\x00" in cell for cell in cells):
        raise RowRefused(RowReason.DAMAGED)
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


# Recording


def _record(
    ledger: FillLedger, rows: Rows, header: Sequence[str], sorter: Sorter, total: int, told: Progress
) -> _Tally:
    """Record what is sorted, batch after batch; refusals go to the sorter."""
    tally, ordered, done = _Tally(), sorter.in_venue_order(), 0
    while chunk := list(islice(ordered, BATCH_ROWS_MAX)):
        candidates = list(_candidates(chunk, header, rows, sorter))
        outcomes = ledger.execute_each([one.command for one in candidates], admit=_condition(candidates))
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Executed):
                _count(tally, outcome)
            else:
                sorter.refuse(candidate.number, *why_not(outcome), candidate.cells)
        done += len(chunk)
        told(done, total)
    return tally


def _candidates(
    chunk: Sequence[tuple[int, int, list[str]]], header: Sequence[str], rows: Rows, sorter: Sorter
) -> Iterator[Candidate]:
    """The rows that are well-formed fills; the others are refused."""
    for at_us, number, cells in chunk:
        try:
            yield rows.read(number, cells, _row(header, cells), EPOCH + at_us * MICROSECOND)
        except REFUSALS as refusal:
            sorter.refuse(number, *why_not(refusal), cells)


def _condition(candidates: Sequence[Candidate]) -> Admit:
    """What a fill must fulfil beside what the domain asks of it: its place among those of the same time is known."""

    def admit(place: int, command: Command, states: WorkingStreams) -> None:  # noqa: ARG001 - the candidate has it
        require_known_order(candidates[place], states)

    return admit


def _count(tally: _Tally, executed: Executed) -> None:
    if executed.is_repeat:
        tally.duplicates += 1
        return
    tally.accepted += 1
    tally.events += executed.events
    tally.token = max(tally.token, executed.token)
