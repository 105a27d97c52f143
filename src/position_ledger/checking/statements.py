"""Describe every statement of the code against a schema and say which does not fit, and where it stands.

A text with holes is tried in the forms that are known: with each projection's table and key, with the tables that its
holes are named after, or as a composing function has made it. What remains is counted, not judged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from position_ledger.checking.findings import Mismatch, StatementsChecked, Undescribed
from position_ledger.checking.text import (
    KEY,
    SCHEMA,
    TABLE,
    UTILITY,
    Hole,
    Place,
    SqlText,
    describable,
    joined,
    numbered,
    stars,
    statements_in,
)
from position_ledger.migration.describe import Described, Refused, describe

if TYPE_CHECKING:
    from psycopg import Connection

    from position_ledger.projection.definition import Projection

__all__ = ["Checker"]

_MADE: Final = re.compile(
    r"\s*CREATE\s+(?:TEMP|TEMPORARY|UNLOGGED|\s)*TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?(\w+)", re.IGNORECASE
)
_UNKNOWN_TABLE: Final = re.compile(r'"(?:\w+\.)?(\w+)"')
UNDEFINED_TABLE: Final = "42P01"
INDETERMINATE: Final = frozenset({"42P18", "42P38", "42725"})
"""Indeterminate data type and collation, ambiguous function: the type of a parameter is told by its value only."""
POLYMORPHIC: Final = "input has type unknown"
NEVER_BY_TEXT: Final = "its text is put together where the code runs"
NOT_ANALYSED: Final = "the server looks at such a statement only when it runs"
MADE_BY_CODE: Final = "its table is made where the code runs"
TYPED_BY_VALUE: Final = "the type of a parameter is told by its value only"

_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8", "oid"})
_WHOLE: Final = frozenset({"int2", "int4", "int8", "oid"})
FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "int": _NUMBERS,
    "Decimal": _NUMBERS,
    "float": _NUMBERS,
    "bool": frozenset({"bool"}),
    "datetime": frozenset({"timestamptz", "timestamp", "date"}),
    "date": frozenset({"date", "timestamptz", "timestamp"}),
    "UUID": frozenset({"uuid"}),
}
"""Python types of parameters and the types that the server takes them as; text is taken as anything but numbers."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A statement in the form in which it was sent, and where it comes from."""

    source: SqlText
    text: str


