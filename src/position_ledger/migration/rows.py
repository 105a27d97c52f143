"""Rows of the live plain tables, copied into a scratch database: what a migration would really meet.

Read only, within limits, parents before children, and only rows whose parents came along: the scratch tables keep
every constraint that they have.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from psycopg.sql import Composable

    from position_ledger.migration.session import Connection

__all__ = ["ROWS_PER_TABLE_MAX", "CopiedTable", "TableSize", "clear_rows", "copy_rows", "table_sizes"]

ROWS_PER_TABLE_MAX: Final = 10_000
BYTES_PER_TABLE_MAX: Final = 32 * 2**20
"""About as much is copied of a table; rows of unknown size are taken to be this wide:"""
WIDE_ROW_BYTES: Final = 8_192

_SIZES: Final = """
    SELECT c.relname::text, c.reltuples::bigint, pg_relation_size(c.oid),
           pg_table_size(c.oid) FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm')
"""
_COLUMNS: Final = """
    SELECT c.relname::text, a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attgenerated = '' ORDER BY c.relname, a.attnum
"""
_FOREIGN_KEYS: Final = """
    SELECT c.relname::text, p.relname::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND p.relnamespace = n.oid AND k.contype = 'f' ORDER BY c.relname, k.conname
"""
_TRIGGERS: Final = """
    SELECT t.tgname::text, t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s AND NOT t.tgisinternal AND t.tgenabled <> 'D'
"""
_SEQUENCES: Final = "SELECT s.sequencename::text, s.last_value FROM pg_sequences s WHERE s.schemaname = %s"
_ENABLE: Final = {"O": "ENABLE TRIGGER", "A": "ENABLE ALWAYS TRIGGER", "R": "ENABLE REPLICA TRIGGER"}
_HELD: Final = "position_ledger_copied"


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """One live table: about how many rows it has, and how many of them the trace meets.

    ``problem`` says why they are not all of the first `ROWS_PER_TABLE_MAX`, "" if they are.
    """

    name: str
    rows: int
    copied: int = 0
    problem: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every row came along, so that what holds for the copy holds for the table."""
        return self.copied >= self.rows


@dataclass(frozen=True, slots=True)
class _ForeignKey:
    child: str
    parent: str
    columns: list[str]
    parent_columns: list[str]


@dataclass(frozen=True, slots=True)
class TableSize:
    """Rows by the server's statistics (-1: never counted), bytes of the rows, and bytes with what is kept beside them."""

    rows: int
    row_bytes: int
    bytes: int


def table_sizes(connection: psycopg.Connection[Any], schema: str) -> dict[str, TableSize]:
    """The size of each table and materialized view."""
    return {str(name): TableSize(*sizes) for name, *sizes in _rows(connection, _SIZES, [schema])}


def copy_rows(
    live: psycopg.Connection[Any],
    scratch: Connection,
    schema: str,
    tables: Collection[str],
    *,
    only: Mapping[str, Composable] | None = None,
    limit: int = ROWS_PER_TABLE_MAX,
) -> dict[str, CopiedTable]:
    """Copy rows of the tables that both databases have; what the scratch tables had is replaced.

    ``live`` is in a read-only snapshot of the caller's, ``scratch`` in a transaction. ``only`` has a condition for the
    rows of a table. A table that cannot be copied stays empty and says why.
    """
    sizes = table_sizes(live, schema)
    theirs, ours = _columns(live, schema, tables), _columns(scratch, schema, tables)
    keys = [_ForeignKey(*row) for row in _rows(scratch, _FOREIGN_KEYS, [schema])]
    both = [table for table in _parents_first(sorted(ours), keys) if table in theirs]
    copier = _Copier(live, scratch, schema, keys, only or {}, limit)
    found: dict[str, CopiedTable] = {}
    filled = table_sizes(scratch, schema)
    with_rows = [table for table in both if sizes[table].row_bytes or filled[table].row_bytes]
    with _without_triggers(scratch, schema, with_rows):
        for table in reversed(with_rows):
            scratch.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))
        for table in both:
            columns = [name for name in theirs[table] if name in ours[table]]
            is_empty = not sizes[table].row_bytes
            found[table] = (
                CopiedTable(table, 0) if is_empty else copier.copy(table, columns, sizes[table], filled[table])
            )
    for name, value in _rows(live, _SEQUENCES, [schema]):
        if value is not None:
            _set_sequence(scratch, schema, name, value)
    return found


def clear_rows(scratch: Connection, schema: str, tables: Collection[str]) -> None:
    """Empty the tables that there are, in a transaction of the caller's; nothing refers to their rows."""
    there = sorted(_columns(scratch, schema, tables))
    with _without_triggers(scratch, schema, there):
        for table in there:
            scratch.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))


def _rows(connection: psycopg.Connection[Any], query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), parameters, prepare=False).fetchall()


