"""Folding and replaying without a database: what a changed projection makes of a recorded stream."""

from __future__ import annotations

import json
from dataclasses import replace as changed
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest

from position_ledger import ConfigurationError, Projection, Recorded, Row, SchemaMismatch, replace
from position_ledger.domain.event import Event
from position_ledger.events import EVENTS, PositionMarked, PositionOpened
from position_ledger.projection.scd2 import FoldFailed
from position_ledger.store.codec import Codec
from position_ledger.testing import differences, fold, given, replay
from position_ledger.testing.recording import EPOCH, recorded_events
from projections.positions import POSITIONS, PositionRow
from tests.support.commands import marking, opening

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.testing.recording import TableRow

STREAM = UUID(int=7)
OPENED = next(event for event in given().when(opening()).events if isinstance(event, PositionOpened))
MARKED = [PositionMarked(price=Decimal(price), unrealized_pnl=Decimal(0)) for price in ("0.50", "0.38", "0.55")]


def lines(*events: Event, stream: UUID = STREAM, first: int = 11) -> list[dict[str, Any]]:
    """The events as `position-ledger events --json` shows them, with more fields than a replay needs."""
    codec = Codec(EVENTS)
    return [
        {
            "seq": first + place,
            "stream": str(stream),
            "version": place + 1,
            "topic": event.TOPIC,
            "body": json.loads(codec.encode(event)),
            "recorded_at": f"2026-01-01T00:00:{place:02}+00:00",
            "effective_at": f"2026-01-01T00:00:{place:02}+00:00",
            "event_id": str(UUID(int=place)),
            "metadata": {"actor": "desk"},
        }
        for place, event in enumerate(events)
    ]


RECORDED = lines(OPENED, *MARKED)


def columns(rows: list[TableRow], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


# Folding


def test_bare_events_are_one_stream() -> None:
    rows = fold(POSITIONS, [OPENED, *MARKED])
    assert columns(rows, "id", "position_id", "version", "current_price", "row_current_ind") == [
        (1, "POS-1", 1, Decimal("0.42"), False),
        (2, "POS-1", 2, Decimal("0.50"), False),
        (3, "POS-1", 3, Decimal("0.38"), False),
        (4, "POS-1", 4, Decimal("0.55"), True),
    ]
    assert columns(rows, "row_effective_date", "row_expiration_date") == [
        (EPOCH + timedelta(seconds=n), EPOCH + timedelta(seconds=n + 1) if n < 3 else None) for n in range(4)
    ]


def test_no_event_makes_no_row() -> None:
    assert fold(POSITIONS, []) == []


class Tick(Event):
    TOPIC = "team.tick"
    price: Decimal


class TickRow(Row, frozen=True, gc=False):
    price: Decimal
    tags: Any


TICKS = Projection(
    table="ticks",
    key_column="tick_id",
    key=lambda event: f"T-{event.opened_seq}",
    row=TickRow,
    folds={Tick: lambda _row, event: TickRow(price=event.body.price, tags=[event.version, {"x": Decimal(1)}])},
)


def test_a_team_folds_its_own_events() -> None:
    rows = fold(TICKS, [Tick(price=Decimal(1)), Tick(price=Decimal(2))])
    assert columns(rows, "tick_id", "price", "tags") == [
        ("T-1", Decimal(1), [1, {"x": "1"}]),
        ("T-1", Decimal(2), [2, {"x": "1"}]),
    ]


def test_a_fold_that_fails_names_the_event() -> None:
    with pytest.raises(FoldFailed, match="cannot fold event 2"):
        fold(POSITIONS, [OPENED, OPENED])


# Replaying


@pytest.mark.parametrize("form", ["lines", "array", "objects", "events"])
def test_a_recording_is_read_in_every_form(tmp_path: Path, form: str) -> None:
    file = tmp_path / "recorded"
    sources: dict[str, Any] = {"lines": file, "array": str(file), "objects": RECORDED}
    text = "".join(json.dumps(line) + "\n" for line in RECORDED) if form == "lines" else json.dumps(RECORDED, indent=1)
    file.write_text(text, encoding="utf-8")
    source = sources.get(form) or list(recorded_events(RECORDED, Codec(EVENTS)))
    rows = replay(source, POSITIONS)["positions"]
    assert columns(rows, "id", "position_id") == [(11, "POS-11"), (12, "POS-11"), (13, "POS-11"), (14, "POS-11")]


def test_order_in_the_recording_does_not_matter() -> None:
    assert replay(RECORDED[::-1], POSITIONS) == replay(RECORDED, POSITIONS)


def test_the_projections_of_the_settings_are_the_default() -> None:
    assert replay(RECORDED)["positions"] == replay(RECORDED, [POSITIONS])["positions"]


def test_references_within_the_recording_become_numbers() -> None:
    second = PositionOpened.model_validate({**OPENED.model_dump(), "previous": {"stream": STREAM, "version": 1}})
    rows = replay([*RECORDED, *lines(second, stream=UUID(int=8), first=20)], POSITIONS)["positions"]
    assert rows[-1]["previous_position_id"] == "POS-11"


def test_a_reference_beyond_the_recording_needs_its_number() -> None:
    second = PositionOpened.model_validate({**OPENED.model_dump(), "previous": {"stream": STREAM, "version": 1}})
    alone = lines(second, stream=UUID(int=8), first=20)
    with pytest.raises(ConfigurationError, match=rf"event 20 refers to {STREAM} version 1.*testing\.record"):
        replay(alone, POSITIONS)
    alone[0]["refs"] = [[str(STREAM), 1, 11]]
    assert replay(alone, POSITIONS)["positions"][0]["previous_position_id"] == "POS-11"


def test_a_recording_that_begins_in_the_middle_needs_the_number_of_the_beginning() -> None:
    with pytest.raises(ConfigurationError, match="version 1, which the recording does not hold"):
        replay(RECORDED[1:], TICKS, events=[*EVENTS, Tick])
    replay([{**line, "opened_seq": 11} for line in RECORDED[1:]], TICKS, events=[*EVENTS, Tick])


@pytest.mark.parametrize("text", ["{", '{"seq": 1}', "[1, 2]", "seq,stream\n1,2"], ids=str)
def test_a_file_that_is_no_recording_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "no-recording"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"no-recording is not a recording: .*testing\.record"):
        replay(file, POSITIONS)


