"""What rows of plain tables held before a file and no longer hold once it is taken back.

A rollback section may lead back to the same schema and yet not to the same values: of a column that was dropped, rows
that were deleted, prices that were rounded by another type. Seen in the scratch database, on the rows that were copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg.sql import Composable

    from position_ledger.migration.catalogue import Table
    from position_ledger.migration.session import Connection

__all__ = ["LostValues", "RowsBefore", "lost_values", "remember_rows"]

_MOMENTS: Final = ("now()", "CURRENT_TIMESTAMP", "clock_timestamp()", "transaction_timestamp()")
"""Defaults of columns that say when a row was written: another moment there is no loss."""


@dataclass(frozen=True, slots=True)
class LostValues:
    """Of the ``held`` values of a column, or rows of a table (``column`` is ""), so many are not there any more."""

    table: str
    column: str
    lost: int
    held: int

    def __str__(self) -> str:
        if not self.column:
            return f"{self.lost:,} of {self.held:,} rows of {self.table}"
        return f"{self.lost:,} of {self.held:,} values of {self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class RowsBefore:
    """The rows of one table as text, in a temporary table of the session."""

    table: str
    copy: str
    columns: tuple[str, ...]


def remember_rows(scratch: Connection, schema: str, tables: Iterable[Table]) -> tuple[RowsBefore, ...]:
    """Keep what the tables hold now, in a transaction of the caller's; as text, so that it holds no type in place."""
    return tuple(_remember(scratch, schema, table, place) for place, table in enumerate(tables))


def lost_values(scratch: Connection, schema: str, before: Iterable[RowsBefore]) -> Iterator[LostValues]:
    """What is missing now, in a transaction of the caller's whose tables have the columns they had.

    Columns whose values are all there may still belong to fewer rows: then the rows are told, not each column.
    """
    for one in before:
        held, here = _copy_of(one.copy), sql.Identifier(schema, one.table)
        rows, lost = _one(scratch, sql.SQL("SELECT count(*), count(*) - (SELECT count(*) FROM {}) FROM {}"), here, held)
        if lost > 0:
            yield LostValues(one.table, "", lost, rows)
            continue
        for column in one.columns:
            name = sql.Identifier(column)
            held_values, missing = _one(scratch, _MISSING, name, held, name, held, name, here)
            if missing:
                yield LostValues(one.table, column, missing, held_values)


_MISSING: Final = sql.SQL(
    "SELECT (SELECT count({}) FROM {}), count(*) FROM "
    "(SELECT {} FROM {} EXCEPT ALL SELECT {}::text FROM {}) AS missing (value) WHERE value IS NOT NULL"
)


def _remember(scratch: Connection, schema: str, table: Table, place: int) -> RowsBefore:
    columns = tuple(
        name for name, column in table.columns.items() if not any(word in (column.default or "") for word in _MOMENTS)
    )
    copy = f"position_ledger_before_{place}"
    texts = sql.SQL(", ").join(sql.SQL("{0}::text AS {0}").format(sql.Identifier(name)) for name in columns)
    scratch.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_copy_of(copy)))
    scratch.execute(
        sql.SQL("CREATE TEMP TABLE {} AS SELECT {} FROM {}").format(
            sql.Identifier(copy), texts, sql.Identifier(schema, table.name)
        )
    )
    return RowsBefore(table.name, copy, columns)


def _copy_of(name: str) -> Composable:
    return sql.Identifier("pg_temp", name)


def _one(scratch: Connection, query: sql.SQL, *names: Composable) -> tuple[int, int]:
    with scratch.cursor(row_factory=tuple_row) as cursor:
        row: tuple[Any, ...] | None = cursor.execute(query.format(*names), prepare=False).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
