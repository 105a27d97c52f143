"""Importing feeds: what the rows of a file say, tick by tick, becomes commands, in batches, oldest first.

A feed knows its mapping and what a row means; everything else is here, the same for every feed. As for fills nothing
is appended before the last byte has been read, every batch is one atomic append, and ids of commands follow from the
rows alone, so an import that was killed is run again, and one that is run again appends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from position_ledger.domain.identity import derived_fill_id, row_text
from position_ledger.domain.vocabulary import Environment
from position_ledger.execution.executor import Executed, Refusal
from position_ledger.importing.files import TableMapping, open_table
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
from position_ledger.importing.rows import Cells
from position_ledger.importing.sorting import Sorter

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command

__all__ = ["Feed", "FeedLedger", "Tick", "import_feed"]


class FeedLedger(Protocol):
    """The part of `position_ledger.Ledger` that an import needs."""

    def execute_each(self, commands: Sequence[Command]) -> Sequence[Executed | Refusal]:
        """Execute in one atomic append what is accepted; a refused command is returned in its place."""


class Feed(Protocol):
    """One kind of feed: where its rows are in time, and which commands each becomes. Made anew for every import."""

    @property
    def kind(self) -> str:
        """Part of the ids of its commands; never changed, or a second import would record everything again."""

    @property
    def mapping(self) -> TableMapping:
        """How the file is read."""

    def time_of(self, row: Cells) -> datetime:
        """When the row was so, aware. Raises `RowRefused`. Called for every row before any becomes a command."""

    def see(self, row: Cells, tick: Tick) -> None:
        """Be told of every row that has a time, in their order, before any becomes a command."""

    def commands(self, row: Cells, tick: Tick) -> Sequence[Command]:
        """Say what the row asks of the ledger, none if it says nothing. Raises `RowRefused` or `CommandRejected`."""


@dataclass(slots=True)
class _Present:
    """How often each thing came at the present time: what numbers ticks of one time, and rows that are the same."""

    at: datetime | None = None
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def place(self, at: datetime, *what: str) -> int:
        """Count one more; the number before it."""
        if at != self.at:
            self.at, self.counts = at, Counter()
        number = self.counts[what]
        self.counts[what] += 1
        return number


@dataclass(frozen=True, slots=True)
class Tick:
    """A row's place in its feed, from which follows what all its commands carry."""

    kind: str
    environment: Environment
    at: datetime
    number: int
    """1-based number of the row in the file, the header not counted."""
    provenance: str
    identity: str
    """Of the row: its text in the columns that the mapping reads, and its ordinal among the same rows of its time."""
    present: _Present

    def about(self, subject: str, what: str = "state") -> dict[str, Any]:
        """Fields of a command about one subject (a game, an edge, a market); ``what`` tells several commands apart.

        Gives environment, effective time, an id of the command that follows from the row and the subject, and which
        row of which file it was.
        """
        named = row_text({"kind": self.kind, "environment": self.environment, "subject": subject, "what": what})
        return {
            "environment": self.environment,
            "effective_at": self.at,
            "command_id": derived_fill_id(f"{named}{self.identity}", 0),
            "correlation_id": self.provenance,
            "causation_id": f"row:{self.number}",
        }

    def place(self, subject: str) -> int:
        """Number of this tick among those of the same subject and time, from 0: the ``tick`` of its commands."""
        return self.present.place(self.at, "subject", subject)


@dataclass(slots=True)
class _Tally:
    accepted: int = 0
    duplicates: int = 0
    events: int = 0
    token: int = 0