class Checker:
    """Statements against the schema that a connection (autocommit, search path set) sees."""

    def __init__(
        self, connection: Connection[Any], relations: Collection[str], projections: Sequence[Projection[Any]]
    ) -> None:
        self._connection = connection
        self._relations = frozenset(relations)
        self._projections = projections
        self._types: dict[int, str] = {}
        self._mismatches: list[Mismatch] = []
        self._undescribed: list[Undescribed] = []
        self._described = 0
        self._made: set[str] = set()

    def check(self, found: Iterable[SqlText], composed: Iterable[str], fallback: Place) -> StatementsChecked:
        """All of them. ``composed`` are statements that composing functions made; ``fallback`` is where those are."""
        texts = list(found)
        self._made = {made[1] for text in texts if (made := _MADE.match(text.text))}
        whole = [_Sent(text, form) for text in texts for form in self._forms(text)]
        templates = [text for text in texts if not text.is_whole and not any(True for _ in self._forms(text))]
        covered: set[int] = set()
        narrow_first = sorted(templates, key=lambda text: -len(text.text))
        patterns = [(text, text.pattern()) for text in narrow_first]
        for form in composed:
            match = next((text for text, pattern in patterns if pattern.fullmatch(form)), None)
            covered.add(id(match))
            whole.append(_Sent(match or SqlText((form,), fallback, has_parameters=True), form))
        for sent in whole:
            self._one(sent)
        places = {sent.source.place for sent in whole}
        for text in templates:
            if id(text) not in covered and text.place not in places:
                self._undescribed.append(Undescribed(text.place, text.excerpt, _why(text)))
        return StatementsChecked(
            self._described, tuple(dict.fromkeys(self._mismatches)), tuple(dict.fromkeys(self._undescribed))
        )

    # forms of a text with holes

    def _forms(self, text: SqlText) -> Iterator[str]:
        parts = _without_schema(text.parts)
        kinds = {part.name for part in parts if isinstance(part, Hole)}
        if not kinds - {TABLE, KEY} - self._relations:
            projections: Sequence[Any] = self._projections if kinds & {TABLE, KEY} else [None]
            yield from dict.fromkeys(_filled_for(parts, projection) for projection in projections)

    # one statement

    def _one(self, sent: _Sent) -> None:
        for offset, statement in statements_in(sent.text):
            self._statement(sent, statement, sent.text.count("\n", 0, offset))

    def _statement(self, sent: _Sent, statement: str, lines_before: int) -> None:
        source = sent.source
        asked = describable(statement)
        if asked is None:
            self._undescribed.append(Undescribed(source.place, source.excerpt, NOT_ANALYSED))
            return
        text, order = numbered(asked, has_parameters=source.has_parameters)
        self._stars(sent, text, lines_before)
        answer = describe(self._connection, text)
        if _is_indeterminate(answer):
            answer = describe(self._connection, text, [self._sent_as(source.families.get(key, "")) for key in order])
            if _is_indeterminate(answer):
                self._undescribed.append(Undescribed(source.place, source.excerpt, TYPED_BY_VALUE))
                return
        if isinstance(answer, Refused) and self._is_about_own_table(answer):
            self._undescribed.append(Undescribed(source.place, source.excerpt, MADE_BY_CODE))
            return
        if isinstance(answer, Refused):
            self._say(sent, _at(sent, text, answer.offset, lines_before), answer.sentence)
            return
        self._described += 1
        self._parameters(sent, answer, order)

    def _is_about_own_table(self, answer: Refused) -> bool:
        """Whether the table that is not there is one that the code makes, a temporary one say."""
        match = _UNKNOWN_TABLE.search(answer.sentence) if answer.sqlstate == UNDEFINED_TABLE else None
        return match is not None and match[1] in self._made

    def _stars(self, sent: _Sent, text: str, lines_before: int) -> None:
        for offset in stars(text):
            what = "selects *, so its columns change with the table: name the columns"
            self._say(sent, _at(sent, text, offset, lines_before), what)

    def _say(self, sent: _Sent, place: Place, what: str) -> None:
        self._mismatches.append(Mismatch("statement", f"{what}: {_excerpt(sent.text)}", place))

    # parameters

    def _parameters(self, sent: _Sent, answer: Described, order: Sequence[int | str]) -> None:
        for key, oid in zip(order, answer.parameter_oids, strict=False):
            family, kind = sent.source.families.get(key, ""), self._type(oid)
            if not _takes(family, kind):
                named = f"parameter {key}" if isinstance(key, str) else f"parameter {key + 1}"
                what = f"{named} is of Python type {family}, and the statement takes it as {kind}"
                self._say(sent, sent.source.place, what)

    def _type(self, oid: int) -> str:
        if oid not in self._types:
            row = self._connection.execute(
                "SELECT t.typname::text FROM pg_catalog.pg_type AS t WHERE t.oid = %s", [oid]
            ).fetchone()
            self._types[oid] = str(row[0]) if row else ""
        return self._types[oid]

    def _sent_as(self, family: str) -> int:
        """The type that the driver sends for a Python type; text and what is not known go without one."""
        name = {"int": "int2", "Decimal": "numeric", "float": "float8", "datetime": "timestamptz"}.get(family)
        name = name or {"bool": "bool", "date": "date", "UUID": "uuid", "str": "text"}.get(family)
        found = self._connection.adapters.types.get(name) if name else None
        return found.oid if found else 0


def _is_indeterminate(answer: Described | Refused) -> bool:
    return isinstance(answer, Refused) and (answer.sqlstate in INDETERMINATE or POLYMORPHIC in answer.sentence)


def _takes(family: str, kind: str) -> bool:
    if family == "str":
        return kind not in _WHOLE
    if family == "bytes":
        return kind == "bytea"
    return family not in FAMILIES or kind in FAMILIES[family]


def _why(text: SqlText) -> str:
    return NOT_ANALYSED if text.first_word in UTILITY - {"copy"} else NEVER_BY_TEXT


def _without_schema(parts: Sequence[str | Hole]) -> tuple[str | Hole, ...]:
    """``{schema}.table`` without the schema, which the search path gives."""
    answer: list[str | Hole] = []
    before: str | Hole = ""
    for part in parts:
        if isinstance(before, Hole) and before.name == SCHEMA and isinstance(part, str) and part.startswith("."):
            answer[-1] = part[1:]
        else:
            answer.append(part)
        before = part
    return joined(answer)


def _filled_for(parts: Sequence[str | Hole], projection: Projection[Any] | None) -> str:
    def name(hole: Hole) -> str:
        if projection is not None and hole.name in {TABLE, KEY}:
            return projection.table if hole.name == TABLE else projection.key_column
        return hole.name

    return "".join(part if isinstance(part, str) else '"' + name(part).replace('"', '""') + '"' for part in parts)


def _at(sent: _Sent, text: str, offset: int | None, lines_before: int) -> Place:
    place = sent.source.place_of(text, offset) if sent.source.is_whole_lines else sent.source.place
    moved = lines_before if sent.source.is_whole_lines else 0
    return Place(place.file, place.line + moved)


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:77] + "..."  # noqa: PLR2004 - a line of a terminal
