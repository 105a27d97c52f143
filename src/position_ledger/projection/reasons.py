"""What makes the code of now another than that which made a generation, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import parts_of

NAMED_MAX = 3
"""Of many folds or events that changed in one way so many are named, and the others counted."""


@dataclass(frozen=True, slots=True)
class _Words:
    """How what one side has and the other lacks is told."""

    more: str
    less: str
    folded: tuple[str, str]
    not_folded: tuple[str, str]
    version: str


SINCE = _Words(
    "column {} was added",
    "column {} was removed",
    ("{} is folded now", "{} are folded now"),
    ("{} is no longer folded", "{} are no longer folded"),
    "event {} is version {} now, the rows were made with {}",
)
"""Of code that is newer than the rows."""
LACKING = _Words(
    "this code still has column {}",
    "this code lacks column {}",
    ("this code still folds {}", "this code still folds {}"),
    ("this code does not fold {}", "this code does not fold {}"),
    "event {} is version {} in this code, the rows were made with {}",
)
"""Of code that is older than the rows."""


def differences(
    projection: Projection[Any], columns: Sequence[str], parts: Mapping[str, Any], *, is_older: bool = False
) -> list[str]:
    """Each difference of a definition to a generation with these columns and parts of the fingerprint, a clause each.

    ``is_older``: the code is, so what it lacks is told as such. Nothing can be told beside the columns of a generation
    whose parts are unknown (empty).
    """
    words = LACKING if is_older else SINCE
    found = list(_of_columns(projection.columns, columns, words))
    if parts:
        ours = parts_of(projection)
        common = set(projection.columns) & set(columns)
        found += _of_defaults(common, ours["defaults"], parts["defaults"])
        if ours["key"] != parts["key"]:
            found.append("the business key is made differently")
        found += _of_folds(ours["folds"], parts["folds"], words)
        found += _of_events(ours["events"], parts["events"], words)
    return found


def _of_columns(ours: Sequence[str], theirs: Sequence[str], words: _Words) -> Iterator[str]:
    yield from (words.more.format(name) for name in ours if name not in theirs)
    yield from (words.less.format(name) for name in theirs if name not in ours)
    if sorted(ours) == sorted(theirs) and list(ours) != list(theirs):
        yield "the columns are in another order"


def _of_defaults(columns: Iterable[str], ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(columns):
        if ours.get(name) != theirs.get(name):
            yield f"the default of field {name} changed"


def _of_folds(ours: Mapping[str, str], theirs: Mapping[str, str], words: _Words) -> Iterator[str]:
    yield from _named(*words.folded, (topic for topic in ours if topic not in theirs))
    yield from _named(*words.not_folded, (topic for topic in theirs if topic not in ours))
    changed = (topic for topic in ours if topic in theirs and ours[topic] != theirs[topic])
    yield from _named("the fold of {} changed", "the folds of {} changed", changed)


def _of_events(ours: Mapping[str, Sequence[Any]], theirs: Mapping[str, Sequence[Any]], words: _Words) -> Iterator[str]:
    common = sorted(ours.keys() & theirs.keys())
    for topic in common:
        (version, _), (before, _) = ours[topic], theirs[topic]
        if version != before:
            yield words.version.format(topic, version, before)
    reshaped = (topic for topic in common if ours[topic][0] == theirs[topic][0] and ours[topic][1] != theirs[topic][1])
    yield from _named("event {} has other fields", "events {} have other fields", reshaped)


def _named(one: str, many: str, topics: Iterable[str]) -> Iterator[str]:
    """A clause about some topics, or none."""
    names = sorted(topics)
    if not names:
        return
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    yield (one if len(names) == 1 else many).format(", ".join(names[:NAMED_MAX]) + more)