def _columns(connection: psycopg.Connection[Any], schema: str, tables: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table, column in _rows(connection, _COLUMNS, [schema, list(tables)]):
        found.setdefault(table, []).append(column)
    return found


def _parents_first(tables: Sequence[str], keys: Sequence[_ForeignKey]) -> list[str]:
    graph: dict[str, set[str]] = {table: set() for table in tables}
    for key in keys:
        if key.child in graph and key.parent in graph and key.child != key.parent:
            graph[key.child].add(key.parent)
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        return list(tables)


@contextlib.contextmanager
def _without_triggers(scratch: Connection, schema: str, tables: Sequence[str]) -> Iterator[None]:
    """Without the tables' own triggers, which number rows and keep history: nothing here is anybody's history."""
    found = [(table, *row) for table in tables for row in _rows(scratch, _TRIGGERS, [schema, table])]
    for table, trigger, _ in found:
        _alter(scratch, schema, table, "DISABLE TRIGGER", trigger)
    yield
    for table, trigger, enabled in found:
        _alter(scratch, schema, table, _ENABLE[enabled], trigger)


def _alter(scratch: Connection, schema: str, table: str, action: str, trigger: str) -> None:
    scratch.execute(
        sql.SQL("ALTER TABLE {} {} {}").format(sql.Identifier(schema, table), sql.SQL(action), sql.Identifier(trigger))
    )


class _Copier:
    """Copies tables one by one; what goes wrong with one is said with it."""

    def __init__(
        self,
        live: psycopg.Connection[Any],
        scratch: Connection,
        schema: str,
        keys: Sequence[_ForeignKey],
        only: Mapping[str, Composable],
        limit: int,
    ) -> None:
        self._live, self._scratch, self._schema = live, scratch, schema
        self._keys, self._only, self._limit = keys, only, limit

    def copy(self, table: str, columns: Sequence[str], size: TableSize, filled: TableSize) -> CopiedTable:
        """Copy one table whose parents are there, and which was so large here before its rows were deleted."""
        limit = _limit(size, self._limit)
        try:
            with self._live.transaction(), self._scratch.transaction():
                read, copied = self._copied(table, columns, limit)
        except psycopg.Error as error:
            return CopiedTable(table, max(size.rows, 1), 0, f"its rows could not be copied: {_first_line(error)}")
        is_whole = read < limit and table not in self._only
        rows = read if is_whole else max(read + 1, self._by_density(table, copied, size, filled.row_bytes))
        problem = "" if copied == read else f"{read - copied} of them refer to rows that were not copied"
        return CopiedTable(table, rows, copied, problem)

    def _by_density(self, table: str, copied: int, size: TableSize, dead: int) -> int:
        """Rows as densely as here on all the pages there: the server's own count may be old, or not made yet.

        What a migration put in was deleted before, but its pages are still here.
        """
        here = table_sizes(self._scratch, self._schema)[table].row_bytes - dead
        return round(copied * size.row_bytes / here) if here > 0 else size.rows

    def _copied(self, table: str, columns: Sequence[str], limit: int) -> tuple[int, int]:
        name, held = sql.Identifier(self._schema, table), sql.Identifier(_HELD)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        where = sql.SQL(" WHERE {}").format(self._only[table]) if table in self._only else sql.SQL("")
        source = sql.SQL("COPY (SELECT {} FROM {}{} LIMIT {}) TO STDOUT").format(names, name, where, sql.Literal(limit))
        self._scratch.execute(sql.SQL("CREATE TEMP TABLE {} AS SELECT {} FROM {} LIMIT 0").format(held, names, name))
        with self._live.cursor() as reading, self._scratch.cursor() as writing:
            with (
                reading.copy(source) as out,
                writing.copy(sql.SQL("COPY pg_temp.{} FROM STDIN").format(held)) as into,
            ):
                for block in out:
                    into.write(block)
            read = writing.rowcount
            writing.execute(
                sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.{} AS held{}").format(
                    name, names, names, held, self._parents_are_there(table)
                )
            )
            copied = writing.rowcount
        self._scratch.execute(sql.SQL("DROP TABLE pg_temp.{}").format(held))
        return read, copied

    def _parents_are_there(self, table: str) -> Composable:
        """The rows whose parents were copied; of the table itself, those that come along now."""
        conditions = [
            sql.SQL("({} OR EXISTS (SELECT FROM {} AS parent WHERE {}))").format(
                sql.SQL(" OR ").join(sql.SQL("held.{} IS NULL").format(sql.Identifier(name)) for name in key.columns),
                sql.Identifier("pg_temp", _HELD) if key.parent == table else sql.Identifier(self._schema, key.parent),
                sql.SQL(" AND ").join(
                    sql.SQL("parent.{} = held.{}").format(sql.Identifier(theirs), sql.Identifier(ours))
                    for ours, theirs in zip(key.columns, key.parent_columns, strict=True)
                ),
            )
            for key in self._keys
            if key.child == table
        ]
        return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL("")


def _limit(size: TableSize, limit: int) -> int:
    width = size.bytes // size.rows if size.rows > 0 else WIDE_ROW_BYTES
    return limit if size.bytes <= BYTES_PER_TABLE_MAX else max(1, min(limit, BYTES_PER_TABLE_MAX // max(1, width)))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _set_sequence(scratch: Connection, schema: str, name: str, value: int) -> None:
    place = sql.Identifier(schema, name).as_string(scratch)
    known = scratch.execute("SELECT to_regclass(%s) IS NOT NULL", [place]).fetchone()
    if known == (True,):
        scratch.execute("SELECT setval(%s::regclass, %s)", [place, value])
