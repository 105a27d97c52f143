"""The append: all or nothing, in order, one winner for each version, with a recorded time that never steps back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from threading import Barrier
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from psycopg import errors

from position_ledger.database import connect
from position_ledger.errors import LedgerError
from position_ledger.settings import Settings
from position_ledger.store.append import EVENTS_IN_APPEND_MAX, Key, KeyTaken, VersionConflict, append
from position_ledger.store.audit import broken_links
from tests.support.commands import mark_event, mark_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from position_ledger.store.envelope import NewEvent, Receipt

    Connection = psycopg.Connection[Any]

WRITERS = 8
KEY = Key("command:1", bytes(32), {})


def count(connection: Connection, table: str = "events") -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def recorded_times(connection: Connection, stream: UUID) -> list[datetime]:
    rows = connection.execute(
        "SELECT recorded_at FROM events WHERE originator_id = %s ORDER BY originator_version", (stream,)
    )
    return [row[0] for row in rows]


def at_once(url: str, appends: Sequence[Callable[[Connection], object]]) -> list[object]:
    """What each append, begun at the same moment on a connection of its own, answered or raised."""
    start = Barrier(len(appends))

    def run(one: Callable[[Connection], object]) -> object:
        with closing(connect(url, Settings(), as_app=True)) as connection:
            start.wait(10)
            try:
                return one(connection)
            except LedgerError as error:
                return error

    with ThreadPoolExecutor(len(appends)) as pool:
        return list(pool.map(run, appends))


# Versions


@pytest.mark.parametrize(
    "versions", [[2], [1, 3], [1, 2, 2], [1, 1], [2, 1, 4], [5, 6]], ids=lambda versions: "-".join(map(str, versions))
)
def test_a_gap_or_a_repeat_in_the_versions_is_refused_as_a_whole(
    app: Connection, stream: UUID, versions: list[int]
) -> None:
    with pytest.raises(VersionConflict):
        append(app, [mark_event(stream, version) for version in versions], [KEY])
    assert (count(app), count(app, "append_keys")) == (0, 0)


@pytest.mark.parametrize("more", [[1], [1, 2], [3], [4, 5]], ids=str)
def test_a_stored_stream_goes_on_with_the_next_version_only(app: Connection, stream: UUID, more: list[int]) -> None:
    append(app, mark_events(stream, 1))
    with pytest.raises(VersionConflict):
        append(app, [mark_event(stream, version) for version in more])
    assert count(app) == 1


def test_one_conflict_among_several_streams_leaves_nothing_of_any(app: Connection) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    append(app, [mark_event(second, 1)])
    with pytest.raises(VersionConflict):
        append(app, [mark_event(first, 1), mark_event(second, 1), mark_event(third, 1)], [KEY])
    assert (count(app), count(app, "append_keys")) == (1, 0)


def test_receipts_are_in_the_order_of_the_events_and_numbers_rise_within_each_stream(app: Connection) -> None:
    streams = [uuid4() for _ in range(5)]
    events = [event for run in zip(*(mark_events(stream, 3) for stream in streams), strict=True) for event in run]
    receipts = append(app, events)
    assert [(receipt.stream, receipt.version) for receipt in receipts] == [(one.stream, one.version) for one in events]
    assert sorted(receipt.seq for receipt in receipts) == list(range(1, 16))
    for stream in streams:
        numbers = [receipt.seq for receipt in receipts if receipt.stream == stream]
        assert numbers == sorted(numbers)


def test_a_refused_append_uses_up_a_number_and_nothing_else(app: Connection, stream: UUID) -> None:
    append(app, [mark_event(stream, 1)])
    with pytest.raises(VersionConflict):
        append(app, [mark_event(stream, 1)])
    assert append(app, [mark_event(stream, 2)])[0].seq == 3


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)], ids=len)
@pytest.mark.parametrize("events", [1, 2])
def test_a_hash_of_another_length_is_refused(app: Connection, stream: UUID, wrong: bytes, events: int) -> None:
    batch = [mark_event(stream, version, stream_hash=wrong) for version in range(1, events + 1)]
    with pytest.raises(errors.CheckViolation):
        append(app, batch)
    assert count(app) == 0


# Keys


@pytest.mark.parametrize("events", [1, 3])
def test_a_key_is_taken_for_ever_and_then_nothing_is_appended(app: Connection, events: int) -> None:
    append(app, mark_events(uuid4(), events), [KEY])
    with pytest.raises(KeyTaken):
        append(app, mark_events(uuid4(), events), [Key(KEY.key, bytes(31) + b"1", {})])
    assert (count(app), count(app, "append_keys")) == (events, 1)


def test_one_taken_key_of_several_refuses_the_whole_append(app: Connection, stream: UUID) -> None:
    append(app, mark_events(stream, 1), [KEY])
    with pytest.raises(KeyTaken):
        append(app, mark_events(uuid4(), 2), [Key("command:2", bytes(32), {}), KEY, Key("fill:2", bytes(32), {})])
    assert (count(app), count(app, "append_keys")) == (1, 1)


# Limits and places


@pytest.mark.parametrize("events", [0, EVENTS_IN_APPEND_MAX + 1])
def test_the_size_of_an_append_has_limits(app: Connection, stream: UUID, events: int) -> None:
    with pytest.raises(LedgerError, match=f"{events} events"):
        append(app, [mark_event(stream, 1)] * events)


def test_an_append_inside_the_callers_transaction_is_refused(app: Connection, stream: UUID) -> None:
    with app.transaction(), pytest.raises(LedgerError, match="inside a transaction"):
        append(app, [mark_event(stream, 1)])
    with app.transaction(), app.transaction(), pytest.raises(LedgerError, match="inside a transaction"):
        append(app, [mark_event(stream, 1)])
    assert count(app) == 0


def test_an_append_in_a_failed_transaction_is_refused_in_words(app: Connection, stream: UUID) -> None:
    app.autocommit = False
    with pytest.raises(errors.UndefinedTable):
        app.execute("SELECT 1 FROM nowhere")
    with pytest.raises(LedgerError, match="inside a transaction"):
        append(app, [mark_event(stream, 1)])


# Time


def put_into_the_future(owner: Connection, event: NewEvent, ahead: timedelta) -> datetime:
    """Store a first event as if the clock of the database had been ahead when it was appended."""
    then = datetime.now(UTC) + ahead
    owner.execute(
        "INSERT INTO events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at, "
        "effective_at, stream_hash) VALUES (%s, %s, %s, %s, nextval('events_notification_id_seq'), %s, %s, %s, %s)",
        (event.stream, event.version, event.topic, event.state, event.event_id, then, then, event.stream_hash),
    )
    return then


@pytest.mark.parametrize("batch", [1, 3])
def test_recorded_time_rises_in_a_stream_though_the_clock_steps_back(
    app: Connection, owner: Connection, stream: UUID, batch: int
) -> None:
    events = mark_events(stream, 1 + 2 * batch)
    then = put_into_the_future(owner, events[0], timedelta(hours=1))
    append(app, events[1 : batch + 1])
    append(app, events[batch + 1 :])
    assert recorded_times(app, stream) == [then + n * timedelta(microseconds=1) for n in range(1 + 2 * batch)]


def test_recorded_time_of_other_streams_is_the_clock(app: Connection, owner: Connection) -> None:
    put_into_the_future(owner, mark_event(uuid4(), 1), timedelta(hours=1))
    receipt = append(app, [mark_event(uuid4(), 1)])[0]
    assert abs(receipt.recorded_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_recorded_times_are_strictly_increasing_under_load(app: Connection, stream: UUID) -> None:
    version, previous = 0, bytes(32)
    for size in (1, 2, 1, 50, 1, 7, 1, 1):
        batch = mark_events(stream, size, after=version, previous=previous)
        append(app, batch)
        version, previous = version + size, batch[-1].stream_hash
    times = recorded_times(app, stream)
    assert all(before < after for before, after in pairwise(times))


def test_an_event_without_an_effective_time_took_place_when_it_was_recorded(app: Connection, stream: UUID) -> None:
    long_ago = datetime(2020, 2, 29, 12, tzinfo=UTC)
    append(app, [mark_event(stream, 1), mark_event(stream, 2, effective_at=long_ago)])
    append(app, [mark_event(stream, 3)])
    rows = app.execute("SELECT effective_at = recorded_at, effective_at FROM events ORDER BY 2").fetchall()
    assert [row[0] for row in rows] == [False, True, True]
    assert rows[0][1] == long_ago


# Writers at once


@pytest.mark.parametrize("size", [1, 3], ids=["one event", "three events"])
def test_of_writers_with_one_expected_version_exactly_one_wins(
    ledger_database: str, app: Connection, size: int
) -> None:
    """Law 11."""
    stream, previous = uuid4(), bytes(32)
    for round_ in range(5):
        batches = [mark_events(stream, size, after=round_ * size, previous=previous) for _ in range(WRITERS)]
        answers = at_once(ledger_database, [partial(append, events=one) for one in batches])
        winners = [place for place, answer in enumerate(answers) if isinstance(answer, tuple)]
        assert len(winners) == 1
        assert all(isinstance(answer, VersionConflict) for answer in answers if not isinstance(answer, tuple))
        previous = batches[winners[0]][-1].stream_hash
    versions = app.execute("SELECT originator_version FROM events ORDER BY 1").fetchall()
    assert [version for (version,) in versions] == list(range(1, 5 * size + 1))
    assert list(broken_links(app)) == []


def test_of_writers_with_one_key_exactly_one_wins(ledger_database: str, app: Connection) -> None:
    def one(connection: Connection) -> Sequence[Receipt]:
        return append(connection, mark_events(uuid4(), 2), [KEY])

    answers = at_once(ledger_database, [one] * WRITERS)
    assert sum(isinstance(answer, tuple) for answer in answers) == 1
    assert sum(isinstance(answer, KeyTaken) for answer in answers) == WRITERS - 1
    assert count(app) == 2


def test_writers_on_the_same_streams_in_opposite_order_never_deadlock(ledger_database: str, app: Connection) -> None:
    streams = sorted(uuid4() for _ in range(20))

    def one(connection: Connection, order: Sequence[UUID]) -> int:
        won = 0
        for version in range(1, 11):
            try:
                append(connection, [mark_event(stream, version) for stream in order])
                won += 1
            except VersionConflict:
                continue
        return won

    orders = [streams, streams[::-1]] * (WRITERS // 2)
    wins = at_once(ledger_database, [partial(one, order=order) for order in orders])
    assert sum(int(str(win)) for win in wins) == 10
    assert count(app) == 200
