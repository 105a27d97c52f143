"""Row types against columns: what a fold may put into a field, the column takes, and what the column holds, fits the field."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from position_ledger.checking.findings import Mismatch
from position_ledger.checking.text import Place
from position_ledger.migration.catalogue import Column, Table
from position_ledger.projection.definition import SURROGATE, Projection

__all__ = ["row_type_mismatches"]

_TEXT: Final = frozenset({"text", "character varying", "character", "citext"})
COLUMN_TYPES: Final[Mapping[type, frozenset[str]]] = {
    bool: frozenset({"boolean"}),
    int: frozenset({"smallint", "integer", "bigint"}),
    Decimal: frozenset({"numeric"}),
    float: frozenset({"real", "double precision"}),
    str: _TEXT,
    bytes: frozenset({"bytea"}),
    datetime: frozenset({"timestamp with time zone"}),
    date: frozenset({"date"}),
    UUID: frozenset({"uuid"}),
}
"""Which columns hold the values of a Python type exactly, without a cast. Times have a zone (S72)."""
OF_ENGINE: Final[Mapping[str, tuple[type, bool]]] = {
    SURROGATE: (int, False),
    "row_current_ind": (bool, False),
    "row_effective_date": (datetime, False),
    "row_expiration_date": (datetime, True),
    "version": (int, False),
    "effective_at": (datetime, False),
}
"""What the engine writes into the columns that it adds, and whether it may be null."""


def row_type_mismatches(projection: Projection[Any], table: Table) -> list[Mismatch]:
    """Every field and column of one projection that do not fit each other; the line of the field where there is one."""
    lines = _Lines(projection.row)
    found: list[Mismatch] = []
    for name in projection.columns:
        column = table.columns.get(name)
        if column is None:
            what = f"table {table.name} has no column {name}: add it in a migration, or take the field out"
            found.append(Mismatch("row type", f"{lines.owner}: {what}", lines.of(name)))
        else:
            found += [Mismatch("row type", problem, lines.of(name)) for problem in _problems(projection, column)]
    for name in table.columns.keys() - set(projection.columns):
        what = f"has no field for column {name} of table {table.name}: add the field, or drop the column in a migration"
        found.append(Mismatch("row type", f"{lines.owner} {what}", lines.of("")))
    return found


def _problems(projection: Projection[Any], column: Column) -> Iterator[str]:
    annotation = _annotation(projection, column.name)
    kind, may_be_none = _parts(annotation)
    where = f"{projection.table}.{column.name}"
    field = f"{projection.row.__name__}.{column.name} is {_shown(annotation)}"
    if not _holds(kind, column.type):
        yield f"{field} and column {where} is {column.type}: {_remedy(kind)}"
    if may_be_none is None:
        return
    if may_be_none and column.not_null:
        yield f"{field} and column {where} is NOT NULL: a fold that gives None would fail; make the two alike"
    elif not may_be_none and not column.not_null:
        yield (
            f"{field} and column {where} may be NULL: make the column NOT NULL in a migration, "
            "or the field one that may be None"
        )


def _annotation(projection: Projection[Any], name: str) -> Any:
    if name in OF_ENGINE:
        kind, may_be_none = OF_ENGINE[name]
        return kind | None if may_be_none else kind
    return str if name == projection.key_column else get_type_hints(projection.row)[name]


def _parts(annotation: Any) -> tuple[Any, bool | None]:
    """The type without None, and whether None is among its values; None where the type does not say."""
    if annotation is Any:
        return Any, None
    if get_origin(annotation) in {Union, types.UnionType}:
        rest = [one for one in get_args(annotation) if one is not type(None)]
        has_none = len(rest) < len(get_args(annotation))
        return (rest[0] if len(rest) == 1 else tuple(rest)), has_none
    return annotation, False


def _holds(kind: Any, column_type: str) -> bool:
    """Whether a column of that type holds what the Python type can be."""
    plain = re.sub(r"\(.*?\)", "", column_type).strip()
    if plain in {"json", "jsonb"}:
        return kind not in COLUMN_TYPES
    if kind is Any:
        return False
    if isinstance(kind, tuple):
        return all(_holds(one, column_type) for one in kind)
    return plain in _columns_of(kind)


def _columns_of(kind: Any) -> frozenset[str]:
    if isinstance(kind, typing.NewType):
        return _columns_of(kind.__supertype__)
    if get_origin(kind) is Literal:
        return frozenset.intersection(*(_columns_of(type(value)) for value in get_args(kind)))
    if get_origin(kind) is typing.Annotated:
        return _columns_of(get_args(kind)[0])
    if isinstance(kind, type):
        if issubclass(kind, Enum) and not issubclass(kind, str):
            return COLUMN_TYPES[int] if issubclass(kind, IntEnum) else frozenset()
        return next((COLUMN_TYPES[one] for one in kind.__mro__ if one in COLUMN_TYPES), frozenset())
    return frozenset()


def _remedy(kind: Any) -> str:
    if kind is Any:
        return "Any stands for jsonb, so name the type of the column's values"
    columns = _columns_of(kind) if not isinstance(kind, tuple) else frozenset()
    fitting = "text" if columns == _TEXT else " or ".join(sorted(columns, key=lambda name: (len(name), name)))
    return f"it belongs into a column of type {fitting or 'jsonb'}"


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("decimal.", "").replace("datetime.", "")


class _Lines:
    """Where the fields of a row type are written down."""

    def __init__(self, row: type[Any]) -> None:
        self.owner = f"row type {row.__name__}"
        self._file: Path | None = None
        self._first = 1
        self._by_name: dict[str, int] = {}
        try:
            file, (lines, first) = inspect.getsourcefile(row), inspect.getsourcelines(row)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):  # made where the code runs: it stands nowhere
            return
        self._file, self._first = (Path(file) if file else None), first
        for node in tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self._by_name[node.target.id] = first + node.lineno - 1

    def of(self, name: str) -> Place | None:
        """The line of a field; of the class for what has no field."""
        return None if self._file is None else Place(self._file, self._by_name.get(name, self._first))
