"""Reading with statements of one's own: no star, no prepared plan that a swap could break, numbers in their short form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from position_ledger.reading import Connect, TableRow, trimmed

__all__ = ["Query", "TableRow", "query_on", "snapshot"]

Query = Callable[[Any, Mapping[str, Any]], list[TableRow]]
"""Runs one statement with named parameters; rows by column name, decimals without the zeros of their column."""


@contextmanager
def snapshot(connect: Connect) -> Iterator[Query]:
    """Queries that all see one state of the database, however long the report takes."""
    with connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield query_on(connection)


def query_on(connection: psycopg.Connection[Any]) -> Query:
    """Queries on one connection, each of the state that it finds."""

    def query(statement: Any, parameters: Mapping[str, Any]) -> list[TableRow]:
        with connection.cursor(row_factory=dict_row) as cursor:
            return [_trimmed(row) for row in cursor.execute(statement, parameters, prepare=False).fetchall()]

    return query


def _trimmed(row: TableRow) -> TableRow:
    return {name: trimmed(value) if isinstance(value, Decimal) else value for name, value in row.items()}
