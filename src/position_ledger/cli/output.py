"""Rendering: JSON, CSV and tables from plain rows. Numbers are exact in JSON and CSV, and aligned in tables."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from position_ledger.cli.running import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PLACES_MAX = 6
"""Decimal places of a table; `show`, CSV and JSON have them all."""
TEXT_WIDTH_MIN = 8
WIDE = 200
"""Columns of an output that is no terminal and says nothing else: a file or a pipe should lose nothing."""
GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. Of columns that do not fit, those with the highest ``rank`` are left out."""

    name: str
    heading: str
    rank: int = 0
    is_number: bool = False
    is_long: bool = False
    """Its text may be shortened where the table is too wide; numbers, times and ids never are."""


def plain(value: object) -> Any:  # noqa: PLR0911 - what JSON can hold, one line for each type
    """What JSON has no type for: Decimal as its plain notation, time as ISO 8601 in UTC with Z."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID | os.PathLike):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    msg = f"{type(value).__name__} has no form in JSON"
    raise TypeError(msg)


def write_json(document: object) -> None:
    """One document and a line end on standard output."""
    json.dump(document, sys.stdout, default=plain, ensure_ascii=not _is_unicode(), allow_nan=False, indent=2)
    sys.stdout.write("\n")


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A header and a line for each row; what is null is empty, objects are JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row[column]) for column in columns])


def _csv_cell(value: object) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, default=plain, allow_nan=False)
    return plain(value)


class _Console(Console):
    """Leaves it to `run` what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Pass it on."""
        raise BrokenPipeError


def terminal() -> Console:
    """Standard output, as wide as its terminal, as COLUMNS says, or wide."""
    console = _Console(file=sys.stdout, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def write_lines(lines: Iterable[str]) -> None:
    """Plain lines on standard output."""
    for line in lines:
        sys.stdout.write(printable(line) + "\n")


def write_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values under each other, exactly, nothing cut."""
    known = [(name, cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    write_lines(f"{name:<{width}}  {value}".rstrip() for name, value in known)


def write_rows(
    shown: Sequence[Column], names: Sequence[str], rows: Sequence[Mapping[str, Any]], noun: str, form: str
) -> None:
    """Rows as JSON or CSV with all columns, exactly, or as a table of those that are shown."""
    if form == "json":
        write_json(rows)
    elif form == "csv":
        write_csv(names, rows)
    else:
        write_listing(shown, rows, noun)


def write_listing(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], noun: str) -> None:
    """A table and how many rows it has."""
    if rows:
        write_table(columns, rows)
    write_lines([f"{len(rows):,} {noun}{'' if len(rows) == 1 else 's'}"])


def write_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with as many columns as fit."""
    console = terminal()
    heading, *lines = table_lines(columns, rows, console.width)
    console.print(Text(heading, style="bold"), no_wrap=True, crop=False)
    write_lines(lines)


def table_lines(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """The heading and a line for each row, none wider than ``width`` as long as the first column alone fits.

    Put together here and not by rich.table, which takes a second for each thousand positions.
    """
    texts = {column.name: _cells(column, rows) for column in columns}
    shown = _widths(columns, texts, width)
    cut = "…" if _is_unicode() else "~"
    heading = [_fitted(column.heading, column, column_width, cut) for column, column_width in shown.items()]
    body = (
        [_fitted(texts[column.name][index], column, column_width, cut) for column, column_width in shown.items()]
        for index in range(len(rows))
    )
    return [(" " * GAP).join(line).rstrip() for line in (heading, *body)]


def _fitted(text: str, column: Column, width: int, cut: str) -> str:
    """The text in exactly that many cells of the terminal; wide characters take two."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + cut
    return " " * (width - length) + text if column.is_number else text + " " * (width - length)


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _widths(columns: Sequence[Column], texts: Mapping[str, Sequence[str]], limit: int) -> dict[Column, int]:
    """The columns that fit, in order, with their widths; long ones share what the others leave."""
    natural = {
        column: max(cell_len(column.heading), *(cell_len(text) for text in texts[column.name]), 1) for column in columns
    }
    least = {
        column: min(width, max(TEXT_WIDTH_MIN, cell_len(column.heading))) if column.is_long else width
        for column, width in natural.items()
    }
    shown = sorted(columns, key=lambda column: column.rank)
    while len(shown) > 1 and sum(least[column] + GAP for column in shown) > limit:
        shown.pop()
    widths = {column: least[column] for column in columns if column in shown}
    spare = limit - sum(width + GAP for width in widths.values())
    for column in shown:
        more = min(natural[column] - widths[column], max(0, spare))
        widths[column] += more
        spare -= more
    return widths


def _cells(column: Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [row[column.name] for row in rows]
    places = max((_places(value) for value in values if isinstance(value, Decimal)), default=0)
    return [_aligned(value, places) if isinstance(value, Decimal) else cell(value, exact=False) for value in values]


def _places(value: Decimal) -> int:
    """Decimal places that a value needs, up to the most that a table shows."""
    exponent = value.normalize().as_tuple().exponent
    return min(PLACES_MAX, max(0, -exponent)) if isinstance(exponent, int) else 0


def _aligned(value: Decimal, places: int) -> str:
    """The value with the same places as its neighbours; never a minus before zero."""
    rounded = value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    return format(rounded or abs(rounded), "f")


def cell(value: object, *, exact: bool = True) -> str:  # noqa: PLR0911 - one line for each type
    """One value as a line of text; times to the microsecond if ``exact``, else to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, datetime):
        return plain(value) if exact else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict | list):
        return printable(json.dumps(value, default=plain, ensure_ascii=False, allow_nan=False))
    return str(plain(value))
