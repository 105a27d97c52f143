"""The statements that our code composes where it runs, made by the functions that compose them, for every projection.

They are given a connection that takes statements down instead of sending them, and answers that there are no rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from psycopg.sql import SQL, Composable, Identifier

from position_ledger.as_of import AsOfReader
from position_ledger.as_of_rows import RowsAsOf
from position_ledger.auditing import auditor, records
from position_ledger.domain.references import REFERENCE_TABLES
from position_ledger.errors import ReferenceRefused
from position_ledger.execution.references import KnownReferences
from position_ledger.projection import differences, digests, provers, statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.known_at import KnownAt
from position_ledger.reading import FILTERS, TableReader
from position_ledger.reference_data import TABLES as REFERENCE
from position_ledger.reference_data import ReferenceData
from position_ledger.reporting import exposure, holdings, pnl

__all__ = ["composed"]

AT = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS: tuple[KnownAt | None, ...] = (None, AT, 1)
"""The ways to say what was known: now, at a time, at an event."""
NEEDED_BY_REPORTS = frozenset({"positions", "markets", "trades", "account_balance"})


def composed(schema: str, projections: Sequence[Projection[Any]]) -> list[str]:
    """Every statement that is derived from columns or filters, as the driver gets it, without the name of the schema."""
    taking = _Taking(schema)
    tables = {one.table: one for one in projections}
    for projection in projections:
        _of_projection(taking, schema, projection)
    if tables.keys() >= NEEDED_BY_REPORTS:
        _as_of(taking, schema, projections)
        _reports(taking, schema, tables["positions"])
    _references(taking)
    return list(dict.fromkeys(taking.taken))


class _Taking:
    """Stands where a connection, a cursor or a query stands: takes statements down and finds no rows."""

    def __init__(self, schema: str) -> None:
        self._prefix = f'"{schema}".'
        self.taken: list[str] = []

    def take(self, statement: Any) -> None:
        """Note a statement in any of the forms in which the driver takes one."""
        if isinstance(statement, Composable):
            statement = statement.as_string(None)
        text = statement.decode() if isinstance(statement, bytes) else str(statement)
        self.taken.append(text.replace(self._prefix, ""))

    def execute(self, statement: Any, _parameters: Any = None, **_options: Any) -> Self:
        """As of a connection or cursor."""
        self.take(statement)
        return self

    def fetchall(self) -> list[Any]:
        """No rows."""
        return []

    def fetchone(self) -> None:
        """No row."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """As of a pool."""
        yield self

    def cursor(self, **_options: Any) -> Any:
        """As of a connection; with or without a ``with``."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing to close."""

    def query(self, statement: Any, _parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As of a report's snapshot."""
        self.take(statement)
        return []


def _of_projection(taking: _Taking, schema: str, projection: Projection[Any]) -> None:
    for make in (statements.write, statements.load_current, statements.load_by_id):
        taking.take(make(schema, projection))
    taking.take(statements.load_all_rows(schema, projection))
    taking.take(statements.copy_in(schema, projection))
    _of_proofs(taking, Identifier(schema, projection.table), schema, projection)
    reader = TableReader(taking.lent, schema, projection)
    reader.current("")
    reader.history("")
    filters = dict.fromkeys(projection.columns)
    for moment in MOMENTS:
        reader.rows({}, known_at=moment)
        reader.rows(filters, known_at=moment)
        if moment is not None:
            reader.known("", moment)
    reader.select(SQL("p.id = ANY(%(ids)s)"), {}, SQL("p.id"))


def _of_proofs(taking: _Taking, table: Identifier, schema: str, projection: Projection[Any]) -> None:
    columns, key = projection.columns, projection.key_column
    typed = tuple(digests.Column(column, "", has_scale=False) for column in columns)
    before = digests.up_to(table, key, columns)
    taking.take(provers.stored(schema, projection.table, typed))
    taking.take(digests.digest(differences.folded(table), typed))
    taking.take(digests.digest(before, typed))
    taking.take(differences.comparison(differences.folded(table), before, key, columns, 1))
    taking.take(auditor.rows_of_step(schema, projection))
    taking.take(records.close_surplus(schema, projection.table))


def _as_of(taking: _Taking, schema: str, projections: Sequence[Projection[Any]]) -> None:
    readers = {one.table: TableReader(taking.lent, schema, one) for one in projections}
    positions = next(one for one in projections if one.table == "positions")
    codec: Any = None  # decodes rows, and there are none
    reader = AsOfReader(taking.lent, schema, readers, positions, codec)
    rows = RowsAsOf(taking.lent, schema, projections, readers, reader, codec)
    for moment in MOMENTS:
        reader.positions(AT, moment, dict.fromkeys(FILTERS, ""))
        reader.trades(AT, moment, {})
        for table in readers:
            rows.rows(table, AT, moment, {})


def _reports(taking: _Taking, schema: str, positions: Projection[Any]) -> None:
    codec: Any = None
    for by in exposure.BY:
        exposure.exposure(taking.query, schema, "live", by)
    holdings.version(taking.query, schema, positions, 1)
    holdings.open_positions(taking.query, schema, positions, environment="live", market="", strategy=1)
    pnl.pnl_changes(taking.query, schema, codec, "live", account="", market="", strategy=1)


def _references(taking: _Taking) -> None:
    known = KnownReferences(taking.lent)
    for field in REFERENCE_TABLES:
        known.has(field, 1)
    reference = ReferenceData(taking.lent, lambda: None)
    for table in REFERENCE:
        number: Any = 1 if table in {"strategies", "probability_models"} else "1"
        reference.list(table)
        asks = (
            partial(reference.add, table, "name", id=number),
            partial(reference.set_status, table, number, "active"),
            partial(reference.set_notes, table, number, "a note"),
        )
        for ask in asks:
            with suppress(ReferenceRefused):  # it finds no row
                ask()
