"""What writer processes do: marks through the command API, and the bare INSERT of the same row as the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, cycle
from typing import Any
from uuid import uuid4

import psycopg

from bench.arena import Arena
from bench.crew import Subjects
from position_ledger import Ledger, MarkPosition, OpenPosition

POSITIONS = 20
"""Positions of one writer."""

PRICES = tuple(Decimal(cents) / 100 for cents in range(20, 80))

# The table of events without its triggers and its function: same columns, constraints, indexes and bytes. What is
# measured against it are marks: they move no money, so each is one event, and the floor is one row of the same size.
MAKE_BARE = """
CREATE TABLE bare_events (LIKE events INCLUDING ALL);
CREATE SEQUENCE bare_events_seq AS bigint CACHE 1;
"""
BARE_INSERT = """
INSERT INTO bare_events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at,
                         effective_at, stream_hash, metadata)
VALUES (%s, %s, %s, %s, nextval('bare_events_seq'), %s, %s, %s, %s, '{}')
"""
LAST_EVENT = "SELECT e.topic, e.state, e.stream_hash FROM events AS e ORDER BY e.notification_id DESC LIMIT 1"


def make_bare_table(arena: Arena) -> None:
    """The table of the floor."""
    with closing(arena.connect()) as connection:
        connection.execute(MAKE_BARE)


@contextmanager
def writer(arena: Arena, number: int) -> Iterator[Subjects]:
    """A writer with positions of its own: «ledger» marks one of them, «bare» inserts such an event without the ledger."""
    with arena.ledger() as ledger, closing(arena.connect()) as connection:
        mark = marker(ledger, open_positions(ledger, f"writer {number}", POSITIONS))
        for _ in range(2 * POSITIONS):
            mark()
        subjects = {"ledger": mark}
        if connection.execute("SELECT to_regclass('bare_events') IS NOT NULL").fetchone() == (True,):
            subjects["bare"] = _bare(connection)
        yield subjects


def open_positions(ledger: Ledger, account: str, positions: int) -> list[str]:
    """Open positions of one account, each in a market of its own; answers their ids."""
    opened = [
        OpenPosition(
            account=account,
            market=f"MARKET-{number}",
            side="YES",
            quantity=100,
            entry_price=Decimal("0.42"),
            environment="paper",
        )
        for number in range(positions)
    ]
    return [done.position_id or "" for done in ledger.execute_many(opened)]


def marker(ledger: Ledger, ids: list[str]) -> Callable[[], int]:
    """One mark, one event, one commit, of one position after the other."""
    turns, prices = cycle(ids), cycle(PRICES)

    def mark() -> int:
        return ledger.execute(MarkPosition(position_id=next(turns), price=next(prices))).events

    return mark


def _bare(connection: psycopg.Connection[Any]) -> Callable[[], int]:
    """The floor: the same row with psycopg alone; prepared, autocommit."""
    ((topic, state, stream_hash),) = connection.execute(LAST_EVENT, binary=True).fetchall()
    stream, event_id, at, versions = uuid4(), uuid4(), datetime.now(UTC), count(1)

    def insert() -> int:
        connection.execute(
            BARE_INSERT, (stream, next(versions), topic, state, event_id, at, at, stream_hash), prepare=True
        )
        return 1

    for _ in range(2 * POSITIONS):
        insert()
    return insert
