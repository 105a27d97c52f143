"""Given some history, when a command comes, then these events: tests of decisions without a database or a clock.

>>> given(OpenPosition(…)).when(ReducePosition(position_id="POS-1", quantity=40, price=Decimal("0.60"))).then(
...     like(PositionReduced, quantity=60, realized_gross=Decimal("7.2"))
... )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec

from position_ledger.domain.accounts.decisions import with_accounts
from position_ledger.domain.accounts.events import PositionBooked
from position_ledger.domain.book import Book, BookKey, book_stream
from position_ledger.domain.commands import Command, Handle
from position_ledger.domain.decisions import Append, Located, decide, fold_append, unknown_position
from position_ledger.domain.draft import Draft
from position_ledger.domain.edges.events import EdgeDetected
from position_ledger.domain.edges.state import edge_stream
from position_ledger.domain.event import Event
from position_ledger.domain.events import BOOK_EVENTS, PositionMarked, PositionOpened
from position_ledger.domain.families import EDGE, GAME_STATE, family_of
from position_ledger.domain.family import Family
from position_ledger.domain.games.events import GameStateRecorded
from position_ledger.domain.games.state import game_stream
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import RESTATEMENT_EVENTS
from position_ledger.events import EVENTS
from position_ledger.execution.streams import number_of
from position_ledger.store.codec import Codec
from position_ledger.testing.recording import Line, TableRow, fold

if TYPE_CHECKING:
    from position_ledger.projection.definition import Projection

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first command or event is recorded; each next one a second later."""

DERIVED: Final = (BOOK_EVENTS, (PositionBooked,))
"""What follows from the events of a position; each group is left out of what is compared unless it is asked for."""

State = Any
Step = Event | Command | Callable[[], Command]
"""What happened or is asked. A function makes its command when it is due, so that refusing to make it is an outcome."""


@dataclass(frozen=True, slots=True)
class Like:
    """An event of a type with some of its values, each looked for in the event, what it restates, figures and fill."""

    event: type[Event]
    values: Mapping[str, Any]

    def mismatches(self, event: Event) -> list[str]:
        """What is different, in words; empty if the event is as described."""
        if not isinstance(event, self.event):
            return [f"it is {type(event).__name__}, expected {self.event.__name__}"]
        found = {name: _value_of(event, name) for name in self.values}
        return [
            f"{name} is {found[name]!r}, expected {value!r}"
            for name, value in self.values.items()
            if found[name] != value
        ]


def like(event: type[Event], **values: Any) -> Like:
    """An expectation: an event of this type with these values; numbers are compared as numbers."""
    return Like(event, values)


def _value_of(event: Event, name: str) -> Any:
    restated = getattr(event, "restated", None)
    figures = getattr(event, "figures", None) or getattr(restated, "figures", None)
    for holder in (event, restated, figures, getattr(event, "fill", None)):
        if holder is not None and name in type(holder).model_fields:
            return getattr(holder, name)
    raise AssertionError(f"{type(event).__name__} has no field {name!r}, nor have its figures and its fill")


Expected = Event | type[Event] | Like | Reason | type[CommandRejected] | CommandRejected


def given(*history: Step | Iterable[Step]) -> Given:
    """Begin with what has happened: events, or commands that were executed.

    A bare ``PositionOpened`` begins a position, other bare position events go to the one that was begun last; what
    the books need to know is added. So it is with edges; states of games name their game. Numbers are given in the
    order of this history, so the first position is POS-1.
    """
    world = _World()
    for step in _flat(history):
        world.do(step)
    return Given(world)


