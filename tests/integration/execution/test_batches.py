from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import (
    Command,
    CommandRejected,
    Executed,
    Handle,
    Ledger,
    MarkPosition,
    OpenPosition,
    Reason,
    RecordFill,
    ReducePosition,
)
from position_ledger.domain.vocabulary import Action, Environment, Side
from position_ledger.execution.executor import NotAdmitted
from tests.support import commands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.execution.streams import WorkingStreams

AT = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as opened:
        yield opened


def fill(action: str, quantity: int, second: int, **fields: Any) -> RecordFill:
    return RecordFill(
        environment=Environment.PAPER,
        account="ann",
        market="RAIN",
        side=Side.YES,
        price=Decimal("0.5"),
        action=Action(action),
        quantity=Decimal(quantity),
        effective_at=AT + timedelta(seconds=second),
        **fields,
    )


def opening(command_id: str, quantity: int = 10, handle: str | None = None) -> OpenPosition:
    return OpenPosition(
        environment=Environment.PAPER,
        account="ann",
        market="RAIN",
        side=Side.YES,
        quantity=Decimal(quantity),
        entry_price=Decimal("0.5"),
        command_id=command_id,
        handle=handle,
    )


def events_of(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM ledger.events").fetchone()
        assert row is not None
        return int(row[0])


def codes(outcomes: tuple[Any, ...]) -> list[str]:
    return [
        ("repeat" if one.is_repeat else "done")
        if isinstance(one, Executed)
        else one.reason.code
        if isinstance(one, CommandRejected)
        else "not_admitted"
        for one in outcomes
    ]


def test_the_same_command_id_twice_in_one_batch_is_one_command(ledger: Ledger, ledger_url: str) -> None:
    first, again = ledger.execute_many([opening("c1"), opening("c1")])
    assert (first.is_repeat, again.is_repeat) == (False, True)
    assert (again.position_id, again.token, again.events) == (first.position_id, first.token, first.events)
    assert events_of(ledger_url) == first.events
    # and so it is when the batch comes again, and alone
    for one in (*ledger.execute_many([opening("c1"), opening("c1")]), ledger.execute(opening("c1"))):
        assert (one.is_repeat, one.position_id, one.token) == (True, first.position_id, first.token)
    assert events_of(ledger_url) == first.events


def test_the_same_command_id_with_other_content_in_one_batch_is_a_conflict(ledger: Ledger, ledger_url: str) -> None:
    with pytest.raises(CommandRejected) as error:
        ledger.execute_many([opening("c1"), opening("c1", quantity=11)])
    assert error.value.reason is Reason.COMMAND_ID_REUSED
    assert events_of(ledger_url) == 0


def test_a_handle_of_a_repeat_in_the_batch_names_the_position_of_the_first(ledger: Ledger) -> None:
    first, _, marked = ledger.execute_many(
        [
            opening("c1", handle="a"),
            opening("c1", handle="b"),
            MarkPosition(position_id=Handle("b"), price=Decimal("0.6")),
        ]
    )
    assert marked.position_id == first.position_id


def test_the_same_fill_twice_in_one_batch_is_one_fill_and_other_content_a_conflict(
    ledger: Ledger, ledger_url: str
) -> None:
    buy = fill("buy", 10, 1, venue_fill_id="T1")
    first, again, other = ledger.execute_each([buy, buy, fill("buy", 11, 1, venue_fill_id="T1")])
    assert codes((first, again, other)) == ["done", "repeat", "fill_id_reused"]
    assert events_of(ledger_url) == commands.events_of(buy)


def test_each_command_is_decided_as_if_the_refused_ones_had_not_been_sent(ledger: Ledger, ledger_url: str) -> None:
    # given a batch with refused commands in between
    batch = [
        fill("sell", 1, 0, venue_fill_id="T0"),
        fill("buy", 10, 1, venue_fill_id="T1"),
        fill("sell", 11, 2, venue_fill_id="T2"),
        fill("sell", 10, 3, venue_fill_id="T3"),
        fill("sell", 1, 4, venue_fill_id="T4"),
        fill("sell", 5, 0, venue_fill_id="T5"),
        fill("buy", 5, 5, venue_fill_id="T6"),
    ]
    # when each is executed
    outcomes = ledger.execute_each(batch)
    # then the others are recorded, in one append
    refused = "quantity_exceeds_held"
    assert codes(outcomes) == [refused, "done", refused, "done", refused, refused, "done"]
    accepted = commands.events_of(batch[1], batch[3], batch[6])
    assert events_of(ledger_url) == accepted
    with psycopg.connect(ledger_url) as connection:
        times = connection.execute("SELECT count(DISTINCT xmin::text) FROM ledger.events").fetchone()
    assert times == (1,)
    # and the same batch again finds what is there
    again = ledger.execute_each(batch)
    assert [code == "repeat" for code in codes(again)] == [code == "done" for code in codes(outcomes)]
    assert events_of(ledger_url) == accepted


def test_nothing_but_refusals_is_no_append(ledger: Ledger, ledger_url: str) -> None:
    outcomes = ledger.execute_each(
        [fill("sell", 1, 0), ReducePosition(position_id="POS-9", quantity=Decimal(1), price=Decimal("0.5"))]
    )
    assert codes(outcomes) == ["quantity_exceeds_held", "position_unknown"]
    assert ledger.execute_each([]) == ()
    assert events_of(ledger_url) == 0


def test_a_refusal_is_decided_on_what_other_processes_have_written(ledger: Ledger, ledger_url: str) -> None:
    # given a ledger that remembers a position, and another that adds to it
    ledger.execute(fill("buy", 1, 1))
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        other.execute(fill("buy", 9, 2))
    # when the first is asked to sell all, then it does not refuse from memory
    assert codes(ledger.execute_each([fill("sell", 10, 3)])) == ["done"]


def test_the_callers_condition_sees_the_states_and_can_refuse(ledger: Ledger) -> None:
    held: list[Decimal] = []

    def admit(place: int, command: Command, states: WorkingStreams) -> None:
        assert isinstance(command, RecordFill)
        if place == 1:
            raise NotAdmitted("not today")
        if place == 2:
            located = states.position(ledger_position)
            held.append(located.position.quantity)

    opened = ledger.execute(fill("buy", 1, 1))
    assert opened.position_id is not None
    ledger_position = opened.position_id
    outcomes = ledger.execute_each([fill("buy", 2, 2), fill("buy", 4, 3), fill("buy", 8, 4)], admit=admit)
    assert codes(outcomes) == ["done", "not_admitted", "done"]
    assert held == [3]
