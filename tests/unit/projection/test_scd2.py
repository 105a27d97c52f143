"""Folding events into versions: however a history is cut into batches, the versions are the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection, Row
from position_ledger.projection.scd2 import Changes, FoldFailed, Version, fold_batch
from position_ledger.store.envelope import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START = datetime(2026, 1, 1, tzinfo=UTC)


class Set(Event):
    TOPIC: ClassVar[str] = "test.set"
    value: int = 0


class Ignored(Event):
    TOPIC: ClassVar[str] = "test.ignored"


class ValueRow(Row, frozen=True, gc=False):
    value: int
    changes: int


def fold(row: ValueRow | None, event: Recorded[Any]) -> ValueRow:
    if row is not None and row.value == event.body:
        return row
    return ValueRow(event.body, row.changes + 1 if row else 0)


def projection(folding: Callable[[Any, Any], Any] = fold, **changes: Any) -> Projection[ValueRow]:
    fields = {
        "table": "values", "key_column": "value_id", "key": lambda event: f"V-{event.stream.int}", "row": ValueRow,
        "folds": {Set: folding},
    }  # fmt: skip
    return Projection(**{**fields, **changes})


def event(seq: int, stream: int, value: Any, topic: str = Set.TOPIC) -> Recorded[Any]:
    at = START + timedelta(microseconds=seq)
    return Recorded(seq, UUID(int=stream), seq, topic, value, at, at - timedelta(days=1), seq)


histories = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from([Set.TOPIC, Set.TOPIC, Ignored.TOPIC])), max_size=40
).map(lambda drawn: [event(seq, stream, value, topic) for seq, (stream, value, topic) in enumerate(drawn, 1)])


class Table:
    """What the changes of many batches make of a table: only what the database is told counts."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Any, ...]] = {}

    def take(self, changes: Changes) -> None:
        for row_id, at in zip(changes.expired_ids, changes.expired_at, strict=True):
            assert self.rows[row_id][2] is None, "an expired row expires again"
            self.rows[row_id] = (*self.rows[row_id][:2], at, *self.rows[row_id][3:])
        for one in changes.inserted:
            assert one.id not in self.rows
            self.rows[one.id] = (one.key, one.effective, one.expires, one.version, one.effective_at, one.row)

    def current(self) -> dict[str, Version]:
        return {
            row[0]: Version(row_id, row[0], row[1], row[2], row[3], row[4], row[5])
            for row_id, row in self.rows.items()
            if row[2] is None
        }


def in_batches(events: Sequence[Recorded[Any]], cuts: Sequence[int], *, forget: bool) -> Table:
    """Fold the events in batches that end at the cuts; with or without rows kept in memory from batch to batch."""
    table = Table()
    current: dict[str, Version] = {}
    bounds = sorted({0, *(cut % (len(events) + 1) for cut in cuts), len(events)})
    for low, high in pairwise(bounds):
        if forget:
            current = table.current()
        table.take(fold_batch(projection(), events[low:high], current))
    return table


@given(events=histories, cuts=st.lists(st.integers(0, 40), max_size=8), forget=st.booleans())
def test_any_cut_into_batches_gives_the_same_versions(
    events: list[Recorded[Any]], cuts: list[int], *, forget: bool
) -> None:
    whole = in_batches(events, [], forget=False)
    assert in_batches(events, cuts, forget=forget).rows == whole.rows


@given(events=histories)
def test_the_intervals_of_a_key_follow_each_other_without_gap_or_overlap(events: list[Recorded[Any]]) -> None:
    rows = in_batches(events, [], forget=False).rows
    for key in {row[0] for row in rows.values()}:
        mine = [row for _, row in sorted(rows.items()) if row[0] == key]
        assert [row[3] for row in mine] == list(range(1, len(mine) + 1))
        assert [row[2] for row in mine] == [row[1] for row in mine[1:]] + [None]
        assert all(row[2] is None or row[1] < row[2] for row in mine)


def test_the_same_row_makes_no_version() -> None:
    changes = fold_batch(projection(), [event(1, 1, 5), event(2, 1, 5), event(3, 1, 6)], {})
    assert [(one.id, one.version, one.row.value) for one in changes.inserted] == [(1, 1, 5), (3, 2, 6)]
    assert changes.expired_ids == []


def test_an_equal_row_that_is_another_object_is_a_version() -> None:
    changes = fold_batch(projection(lambda _row, event: ValueRow(event.body, 0)), [event(1, 1, 5), event(2, 1, 5)], {})
    assert [one.id for one in changes.inserted] == [1, 2]


@pytest.mark.parametrize(
    ("folding", "words"),
    [
        (lambda _row, _event: None, "into NoneType, not into a ValueRow"),
        (lambda _row, event: {"value": event.body}, "into dict, not into a ValueRow"),
        (lambda row, _event: row.value, "AttributeError: 'NoneType' object has no attribute 'value'"),
    ],
    ids=["nothing", "no row", "an error of its own"],
)
def test_a_fold_that_gives_no_row_fails_by_name(folding: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(FoldFailed, match=rf"values .*event 1 \(test\.set\).*{words}"):
        fold_batch(projection(folding), [event(1, 1, 5)], {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "Values"}, "'Values' is not a plain lower-case name"),
        ({"table": 'v"; DROP TABLE events; --'}, "is not a plain lower-case name"),
        ({"row": dict}, "must be a subclass of position_ledger.Row"),
        ({"folds": {}}, "folds is empty"),
        ({"key_column": "value"}, "row has value, which the engine adds itself"),
    ],
)
def test_a_wrong_definition_is_refused_when_it_is_made(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        projection(**change)


def test_columns_that_the_engine_adds_are_not_the_teams() -> None:
    class Versioned(Row, frozen=True, gc=False):
        version: int
        effective_at: Decimal

    with pytest.raises(ConfigurationError, match="row has effective_at, version, which the engine adds itself"):
        projection(row=Versioned)
