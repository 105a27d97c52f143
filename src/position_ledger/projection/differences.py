"""Which cell differs, and how: rows that should be and rows that are, compared by the server as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

THE_ROW = "the row"
NO_ROW = "no row"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a table and what it should be part: key, id and column; values as the server writes them."""

    table: str
    key: str
    id: int
    column: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One sentence for people."""
        return f"{self.table} {self.key}, row {self.id}: {self.column} is {self.found}, the log says {self.expected}"


def folded(table: Composable) -> Composed:
    """Rows that were folded, as ``t``, with the types of a table (parameter: rows, a JSON array as `encode_rows` gives it)."""
    return SQL("json_populate_recordset(NULL::{}, %(rows)s::json) AS t").format(table)


def comparison(should: Composable, is_: Composable, key: str, columns: Sequence[str], limit: int) -> Composed:
    """Rows of two sources that are not written alike, by id; None for the cells of a row that one of them lacks.

    Each source gives rows as ``t``.
    """
    cells = SQL("SELECT t.id, t.{key}::text AS key, ARRAY[{cells}] AS cells FROM ").format(
        key=Identifier(key),
        cells=SQL(", ").join(SQL("{}::text").format(Identifier("t", column)) for column in columns),
    )
    return SQL(
        "SELECT coalesce(a.key, b.key), coalesce(a.id, b.id), a.cells, b.cells FROM ({cells}{should}) AS a"
        " FULL JOIN ({cells}{is_}) AS b ON b.id = a.id WHERE a.cells IS DISTINCT FROM b.cells"
        " ORDER BY 2 LIMIT {limit}"
    ).format(cells=cells, should=should, is_=is_, limit=SQL(str(limit)))


def differing(
    connection: psycopg.Connection[Any],
    statement: Composed,
    parameters: Mapping[str, Any],
    table: str,
    columns: Sequence[str],
) -> Iterator[Difference]:
    """Every cell that a `comparison` finds."""
    for key, row_id, should, is_ in connection.execute(statement, parameters).fetchall():
        if should is None or is_ is None:
            words = (NO_ROW, "a row") if should is None else ("a row", "missing")
            yield Difference(table, key, row_id, THE_ROW, *words)
            continue
        for column, expected, found in zip(columns, should, is_, strict=True):
            if expected != found:
                yield Difference(table, key, row_id, column, _shown(expected), _shown(found))


def _shown(cell: str | None) -> str:
    return "null" if cell is None else cell
