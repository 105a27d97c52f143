"""Importing quotes: each row of a file is a quote, a status or an outcome of a market, or is none of our business.

As with fills, the whole file is read and ordered first, then recorded in batches, oldest first. Commands carry ids made
of the content of their rows, so an import that was killed, or a longer export, adds only what is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.commands import (
    Command,
    DetermineMarket,
    DisputeMarket,
    QuoteMarket,
    RegisterMarket,
    SetMarketStatus,
    SettleMarket,
    VoidMarket,
)
from position_ledger.domain.identity import derived_fill_id, row_text
from position_ledger.domain.numbers import CONTEXT, ONE
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.execution.executor import Executed
from position_ledger.importing import reading
from position_ledger.importing.files import open_table
from position_ledger.importing.ordering import (
    BATCH_ROWS_MAX,
    EPOCH,
    MICROSECOND,
    environment_of,
    provenance_of,
    row_of,
    silence,
    sort_rows,
)
from position_ledger.importing.quote_mapping import QuoteMapping, load_quote_mapping, status_word
from position_ledger.importing.refusals import REFUSALS, RowReason, RowRefused, why_not
from position_ledger.importing.rejects import rejects_file, write_rejects
from position_ledger.importing.sorting import Sorter

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.vocabulary import Environment
    from position_ledger.importing.fills import FillLedger
    from position_ledger.importing.ordering import Progress
    from position_ledger.importing.rows import Cells

__all__ = ["QuotesResult", "import_quotes"]


@dataclass(frozen=True, slots=True)
class QuotesResult:
    """What an import did; ``rows = accepted + rejected + duplicates + ignored``."""

    rows: int
    """Rows of the file, header and blank lines not counted."""
    accepted: int
    """Rows that changed a market."""
    rejected: int
    duplicates: int
    """Rows that told nothing new: recorded before, or the same as what is known."""
    ignored: int
    """Rows of a kind that the mapping leaves out."""
    events: int
    """Events that were appended, those that registered markets included."""
    token: int
    """Number to wait for before the rows of the import are read; 0: nothing was appended."""
    markets: int
    """Markets that the file speaks of."""
    paid: tuple[str, ...]
    """Markets that were settled or voided: their positions are to be paid."""
    reasons: Mapping[str, int]
    """Code of a reason to the rows rejected for it, the most frequent first."""


@dataclass(slots=True)
class _Tally:
    accepted: int = 0
    duplicates: int = 0
    ignored: int = 0
    events: int = 0
    token: int = 0
    paid: dict[str, None] = field(default_factory=dict)

    def count(self, command: Command, outcome: Executed) -> None:
        """Count what became of a row."""
        if outcome.is_repeat or not outcome.events:
            self.duplicates += 1
        else:
            self.accepted += 1
        self.add(outcome)
        if isinstance(command, SettleMarket | VoidMarket):
            self.paid[command.market] = None

    def add(self, outcome: Executed) -> None:
        """Count events."""
        if not outcome.is_repeat and outcome.events:
            self.events += outcome.events
            self.token = max(self.token, outcome.token)


def import_quotes(
    ledger: FillLedger,
    path: str | Path,
    mapping: str | Path | QuoteMapping,
    *,
    environment: Environment | str,
    rejects_path: str | Path | None = None,
    progress: Progress | None = None,
) -> QuotesResult:
    """Record what every row of a CSV file (plain or gzip) says about its market; never twice.

    ``mapping`` is the name of a preset, the path of a TOML file, or a mapping. A market that is not registered is, with
    the terms of the mapping. The positions of markets in ``paid`` are paid by the workers, or `Ledger.pay_markets`.

    Raises:
        ConfigurationError: mapping, environment or rejects file cannot be used; nothing was written.
        FileDamaged: the file cannot be read to its end, or lacks a column; nothing was written.
        ConcurrencyError, DatabaseUnavailable: run the import again, it goes on where it was.
    """
    if not isinstance(mapping, QuoteMapping):
        mapping = load_quote_mapping(mapping)
    where, source, told = environment_of(environment), Path(path), progress or silence
    reader = QuoteRows(mapping, where, provenance_of(source))
    target = Path(rejects_path) if rejects_path is not None else None
    with rejects_file(target, source) as rejects, Sorter() as sorter:
        with open_table(source, mapping) as table:
            rows = sort_rows(table, mapping, reader.time_of, sorter, source, told)
        tally = _record(ledger, reader, table.header, sorter, rows, told)
        if rejects is not None:
            write_rejects(rejects, table.header, sorter.refused())
        reasons = sorter.refused_by_code()
    return QuotesResult(
        rows,
        tally.accepted,
        sum(reasons.values()),
        tally.duplicates,
        tally.ignored,
        tally.events,
        tally.token,
        len(reader.markets),
        tuple(tally.paid),
        reasons,
    )


def _record(
    ledger: FillLedger, reader: QuoteRows, header: Sequence[str], sorter: Sorter, total: int, told: Progress
) -> _Tally:
    """Record what is sorted, batch after batch; refusals go to the sorter."""
    tally, ordered, done = _Tally(), sorter.in_venue_order(), 0
    while chunk := list(islice(ordered, BATCH_ROWS_MAX)):
        said = list(_said_by(chunk, header, reader, sorter, tally))
        outcomes = ledger.execute_each([one.command for one in said])
        for one, outcome in zip(said, outcomes, strict=True):
            if isinstance(outcome, Executed):
                tally.add(outcome) if one.number is None else tally.count(one.command, outcome)
            elif one.number is not None:
                sorter.refuse(one.number, *why_not(outcome), one.cells)
            elif not _is_known(outcome):
                raise outcome
        done += len(chunk)
        told(done, total)
    return tally


def _is_known(outcome: Exception) -> bool:
    """Whether a market could not be registered because it is, with terms of its own, which it keeps."""
    return isinstance(outcome, CommandRejected) and outcome.reason is Reason.MARKET_EXISTS


@dataclass(frozen=True, slots=True)
class _Said:
    """A command, and the row that it comes from; None: it registers the market of the next one."""

    command: Command
    number: int | None
    cells: list[str]


def _said_by(
    chunk: Sequence[tuple[int, int, list[str]]], header: Sequence[str], reader: QuoteRows, sorter: Sorter, tally: _Tally
) -> Iterator[_Said]:
    for at_us, number, cells in chunk:
        row, at = row_of(header, cells), EPOCH + at_us * MICROSECOND
        try:
            command = reader.read(number, row, at)
            if command is None:
                tally.ignored += 1
                continue
            registration = reader.registration(command, at)
        except REFUSALS as refusal:
            sorter.refuse(number, *why_not(refusal), cells)
            continue
        if registration is not None:
            yield _Said(registration, None, cells)
        yield _Said(command, number, cells)


@dataclass(slots=True)
class QuoteRows:
    """Reads rows one after the other, the oldest first; remembers those of the present time only."""

    mapping: QuoteMapping
    environment: Environment
    provenance: str
    """Which file it is; kept beside every event, together with the number of the row."""
    markets: set[str] = field(default_factory=set)
    """Markets that have had a row."""
    _at: datetime | None = None
    _seen: Counter[str] = field(default_factory=Counter)

    def time_of(self, row: Cells) -> datetime:
        """When the row was so, in UTC. Raises `RowRefused`."""
        return reading.time(row[self.mapping.columns.time], self.mapping.time)

    def read(self, number: int, row: Cells, at: datetime) -> Any | None:
        """Read the next row; None: a kind that is left out. Raises `RowRefused` or `CommandRejected`."""
        if at != self._at:
            self._at, self._seen = at, Counter()
        kind = self._kind(row)
        if kind == "ignore":
            return None
        words = row_text({name: row[column] for name, column in self.mapping.columns.named.items()})
        ordinal = self._seen[words]
        self._seen[words] += 1
        shared = {
            "environment": self.environment,
            "market": self._market(row),
            "effective_at": at,
            "command_id": f"quotes:{derived_fill_id(f'{self.environment.value} {words}', ordinal)}",
            "correlation_id": self.provenance,
            "causation_id": f"row:{number}",
        }
        return self._status(row, shared) if kind == "status" else self._quote(row, shared)

    def registration(self, command: Any, at: datetime) -> RegisterMarket | None:
        """Register the market of a command, before its first row; None: this file has done so already."""
        if command.market in self.markets:
            return None
        self.markets.add(command.market)
        terms = self.mapping.market
        return RegisterMarket(
            environment=self.environment,
            market=command.market,
            kind=terms.kind,
            currency=terms.currency,
            platform=terms.platform,
            market_event=terms.market_event,
            status="open" if self.mapping.columns.status is None else "initialized",
            effective_at=at,
            correlation_id=self.provenance,
        )

    def _kind(self, row: Cells) -> str:
        column = self.mapping.columns.kind
        if column is None:
            return "quote" if self.mapping.columns.quotes else "status"
        kind = self.mapping.kinds.get(row[column])
        if kind is None:
            raise RowRefused(RowReason.KIND_UNKNOWN, value=row[column], held=", ".join(self.mapping.kinds))
        return kind

    def _market(self, row: Cells) -> str:
        mapping = self.mapping
        said = mapping.constants.market if mapping.columns.market is None else row[mapping.columns.market]
        named = mapping.values.market.get(said or "", said or "")
        return f"{mapping.market.prefix}{named}" if named else ""

    def _quote(self, row: Cells, shared: dict[str, Any]) -> QuoteMarket:
        columns = self.mapping.columns.quotes
        prices = {name: self._price(name, row[column]) for name, column in columns.items() if row[column]}
        return QuoteMarket(**shared, **prices, min_change=self.mapping.min_change or None)

    def _price(self, name: str, text: str) -> Decimal:
        how = self.mapping.price
        number = reading.scaled(reading.number(name, text, self.mapping.numbers), how.scale)
        if how.space == "price":
            return number
        if number < ONE:
            raise RowRefused(RowReason.ODDS_BELOW_1, field=name, value=text)
        return CONTEXT.divide(ONE, number)

    def _status(self, row: Cells, shared: dict[str, Any]) -> Command:
        text = row[self.mapping.columns.status or ""]
        try:
            word, value = status_word(self.mapping.values.status.get(text, text))
        except ValueError:
            raise RowRefused(RowReason.STATUS_UNKNOWN, value=text) from None
        if word in _WITH_VALUE:
            return _WITH_VALUE[word](**shared, value=value)
        if word in _WITHOUT:
            return _WITHOUT[word](**shared)
        return SetMarketStatus(**shared, status=word)


_WITH_VALUE: Final[dict[str, type[Command]]] = {"determined": DetermineMarket, "settled": SettleMarket}
_WITHOUT: Final[dict[str, type[Command]]] = {"disputed": DisputeMarket, "voided": VoidMarket}
