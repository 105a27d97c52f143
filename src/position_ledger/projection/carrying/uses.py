"""What becomes of the parts of events in the folds of one definition: used, only tested, or given to a column.

`reading` finds it, `amounts` asks for it.
"""

from __future__ import annotations

import typing
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from position_ledger.projection.definition import Projection, Row
from position_ledger.store.codec import Path, amounts_of, fields_of


class Field(NamedTuple):
    """Something in the body of an event; with an empty path the body itself."""

    topic: str
    path: Path


class Column(NamedTuple):
    """What is in a column of a row."""

    name: str


class Envelope(NamedTuple):
    """An event with what travels beside its body."""

    topic: str


class WholeRow(NamedTuple):
    """A row, the current one or a new one."""


Origin = Field | Column | Envelope | WholeRow
ROW = WholeRow()


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression may be: where it comes from, its parts if it is a dict display, and what a global name stands for."""

    origins: frozenset[Origin] = frozenset()
    parts: Mapping[str, Value] = field(default_factory=dict)
    objects: tuple[Any, ...] = ()


NOTHING = Value()
"""Something with no amount in it."""


class Uses:
    """What is known of the amounts of one definition: what is used, only tested, or given to a column."""

    def __init__(self, projection: Projection[Any]) -> None:
        self.row: type[Row] = projection.row
        self.fields = {event.TOPIC: fields_of(event) for event in projection.folds}
        self._amounts = {event.TOPIC: amounts_of(event) for event in projection.folds}
        self._amount_columns = {one.name for one in msgspec.structs.fields(self.row) if _is_amount(one.type)}
        self._given: defaultdict[str, set[Origin]] = defaultdict(set)
        self._used: set[Origin] = set()
        self._tested: set[Origin] = set()

    def use(self, value: Value) -> None:
        """All of it is used."""
        for origin in value.origins:
            if isinstance(origin, WholeRow):
                self._used.update(Column(name) for name in self.row.__struct_fields__)
            else:
                self._used.add(Field(origin.topic, ()) if isinstance(origin, Envelope) else origin)
        for part in value.parts.values():
            self.use(part)

    def test(self, value: Value) -> None:
        """It is asked whether it is true: of an amount that is its value, of anything else nothing of what is in it."""
        self._tested |= value.origins

    def lacks(self, origin: Origin, name: str) -> bool:
        """Whether it is a body, or a model in one, that has nothing of that name."""
        if not isinstance(origin, Field) or hasattr(msgspec.Struct, name):
            return False
        fields, path = self.fields[origin.topic], origin.path
        return (*path, name) not in fields and (not path or any(one[:-1] == path for one in fields))

    def give(self, column: str, value: Value) -> None:
        """It becomes the value of a column."""
        if column not in self._amount_columns or value.parts:
            self.use(value)
            return
        self._given[column] |= value.origins
        self.use(Value(frozenset(origin for origin in value.origins if self._is_whole(origin))))

    def _is_whole(self, origin: Origin) -> bool:
        """Whether it is more than an amount or the value of a column."""
        if isinstance(origin, Field):
            return origin.path not in self._amounts[origin.topic]
        return not isinstance(origin, Column)

    def follow_columns(self) -> None:
        """What is used of a column is used of all that was ever given to it."""
        for known in (self._used, self._tested):
            waiting = [origin for origin in known if isinstance(origin, Column)]
            while waiting:
                more = self._given[waiting.pop().name] - known
                known.update(more)
                waiting += (origin for origin in more if isinstance(origin, Column))

    def carried(self, topic: str) -> frozenset[Path]:
        """The amounts of a topic that are neither used, nor inside of anything that is, nor tested."""
        return frozenset(
            path
            for path in self._amounts[topic]
            if Field(topic, path) not in self._tested
            and all(Field(topic, path[:length]) not in self._used for length in range(len(path) + 1))
        )


def either(values: Iterable[Value]) -> Value:
    """One of some values."""
    found = [value for value in values if value is not NOTHING]
    if len(found) < 2:  # noqa: PLR2004 - none or one
        return found[0] if found else NOTHING
    names = {name for value in found for name in value.parts}
    return Value(
        frozenset[Origin]().union(*(value.origins for value in found)),
        {name: either(value.parts[name] for value in found if name in value.parts) for name in names},
        tuple(one for value in found for one in value.objects),
    )


def _is_amount(annotation: Any) -> bool:
    """Decimal, or Decimal or None."""
    return set(typing.get_args(annotation) or (annotation,)) - {type(None)} == {Decimal}
