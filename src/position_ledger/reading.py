"""Reading the tables: current rows, history, what was known at a time, and the events behind a position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Composed, Identifier

from position_ledger.domain.decisions import unknown_position
from position_ledger.errors import ConfigurationError
from position_ledger.execution.streams import number_of
from position_ledger.projection.definition import Projection, Row
from position_ledger.projection.known_at import KnownAt

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
TableRow = dict[str, Any]
"""One row by column name: Decimal, aware datetime in UTC, str, int, bool, or what JSON holds."""

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

FILTERS: Mapping[str, str] = {
    "status": "status",
    "account": "account_id",
    "market": "market_id",
    "strategy": "strategy_id",
    "environment": "execution_environment",
    "side": "side",
}


class TableReader:
    """Reads one projected table: current rows, versions, and what was known. Does not wait: see `known_at.Settling`.

    Never selects *, so a swap to a table with more columns breaks no prepared statement.
    """

    def __init__(self, connect: Connect, schema: str, projection: Projection[Any]) -> None:
        self._connect = connect
        self._projection = projection
        self._table = Identifier(schema, projection.table)
        self._columns = sql.SQL(", ").join(Identifier("p", column) for column in projection.columns)
        self._key = Identifier("p", projection.key_column)

    @property
    def table(self) -> str:
        """The name of the table."""
        return self._projection.table

    def current(self, key: str) -> TableRow | None:
        """The current row of a business key; None if there is none."""
        where = SQL("{} = %(key)s AND p.row_current_ind").format(self._key)
        return next(iter(self.select(where, {"key": key}, SQL("p.id"))), None)

    def history(self, key: str) -> list[TableRow]:
        """All versions of a business key, the first one first; empty if there is none."""
        return self.select(SQL("{} = %(key)s").format(self._key), {"key": key}, SQL("p.version"))

    def known(self, key: str, known_at: KnownAt) -> TableRow | None:
        """The row of a business key as the ledger knew it; None if it had none then."""
        rows = rows_of(self._connect, self.known_query(known_at), {"key": key, "at": known_at})
        return _plain(rows[0]) if rows else None

    def known_query(self, known_at: KnownAt) -> Composed:
        """One range of the index on key and time (of a token: on key and version). Parameters: key, at."""
        bound, order = (
            (SQL("p.row_effective_date <= %(at)s"), SQL("p.row_effective_date DESC"))
            if isinstance(known_at, datetime)
            else (SQL("p.id <= %(at)s"), SQL("p.version DESC"))
        )
        return self._query(SQL("{} = %(key)s AND {}").format(self._key, bound), order, 1)

    def rows(
        self, filters: Mapping[str, Any], *, known_at: KnownAt | None = None, order: Composable | None = None
    ) -> list[TableRow]:
        """One row of each key, current or as it was known, where every column has the value that the filters give it.

        A filter speaks of the row that is answered: what was open then, not what is open now.
        """
        unknown = sorted(filters.keys() - set(self._projection.columns))
        if unknown:
            msg = f"table {self.table} has no column {', '.join(unknown)}: it has {', '.join(self._projection.columns)}"
            raise ConfigurationError(msg)
        conditions = [SQL("p.{} = {}").format(Identifier(name), sql.Placeholder(f"of_{name}")) for name in filters]
        parameters = {f"of_{name}": value for name, value in filters.items()}
        where = SQL(" AND ").join([self._as_known(known_at), *conditions])
        return self.select(where, {**parameters, "at": known_at}, order or SQL("p.id DESC"))

    def _as_known(self, known_at: KnownAt | None) -> Composable:
        """The condition that exactly one version of each key meets, if the key had one then."""
        if known_at is None:
            return SQL("p.row_current_ind")
        if isinstance(known_at, datetime):  # intervals are half-open and without gaps, so no sorting is needed
            return SQL(
                "p.row_effective_date <= %(at)s AND (p.row_expiration_date > %(at)s OR p.row_expiration_date IS NULL)"
            )
        return SQL(
            "p.id IN (SELECT DISTINCT ON (k.{key}) k.id FROM {table} AS k WHERE k.id <= %(at)s"
            " ORDER BY k.{key}, k.version DESC)"
        ).format(key=Identifier(self._projection.key_column), table=self._table)

    def select(self, where: Composable, parameters: Mapping[str, Any], order: Composable) -> list[TableRow]:
        """Rows of the table (alias p) that meet a condition."""
        return [_plain(row) for row in rows_of(self._connect, self._query(where, order, ROWS_MAX), parameters)]

    def _query(self, where: Composable, order: Composable, limit: int) -> Composed:
        return SQL("SELECT {columns} FROM {table} AS p WHERE {where} ORDER BY {order} LIMIT {limit}").format(
            columns=self._columns, table=self._table, where=where, order=order, limit=sql.Literal(limit)
        )


class Reader:
    """Reads positions and the events behind them, by any of their ids."""

    def __init__(self, connect: Connect, positions: TableReader) -> None:
        self._connect = connect
        self._positions = positions

    def position_id(self, ref: str | int) -> str:
        """POS-n of the position that an id belongs to: POS-n itself or any surrogate id ever issued.

        Raises:
            CommandRejected: no position has ever had it.
        """
        rows = rows_of(self._connect, SQL(POSITION_OF), (number_of(ref),))
        if not rows:
            raise unknown_position(ref)
        return f"POS-{rows[0]['notification_id']}"

    def position(self, ref: str | int, known_at: KnownAt | None = None) -> TableRow:
        """The current row of a position, or the one that was known then.

        Raises:
            CommandRejected: unknown id, or not known yet then.
        """
        key = self.position_id(ref)
        row = self._positions.current(key) if known_at is None else self._positions.known(key, known_at)
        if row is None:
            raise unknown_position(ref)
        return row

    def history(self, ref: str | int) -> list[TableRow]:
        """All versions of a position, the first one first.

        Raises:
            CommandRejected: unknown id.
        """
        return self._positions.history(self.position_id(ref))

    def positions(self, *, known_at: KnownAt | None = None, **filters: str | int | None) -> list[TableRow]:
        """Positions that pass every filter that is not None, the newest entry first.

        ``known_at``: the rows as the ledger knew them at that recorded time (or token); None: the current rows.
        """
        given = {FILTERS[name]: value for name, value in filters.items() if value is not None}
        return self._positions.rows(given, known_at=known_at, order=SQL("p.entry_time DESC, p.id DESC"))

    def events(self, ref: str | int) -> list[TableRow]:
        """The events of a position in order: seq, stream, version, topic, body, recorded_at, effective_at, event_id, metadata.

        Raises:
            CommandRejected: unknown id.
        """
        return rows_of(self._connect, SQL(EVENTS_OF), (number_of(self.position_id(ref)),))


def rows_of(connect: Connect, statement: Any, parameters: Sequence[Any] | Mapping[str, Any]) -> list[TableRow]:
    """Run one query; once more, unprepared, when a swap changed the type of a column of a prepared statement."""
    with connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        try:
            return cursor.execute(statement, parameters).fetchall()
        except psycopg.errors.FeatureNotSupported:
            connection.execute("DEALLOCATE ALL")
            return cursor.execute(statement, parameters, prepare=False).fetchall()


def _plain(row: TableRow) -> TableRow:
    """Decimals without the trailing zeros of their column."""
    return {name: trimmed(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def trimmed(value: Decimal) -> Decimal:
    """The same number in its shortest form, never in scientific notation."""
    short = value.normalize()
    return short if short.as_tuple().exponent <= 0 else short.quantize(Decimal(1))  # type: ignore[operator]


def plain_columns(row: Row) -> TableRow:
    """The columns of a folded row as the table would answer them."""
    return {name: _plain_value(getattr(row, name)) for name in type(row).__struct_fields__}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return trimmed(value)
    if value is None or isinstance(value, bool | int | datetime):
        return value
    if isinstance(value, str):
        return str(value)
    return msgspec.json.decode(msgspec.json.encode(value))
