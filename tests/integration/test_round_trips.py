"""How many statements and round trips the hot paths take: what costs time on every machine, asserted without a clock."""

from __future__ import annotations

from contextlib import closing, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from bench.counting import Count, counted
from position_ledger import Ledger, MarkPosition
from position_ledger.database import connect
from position_ledger.projection.follower import Follower
from tests.support.commands import opening

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECTING = 8
"""A batch of known positions, however many tables there are: mark, horizon, page; then BEGIN, generation locks,
checkpoints, rows, COMMIT. Marks make rows of positions alone."""


@pytest.fixture
def ledger(ledger_database: str, ledger_redis_url: str) -> Iterator[Ledger]:
    """A ledger with one connection, so that everything it sends can be watched there."""
    with Ledger.open(database_url=ledger_database, redis_url=ledger_redis_url, pool_size_max=1) as opened:
        yield opened


@contextmanager
def sent_by(ledger: Ledger) -> Iterator[Count]:
    """Count what the ledger sends in the block."""
    with ledger._connection() as connection:
        watched = connection
    with counted(watched) as count:
        yield count


@pytest.fixture
def position_id(ledger: Ledger) -> str:
    """A position that the ledger has in memory."""
    opened = ledger.execute(opening()).position_id
    ledger.execute(MarkPosition(position_id=opened, price=Decimal("0.43")))
    assert opened is not None
    return opened


@pytest.fixture
def follower(ledger: Ledger) -> Iterator[Follower]:
    """A follower of its own connection that holds every shard and is up to date."""
    with closing(connect(ledger.database_url, ledger.settings, as_app=True)) as connection:
        follower = Follower(connection, ledger.projections, ledger.codec, name="counted", share=False)
        yield follower
        follower.close()


def test_marking_a_known_position_is_one_statement_in_one_round_trip(ledger: Ledger, position_id: str) -> None:
    with sent_by(ledger) as count:
        ledger.execute(MarkPosition(position_id=position_id, price=Decimal("0.44")))

    assert count == Count(statements=1, round_trips=1)


def test_a_mark_with_a_command_id_is_one_statement_as_well(ledger: Ledger, position_id: str) -> None:
    """The first one of a connection prepares the statement, in a round trip of its own."""
    ledger.execute(MarkPosition(position_id=position_id, price=Decimal("0.44"), command_id="prepares"))
    with sent_by(ledger) as count:
        ledger.execute(MarkPosition(position_id=position_id, price=Decimal("0.44"), command_id="once"))

    assert count == Count(statements=1, round_trips=1)


def test_opening_a_position_reads_its_book_once_and_appends(ledger: Ledger, position_id: str) -> None:
    """The book of a key that this process has not seen is read; after that, opening in it is the append alone."""
    assert position_id
    with sent_by(ledger) as first:
        ledger.execute(opening(market="ANOTHER"))
    with sent_by(ledger) as second:
        ledger.execute(opening(market="ANOTHER"))

    assert first == Count(statements=2, round_trips=2)
    assert second == Count(statements=1, round_trips=1)


def test_checking_references_costs_one_look_at_each_and_then_nothing(ledger: Ledger, position_id: str) -> None:
    """A row that was found is never asked for again, because no row is ever deleted."""
    assert position_id
    ledger.reference.add_strategy("momentum", id=1)
    with sent_by(ledger) as first:
        ledger.execute(opening(market="ANOTHER", strategy=1))
    with sent_by(ledger) as second:
        ledger.execute_many([opening(market="ANOTHER", strategy=1) for _ in range(20)])

    assert first == Count(statements=3, round_trips=3)
    assert second == Count(statements=1, round_trips=1)


def test_references_that_are_not_in_use_cost_nothing_either(ledger: Ledger, position_id: str) -> None:
    assert position_id
    ledger.execute(opening(market="ANOTHER", model=1))
    with sent_by(ledger) as count:
        ledger.execute_many([opening(market="ANOTHER", model=model) for model in range(2, 22)])

    assert count == Count(statements=1, round_trips=1)


def test_a_batch_of_commands_is_one_statement(ledger: Ledger, position_id: str) -> None:
    marks = [MarkPosition(position_id=position_id, price=Decimal(cents) / 100) for cents in range(40, 60)]
    with sent_by(ledger) as count:
        ledger.execute_many(marks)

    assert count == Count(statements=1, round_trips=1)


@pytest.mark.parametrize("events", [1, 10, 1000])
def test_projecting_a_batch_takes_the_same_statements_whatever_its_size(
    ledger: Ledger, position_id: str, follower: Follower, events: int
) -> None:
    while follower.step():
        pass
    ledger.execute_many(
        [MarkPosition(position_id=position_id, price=Decimal(number % 90 + 5) / 100) for number in range(events)]
    )
    follower._upkeep_due = follower._seek_due = float("inf")
    with counted(follower._connection) as count:
        assert follower.step()

    assert len(ledger.history(position_id)) == events + 2
    assert count == Count(statements=PROJECTING, round_trips=PROJECTING)


def test_waiting_for_a_visible_token_is_one_statement(ledger: Ledger, position_id: str, follower: Follower) -> None:
    token = ledger.execute(MarkPosition(position_id=position_id, price=Decimal("0.44"))).token
    while follower.step():
        pass
    ledger.wait_for(token)
    with sent_by(ledger) as count:
        ledger.wait_for(token)

    assert count == Count(statements=1, round_trips=1)
