"""What a rollback would lose: structure by comparing two catalogues, and how much is in it by counting now (S59)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from position_ledger.migration.row_statements import row_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from position_ledger.migration.catalogue import Catalogue, Table
    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.session import Connection

__all__ = ["Loss", "losses"]

COUNT_LIMIT_MS: Final = 3_000
"""A count that takes longer is given up for the server's own estimate: nobody should wait to learn what a command does."""
CURRENT: Final = "row_current_ind"
_ESTIMATE: Final = "SELECT greatest(c.reltuples, 0)::bigint FROM pg_catalog.pg_class AS c WHERE c.oid = %s::regclass"
_NOT_NULL: Final = "n"  # a constraint of its own since version 18, and gone with its column


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that would be gone. ``count``: rows of a table, values of a column that are not null; None: no such."""

    kind: str
    name: str
    count: int | None = None
    is_exact: bool = True
    is_from_log: bool = False
    detail: str = ""

    def __str__(self) -> str:
        counted = ""
        if self.count is not None:
            noun = "row" if self.kind == "table" else "value"
            about = "" if self.is_exact else "about "
            counted = f" with {about}{self.count:,} {noun}{'' if self.count == 1 else 's'}"
        back = " (from the log: they come back with the migration)" if self.is_from_log and self.count else ""
        return f"{self.kind} {self.name}{counted}{back}{': ' if self.detail else ''}{self.detail}"


def losses(
    connection: Connection,
    schema: str,
    now: Catalogue,
    then: Catalogue,
    files: Sequence[MigrationFile],
    projected: Collection[str],
) -> tuple[Loss, ...]:
    """What is in catalogue ``now`` and not in ``then``, counted in the live tables; ``files`` are to be rolled back.

    What was made by hand is in neither and stays. Reads only. The current values of a column are those of current rows,
    where its table keeps versions.
    """
    counting = _Counting(connection, schema, frozenset(projected))
    return (
        *(counting.table(now.tables[name]) for name in _gone(now.tables, then.tables)),
        *(
            loss
            for name in now.tables.keys() & then.tables.keys()
            for loss in counting.in_table(now.tables[name], then.tables[name])
        ),
        *(
            Loss("materialized view" if now.views[name].materialized else "view", name)
            for name in _gone(now.views, then.views)
        ),
        *(Loss("function", name) for name in _gone(now.functions, then.functions)),
        *(Loss("sequence", name) for name in _gone(now.sequences, then.sequences)),
        *(Loss("type", name) for name in _gone(now.types, then.types)),
        *(
            Loss("rows that", f"{file.filename} writes", detail=f"line {statement.line}: {statement.excerpt}")
            for file in files
            for statement in row_statements(file.rollback)
        ),
    )


def _gone(now: Mapping[str, object], then: Mapping[str, object]) -> list[str]:
    return sorted(now.keys() - then.keys())


@dataclass(frozen=True, slots=True)
class _Counting:
    connection: Connection
    schema: str
    projected: frozenset[str]

    def table(self, table: Table) -> Loss:
        count, is_exact = self._count(table, None)
        return Loss("table", table.name, count, is_exact, table.name in self.projected)

    def in_table(self, now: Table, then: Table) -> Iterator[Loss]:
        """Columns with their values, columns of another type, and the rules and indexes of a table that stays."""
        for name in _gone(now.columns, then.columns):
            count, is_exact = self._count(now, name)
            yield Loss("column", f"{now.name}.{name}", count, is_exact, now.name in self.projected)
        for name in sorted(now.columns.keys() & then.columns.keys()):
            old, new = now.columns[name].type, then.columns[name].type
            if old != new:
                yield Loss("type of column", f"{now.name}.{name}", detail=f"{old} becomes {new} again")
        rules = {name for name, rule in now.constraints.items() if rule.kind != _NOT_NULL}
        for name in sorted(rules - then.constraints.keys()):
            yield Loss("constraint", name, detail=f"of {now.name}, {now.constraints[name].definition}")
        for name in _gone(now.indexes, then.indexes):
            if name not in rules:
                yield Loss("index", name, detail=f"of {now.name}")
        for name in _gone(now.triggers, then.triggers):
            yield Loss("trigger", name, detail=f"of {now.name}")

    def _count(self, table: Table, column: str | None) -> tuple[int | None, bool]:
        """Rows of a table or non-null current values of a column; an estimate of rows where counting takes long."""
        name = sql.Identifier(self.schema, table.name)
        # Never counted.column: where the column is gone by hand, that form could call a function of its name instead.
        what = sql.SQL("*") if column is None else sql.Identifier(column)
        query = sql.SQL("SELECT count({}) FROM {} AS counted_here").format(what, name)
        if column is not None and CURRENT in table.columns:
            query += sql.SQL(" WHERE {}").format(sql.Identifier(CURRENT))
        try:
            with self.connection.transaction():
                limits = f"SET LOCAL statement_timeout = {COUNT_LIMIT_MS}; SET LOCAL lock_timeout = {COUNT_LIMIT_MS}"
                self.connection.execute(limits.encode())
                return _number(self.connection.execute(query).fetchone()), True
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            place = name.as_string(self.connection)
            return _number(self.connection.execute(_ESTIMATE, [place]).fetchone()), False
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):  # gone by hand already
            return None, True


def _number(row: tuple[object, ...] | None) -> int:
    return int(str(row[0])) if row else 0
