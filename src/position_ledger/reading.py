"""Reading the tables: current rows, history, what was known at a time, and the events behind a position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier

from position_ledger.domain.decisions import unknown_position
from position_ledger.execution.streams import number_of
from position_ledger.projection.definition import Projection

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
TableRow = dict[str, Any]
"""One row by column name: Decimal, aware datetime in UTC, str, int, bool, or what JSON holds."""
Query = Callable[[Any, Mapping[str, Any]], list[TableRow]]
"""Runs one statement with named parameters."""

ROWS_MAX = 100_000
"""Most rows that one listing answers; narrow it by its filters beyond that."""

POSITION_OF = """
SELECT o.notification_id FROM events AS e
  JOIN events AS o ON o.originator_id = e.originator_id AND o.originator_version = 1
 WHERE e.notification_id = %s AND e.topic LIKE 'position.%%'
"""

EVENTS_OF = """
SELECT e.notification_id AS seq, e.originator_id AS stream, e.originator_version AS version, e.topic,
       convert_from(e.state, 'UTF8')::jsonb AS body,
       e.recorded_at, e.effective_at, e.event_id, e.metadata
  FROM events AS o JOIN events AS e ON e.originator_id = o.originator_id
 WHERE o.notification_id = %s ORDER BY e.originator_version