@dataclass(frozen=True, slots=True)
class Given:
    """The history of a scenario."""

    world: _World

    def when(self, *commands: Step | Iterable[Step]) -> Outcome:
        """Execute commands in order, up to the first that is refused. The history itself stays as it is."""
        world = self.world.copy()
        before = len(world.appends)
        rejection = None
        try:
            for command in _flat(commands):
                world.do(command)
        except CommandRejected as error:
            rejection = error
        return Outcome(world, before, rejection)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the commands did."""

    world: _World
    before: int
    rejection: CommandRejected | None

    def when(self, *commands: Step | Iterable[Step]) -> Outcome:
        """Go on from here: this outcome becomes history."""
        return Given(self.world).when(*commands)

    @property
    def events(self) -> tuple[Event, ...]:
        """What was appended, books included."""
        return tuple(append.event for _, append in self.world.appends[self.before :])

    def then(self, *expected: Expected | Iterable[Expected]) -> Outcome:
        """Check the outcome: exactly these events in this order, or this rejection; nothing given: no event.

        An event is given whole, by its type, or by `like`. Events of books are left out unless one is expected.

        Raises:
            AssertionError: says what is different.
        """
        wanted = list(_flat(expected))
        if any(_is_rejection(one) for one in wanted):
            self._check_rejection(wanted)
        else:
            self._check_events(wanted)
        return self

    def position(self, ref: str | int | Handle) -> Position:
        """A position as the domain knows it now. Raises `CommandRejected` if there is none."""
        return self.world.position(ref).position

    def rows(self, projection: Projection[Any]) -> list[TableRow]:
        """The rows that a projection makes of the whole history, commands included."""
        codec = Codec(EVENTS)
        lines = [
            Line(
                number,
                one.stream,
                one.version,
                one.event.TOPIC,
                msgspec.Raw(codec.encode(one.event)),
                recorded_at,
                one.effective_at,
            )
            for number, (recorded_at, one) in enumerate(self.world.appends, 1)
        ]
        return fold(projection, lines)

    def _check_rejection(self, wanted: list[Expected]) -> None:
        if len(wanted) != 1:
            raise AssertionError(
                "a command is refused for one reason: expect a single rejection and no event beside it"
            )
        if self.rejection is None:
            raise AssertionError(f"expected {_name(wanted[0])}, but it was accepted: {_names(self.events)}")
        if not _is_refused_as(self.rejection, wanted[0]):
            raise AssertionError(
                f"expected {_name(wanted[0])}, but it was {self.rejection.reason.code}: {self.rejection}"
            ) from self.rejection

    def _check_events(self, wanted: list[Expected]) -> None:
        if self.rejection is not None:
            raise AssertionError(f"expected {_names(wanted)}, but it was refused: {self.rejection}") from self.rejection
        hidden = [kinds for kinds in DERIVED if not any(issubclass(_kind(one), kinds) for one in wanted)]
        events = [event for event in self.events if not any(isinstance(event, kinds) for kinds in hidden)]
        if len(events) != len(wanted):
            raise AssertionError(f"expected {_names(wanted)}, but there were {_names(events)}")
        for place, (event, expectation) in enumerate(zip(events, wanted, strict=True), 1):
            different = _mismatches(event, expectation)
            if different:
                raise AssertionError(f"event {place}, {type(event).__name__}: " + "; ".join(different))


def _mismatches(event: Event, expected: Expected) -> list[str]:
    if isinstance(expected, Like):
        return expected.mismatches(event)
    if isinstance(expected, type):
        return Like(cast("type[Event]", expected), {}).mismatches(event)
    if type(event) is not type(expected):
        return Like(cast("type[Event]", type(expected)), {}).mismatches(event)
    return [
        f"{name} is {getattr(event, name)!r}, expected {getattr(expected, name)!r}"
        for name in type(event).model_fields
        if getattr(event, name) != getattr(expected, name)
    ]


def _is_rejection(one: Expected) -> bool:
    return isinstance(one, Reason | CommandRejected) or (isinstance(one, type) and issubclass(one, CommandRejected))


def _is_refused_as(rejection: CommandRejected, expected: Expected) -> bool:
    if isinstance(expected, type):
        return isinstance(rejection, expected)
    reason = expected if isinstance(expected, Reason) else cast("CommandRejected", expected).reason
    return rejection.reason is reason


def _kind(one: Expected) -> type[Any]:
    return one.event if isinstance(one, Like) else one if isinstance(one, type) else type(one)


def _name(one: Any) -> str:
    if isinstance(one, Reason):
        return one.code
    if isinstance(one, CommandRejected):
        return one.reason.code
    return _kind(one).__name__


def _names(many: Iterable[Any]) -> str:
    return ", ".join(_name(one) for one in many) or "no event"


def _flat(steps: Iterable[Any]) -> Iterator[Any]:
    for step in steps:
        if isinstance(step, Iterable) and not isinstance(step, str | Event | Command | type):
            yield from step
        else:
            yield step


@dataclass(slots=True)
class _World:
    """Every stream of a scenario. What `position_ledger.domain.draft.Streams` asks for."""

    appends: list[tuple[datetime, Append]] = field(default_factory=list)
    states: dict[UUID, State] = field(default_factory=dict)
    handles: dict[str, UUID] = field(default_factory=dict)
    latest: UUID | None = None
    edge: UUID | None = None
    """The edge that was detected last."""
    streams: count[int] = field(default_factory=lambda: count(1))

    def copy(self) -> _World:
        """A world of its own with the same history; states are immutable."""
        return _World(
            [*self.appends], {**self.states}, {**self.handles}, self.latest, self.edge, count(len(self.appends) + 1_000)
        )

    def do(self, step: Step) -> None:
        """Let one thing happen. Raises `CommandRejected` for a command that is refused."""
        now = START + timedelta(seconds=len(self.appends))
        if isinstance(step, Event):
            self._happened(step, now)
            return
        command = step if isinstance(step, Command) else step()
        decision = decide(command, self, now)
        for append in decision.appends:
            self._append(append, now)
        handle = getattr(command, "handle", None)
        if handle is not None and decision.opened is not None:
            self.handles[handle] = decision.opened

    def _happened(self, event: Event, now: datetime) -> None:
        if any(isinstance(event, kinds) for kinds in DERIVED):
            return
        if family_of(event) in {EDGE, GAME_STATE}:
            self._told(event, now)
            return
        stream = self.new_stream() if isinstance(event, PositionOpened) else self.latest
        if stream is None:
            raise AssertionError(f"given {type(event).__name__}, but no position was opened before it")
        state = self.states.get(stream)
        was_open = isinstance(state, Position) and state.is_open
        draft = Draft(self, event.entry_time if isinstance(event, PositionOpened) else now)
        draft.append(stream, state.version if state else 0, event)
        after = cast("Position", fold_append(state, draft.appends[0]))
        if isinstance(event, PositionOpened):
            draft.note_opened(stream, event)
        elif isinstance(state, Position) and isinstance(event, RESTATEMENT_EVENTS):
            draft.note_restated(stream, state, cast("Any", event).restated)
        elif was_open and not after.is_open:
            draft.note_ended(stream, after)
        for append in with_accounts(tuple(draft.appends), self):
            self._append(append, now)

    def _told(self, event: Event, now: datetime) -> None:
        """Let something happen to a game, or to the edge that was detected last."""
        if isinstance(event, GameStateRecorded):
            stream = game_stream(event.environment, event.game_id)
        elif isinstance(event, EdgeDetected):
            self.edge = edge_stream(event.environment, event.name) if event.name else self.new_stream()
            stream = self.edge
        elif self.edge is not None:
            stream = self.edge
        else:
            raise AssertionError(f"given {type(event).__name__}, but no edge was detected before it")
        state = self.states.get(stream)
        self._append(Append(stream, state.version + 1 if state else 1, event, now), now)

    def _append(self, append: Append, now: datetime) -> None:
        self.states[append.stream] = fold_append(self.states.get(append.stream), append)
        self.appends.append((now, append))
        if isinstance(append.event, PositionOpened):
            self.latest = append.stream
        if isinstance(append.event, EdgeDetected):
            self.edge = append.stream

    # What decisions ask for

    def position(self, ref: str | int | Handle) -> Located:
        """Find a position by a handle or any number that its events had."""
        stream = self.handles.get(ref.name) if isinstance(ref, Handle) else self._stream_of(number_of(ref))
        state = self.states.get(stream) if stream else None
        if stream is None or not isinstance(state, Position):
            raise unknown_position(ref)
        return Located(stream, state)

    def _stream_of(self, number: int) -> UUID | None:
        return self.appends[number - 1][1].stream if 0 < number <= len(self.appends) else None

    def state(self, stream: UUID) -> Any | None:
        """The state of a stream whose id follows from its key."""
        return self.states.get(stream)

    def located(self, ref: str | int, family: Family) -> tuple[UUID, Any]:
        """Find a stream by any number that its events had. Raises ``LookupError``."""
        stream = self._stream_of(number_of(ref, family.prefix or ""))
        state = self.states.get(stream) if stream else None
        if stream is None or not isinstance(state, family.state):
            raise LookupError(ref)
        return stream, state

    def journal(self, stream: UUID) -> tuple[Append, ...]:
        """The events of a position by version, without marks."""
        mine = (append for _, append in self.appends if append.stream == stream)
        return tuple(append for append in mine if not isinstance(append.event, PositionMarked))

    def event_place(self, number: int) -> tuple[UUID, int] | None:
        """Where the event of a number stands: numbers count the appends from 1."""
        if not 0 < number <= len(self.appends):
            return None
        append = self.appends[number - 1][1]
        return append.stream, append.version

    def position_stream(self, stream: UUID) -> Position:
        """The position of a stream that a book names."""
        return cast("Position", self.states[stream])

    def book(self, key: BookKey) -> Book:
        """The book of a key."""
        return cast("Book", self.states.get(book_stream(key)) or Book())

    def reference(self, field: str, value: str | int) -> bool:  # noqa: ARG002 - a question of the domain
        """Every row of every reference table exists."""
        return True

    def new_stream(self) -> UUID:
        """The same stream ids in every run."""
        return UUID(int=next(self.streams))
