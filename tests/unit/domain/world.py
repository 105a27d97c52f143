"""A ledger without a store for tests of the pure domain: states in a dictionary, every append kept as its JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import settings

from position_ledger.domain.book import Book, BookKey, book_stream
from position_ledger.domain.commands import Command, Handle, OpenPosition, RecordFill
from position_ledger.domain.decisions import Decision, Located, decide, fold_append, unknown_position
from position_ledger.domain.events import PositionMarked, body_json
from position_ledger.domain.families import EVENTS, POSITION
from position_ledger.domain.position import Position

if TYPE_CHECKING:
    from position_ledger.domain.decisions import Append
    from position_ledger.domain.event import Event
    from position_ledger.domain.family import Family

D = Decimal
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG = os.environ.get("POSITION_LEDGER_TEST_PROFILE") == "long"
"""Search for an hour instead of minutes, and elsewhere each time: make search."""
TOPICS: dict[str, type[Event]] = {event.TOPIC: event for event in EVENTS}


def examples(count: int, *, steps: int = 50) -> settings:
    """Say how long a property test searches: ``count`` examples, always the same.

    When LONG: twenty times as many, others each time, in histories half as long again. Not longer: the laws look at all of
    a history after each step, so twice the steps take four times as long.
    """
    return settings(
        max_examples=count * (20 if LONG else 1),
        stateful_step_count=steps * 3 // 2 if LONG else steps,
        derandomize=not LONG,
        deadline=None,
        database=None,
        print_blob=True,
    )


@dataclass
class World:
    """Decides commands and keeps what follows, as an executor would."""

    now: datetime = NOON
    states: dict[UUID, Any] = field(default_factory=dict)
    log: list[Append] = field(default_factory=list)
    names: dict[str | int, UUID] = field(default_factory=dict)
    minted: int = 0
    references: dict[str, set[str | int]] = field(default_factory=dict)
    """Rows of the reference tables that are in use, by the field that names them."""

    def position(self, ref: str | int | Handle) -> Located:
        stream = self.names.get(ref.name if isinstance(ref, Handle) else ref)
        if stream is None:
            raise unknown_position(ref)
        return Located(stream, self.position_stream(stream))

    def state(self, stream: UUID) -> Any | None:
        return self.states.get(stream)

    def located(self, ref: str | int, family: Family) -> tuple[UUID, Any]:
        stream = self.position(ref).stream if family is POSITION else self._numbered(ref, family)
        state = self.states[stream]
        if not isinstance(state, family.state):
            raise LookupError(ref)  # noqa: TRY004 - as the store answers
        return stream, state

    def _numbered(self, ref: str | int, family: Family) -> UUID:
        place = self.event_place(int(str(ref).removeprefix(family.prefix or "")))
        if place is None:
            raise LookupError(ref)
        return place[0]

    def journal(self, stream: UUID) -> tuple[Append, ...]:
        return tuple(one for one in self.log if one.stream == stream and not isinstance(one.event, PositionMarked))

    def event_place(self, number: int) -> tuple[UUID, int] | None:
        """The number of an event is its place in the log, from 1."""
        if not 0 < number <= len(self.log):
            return None
        return self.log[number - 1].stream, self.log[number - 1].version

    def position_stream(self, stream: UUID) -> Position:
        position = self.states[stream]
        assert isinstance(position, Position)
        return position

    def book(self, key: BookKey) -> Book:
        book = self.states.get(book_stream(key), Book())
        assert isinstance(book, Book)
        return book

    def reference(self, field: str, value: str | int) -> bool:
        return field not in self.references or value in self.references[field]

    def new_stream(self) -> UUID:
        self.minted += 1
        return UUID(int=self.minted)

    def do(self, command: Command) -> Decision:
        """Decide and fold; each position is also known as POS-1, POS-2, … in the order of opening, and its handle."""
        decision = decide(command, self, self.now)
        for append in decision.appends:
            self.states[append.stream] = fold_append(self.states.get(append.stream), append)
            self.log.append(append)
        new = [
            one.stream for one in decision.appends if one.version == 1 and isinstance(self.states[one.stream], Position)
        ]
        known = len(self.positions) - len(new)
        self.names |= {f"POS-{known + place}": stream for place, stream in enumerate(new, 1)}
        handle = getattr(command, "handle", None)
        if handle and decision.opened:
            self.names[handle] = decision.opened
        return decision

    def open(self, **fields: Any) -> Position:
        """Open a position, by default YES 10 @ .40 in paper, and return it."""
        defaults = {"environment": "paper", "account": "main", "market": "M", "side": "YES"}
        decision = self.do(OpenPosition(**defaults | {"quantity": 10, "entry_price": "0.40"} | fields))
        assert decision.opened
        return self.position_stream(decision.opened)

    def fill(self, action: str, quantity: Any, price: Any, fee: Any = 0, **fields: Any) -> Decision:
        """Record a fill of the key (paper, main, M), by default on YES."""
        key = {"environment": "paper", "account": "main", "market": "M", "side": "YES"}
        return self.do(
            RecordFill(**key | {"action": action, "quantity": quantity, "price": price, "fee": fee} | fields)
        )

    def trade(self, fill: int) -> str:
        """Return the TRD-n of the fill-th fill that was recorded, 1-based."""
        fills = [number for number, one in enumerate(self.log, 1) if getattr(one.event, "fill", None) is not None]
        return f"TRD-{fills[fill - 1]}"

    def at(self, ref: str) -> Position:
        """Return the present state of a position."""
        return self.position(ref).position

    def later(self, **delta: float) -> datetime:
        """Let time pass."""
        self.now += timedelta(**delta)
        return self.now

    @property
    def positions(self) -> dict[UUID, Position]:
        return {stream: state for stream, state in self.states.items() if isinstance(state, Position)}

    def replayed(self, appends: list[Append] | None = None) -> dict[UUID, Any]:
        """Fold the log again, through the JSON of each event, from nothing."""
        states: dict[UUID, Any] = {}
        for append in self.log if appends is None else appends:
            states[append.stream] = fold_append(states.get(append.stream), through_json(append))
        return states


def through_json(append: Append) -> Append:
    """Write the event of an append and read it again."""
    event = type(append.event).model_validate_json(body_json(append.event))
    return replace(append, event=event)
