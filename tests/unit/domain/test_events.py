"""Events keep their meaning: stable names, exact JSON, nothing but facts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ValidationError

from position_ledger.domain.event import Event
from position_ledger.domain.events import (
    BookPositionClosed,
    ExitTriggered,
    PositionMarked,
    PositionOpened,
    body_json,
)
from position_ledger.domain.families import EVENTS
from tests.unit.domain.world import D, World, examples

TOPICS = {
    "position.opened",
    "position.increased",
    "position.reduced",
    "position.closed",
    "position.settled",
    "position.marked",
    "position.exit_triggered",
    "position.exits_set",
    "position.late_fill_recorded",
    "position.trade_busted",
    "position.trade_corrected",
    "position.transfer_restated",
    "position.fee_adjusted",
    "position.settlement_amended",
    "position.voided",
    "book.position_opened",
    "book.position_closed",
    "position.received",
    "position.transferred",
    "position.shares_split",
    "market.registered",
    "market.changed",
    "market.quoted",
    "market.status_set",
    "market.determined",
    "market.disputed",
    "market.amended",
    "market.settled",
    "market.voided",
    "book.position_reopened",
    "account.cash_moved",
    "account.position_booked",
    "edge.detected",
    "edge.revised",
    "edge.status_changed",
    "game_state.recorded",
}


def test_topics_are_stable_and_name_all_events() -> None:
    """A topic is in the log for ever: this list only grows."""
    assert {event.TOPIC for event in EVENTS} == TOPICS
    assert len(EVENTS) == len(TOPICS)


def test_every_version_can_be_brought_up_to_date() -> None:
    for event in EVENTS:
        assert set(event.UPCASTERS) == set(range(1, event.VERSION))


numbers = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda digits: D(f"{digits}e-18"))
moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {Decimal: numbers, AwareDatetime: moments, str: names}


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if get_origin(annotation) is Annotated:
        return of(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return st.one_of([of(part) for part in get_args(annotation)])
    if get_origin(annotation) is dict:
        return st.dictionaries(names, json_values, max_size=3)
    if get_origin(annotation) is tuple and issubclass(get_args(annotation)[0], BaseModel):
        return st.lists(of(get_args(annotation)[0]), max_size=2).map(tuple)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return built(annotation)
    return BY_TYPE[annotation] if annotation in BY_TYPE else st.from_type(annotation)


def built(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Any instance of a model, optional fields given or not."""
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        (required if field.is_required() else optional)[name] = of(field.annotation)
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: model(**fields))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.TOPIC)
@examples(25)
@given(data=st.data())
def test_an_event_read_from_its_json_equals_what_was_written(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(built(kind))

    written = body_json(event)
    read = kind.model_validate_json(written)

    assert read == event
    assert body_json(read) == written
    assert kind.model_validate(json.loads(written)) == event
    assert kind.model_validate_json(event.model_dump_json()) == event


def test_the_form_in_the_log_is_pinned() -> None:
    """What is stored today must be readable for ever: change this only together with VERSION and an upcaster."""
    world = World()
    world.open(fee="1.68", strategy=1, venue="kalshi", venue_fill_id="f-1", stop_loss_price="0.30")

    opened, entry, booked = (json.loads(body_json(append.event)) for append in world.log)

    assert opened == {
        "environment": "paper",
        "account": "main",
        "market": "M",
        "strategy": 1,
        "currency": "USD",
        "side": "YES",
        "entry_time": "2026-03-01T12:00:00Z",
        "stop_loss_price": "0.3",
        "fill": {
            "action": "buy",
            "quantity": "10",
            "price": "0.4",
            "amount": "4",
            "fee": "1.68",
            "venue": "kalshi",
            "venue_fill_id": "f-1",
        },
        "figures": {
            "quantity": "10",
            "entry_quantity": "10",
            "peak_quantity": "10",
            "entry_amount": "4",
            "cost": "4",
            "open_fees": "1.68",
            "entry_price": "0.4",
            "average_entry_price": "0.4",
            "current_price": "0.4",
            "realized_pnl": "-1.68",
            "unrealized_pnl": "0",
            "unrealized_pnl_pct": "0",
        },
    }
    assert entry == {
        "environment": "paper",
        "account": "main",
        "market": "M",
        "strategy": 1,
        "side": "YES",
        "position": "00000000-0000-0000-0000-000000000001",
        "entry_time": "2026-03-01T12:00:00Z",
    }
    assert booked == {
        "environment": "paper",
        "account": "main",
        "currency": "USD",
        "change": "-1.68",
        "cash": "-1.68",
        "locked": "4",
        "free": "-5.68",
        "postings": {"free": "-5.68", "locked": "4", "fees": "1.68"},
        "cause": "opened",
        "event": {"stream": "00000000-0000-0000-0000-000000000001", "version": 1},
    }


def test_a_mark_is_small() -> None:
    event = PositionMarked(price=D("0.47"), unrealized_pnl=D("4.5"), unrealized_pnl_pct=D("0.107142857142857143"))
    assert len(body_json(event)) < 100


def test_events_are_frozen_and_refuse_what_they_do_not_know() -> None:
    event = ExitTriggered(kind="stop_loss", price=1)
    with pytest.raises(ValidationError, match="frozen"):
        event.price = D(2)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        BookPositionClosed.model_validate({"position": "00000000-0000-0000-0000-000000000001", "other": 1})


def test_times_are_kept_in_utc() -> None:
    world = World()
    world.open()
    opened = world.log[0].event
    assert isinstance(opened, PositionOpened)
    east = opened.entry_time.astimezone(timezone(timedelta(hours=5)))
    again = PositionOpened(**opened.__dict__ | {"entry_time": east})
    assert again.entry_time.tzinfo is UTC
    with pytest.raises(ValidationError, match="timezone"):
        PositionOpened(**opened.__dict__ | {"entry_time": datetime(2026, 1, 1)})  # noqa: DTZ001
