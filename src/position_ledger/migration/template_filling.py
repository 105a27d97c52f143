"""What fills a template, and whether it can: names are plain identifiers, values hold no second statement."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from position_ledger.errors import MigrationError
from position_ledger.migration.sql_text import tokenize
from position_ledger.migration.view_texts import ViewText

__all__ = ["TEMPLATES", "Filling", "check_filling", "row_key"]

TEMPLATES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "empty": ((), ()),
    "add-column": (("table", "column", "type"), ("not_null", "default", "comment")),
    "change-type": (("table", "column", "type", "old_type"), ()),
    "add-foreign-key": (("table", "column", "references"), ()),
    "projected-table": (("table", "key", "column", "type"), ("not_null", "comment")),
    "concurrent-index": (("table", "column"), ("unique",)),
    "reference-data": (("table", "column", "row"), ()),
}
"""What each template needs, and what it may have besides."""
SEVERAL: Final = {
    "projected-table": ("column", "type"),
    "concurrent-index": ("column",),
    "reference-data": ("column", "row"),
}
"""What may be given more than once."""
FOUND_OUT: Final = frozenset({"is_projected", "views"})
OPTIONS: Final = {"old_type": "--from", "not_null": "--not-null"}
_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*(?:\(\d+(?:, ?\d+)?\))?(?: with time zone)?(?:\[\])*")
_REFERENCE: Final = re.compile(r"(?P<table>[a-z_][a-z0-9_]{0,62})\s*\(\s*(?P<column>[a-z_][a-z0-9_]{0,62})\s*\)")


@dataclass(frozen=True, slots=True)
class Filling:
    """What fills a template; empty where it was not given. ``column``, ``type`` and ``row`` may be several.

    Nobody gives these, they are found out: ``is_projected``, the rows of the table come from the log; ``views``, those
    that hang on the column.
    """

    table: str = ""
    column: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    old_type: str = ""
    key: str = ""
    references: str = ""
    row: tuple[str, ...] = ()
    default: str = ""
    comment: str = ""
    not_null: bool = False
    unique: bool = False
    is_projected: bool = False
    views: tuple[ViewText, ...] = ()


def check_filling(template: str, filling: Filling) -> None:
    """Raise MigrationError, naming the option, unless the template can be filled with what was given."""
    if template not in TEMPLATES:
        raise MigrationError(f"there is no template {template!r}; there are {', '.join(TEMPLATES)}")
    needed, allowed = TEMPLATES[template]
    missing = [_option(name) for name in needed if not getattr(filling, name)]
    if missing:
        raise MigrationError(f"the template {template} needs {', '.join(missing)}; give it")
    given = [one.name for one in fields(filling) if getattr(filling, one.name) and one.name not in FOUND_OUT]
    for name in given:
        if name not in (*needed, *allowed):
            raise MigrationError(f"{_option(name)} does not go with the template {template}; leave it out")
        value = getattr(filling, name)
        if isinstance(value, tuple) and len(value) > 1 and name not in SEVERAL.get(template, ()):
            raise MigrationError(f"the template {template} takes one {_option(name)}, not {len(value)}; give one")
    _check_values(template, filling)


def _option(name: str) -> str:
    return OPTIONS.get(name, f"--{name}")


def _check_values(template: str, filling: Filling) -> None:
    for option, value in (
        ("--table", filling.table),
        ("--key", filling.key),
        *(("--column", one) for one in filling.column),
    ):
        if value and not _IDENTIFIER.fullmatch(value):
            raise MigrationError(
                f"{option} {value!r} is not a plain lower-case name; write it without quotes or schema"
            )
    for option, value in (("--from", filling.old_type), *(("--type", one) for one in filling.type)):
        if value and not _TYPE.fullmatch(value):
            raise MigrationError(f"{option} {value!r} is not the name of a type, such as bigint or numeric(38,18)")
    if filling.references and not _REFERENCE.fullmatch(filling.references):
        raise MigrationError(
            f"--references {filling.references!r} is not table(column), such as exit_reasons(reason_code)"
        )
    if template == "projected-table" and len(filling.column) != len(filling.type):
        raise MigrationError("the template projected-table needs one --type for each --column, in the same order")
    if filling.default:
        _values(f"--default {filling.default!r}", filling.default, 1)
    for row in filling.row:
        _values(f"--row {row!r}", row, len(filling.column))


def _values(what: str, text: str, count: int) -> list[str]:
    """The values of a list in SQL, apart; MigrationError unless there are ``count`` of them and nothing else."""
    values, depth, start = [], 0, 0
    for token in tokenize(text):
        if token.kind == "comment" or token.text == ";":
            raise MigrationError(f"{what} holds {token.text[:20]!r}; give values only")
        depth += {"(": 1, ")": -1, "[": 1, "]": -1}.get(token.text, 0)
        if depth < 0:
            break
        if token.text == "," and depth == 0:
            values.append(text[start : token.start].strip())
            start = token.end
    values.append(text[start:].strip())
    if depth != 0 or not all(values):
        raise MigrationError(f"{what} is no list of values; write it as in SQL: 'a text', 1, NULL")
    if len(values) != count:
        raise MigrationError(f"{what} holds {len(values)} values for {count} columns; give one for each --column")
    return values


def row_key(row: str) -> str:
    """The first value of a row that was checked: that of the first column, by which its rows are found again."""
    depth = 0
    for token in tokenize(row):
        depth += {"(": 1, ")": -1, "[": 1, "]": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            return row[: token.start].strip()
    return row.strip()
