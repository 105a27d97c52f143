"""Rows of one table as blocks of COPY in its CSV format, which JSON is but for its brackets and its control characters.

Why not the binary format. The JSON encoder writes amounts and times in C, a row in the time that Python takes for three
amounts in base 10,000; the server reads a row from text in three microseconds more. It is also what live projecting sends,
so a value becomes the same column value on both ways (docs/reference/performance.md has the figures).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format

from position_ledger.errors import VerificationFailed

OPTIONS = r"""FORMAT csv, QUOTE '"', ESCAPE '\', NULL 'null', ENCODING 'UTF8'"""
"""What the COPY that takes the blocks must say."""

NO_AMOUNTS = (b'NaN"', b'Infinity"')
"""Words that numeric takes and that no fold may make: searched in whole blocks, because a look at each amount would cost
as much as writing it."""

AS_JSON = frozenset({"json", "jsonb"})
BY_ENCODER = frozenset(
    {"bool", "int2", "int4", "int8", "numeric", "text", "varchar", "bpchar", "uuid", "date", "timestamp", "timestamptz"}
)
"""Types whose input takes what the JSON encoder writes; what is in neither set goes through the driver."""

COLUMNS = """
SELECT a.attname, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END,
       CASE t.typtype WHEN 'd' THEN b.typname WHEN 'e' THEN 'text' ELSE t.typname END
  FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
ESCAPE = re.compile(rb"\\(u[0-9a-f]{4}|.)")
ESCAPED = {b'"': rb"\"", b"\\": rb"\\", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
NUL = b"u0000"
LINE_FEED = ord("\n")

Values = Sequence[Any]


class UnfitValue(VerificationFailed):
    """A fold made a value that its column cannot hold; names table, row and column. Correct the fold."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the server has it: its type, or the one under its domain, by oid and name; an enumeration is a text."""

    name: str
    type_oid: int
    type_name: str


def columns_of(connection: psycopg.Connection[Any], table: str, names: Sequence[str]) -> list[Column]:
    """The columns of a table (quoted, with its schema) in the order of ``names``."""
    found = {row[0]: Column(*row) for row in connection.execute(COLUMNS, (table,)).fetchall()}
    return [found[name] for name in names]


class RowEncoder:
    """Encodes rows of one table for COPY … FROM STDIN with `OPTIONS`. Not for threads."""

    def __init__(self, connection: psycopg.Connection[Any], table: str, columns: Sequence[Column]) -> None:
        self._table = table
        self._columns = columns
        self._json = msgspec.json.Encoder()
        self._amounts = [place for place, column in enumerate(columns) if column.type_name == "numeric"]
        self._written = [
            (place, _Written(self._json_text if column.type_name in AS_JSON else _by_driver(connection, column)))
            for place, column in enumerate(columns)
            if column.type_name not in BY_ENCODER
        ]

    def block(self, rows: Sequence[Values]) -> bytes | bytearray:
        """The rows, each with its values in the order of the columns; empty for none.

        Raises:
            UnfitValue: a value that cannot be written, a text with NUL, or no number where an amount belongs.
        """
        if not rows:
            return b""
        try:
            block = self._lines([self._prepared(row) for row in rows] if self._written else rows)
        except Exception as error:
            raise self._unfit(rows, error) from error
        if any(word in block for word in NO_AMOUNTS):
            self._require_amounts(rows)
        return block if b"\\" not in block else self._with_raw_controls(rows, block)

    def _lines(self, rows: Iterable[Values]) -> bytearray:
        """Each row as an array without its brackets, which line feeds are written over, with a line feed behind it."""
        block, write, end = bytearray(1), self._json.encode_into, 0
        for row in rows:
            write(row, block, end)
            block[end] = LINE_FEED
            end = len(block) - 1
        block[end] = LINE_FEED
        del block[0]
        return block

    def _prepared(self, row: Values) -> Values:
        """The row with the text of each value that the encoder would not write as the server reads it."""
        changed: list[Any] | None = None
        for place, written in self._written:
            value = row[place]
            if value is not None:
                changed = changed or list(row)
                changed[place] = written.text_of(value)
        return changed or row

    def _json_text(self, value: Any) -> str:
        return self._json.encode(value).decode()

    def _with_raw_controls(self, rows: Sequence[Values], block: bytearray) -> bytes | bytearray:
        """The block with line feeds and the like as they are: CSV has no escapes for them, only for quote and escape."""
        if b"\\" not in block.replace(rb"\\", b"").replace(rb"\"", b""):
            return block
        if any(found[1] == NUL for found in ESCAPE.finditer(block)):
            raise self._unfit(rows, ValueError("a text cannot hold the character NUL"))
        return ESCAPE.sub(_raw, block)

    def _require_amounts(self, rows: Iterable[Values]) -> None:
        """The words may also stand in a text, where they are welcome."""
        for row in rows:
            for place in self._amounts:
                if row[place] is not None and not Decimal(row[place]).is_finite():
                    raise UnfitValue(self._sentence(row, place, "it is not an amount"))

    def _unfit(self, rows: Iterable[Values], error: Exception) -> UnfitValue:
        """Name the first value that cannot be written."""
        for row in rows:
            for place, value in enumerate(row):
                try:
                    if NUL in self._json.encode(self._prepared([*[None] * place, value, *[None] * len(row)])):
                        return UnfitValue(self._sentence(row, place, str(error)))
                except Exception as cause:  # noqa: BLE001 - whatever it is, it is this value's
                    return UnfitValue(self._sentence(row, place, str(cause)))
        return UnfitValue(f"projection {self._table} has a row that cannot be written: {error}; correct the fold")

    def _sentence(self, row: Values, place: int, why: str) -> str:
        column = self._columns[place]
        return (
            f"projection {self._table}, row {row[0]}: column {column.name} ({column.type_name}) cannot hold "
            f"{f'{row[place]!r}':.80}: {why}; correct the fold"
        )


class _Written:
    """The text of the last value of a column: versions of a row share what did not change."""

    __slots__ = ("_text", "_value", "_write")

    def __init__(self, write: Callable[[Any], str | None]) -> None:
        self._write = write
        self._value: Any = None
        self._text: str | None = None

    def text_of(self, value: Any) -> str | None:
        """The text of a value."""
        if value is not self._value:
            self._text, self._value = self._write(value), value
        return self._text


def _by_driver(connection: psycopg.Connection[Any], column: Column) -> Callable[[Any], str | None]:
    """Arrays, bytea and any other type as the driver writes them."""
    driver = Transformer(connection)
    driver.set_dumper_types([column.type_oid], Format.TEXT)

    def write(value: Any) -> str | None:
        written = driver.dump_sequence([value], [PyFormat.TEXT])[0]
        return None if written is None else bytes(written).decode()

    return write


def _raw(found: re.Match[bytes]) -> bytes:
    name = found[1]
    return ESCAPED[name] if len(name) == 1 else chr(int(name[1:], 16)).encode()
