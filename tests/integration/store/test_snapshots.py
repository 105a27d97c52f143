"""Long streams are read once: whoever folded many events leaves the state, and it is never believed more than events."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import MarkPosition, OpenPosition
from position_ledger.execution.loaded import read_snapshot
from position_ledger.execution.references import KnownReferences
from position_ledger.execution.streams import PAGE_EVENTS, StreamCache, WorkingStreams

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg

    from position_ledger import Ledger

MARKS = 2 * PAGE_EVENTS + 7


def cold(ledger: Ledger) -> WorkingStreams:
    """Streams as a process that has just started loads them."""
    return WorkingStreams(
        ledger._connection, ledger.codec, StreamCache(10), KnownReferences(ledger._connection), refresh=False
    )


def mark(ledger: Ledger, position_id: str, count: int) -> None:
    marks = [MarkPosition(position_id=position_id, price=Decimal(i % 90 + 5) / 100) for i in range(count)]
    ledger.execute_many(marks)


@pytest.fixture
def long_position(ledger: Ledger) -> str:
    opened = ledger.execute(
        OpenPosition(account="a", market="M", side="YES", quantity=5, entry_price="0.4", environment="paper")
    )
    mark(ledger, str(opened.position_id), MARKS)
    return str(opened.position_id)


def stream_of(ledger: Ledger, position_id: str) -> UUID:
    return cold(ledger).position(position_id).stream


def snapshots(cursor: psycopg.Cursor[Any]) -> int:
    return len(cursor.execute("SELECT originator_id FROM stream_snapshots").fetchall())


def test_a_long_stream_leaves_a_snapshot_that_equals_its_events(
    ledger: Ledger, long_position: str, db_cursor: psycopg.Cursor[Any]
) -> None:
    first = cold(ledger)
    stream = first.position(long_position).stream

    with ledger._connection() as connection:
        snapshot = read_snapshot(connection, stream)

    assert snapshot == first.loaded(stream)
    assert snapshot is not None
    assert snapshot.version == MARKS + 1
    assert snapshots(db_cursor) == 1


def test_the_events_after_a_snapshot_are_folded_onto_it(ledger: Ledger, long_position: str) -> None:
    """Law 10: replay = snapshot + tail."""
    stream = stream_of(ledger, long_position)
    mark(ledger, long_position, 3)

    again = cold(ledger)

    assert again.loaded(stream).version == MARKS + 4
    assert again.position(long_position).position == ledger._executor._cache.get(stream).state  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "damage",
    ["shape = 'position.0'", "state = '{}'", "state = '\\x00'"],
)
def test_a_snapshot_that_this_code_cannot_read_is_as_good_as_none(
    ledger: Ledger, long_position: str, db_cursor: psycopg.Cursor[Any], damage: str
) -> None:
    before = cold(ledger)
    stream = before.position(long_position).stream
    whole = before.loaded(stream)
    db_cursor.execute(f"UPDATE stream_snapshots SET {damage}".encode())
    db_cursor.connection.commit()

    assert cold(ledger).loaded(stream) == whole


def test_a_short_stream_leaves_none(ledger: Ledger, db_cursor: psycopg.Cursor[Any]) -> None:
    opened = ledger.execute(
        OpenPosition(account="a", market="M", side="YES", quantity=5, entry_price="0.4", environment="paper")
    )
    mark(ledger, str(opened.position_id), 20)

    cold(ledger).position(str(opened.position_id))

    assert snapshots(db_cursor) == 0
