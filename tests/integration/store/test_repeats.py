"""Repeating a command is harmless, for ever and from anywhere: one append, and its first result again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from position_ledger import (
    ClosePosition,
    CommandRejected,
    Handle,
    Ledger,
    MarkPosition,
    Reason,
    RecordFill,
    ReducePosition,
)
from tests.support.commands import events_of, opening
from tests.support.trading import execute_in_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger import Command, Executed
    from position_ledger.testing.databases import OwnerCursor

REPEATERS = 8


def again(first: Executed) -> Executed:
    """The answer to a repeat of what was answered with ``first``."""
    return replace(first, is_repeat=True)


def events_in(cursor: OwnerCursor) -> int:
    row = cursor.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    return int(row[0])


def another(ledger: Ledger) -> Ledger:
    """A ledger that remembers nothing, as in a process that has just started."""
    return Ledger.open(database_url=ledger.database_url, redis_url=ledger.redis_url)


def fill(**changes: object) -> RecordFill:
    fields = {
        "environment": "paper",
        "account": "main",
        "market": "M",
        "side": "YES",
        "action": "buy",
        "quantity": 10,
        "price": Decimal("0.40"),
        "venue": "kalshi",
        "venue_fill_id": "F-1",
    }
    return RecordFill(**{**fields, **changes})


def test_a_repeat_is_answered_as_the_first_time_and_appends_nothing(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    first = ledger.execute(opening(command_id="c1"))
    assert not first.is_repeat
    assert ledger.execute(opening(command_id="c1")) == again(first)
    with another(ledger) as other:
        assert other.execute(opening(command_id="c1")) == again(first)
    assert events_in(db_cursor) == first.events == events_of(opening())


def test_who_asks_is_no_part_of_the_content(ledger: Ledger) -> None:
    first = ledger.execute(opening(command_id="c1", actor="desk"))
    assert ledger.execute(opening(command_id="c1", actor="robot", correlation_id="7")) == again(first)


@pytest.mark.parametrize(
    "changed", [{"quantity": 101}, {"market": "OTHER"}, {"side": "NO"}, {"entry_price": "0.43"}], ids=str
)
def test_other_content_under_the_same_id_is_refused(
    ledger: Ledger, db_cursor: OwnerCursor, changed: dict[str, object]
) -> None:
    ledger.execute(opening(command_id="c1"))
    with pytest.raises(CommandRejected, match="c1 was used before") as refused:
        ledger.execute(opening(command_id="c1", **changed))
    assert refused.value.reason is Reason.COMMAND_ID_REUSED
    assert events_in(db_cursor) == events_of(opening())


def test_another_command_under_the_same_id_is_refused(ledger: Ledger) -> None:
    opened = ledger.execute(opening(command_id="c1"))
    with pytest.raises(CommandRejected) as refused:
        ledger.execute(MarkPosition(position_id=opened.position_id or "", price="0.5", command_id="c1"))
    assert refused.value.reason is Reason.COMMAND_ID_REUSED


def test_a_repeat_is_recognised_though_it_would_be_refused_by_now(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    opened = ledger.execute(opening())
    closing = {"price": "0.6", "reason": "manual"}
    close = ClosePosition(position_id=opened.position_id or "", command_id="close", **closing)
    first = ledger.execute(close)
    assert ledger.execute(close) == again(first)
    with another(ledger) as other:
        assert other.execute(close) == again(first)
    assert events_in(db_cursor) == events_of(opening(handle="x"), ClosePosition(position_id=Handle("x"), **closing))


def test_a_refused_command_is_not_remembered(ledger: Ledger) -> None:
    opened = ledger.execute(opening(quantity=10))
    with pytest.raises(CommandRejected):
        ledger.execute(ReducePosition(position_id=opened.position_id or "", quantity=11, price="0.5", command_id="c2"))
    done = ledger.execute(
        ReducePosition(position_id=opened.position_id or "", quantity=9, price="0.5", command_id="c2")
    )
    assert not done.is_repeat


def test_a_batch_sent_again_is_answered_as_a_whole(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    batch: Sequence[Command] = [
        opening(handle="new", command_id="b1"),
        ReducePosition(position_id=Handle("new"), quantity=40, price="0.6", command_id="b2"),
        MarkPosition(position_id=Handle("new"), price="0.7", command_id="b3"),
    ]
    first = ledger.execute_many(batch)
    assert ledger.execute_many(batch) == tuple(map(again, first))
    with another(ledger) as other:
        assert other.execute_many(batch) == tuple(map(again, first))
    assert events_in(db_cursor) == events_of(*batch)


def test_what_is_new_in_a_batch_is_done_and_what_is_not_is_answered(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    first = ledger.execute(opening(command_id="b1", handle="new"))
    batch: Sequence[Command] = [
        opening(command_id="b1", handle="new"),
        ReducePosition(position_id=Handle("new"), quantity=40, price="0.6", command_id="b2"),
    ]
    repeated, reduced = ledger.execute_many(batch)
    assert repeated == again(first)
    assert (reduced.position_id, reduced.is_repeat) == (first.position_id, False)
    assert events_in(db_cursor) == events_of(*batch)


def test_a_fill_is_recorded_once(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    first = ledger.execute(fill())
    assert ledger.execute(fill()) == again(first)
    with another(ledger) as other:
        assert other.execute(fill()) == again(first)
        with pytest.raises(CommandRejected) as refused:
            other.execute(fill(quantity=11))
    assert refused.value.reason is Reason.FILL_ID_REUSED
    assert events_in(db_cursor) == events_of(fill())


@pytest.mark.parametrize("elsewhere", [{"account": "second"}, {"environment": "live"}, {"venue": "other"}], ids=str)
def test_the_same_fill_id_elsewhere_is_another_fill(ledger: Ledger, elsewhere: dict[str, object]) -> None:
    ledger.execute(fill())
    assert not ledger.execute(fill(**elsewhere)).is_repeat


@pytest.mark.parametrize("command", [opening(command_id="c1"), fill()], ids=["command id", "fill id"])
def test_repeats_at_the_same_moment_append_once(ledger: Ledger, db_cursor: OwnerCursor, command: Command) -> None:
    start = Barrier(REPEATERS)

    def repeat(_: int) -> Executed:
        start.wait(10)
        return ledger.execute(command)

    with ThreadPoolExecutor(REPEATERS) as pool:
        answers = list(pool.map(repeat, range(REPEATERS)))
    first = next(answer for answer in answers if not answer.is_repeat)
    assert sorted(answers, key=lambda answer: answer.is_repeat) == [first, *[again(first)] * (REPEATERS - 1)]
    assert events_in(db_cursor) == events_of(command)


@pytest.mark.uncounted
@pytest.mark.slow
def test_repeats_in_several_processes_append_once(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    commands = [opening(command_id=f"c{n}", strategy=n) for n in range(1, 21)]
    answers = execute_in_processes(ledger.database_url, ledger.redis_url, [commands] * 4)
    for same in zip(*answers, strict=True):
        done = [answer for answer in same if not isinstance(answer, str)]
        first = [answer for answer in done if not answer.is_repeat]
        assert len(done) == 4
        assert len(first) == 1
        assert {again(answer) for answer in done} == {again(first[0])}
    assert events_in(db_cursor) == events_of(*commands)


def test_first_fills_of_one_key_at_the_same_moment_open_one_position(ledger: Ledger) -> None:
    start = Barrier(REPEATERS)

    def buy(number: int) -> Executed:
        start.wait(10)
        return ledger.execute(fill(venue_fill_id=f"F-{number}"))

    with ThreadPoolExecutor(REPEATERS) as pool:
        answers = list(pool.map(buy, range(REPEATERS)))
    ledger.wait_for(max(answer.token for answer in answers))
    assert [row["quantity"] for row in ledger.positions()] == [10 * REPEATERS]


@pytest.mark.uncounted
@pytest.mark.slow
def test_reductions_in_several_processes_never_sell_more_than_is_held(ledger: Ledger) -> None:
    """Law 11, through the whole ledger: nobody decides on a position that somebody else has changed."""
    opened = ledger.execute(opening(quantity=50))
    reduce = [ReducePosition(position_id=opened.position_id or "", quantity=1, price="0.5") for _ in range(20)]
    answers = execute_in_processes(ledger.database_url, ledger.redis_url, [reduce] * 3)
    flat = [answer for one in answers for answer in one]
    assert sum(not isinstance(answer, str) for answer in flat) == 50
    assert {answer for answer in flat if isinstance(answer, str)} <= {
        Reason.QUANTITY_EXCEEDS_HELD.code,
        Reason.POSITION_NOT_OPEN.code,
    }
    events = ledger.events(opened.position_id or "")
    assert [event["version"] for event in events] == list(range(1, 52))
    assert events[-1]["topic"] == "position.closed"