def import_feed(
    ledger: FeedLedger,
    path: str | Path,
    feed: Feed,
    *,
    environment: Environment | str,
    rejects_path: str | Path | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Say every row of a CSV file (plain or gzip) to the ledger, or refuse it with a reason, in the order of its times.

    A row of several commands is rejected if any of them is; the others are recorded. ``duplicates`` are the rows that
    told nothing new: recorded before, or the ledger knew it already.

    Raises:
        ConfigurationError: environment or rejects file cannot be used; nothing was written.
        FileDamaged: the file cannot be read to its end, or lacks a column; nothing was written.
        ConcurrencyError, DatabaseUnavailable: run the import again, it goes on where it was.
    """
    where, source, told = environment_of(environment), Path(path), progress or silence
    provenance = provenance_of(source)
    target = Path(rejects_path) if rejects_path is not None else None
    with rejects_file(target, source) as rejects, Sorter() as sorter:
        with open_table(source, feed.mapping) as table:
            rows = sort_rows(table, feed.mapping, feed.time_of, sorter, source, told)
        reader = _Reader(feed, where, provenance, table.header)
        for tick, row, _ in reader.ticks(sorter.in_venue_order()):
            feed.see(row, tick)
        tally = _record(ledger, reader, sorter, rows, told)
        if rejects is not None:
            write_rejects(rejects, table.header, sorter.refused())
        reasons = sorter.refused_by_code()
    rejected = sum(reasons.values())
    return ImportResult(rows, tally.accepted, rejected, tally.duplicates, tally.events, tally.token, reasons)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Gives the rows of a sorted file their places."""

    feed: Feed
    environment: Environment
    provenance: str
    header: Sequence[str]

    def ticks(self, ordered: Iterator[tuple[int, int, list[str]]]) -> Iterator[tuple[Tick, Cells, list[str]]]:
        """Each row with its place, by column and as the file has it. To be used up in order: places are counted."""
        present, columns = _Present(), sorted(set(self.feed.mapping.needed.values()))
        for at_us, number, cells in ordered:
            row, at = row_of(self.header, cells), EPOCH + at_us * MICROSECOND
            text = row_text({column: row[column] for column in columns})
            identity = derived_fill_id(text, present.place(at, "row", text))
            yield Tick(self.feed.kind, self.environment, at, number, self.provenance, identity, present), row, cells


def _record(ledger: FeedLedger, reader: _Reader, sorter: Sorter, total: int, told: Progress) -> _Tally:
    """Record what is sorted, batch after batch; refusals go to the sorter."""
    tally, done = _Tally(), 0
    ticks = reader.ticks(sorter.in_venue_order())
    while chunk := list(_asked(reader.feed, islice(ticks, BATCH_ROWS_MAX))):
        commands = [command for _, _, asked in chunk if not isinstance(asked, Exception) for command in asked]
        outcomes = iter(ledger.execute_each(commands) if commands else ())
        for number, cells, asked in chunk:
            refused: Exception | None = asked if isinstance(asked, Exception) else None
            answers = [] if isinstance(asked, Exception) else list(islice(outcomes, len(asked)))
            refused = refused or next((answer for answer in answers if not isinstance(answer, Executed)), None)
            if refused is not None:
                sorter.refuse(number, *why_not(refused), cells)
            _count(
                tally, [answer for answer in answers if isinstance(answer, Executed)], is_refused=refused is not None
            )
        done += len(chunk)
        told(done, total)
    return tally


def _asked(
    feed: Feed, ticks: Iterator[tuple[Tick, Cells, list[str]]]
) -> Iterator[tuple[int, list[str], Sequence[Command] | Exception]]:
    """Number, cells and commands of each row, or why it has none."""
    for tick, row, cells in ticks:
        try:
            yield tick.number, cells, feed.commands(row, tick)
        except REFUSALS as refusal:
            yield tick.number, cells, refusal


def _count(tally: _Tally, executed: Sequence[Executed], *, is_refused: bool) -> None:
    """Count a row by its commands: those that are repeats appended nothing now."""
    news = [one for one in executed if not one.is_repeat and one.events]
    tally.events += sum(one.events for one in news)
    tally.token = max([tally.token, *(one.token for one in news)])
    if not is_refused:
        tally.accepted += bool(news)
        tally.duplicates += not news
