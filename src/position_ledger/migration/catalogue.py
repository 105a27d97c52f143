"""What a schema holds, as plain comparable values: everything is keyed by name, never by oid or column number.

Definitions are the server's own text, read with the schema alone on the search path, so that its name is in none of
them and the same table in another schema compares equal. Compare only what servers of one version wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = [
    "Catalogue",
    "Column",
    "Constraint",
    "Function",
    "Grant",
    "Index",
    "Sequence",
    "Table",
    "Trigger",
    "Type",
    "View",
    "diff",
    "views_above",
]


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One privilege; the owner, whoever that is, is called ``<owner>`` and PUBLIC ``<public>``."""

    grantee: str
    privilege: str
    grantable: bool

    def __str__(self) -> str:
        return f"{self.privilege} to {self.grantee}{' with grant option' if self.grantable else ''}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``default_volatility`` is i(mmutable), s(table), v(olatile) or "" without a default."""

    name: str
    type: str
    not_null: bool
    default: str | None
    default_volatility: str
    generated: str
    identity: str
    collation: str | None
    storage: str | None
    compression: str
    comment: str | None
    statistics_target: int | None
    options: tuple[str, ...]
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint; ``kind`` as in pg_constraint: c(heck), f(oreign), p(rimary), u(nique), x (exclusion), t, n."""

    name: str
    kind: str
    definition: str
    comment: str | None


@dataclass(frozen=True, slots=True)
class Index:
    """One index; ``constraint`` tells that a constraint of the same name owns it."""

    name: str
    definition: str
    constraint: bool
    valid: bool
    options: tuple[str, ...]
    comment: str | None
    statistics_targets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Trigger:
    """One user trigger; ``enabled`` as in pg_trigger: O(rigin), D(isabled), R(eplica), A(lways)."""

    name: str
    definition: str
    enabled: str
    comment: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """One table with all that hangs on it; column order is kept but two tables that differ only in it are equal.

    ``unsupported`` names in words what no generated DDL can make again (inheritance, rules, row security …).
    """

    name: str
    columns: Mapping[str, Column]
    constraints: Mapping[str, Constraint]
    indexes: Mapping[str, Index]
    triggers: Mapping[str, Trigger]
    statistics: Mapping[str, str]
    comment: str | None
    options: tuple[str, ...]
    grants: tuple[Grant, ...]
    unsupported: tuple[str, ...]
    owner: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class View:
    """One view or (``materialized``) materialized view; ``reads`` are the tables and views of the schema beneath it."""

    name: str
    materialized: bool
    definition: str
    columns: Mapping[str, Column]
    indexes: Mapping[str, Index]
    triggers: Mapping[str, Trigger]
    rules: Mapping[str, str]
    comment: str | None
    options: tuple[str, ...]
    grants: tuple[Grant, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """One function, procedure or aggregate; ``name`` includes its argument types."""

    name: str
    definition: str
    comment: str | None
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence that no identity column owns."""

    name: str
    definition: str
    owned_by: str | None
    comment: str | None
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """One enum, domain, composite or range type."""

    name: str
    definition: str
    comment: str | None
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of one schema, without what extensions own and without the runner's bookkeeping.

    ``surroundings`` are things outside the schema that a migration may make: extensions, publications, other relations.
    """

    tables: Mapping[str, Table]
    views: Mapping[str, View]
    functions: Mapping[str, Function]
    sequences: Mapping[str, Sequence]
    types: Mapping[str, Type]
    comment: str | None
    grants: tuple[Grant, ...]
    default_grants: tuple[str, ...]
    surroundings: tuple[str, ...] = field(compare=False, default=())


LINES_SHOWN_MAX = 5
"""Of the lines that a text has lost, and of those that it gained."""

_SINGULAR = {"indexes": "index", "statistics": "statistics", "surroundings": "surroundings"}


def views_above(catalogue: Catalogue, tables: Collection[str]) -> frozenset[str]:
    """The views that read one of these tables, themselves or through other views."""
    beneath, found = set(tables), frozenset[str]()
    while more := {view.name for view in catalogue.views.values() if beneath.intersection(view.reads)} - found:
        beneath, found = more, found | more
    return found


def diff(old: Catalogue | Table, new: Catalogue | Table) -> list[str]:
    """Each difference as one readable line, sorted by place; empty exactly when the two are equal."""
    where = f"table {old.name}" if isinstance(old, Table) else "schema"
    return list(_differences(where, old, new))


def _differences(where: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if is_dataclass(old) and type(old) is type(new):
        for part in fields(old):
            if part.compare:
                yield from _differences_of_part(where, part.name, getattr(old, part.name), getattr(new, part.name))
    else:
        yield f"{where}: {_shown(old)} became {_shown(new)}"


def _differences_of_part(where: str, part: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict):
        yield from _differences_of_mapping(where, _SINGULAR.get(part, part.removesuffix("s")), old, new)
    elif isinstance(old, tuple) and old != new:
        lost = [f"{where}: {part} lost {_shown(item)}" for item in old if item not in new]
        gained = [f"{where}: {part} gained {_shown(item)}" for item in new if item not in old]
        yield from lost + gained or [f"{where}: {part} {_shown(old)} became {_shown(new)}"]
    elif old != new:
        yield f"{where}: {part.replace('_', ' ')} {_changed(old, new)}"


def _changed(old: object, new: object) -> str:
    """Of a text of many lines, as that of a view, only the lines that differ."""
    if not (isinstance(old, str) and isinstance(new, str) and "\n" in old + new):
        return f"{_shown(old)} became {_shown(new)}"
    before, after = _lines(old), _lines(new)
    steps = [step for step in SequenceMatcher(None, before, after, autojunk=False).get_opcodes() if step[0] != "equal"]
    lost = [line for _, start, end, _, _ in steps for line in before[start:end]]
    gained = [line for _, _, _, start, end in steps for line in after[start:end]]
    said = [f"{verb} {_some(lines)}" for verb, lines in (("lost", lost), ("gained", gained)) if lines]
    return " and ".join(said) or "is written otherwise"


def _lines(text: str) -> list[str]:
    return [line.strip().removesuffix(",") for line in text.strip().splitlines()]


def _some(lines: list[str]) -> str:
    more = f" and {len(lines) - LINES_SHOWN_MAX} more lines" if len(lines) > LINES_SHOWN_MAX else ""
    return ", ".join(map(repr, lines[:LINES_SHOWN_MAX])) + more


def _differences_of_mapping(where: str, kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        place = f"{kind} {name}" if where == "schema" else f"{where}: {kind} {name}"
        if name not in new:
            yield f"{place} is gone"
        elif name not in old:
            yield f"{place} is new"
        else:
            yield from _differences(place, old[name], new[name])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(value) if isinstance(value, Grant) else repr(value)
