"""Commands and events that many tests begin with."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from position_ledger import ClosePosition, Handle, MarkPosition, OpenPosition, ReducePosition
from position_ledger.events import PositionMarked
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import NO_HASH, NewEvent, chain, new_event_id
from position_ledger.testing import given

if TYPE_CHECKING:
    from uuid import UUID

    from position_ledger import Command

MARKS = Codec([PositionMarked])


def opening(**changes: Any) -> OpenPosition:
    """100 YES at 0.42 on paper, with whatever a test wants otherwise."""
    fields = {
        "environment": "paper",
        "account": "main",
        "market": "KXNBA-CLE",
        "side": "YES",
        "quantity": 100,
        "entry_price": Decimal("0.42"),
    }
    return OpenPosition(**{**fields, **changes})


def mark_event(
    stream: UUID, version: int, *, previous: bytes = NO_HASH, price: str = "0.50", **changes: Any
) -> NewEvent:
    """An encoded event for tests below the domain: any stream takes any number of marks."""
    state = MARKS.encode(PositionMarked(price=Decimal(price), unrealized_pnl=Decimal(1)))
    topic = PositionMarked.TOPIC
    fields = {
        "stream": stream,
        "version": version,
        "topic": topic,
        "state": state,
        "event_id": new_event_id(),
        "effective_at": None,
        "stream_hash": chain(previous, stream, version, topic, state, {}),
        "metadata": {},
    }
    return NewEvent(**{**fields, **changes})


def mark_events(stream: UUID, count: int, *, after: int = 0, previous: bytes = NO_HASH) -> list[NewEvent]:
    """A run of chained events of one stream."""
    events: list[NewEvent] = []
    for version in range(after + 1, after + count + 1):
        events.append(mark_event(stream, version, previous=events[-1].stream_hash if events else previous))
    return events


def marking(position: str | int | Handle, price: str | Decimal, **more: Any) -> MarkPosition:
    """Value a position."""
    return MarkPosition(**{"position_id": position, "price": price, **more})


def reducing(
    position: str | int | Handle, quantity: int | str | Decimal, price: str | Decimal, **more: Any
) -> ReducePosition:
    """Sell a part."""
    return ReducePosition(**{"position_id": position, "quantity": quantity, "price": price, **more})


def closing(position: str | int | Handle, price: str | Decimal, **more: Any) -> ClosePosition:
    """Sell the rest."""
    return ClosePosition(**{"position_id": position, "price": price, "reason": "manual", **more})


def events_of(*commands: Command) -> int:
    """How many events these commands decide, one after the other on an empty ledger; every one must be accepted."""
    outcome = given().when(*commands)
    assert outcome.rejection is None, outcome.rejection
    return len(outcome.events)