"""

QUOTES = """
LEFT JOIN {} AS q ON q.ticker = p.market_id AND q.execution_environment = p.execution_environment AND q.row_current_ind
"""
NO_QUOTES = "LEFT JOIN (SELECT NULL AS ticker, NULL::numeric AS yes_price, NULL::numeric AS no_price) AS q ON false"

FILTERS: Mapping[str, str] = {
    "status": "status",
    "account": "account_id",
    "market": "market_id",
    "strategy": "strategy_id",
    "environment": "execution_environment",
    "side": "side",
}


class Reader:
    """Reads one schema. Never selects *, so a swap to a table with more columns breaks no prepared statement."""

    def __init__(self, connect: Connect, schema: str, positions: Projection[Any], *, has_markets: bool = False) -> None:
        self._connect = connect
        self._quotes = SQL(QUOTES).format(Identifier(schema, "markets")) if has_markets else SQL(NO_QUOTES)
        self._table = Identifier(schema, positions.table)
        self._columns = sql.SQL(", ").join(Identifier("p", column) for column in positions.columns)

    def position_id(self, ref: str | int) -> str:
        """POS-n of the position that an id belongs to: POS-n itself or any surrogate id ever issued.

        Raises:
            CommandRejected: no position has ever had it.
        """
        rows = self._rows(SQL(POSITION_OF), (number_of(ref),))
        if not rows:
            raise unknown_position(ref)
        return f"POS-{rows[0]['notification_id']}"

    def position(self, ref: str | int) -> TableRow:
        """The current row of a position.

        Raises:
            CommandRejected: unknown id.
        """
        rows = self._select(SQL("p.position_id = %(id)s AND p.row_current_ind"), {"id": self.position_id(ref)})
        if not rows:
            raise unknown_position(ref)
        return rows[0]

    def history(self, ref: str | int) -> list[TableRow]:
        """All versions of a position, the first one first.

        Raises:
            CommandRejected: unknown id.
        """
        return self._select(SQL("p.position_id = %(id)s"), {"id": self.position_id(ref)}, order=SQL("p.version"))

    def version(self, surrogate_id: int) -> TableRow:
        """One version of a position.

        Raises:
            CommandRejected: no version has this id.
        """
        rows = self._select(SQL("p.id = %(id)s"), {"id": surrogate_id})
        if not rows:
            raise unknown_position(surrogate_id)
        return rows[0]

    def open_positions(self, *, environment: str, **filters: str | int | None) -> list[TableRow]:
        """Open positions of one environment beside the current quotes of their markets, the newest entry first.

        The columns of a position, then ticker, yes_price and no_price: None where the market has no row.
        """
        conditions, parameters = _filtered({"environment": environment, "status": "open", **filters})
        statement = SQL(
            "SELECT {columns}, q.ticker, q.yes_price, q.no_price FROM {table} AS p {quotes} "
            "WHERE p.row_current_ind AND {where} ORDER BY p.entry_time DESC, p.id DESC LIMIT {limit}"
        ).format(
            columns=self._columns,
            table=self._table,
            quotes=self._quotes,
            where=SQL(" AND ").join(conditions),
            limit=sql.Literal(ROWS_MAX),
        )
        return [_plain(row) for row in self._rows(statement, parameters)]

    def positions(self, *, known_at: datetime | None = None, **filters: str | int | None) -> list[TableRow]:
        """Positions that pass every filter that is not None, the newest entry first.

        ``known_at`` (aware): the rows as the ledger knew them at that recorded time; None: the current rows.
        """
        conditions, parameters = _filtered(filters)
        if known_at is None:
            conditions.append(SQL("p.row_current_ind"))
        else:
            conditions.append(
                SQL(
                    "p.row_effective_date <= %(known_at)s AND "
                    "(p.row_expiration_date > %(known_at)s OR p.row_expiration_date IS NULL)"
                )
            )
            parameters["known_at"] = known_at
        return self._select(SQL(" AND ").join(conditions), parameters)

    def events(self, ref: str | int) -> list[TableRow]:
        """The events of a position in order: seq, stream, version, topic, body, recorded_at, effective_at, event_id, metadata.

        Raises:
            CommandRejected: unknown id.
        """
        return self._rows(SQL(EVENTS_OF), (number_of(self.position_id(ref)),))

    @contextmanager
    def snapshot(self) -> Iterator[Query]:
        """A function that runs one query after the other on one state of the database: (statement, parameters) -> rows."""
        with self._connect() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            with connection.cursor(row_factory=dict_row) as cursor:
                yield lambda statement, parameters: [
                    _plain(row) for row in cursor.execute(statement, parameters, prepare=False).fetchall()
                ]

    def _select(
        self, where: Composable, parameters: Mapping[str, Any], order: Composable | None = None
    ) -> list[TableRow]:
        statement = SQL("SELECT {columns} FROM {table} AS p WHERE {where} ORDER BY {order} LIMIT {limit}").format(
            columns=self._columns,
            table=self._table,
            where=where,
            order=order or SQL("p.entry_time DESC, p.id DESC"),
            limit=sql.Literal(ROWS_MAX),
        )
        return [_plain(row) for row in self._rows(statement, parameters)]

    def _rows(self, statement: Any, parameters: Sequence[Any] | Mapping[str, Any]) -> list[TableRow]:
        """Run one query; once more, unprepared, when a swap changed the type of a column of a prepared statement."""
        with self._connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            try:
                return cursor.execute(statement, parameters).fetchall()
            except psycopg.errors.FeatureNotSupported:
                connection.execute("DEALLOCATE ALL")
                return cursor.execute(statement, parameters, prepare=False).fetchall()


def _filtered(filters: Mapping[str, str | int | None]) -> tuple[list[Composable], dict[str, Any]]:
    """Conditions and parameters of the filters that are not None."""
    given = {name: value for name, value in filters.items() if value is not None}
    conditions: list[Composable] = [
        SQL("p.{} = {}").format(Identifier(FILTERS[name]), sql.Placeholder(name)) for name in given
    ]
    return conditions, dict(given)


def _plain(row: TableRow) -> TableRow:
    """Decimals without the trailing zeros of their column."""
    return {name: trimmed(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def trimmed(value: Decimal) -> Decimal:
    """The same number in its shortest form, never in scientific notation."""
    short = value.normalize()
    return short if short.as_tuple().exponent <= 0 else short.quantize(Decimal(1))  # type: ignore[operator]
