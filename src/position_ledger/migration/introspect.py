"""Read a Catalogue from the system catalogues of PostgreSQL 15 to 18."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from position_ledger.migration import introspect_sql as queries
from position_ledger.migration.bookkeeping import BOOKKEEPING
from position_ledger.migration.catalogue import (
    Catalogue,
    Column,
    Constraint,
    Function,
    Grant,
    Index,
    Sequence,
    Table,
    Trigger,
    Type,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from psycopg import Connection, Cursor

__all__ = ["read_catalogue", "read_table", "reading_path"]

Row = dict[str, Any]
_DEFINITION_PREFIXES: Final = ("CREATE OR REPLACE FUNCTION ", "CREATE OR REPLACE PROCEDURE ", "CREATE STATISTICS ")


def read_catalogue(
    connection: Connection[Any], schema: str, *, beside: str | None = None, ignore: Collection[str] = BOOKKEEPING
) -> Catalogue:
    """Read all of schema. ``beside`` is a second schema whose names are unqualified too: the live one, for a shadow.

    One snapshot is the caller's to give (a REPEATABLE READ transaction) where others may change the schema meanwhile.
    """
    with reading_path(connection, schema, beside) as cursor:
        return _Reader(cursor, schema, frozenset(ignore)).catalogue()


def read_table(connection: Connection[Any], schema: str, table: str, *, beside: str | None = None) -> Table:
    """Read one table; KeyError when the schema has none of that name."""
    return read_catalogue(connection, schema, beside=beside).tables[table]


@contextlib.contextmanager
def reading_path(connection: Connection[Any], schema: str, beside: str | None = None) -> Iterator[Cursor[Row]]:
    """Yield a cursor whose search path makes the server leave out the names of schema (and beside) in definitions."""
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT current_setting('search_path') AS path")
        before = cursor.fetchone()
        cursor.execute(
            "SELECT set_config('search_path', concat_ws(', ', quote_ident(%s), quote_ident(%s)), true)",
            [schema, beside],
        )
        yield cursor
        cursor.execute("SELECT set_config('search_path', %s, true)", [before["path"] if before else ""])


class _Reader:
    """The rows of one schema, grouped by the relation they belong to, made into catalogue values."""

    def __init__(self, cursor: Cursor[Row], schema: str, ignore: frozenset[str]) -> None:
        self._cursor = cursor
        self._schema = schema
        self._ignore = ignore

    def _rows(self, query: str) -> list[Row]:
        self._cursor.execute(query.encode(), {"schema": self._schema}, prepare=False)
        return [row for row in self._cursor.fetchall() if row.get("relation", row["name"]) not in self._ignore]

    def _by_relation(self, query: str, make: Any) -> Mapping[str, dict[str, Any]]:
        grouped: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in self._rows(query):
            relation = row.pop("relation")
            grouped[relation][row["name"]] = make(row)
        return grouped

    def catalogue(self) -> Catalogue:
        relations = self._rows(queries.RELATIONS)
        parts = {
            "columns": self._by_relation(queries.COLUMNS, _column),
            "constraints": self._by_relation(queries.CONSTRAINTS, lambda row: Constraint(**row)),
            "indexes": self._by_relation(queries.INDEXES, _index),
            "triggers": self._by_relation(queries.TRIGGERS, lambda row: Trigger(**row)),
            "statistics": self._by_relation(queries.STATISTICS, self._definition),
            "rules": self._by_relation(queries.RULES, lambda row: row["definition"]),
        }
        top = self._rows(queries.SCHEMA)
        return Catalogue(
            tables={row["name"]: _table(row, parts) for row in relations if row["kind"] in {"r", "p", "f"}},
            views={row["name"]: _view(row, parts) for row in relations if row["kind"] in {"v", "m"}},
            functions={row["name"]: self._function(row) for row in self._rows(queries.FUNCTIONS)},
            sequences={row["name"]: _sequence(row) for row in self._rows(queries.SEQUENCES)},
            types={row["name"]: Type(**_with_grants(row)) for row in self._rows(queries.TYPES)},
            comment=top[0]["comment"] if top else None,
            grants=_grants(top[0]["grants"]) if top else (),
            default_grants=tuple(row["name"] for row in self._rows(queries.DEFAULT_GRANTS)),
            surroundings=tuple(row["name"] for row in self._rows(queries.SURROUNDINGS)),
        )

    def _function(self, row: Row) -> Function:
        row["definition"] = self._definition(row)
        row.pop("relation")
        return Function(**_with_grants(row))

    def _definition(self, row: Row) -> str:
        """A definition whose own name the server always qualifies, without the schema."""
        definition: str = row["definition"]
        for prefix in _DEFINITION_PREFIXES:
            if definition.startswith(f"{prefix}{row['quoted_schema']}."):
                definition = prefix + definition[len(f"{prefix}{row['quoted_schema']}.") :]
        row.pop("quoted_schema")
        return definition


def _grants(items: list[Row] | None) -> tuple[Grant, ...]:
    return tuple(sorted(Grant(item["grantee"], item["privilege"], item["grantable"]) for item in items or []))


def _with_grants(row: Row) -> Row:
    return {**row, "grants": _grants(row["grants"])}


def _sequence(row: Row) -> Sequence:
    row.pop("relation")
    return Sequence(**_with_grants(row))


def _column(row: Row) -> Column:
    return Column(**{**_with_grants(row), "options": tuple(row["options"] or ())})


def _index(row: Row) -> Index:
    targets = tuple((int(number), int(target)) for number, target in row["statistics_targets"] or ())
    return Index(**{**row, "options": tuple(sorted(row["options"] or ())), "statistics_targets": targets})


def _table(row: Row, parts: Mapping[str, Mapping[str, dict[str, Any]]]) -> Table:
    name = row["name"]
    unsupported = [*row["unsupported"], *(f"rule {rule}" for rule in parts["rules"].get(name, ()))]
    return Table(
        name=name,
        columns=parts["columns"].get(name, {}),
        constraints=parts["constraints"].get(name, {}),
        indexes=parts["indexes"].get(name, {}),
        triggers=parts["triggers"].get(name, {}),
        statistics=parts["statistics"].get(name, {}),
        comment=row["comment"],
        options=tuple(sorted(row["options"] or ())),
        grants=_grants(row["grants"]),
        unsupported=tuple(unsupported),
        owner=row["owner"],
    )


def _view(row: Row, parts: Mapping[str, Mapping[str, dict[str, Any]]]) -> View:
    name = row["name"]
    return View(
        name=name,
        materialized=row["kind"] == "m",
        definition=row["definition"],
        columns=parts["columns"].get(name, {}),
        indexes=parts["indexes"].get(name, {}),
        triggers=parts["triggers"].get(name, {}),
        rules=parts["rules"].get(name, {}),
        comment=row["comment"],
        options=tuple(sorted(row["options"] or ())),
        grants=_grants(row["grants"]),
        reads=tuple(row["reads"] or ()),
    )
