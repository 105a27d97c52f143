"""The fold refuses what cannot have happened: a damaged log is told, never guessed around."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from position_ledger.domain.book import Book, evolve_book
from position_ledger.domain.commands import ClosePosition, MarkPosition, SetExits
from position_ledger.domain.decisions import fold_append
from position_ledger.domain.draft import Draft
from position_ledger.domain.events import BookPositionClosed, BookPositionOpened, PositionMarked
from position_ledger.domain.families import POSITION, state_from_json, state_json
from position_ledger.domain.figures import Booking
from position_ledger.domain.legs import Leg, book_legs
from position_ledger.domain.position import evolve
from position_ledger.domain.vocabulary import Side
from tests.unit.domain.world import NOON, D, World


@pytest.fixture
def world() -> World:
    world = World()
    world.open(metadata={"a": [1, None]}, trailing_stop={"trail_amount": "0.1"})
    return world


def test_a_position_opens_once(world: World) -> None:
    with pytest.raises(TypeError, match=r"position\.opened must be the first event"):
        fold_append(world.at("POS-1"), world.log[0])


def test_a_position_begins_with_its_opening() -> None:
    with pytest.raises(TypeError, match="PositionMarked cannot be folded into NoneType"):
        evolve(None, PositionMarked(price=D(1), unrealized_pnl=D(0)), NOON)


def test_books_and_positions_do_not_mix(world: World) -> None:
    position_event, book_event, _ = world.log
    with pytest.raises(TypeError, match="a book event cannot be folded into Position"):
        fold_append(world.at("POS-1"), book_event)
    with pytest.raises(TypeError, match="a position event cannot be folded into Book"):
        fold_append(Book(), position_event)
    with pytest.raises(TypeError, match="BookPositionOpened cannot be folded into Position"):
        evolve(world.at("POS-1"), book_event.event, NOON)
    with pytest.raises(TypeError, match="PositionOpened cannot be folded into a book"):
        evolve_book(Book(), position_event.event, NOON)


def test_a_book_closes_only_what_it_lists() -> None:
    with pytest.raises(TypeError, match="is not open in this book"):
        evolve_book(Book(), BookPositionClosed(position=UUID(int=7)), NOON)


def test_a_book_remembers_what_ended_last_on_each_side() -> None:
    book = Book()
    for number, side in enumerate((Side.YES, Side.NO, Side.YES), start=1):
        opened = BookPositionOpened(
            environment="paper", account="a", market="m", side=side, position=UUID(int=number), entry_time=NOON
        )  # fmt: skip
        book = evolve_book(book, opened, NOON)
        book = evolve_book(book, BookPositionClosed(position=UUID(int=number)), NOON - timedelta(hours=number))

    last_yes, last_no = book.last_exit(Side.YES), book.last_exit(Side.NO)
    assert last_yes is not None
    assert last_no is not None
    assert (last_yes.stream, last_yes.effective_at) == (UUID(int=3), NOON - timedelta(hours=1))
    assert last_no.stream == UUID(int=2)
    assert (book.open, book.version, book.last_exit(Side.LONG)) == ((), 6, None)


def test_a_snapshot_keeps_everything(world: World) -> None:
    world.open(side="NO")
    world.do(MarkPosition(position_id="POS-1", price=".55", source="s"))
    world.do(MarkPosition(position_id="POS-1", price=".30"))
    world.do(SetExits(position_id="POS-2", target_price=".9"))
    world.do(ClosePosition(position_id="POS-2", price=".9", reason="profit_target"))
    third = world.open(side="NO")
    assert third.previous is not None

    for position in (world.at("POS-1"), world.at("POS-2"), third):
        assert state_from_json(POSITION.shape_name, state_json(position)) == position
    with pytest.raises(msgspec.ValidationError):
        state_from_json(POSITION.shape_name, b"{}")


def test_a_leg_without_a_position_says_what_it_opens(world: World) -> None:
    booking = Booking(D(1), D(1), D(1), D(0))
    leg = Leg(UUID(int=9), Side.YES, is_entry=True, booking=booking)
    with pytest.raises(TypeError, match="must say what it opens"):
        book_legs(Draft(world, NOON), [leg], {})


def test_marks_and_exits_change_nothing_else(world: World) -> None:
    """S29: what an event does not speak of is carried forward."""
    before = world.at("POS-1")
    world.later(seconds=1)
    world.do(MarkPosition(position_id="POS-1", price=".39"))
    after = world.at("POS-1")

    changed = {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)}
    assert changed == {
        "version", "current_price", "mark_time", "mark_price", "unrealized_pnl", "unrealized_pnl_pct", "last_effective_at",
    }  # fmt: skip