@pytest.mark.parametrize("mixed", [[OPENED, RECORDED[1]], [{"seq": 1}], [object()]], ids=["mixed", "half", "odd"])
def test_a_list_that_holds_no_recorded_events_is_refused(mixed: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="is not a recorded event"):
        replay(mixed, POSITIONS)


def test_an_event_that_this_code_does_not_know_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"team\.tick"):
        replay([{**RECORDED[0], "topic": "team.tick"}], POSITIONS)


# Comparing


class WorstRow(PositionRow, frozen=True, gc=False):
    worst_mark: Decimal


def with_worst(row: PositionRow, worst: Decimal) -> WorstRow:
    fields = {name: getattr(row, name) for name in PositionRow.__struct_fields__}
    return WorstRow(**fields, worst_mark=worst)


def opened_with_worst(row: WorstRow | None, event: Recorded[Any]) -> WorstRow:
    made = POSITIONS.folds[PositionOpened](row, event)
    return with_worst(made, made.entry_price)


def marked_with_worst(row: WorstRow, event: Recorded[Any]) -> WorstRow:
    made: WorstRow = POSITIONS.folds[PositionMarked](row, event)
    return replace(made, worst_mark=min(row.worst_mark, event.body.price))


WORST = changed(
    POSITIONS,
    row=WorstRow,
    folds={**POSITIONS.folds, PositionOpened: opened_with_worst, PositionMarked: marked_with_worst},
)


def test_a_changed_projection_differs_where_it_was_meant_to() -> None:
    before, after = (replay(RECORDED, projection)["positions"] for projection in (POSITIONS, WORST))
    found = differences(POSITIONS, before, after)
    assert [(one.id, one.column, one.before, one.after) for one in found] == [
        (11, "worst_mark", None, Decimal("0.42")),
        (12, "worst_mark", None, Decimal("0.42")),
        (13, "worst_mark", None, Decimal("0.38")),
        (14, "worst_mark", None, Decimal("0.38")),
    ]
    assert str(found[0]) == "positions POS-11 id 11: worst_mark was None, is Decimal('0.42')"
    assert differences(POSITIONS, before, after, ignoring=["worst_mark"]) == []


def test_a_version_that_only_one_side_has_is_a_difference() -> None:
    rows = replay(RECORDED, POSITIONS)["positions"]
    assert [str(one) for one in differences(POSITIONS, rows, rows[:-1])] == ["positions POS-11 id 14: only before"]
    assert [str(one) for one in differences(POSITIONS, rows[1:], rows)] == ["positions POS-11 id 11: only after"]
    assert differences(POSITIONS, rows, rows[::-1]) == []


def test_rows_are_made_of_what_the_database_would_give() -> None:
    stop = {"trail_amount": "0.05"}
    outcome = given(opening(trailing_stop=stop, metadata={"a": [1]})).when(marking("POS-1", "0.60"))
    for row in outcome.rows(POSITIONS):
        assert type(row["side"]) is str
        assert isinstance(row["trailing_stop_state"], dict)
        assert msgspec.json.decode(msgspec.json.encode(row["trailing_stop_state"])) == row["trailing_stop_state"]
        assert row["position_metadata"] == {"a": [1]}
