"""Digests of rows that tell any two different cells apart: by bucket of ids, whatever the order of the rows.

The server's own hash of a row is not enough: it takes -5 for 5, 1.0 for 1.00, and cannot hash every type. So each column
gives what its type needs: an amount its sign besides, and what the hash reads loosely its text. What is
written alike is the same, and nothing else is.

A digest finds accidents and edits, not a forger who searches for rows of equal hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

BUCKET_SHIFT_MIN: Final = 10
"""The smallest bucket has 1,024 ids."""

BUCKETS_MAX: Final = 1_024
"""Larger tables have larger buckets, so that a digest stays small."""

HASHED_AS_THEY_ARE: Final = frozenset(
    {"bool", "int2", "int4", "int8", "uuid", "date", "timestamp", "timestamptz", "bytea"}
)
"""Types whose hash tells apart whatever is written differently. Not enumerations, whose hash is that of one database."""

TEXTS: Final = frozenset({"text", "varchar"})

TYPES = """
SELECT a.attname, CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END,
       CASE WHEN coalesce(b.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace THEN coalesce(b.typname, t.typname)
            ELSE '' END
  FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_type AS b ON t.typtype = 'd' AND b.oid = t.typbasetype
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""

Bucket = tuple[int, int]
"""How many rows, and their hashes put together."""

Found = Iterable[tuple[int, int, int]]
"""Number of a bucket, rows, hash."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a digest sees it: its type, or the one under its domain; empty for one that is no type of the server's."""

    name: str
    type_name: str
    has_scale: bool
    """An amount with a fixed number of places: equal values are written alike."""


def columns_of(
    connection: psycopg.Connection[Any], schema: str, table: str, names: Iterable[str]
) -> tuple[Column, ...]:
    """The columns of a table in the order of ``names``."""
    name = Identifier(schema, table).as_string(connection)
    found = {row[0]: Column(row[0], row[2], row[1] >= 0) for row in connection.execute(TYPES, (name,)).fetchall()}
    return tuple(found[name] for name in names)


def shift_of(highest: int) -> int:
    """By how many bits an id is shifted to give its bucket: at most `BUCKETS_MAX` buckets up to ``highest``."""
    return max(BUCKET_SHIFT_MIN, (highest // BUCKETS_MAX).bit_length())


def hash_of(columns: Iterable[Column]) -> Composed:
    """The hash of the row ``t`` over some of its columns, in their order."""
    parts = SQL(", ").join(part for column in columns for part in _parts(column))
    return SQL("hash_record_extended(ROW({}), 0)").format(parts)


def _parts(column: Column) -> Iterator[Composable]:
    name = Identifier("t", column.name)
    if column.type_name == "numeric" and column.has_scale:
        yield name
        yield SQL("{} < 0").format(name)
    elif column.type_name in HASHED_AS_THEY_ARE:
        yield name
    else:
        text = name if column.type_name in TEXTS else SQL("{}::text").format(name)
        yield SQL('{} COLLATE "C"').format(text)


def digest(source: Composable, columns: Iterable[Column]) -> Composed:
    """Rows and hash of each bucket of what ``source`` gives as ``t`` (parameter: shift)."""
    return SQL("SELECT t.id >> %(shift)s::integer, count(*), bit_xor({hash}) FROM {source} GROUP BY 1").format(
        hash=hash_of(columns), source=source
    )


def taken(
    connection: psycopg.Connection[Any], statement: Composed, parameters: Mapping[str, Any]
) -> list[tuple[int, int, int]]:
    """What a `digest` gives, in a transaction of the caller's.

    By hashing: the planner takes every id for a bucket of its own, and would sort the rows on disk, all columns of them.
    """
    connection.execute("SET LOCAL enable_sort = off")
    found: list[tuple[int, int, int]] = connection.execute(statement, parameters).fetchall()
    connection.execute("SET LOCAL enable_sort TO DEFAULT")
    return found


class Digest:
    """Rows and hashes of a table by bucket, gathered in any order."""

    __slots__ = ("_buckets",)

    def __init__(self, found: Found = ()) -> None:
        self._buckets: dict[int, Bucket] = {}
        self.add(found)

    def add(self, found: Found) -> None:
        """Take in what more rows give."""
        for bucket, rows, hashed in found:
            before = self._buckets.get(bucket, (0, 0))
            self._buckets[bucket] = before[0] + rows, before[1] ^ hashed

    @property
    def found(self) -> list[tuple[int, int, int]]:
        """All of it, by bucket."""
        return [(bucket, *self._buckets[bucket]) for bucket in sorted(self._buckets)]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(rows for rows, _ in self._buckets.values())

    @property
    def hash(self) -> str:
        """One hash of all rows, 16 hexadecimal digits, whatever the size of the buckets."""
        whole = 0
        for _, hashed in self._buckets.values():
            whole ^= hashed
        return f"{whole & (2**64 - 1):016x}"

    def differs_from(self, other: Digest) -> list[int]:
        """Buckets that are not the same in both, in order."""
        ours, theirs = self._buckets, other._buckets
        return sorted(bucket for bucket in ours.keys() | theirs.keys() if ours.get(bucket) != theirs.get(bucket))


def up_to(table: Composable, key: str, columns: Sequence[str]) -> Composed:
    """The rows of a table as they were when it had all events up to a number, and no other (parameter: upto).

    A version whose end came with a later event was current then.
    """
    late = SQL("(SELECT t.{key} AS key, min(t.version) AS version FROM {table} AS t WHERE t.id > %(upto)s GROUP BY 1)")
    return SQL(
        "(SELECT {columns} FROM {table} AS t LEFT JOIN {late} AS l ON l.key = t.{key} AND l.version = t.version + 1"
        " WHERE t.id <= %(upto)s) AS t"
    ).format(
        columns=SQL(", ").join(_AS_OF.get(name, SQL("t.{0}")).format(Identifier(name)) for name in columns),
        table=table,
        late=late.format(key=Identifier(key), table=table),
        key=Identifier(key),
    )


_AS_OF: Final[Mapping[str, SQL]] = {
    "row_current_ind": SQL("(t.row_current_ind OR l.version IS NOT NULL) AS row_current_ind"),
    "row_expiration_date": SQL("CASE WHEN l.version IS NULL THEN t.row_expiration_date END AS row_expiration_date"),
}
