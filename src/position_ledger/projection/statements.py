"""Every SQL statement that is derived from the columns of a projected table: composed here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import astuple as as_tuple
from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from position_ledger.projection.copy_rows import OPTIONS as COPY_OPTIONS
from position_ledger.projection.definition import SURROGATE, Projection
from position_ledger.projection.scd2 import Version

STATEMENTS_KEPT_MAX = 64
"""Statements of the hot path kept as text: composing one costs as much as ten round trips of its batch."""


@lru_cache(maxsize=STATEMENTS_KEPT_MAX)
def write(schema: str, projection: Projection[Any]) -> bytes:
    """Expire and insert in one statement: parameters ids, ats (of the expired) and rows (JSON array).

    Answers how many rows expired and how many were inserted. The insert reads the count of the expired, so that the
    unique index on current rows never sees two.
    """
    table, columns = Identifier(schema, projection.table), projection.columns
    statement = SQL(
        "WITH ended AS ("
        " UPDATE {table} AS t SET row_current_ind = false, row_expiration_date = e.at"
        " FROM unnest(%(ids)s::bigint[], %(ats)s::timestamptz[]) AS e (id, at)"
        " WHERE t.id = e.id AND t.row_current_ind RETURNING t.id"
        "), counted AS (SELECT count(*) AS n FROM ended), made AS ("
        " INSERT INTO {table} ({columns})"
        " SELECT {values} FROM counted CROSS JOIN json_populate_recordset(NULL::{table}, %(rows)s::json) AS r"
        " RETURNING 1)"
        " SELECT (SELECT n FROM counted), (SELECT count(*) FROM made)"
    ).format(table=table, columns=names(columns), values=names(columns, of="r"))
    return _text(statement)


@lru_cache(maxsize=STATEMENTS_KEPT_MAX)
def load_current(schema: str, projection: Projection[Any]) -> bytes:
    """The current versions of some keys (parameter: the keys), as `version_of` reads them."""
    statement = SQL("SELECT {columns} FROM {table} AS t WHERE t.{key} = ANY(%s) AND t.row_current_ind").format(
        columns=names(version_columns(projection), of="t"),
        table=Identifier(schema, projection.table),
        key=Identifier(projection.key_column),
    )
    return _text(statement)


@lru_cache(maxsize=STATEMENTS_KEPT_MAX)
def load_by_id(schema: str, projection: Projection[Any]) -> bytes:
    """Versions by surrogate id (parameter: the ids), as `version_of` reads them."""
    statement = SQL("SELECT {columns} FROM {table} AS t WHERE t.id = ANY(%s)").format(
        columns=names(version_columns(projection), of="t"), table=Identifier(schema, projection.table)
    )
    return _text(statement)


def load_all_rows(schema: str, projection: Projection[Any]) -> Composed:
    """Every row in the order of the columns of the projection, by surrogate id."""
    return SQL("SELECT {columns} FROM {table} AS t ORDER BY t.{id}").format(
        columns=names(projection.columns, of="t"),
        table=Identifier(schema, projection.table),
        id=Identifier(SURROGATE),
    )


def copy_in(schema: str, projection: Projection[Any]) -> Composed:
    """Bulk load: rows in the order of the columns, as `RowEncoder` writes them."""
    return SQL("COPY {table} ({columns}) FROM STDIN WITH ({options})").format(
        table=Identifier(schema, projection.table), columns=names(projection.columns), options=SQL(COPY_OPTIONS)
    )


def _text(statement: Composable) -> bytes:
    """The statement as the driver sends it: composed once, not at each execution."""
    return statement.as_bytes(None)


def version_columns(projection: Projection[Any]) -> tuple[str, ...]:
    """The columns that make a `Version`, in the order in which `version_of` takes them."""
    return (
        SURROGATE,
        projection.key_column,
        "row_effective_date",
        "row_expiration_date",
        "version",
        "effective_at",
        *projection.row.__struct_fields__,
    )


def version_of(projection: Projection[Any], values: Sequence[Any]) -> Version:
    """A `Version` from the values of `version_columns`."""
    surrogate, key, effective, expires, version, effective_at = values[:6]
    return Version(surrogate, key, effective, expires, version, effective_at, projection.row(*values[6:]))


def names(columns: Sequence[str], *, of: str | None = None) -> Composed:
    """Column names, comma-separated, qualified by an alias if one is given."""
    parts = [Identifier(of, column) if of else Identifier(column) for column in columns]
    return sql.SQL(", ").join(parts)


def encode_rows(projection: Projection[Any], versions: Sequence[Version]) -> str:
    """The versions as the JSON array that `write` takes."""
    record = _record_type(projection.table, projection.columns)
    return msgspec.json.encode([record(*values_of(version)) for version in versions]).decode()


def values_of(version: Version) -> tuple[Any, ...]:
    """The values of a version in the order of the table's columns."""
    expires = version.expires
    return (
        version.id,
        version.key,
        expires is None,
        version.effective,
        expires,
        version.version,
        version.effective_at,
        *as_tuple(version.row),
    )


@lru_cache(maxsize=64)
def _record_type(table: str, columns: tuple[str, ...]) -> Callable[..., Any]:
    return msgspec.defstruct(f"{table}_record", [(column, Any) for column in columns], gc=False)
