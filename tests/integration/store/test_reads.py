"""What a decision has read and not appended to: when it has moved on, nothing is written, and no race gets around that."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from position_ledger import operations
from position_ledger.database import connect
from position_ledger.settings import Settings, load_settings
from position_ledger.store.append import Key, VersionConflict, append, append_here
from tests.support import engine
from tests.support.commands import mark_event, mark_events
from tests.support.engine_fixtures import NO_QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.store.envelope import NewEvent, Receipt

Connection = psycopg.Connection[Any]
KEY = Key("command:reads", bytes(32), {})
WAITING = """
SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
 WHERE l.locktype = 'advisory' AND NOT l.granted
"""
FUNCTIONS = """
SELECT p.proname, pg_get_functiondef(p.oid), p.proacl::text FROM pg_proc AS p
 WHERE p.pronamespace = 'ledger'::regnamespace AND p.proname LIKE 'append%' ORDER BY p.oid::regprocedure::text
"""


def market_event(stream: UUID, version: int) -> NewEvent:
    """An event of a stream that decisions read without appending to it."""
    return mark_event(stream, version, topic="market.test")


def count(connection: Connection, table: str = "events") -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def second(url: str) -> Iterator[Connection]:
    with closing(connect(url, Settings(), as_app=True)) as connection:
        yield connection


@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("read", [0, 2])
def test_an_append_whose_reads_are_still_the_last_versions_is_written(
    app: Connection, stream: UUID, events: int, read: int
) -> None:
    market = uuid4()
    if read:
        append(app, [market_event(market, version) for version in range(1, read + 1)])
    receipts = append(app, mark_events(stream, events), [KEY], [(market, read)])
    assert [one.version for one in receipts] == list(range(1, events + 1))
    assert count(app) == read + events


@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("read", [0, 1, 2])
def test_an_append_that_has_read_what_has_moved_on_leaves_nothing(
    app: Connection, stream: UUID, events: int, read: int
) -> None:
    market, quiet = uuid4(), uuid4()
    append(app, [market_event(market, version) for version in (1, 2, 3)])
    with pytest.raises(VersionConflict, match=f"{market} has moved on since its version {read}"):
        append(app, mark_events(stream, events), [KEY], [(quiet, 0), (market, read)])
    assert (count(app), count(app, "append_keys")) == (3, 0)
    append(app, mark_events(stream, events), [KEY], [(quiet, 0), (market, 3)])


def test_reads_are_guarded_inside_the_engines_own_transactions_too(app: Connection, stream: UUID) -> None:
    market = uuid4()
    append(app, [market_event(market, 1)])
    with pytest.raises(VersionConflict), app.transaction():
        append_here(app, [mark_event(stream, 1)], (), [(market, 0)])
    with app.transaction():
        append_here(app, [mark_event(stream, 1)], (), [(market, 1)])
    assert count(app) == 2


# Two appends at once: a market that changes, and a decision that has read it


def until_one_waits(connection: Connection, thread_failed: threading.Event) -> None:
    """Until somebody waits for an advisory lock."""
    while count_waiting(connection) == 0:
        assert not thread_failed.is_set(), "the other append did not wait"


def count_waiting(connection: Connection) -> int:
    row = connection.execute(WAITING).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("how_many", [1, 2], ids=["one event", "two events"])
def test_a_decision_waits_for_the_market_that_is_just_changing_and_then_is_refused(
    ledger_database: str, app: Connection, owner: Connection, stream: UUID, how_many: int
) -> None:
    """Neither sees the other's rows before its end: without the lock both would be written."""
    market, others = uuid4(), [mark_event(uuid4(), 1)] * (how_many - 1)
    ended = threading.Event()
    with second(ledger_database) as other, ThreadPoolExecutor(1) as pool:

        def decide() -> tuple[Receipt, ...]:
            try:
                return append(other, [mark_event(stream, 1)], [KEY], [(market, 0)])
            finally:
                ended.set()

        with app.transaction():
            append_here(app, [market_event(market, 1), *others])
            decided = pool.submit(decide)
            until_one_waits(owner, ended)
        with pytest.raises(VersionConflict, match="has moved on"):
            decided.result(10)
    assert count(app) == how_many


