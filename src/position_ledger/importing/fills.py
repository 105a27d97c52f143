"""Importing fills: read and order the whole file first, then record it in batches, oldest first.

Nothing is appended before the last byte has been read, so a damaged file leaves no event. Every batch is one atomic
append, and ids of fills do not depend on batches, so an import that was killed is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from position_ledger.domain.vocabulary import Environment
from position_ledger.execution.executor import Admit, Executed, Refusal
from position_ledger.importing.files import open_table
from position_ledger.importing.late import require_known_order
from position_ledger.importing.mapping import FillMapping, load_mapping
from position_ledger.importing.ordering import (
    BATCH_ROWS_MAX,
    EPOCH,
    MICROSECOND,
    ImportResult,
    Progress,
    environment_of,
    provenance_of,
    row_of,
    silence,
    sort_rows,
)
from position_ledger.importing.refusals import REFUSALS, why_not
from position_ledger.importing.rejects import rejects_file, write_rejects
from position_ledger.importing.rows import Candidate, Rows, time_of
from position_ledger.importing.sorting import Sorter

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.execution.streams import WorkingStreams

__all__ = ["ImportResult", "Progress", "import_fills"]


class FillLedger(Protocol):
    """The part of `position_ledger.Ledger` that an import needs."""

    def execute_each(self, commands: Sequence[Command], *, admit: Admit | None = None) -> Sequence[Executed | Refusal]:
        """Execute in one atomic append what is accepted; a refused command is returned in its place."""


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
    where, source, told = environment_of(environment), Path(path), progress or silence
    provenance = provenance_of(source)
    target = Path(rejects_path) if rejects_path is not None else None
    with rejects_file(target, source) as rejects, Sorter() as sorter:
        with open_table(source, mapping) as table:
            rows = sort_rows(table, mapping, lambda row: time_of(row, mapping), sorter, source, told)
        tally = _record(ledger, Rows(mapping, where, provenance), table.header, sorter, rows, told)
        if rejects is not None:
            write_rejects(rejects, table.header, sorter.refused())
        reasons = sorter.refused_by_code()
    rejected = sum(reasons.values())
    return ImportResult(rows, tally.accepted, rejected, tally.duplicates, tally.events, tally.token, reasons)


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
            yield rows.read(number, cells, row_of(header, cells), EPOCH + at_us * MICROSECOND)
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