@pytest.mark.parametrize("how_many", [1, 2], ids=["one event", "two events"])
def test_a_market_waits_for_a_decision_that_has_read_it_and_gets_the_later_number(
    ledger_database: str, app: Connection, owner: Connection, stream: UUID, how_many: int
) -> None:
    market = uuid4()
    ended = threading.Event()
    changing = [market_event(market, 1), mark_event(uuid4(), 1)][:how_many]
    with second(ledger_database) as other, ThreadPoolExecutor(1) as pool:

        def change() -> tuple[Receipt, ...]:
            try:
                return append(other, changing)
            finally:
                ended.set()

        with app.transaction():
            (decided,) = append_here(app, [mark_event(stream, 1)], [KEY], [(market, 0)])
            changed = pool.submit(change)
            until_one_waits(owner, ended)
        assert min(one.seq for one in changed.result(10)) > decided.seq
    assert count(app) == 1 + how_many


def test_decisions_on_one_market_do_not_wait_for_each_other(ledger_database: str, app: Connection) -> None:
    market = uuid4()
    with second(ledger_database) as other, app.transaction():
        append_here(app, [mark_event(uuid4(), 1)], (), [(market, 0)])
        append(other, [mark_event(uuid4(), 1)], (), [(market, 0)])
    assert count(app) == 2


def test_appends_that_change_and_read_each_others_markets_never_deadlock(ledger_database: str, app: Connection) -> None:
    """Given eight writers that change some markets and have read others, when all write, then each ends, won or refused."""
    markets = [uuid4() for _ in range(6)]

    def write(number: int) -> int:
        won = 0
        with second(ledger_database) as connection:
            for turn in range(15):
                mine = markets[(number + turn) % len(markets)]
                events = [market_event(mine, version(connection, mine) + 1), mark_event(uuid4(), 1)]
                reads = [(one, version(connection, one)) for one in markets if one != mine]
                try:
                    append(connection, events, (), reads)
                    won += 1
                except VersionConflict:
                    continue
        return won

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(write, range(8)))
    assert won > 0
    assert count(app) == 2 * won


def version(connection: Connection, stream: UUID) -> int:
    """The last version of a stream."""
    row = connection.execute(
        "SELECT coalesce(max(originator_version), 0) FROM events WHERE originator_id = %s", (stream,)
    ).fetchone()
    assert row is not None
    return int(row[0])


# The order of number and clock


def test_in_a_batch_numbers_go_by_stream_and_version_and_no_time_steps_back_in_a_stream(app: Connection) -> None:
    streams = sorted(uuid4() for _ in range(4))
    events = [event for stream in reversed(streams) for event in reversed(mark_events(stream, 3))]
    append(app, events)
    rows = app.execute(
        "SELECT originator_id, originator_version, recorded_at FROM events ORDER BY notification_id"
    ).fetchall()
    assert [row[:2] for row in rows] == [(stream, number) for stream in streams for number in (1, 2, 3)]
    for stream in streams:
        times = [row[2] for row in rows if row[0] == stream]
        assert times == sorted(set(times))


def test_rolling_back_migration_004_leaves_the_functions_that_001_made(ledger_server_url: str) -> None:
    name = f"functions_{secrets.token_hex(4)}"
    url = engine.new_database(ledger_server_url, name)
    settings = load_settings(database_url=url, redis_url=NO_QUEUE)
    try:
        operations.migrate_up(settings, engine.reached(settings), 3, engine.quiet)
        with engine.connected(settings, as_app=False) as owner:
            before = owner.execute(FUNCTIONS).fetchall()
            operations.migrate_up(settings, engine.reached(settings), 4, engine.quiet)
            between = owner.execute(FUNCTIONS).fetchall()
            operations.migrate_down(settings, engine.reached(settings), 4, engine.quiet)
            after = owner.execute(FUNCTIONS).fetchall()
    finally:
        engine.drop_database(ledger_server_url, name)
    assert before == after
    assert len(before) == len(between) == 2
    assert all(one not in before for one in between)
