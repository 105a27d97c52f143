"""The eventsourcing library's own classes work on the ledger's tables, and its readers miss nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from position_ledger import MarkPosition
from position_ledger.database import connect
from position_ledger.errors import SchemaMismatch
from position_ledger.events import PositionMarked, PositionOpened
from position_ledger.settings import Settings
from position_ledger.store.append import Key, append
from position_ledger.store.audit import broken_links
from position_ledger.store.library import (
    LedgerAggregate,
    LedgerApplication,
    library_environment,
)
from position_ledger.testing import given
from tests.support.commands import mark_event, mark_events, opening

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from eventsourcing.persistence import Notification

    from position_ledger import Ledger

    Connection = psycopg.Connection[Any]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def application(ledger_database: str) -> Iterator[LedgerApplication]:
    """The library's application on a fresh ledger."""
    with LedgerApplication(library_environment(ledger_database)) as one:
        yield one


def opened() -> PositionOpened:
    return next(event for event in given().when(opening()).events if isinstance(event, PositionOpened))


def marked(price: str) -> PositionMarked:
    return PositionMarked(price=Decimal(price), unrealized_pnl=Decimal(0))


# Application


def test_what_is_saved_can_be_got_again(application: LedgerApplication, owner: Connection) -> None:
    stream = uuid4()
    recordings = application.save(LedgerAggregate.begin(stream, opened(), NOON).trigger(marked("0.50"), NOON))
    assert [recording.notification.id for recording in recordings] == [1, 2]
    aggregate: LedgerAggregate = application.repository.get(stream)
    assert (aggregate.id, aggregate.version, aggregate.pending) == (stream, 2, ())
    assert aggregate.state.quantity == 100  # type: ignore[union-attr]
    application.save(aggregate.trigger(marked("0.60"), NOON))
    assert application.repository.get(stream).version == 3
    assert application.repository.get(stream, version=1).version == 1
    times = owner.execute("SELECT DISTINCT effective_at FROM events").fetchall()
    assert times == [(NOON,)]
    assert list(broken_links(owner)) == []


def test_several_aggregates_are_saved_together_or_not_at_all(application: LedgerApplication, owner: Connection) -> None:
    first, second = (LedgerAggregate.begin(uuid4(), opened(), NOON) for _ in range(2))
    application.save(first)
    with pytest.raises(IntegrityError):
        application.save(second, first)
    assert owner.execute("SELECT count(*) FROM events").fetchone() == (1,)
    application.save(second, keys=[Key("command:1", bytes(32), {})])
    with pytest.raises(IntegrityError):
        application.save(LedgerAggregate.begin(uuid4(), opened(), NOON), keys=[Key("command:1", bytes(32), {})])
    assert owner.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_commands_and_the_library_share_one_log(ledger: Ledger, owner: Connection) -> None:
    # given a position that a command opened
    done = ledger.execute(opening())
    row = owner.execute("SELECT originator_id FROM events WHERE topic = 'position.opened'").fetchone()
    assert row is not None
    with LedgerApplication(library_environment(ledger.database_url)) as application:
        # when the library marks it
        aggregate: LedgerAggregate = application.repository.get(row[0])
        application.save(aggregate.trigger(marked("0.50"), datetime.now(UTC)))
    # then the next command is decided on that, and the rows and the chain are whole
    last = ledger.execute(MarkPosition(position_id=done.position_id or "", price="0.70"))
    ledger.wait_for(last.token)
    assert [version["current_price"] for version in ledger.history(done.position_id or "")] == [
        Decimal(price) for price in ("0.42", "0.50", "0.70")
    ]
    assert list(broken_links(owner)) == []


def test_the_schema_belongs_to_the_migrations(application: LedgerApplication) -> None:
    with pytest.raises(SchemaMismatch, match="position-ledger migrate up"):
        application.recorder.create_table()  # type: ignore[attr-defined]


# Readers


def test_the_notification_log_shows_every_event_in_order(application: LedgerApplication) -> None:
    for _ in range(25):
        application.save(LedgerAggregate.begin(uuid4(), opened(), NOON))
    log = application.notification_log
    assert [item.id for item in log.select(1, 10)] == list(range(1, 11))
    assert [item.id for item in log.select(21, 10)] == list(range(21, 26))
    section = log["1,10"]
    assert (section.id, section.next_id) == ("1,10", "11,20")
    assert {item.topic for item in section.items} == {"position.opened"}


def test_a_subscription_gives_what_was_there_and_what_comes(application: LedgerApplication, app: Connection) -> None:
    append(app, mark_events(uuid4(), 3))
    got: list[int] = []
    enough = threading.Event()

    def follow() -> None:
        with application.recorder.subscribe(gt=1) as subscription:
            for notification in subscription:
                got.append(notification.id)
                if len(got) == 5:
                    enough.set()
                    return

    reader = threading.Thread(target=follow)
    reader.start()
    append(app, mark_events(uuid4(), 3))
    assert enough.wait(10)
    reader.join(10)
    assert got == [2, 3, 4, 5, 6]


def test_a_stopped_subscription_ends_its_reader_at_once(application: LedgerApplication) -> None:
    subscription = application.recorder.subscribe()
    got: list[Notification] = []
    reader = threading.Thread(target=lambda: got.extend(subscription))
    reader.start()
    subscription.stop()
    reader.join(5)
    assert not reader.is_alive()
    assert got == []


def test_readers_wait_for_an_append_in_flight_instead_of_skipping_it(
    application: LedgerApplication, ledger_database: str, app: Connection
) -> None:
    """A number is handed out, a later one commits first: the library's reader must not go past the gap."""
    with closing(connect(ledger_database, Settings(), as_app=True)) as slow:
        slow.execute("BEGIN")
        slow.execute(
            "SELECT append_event(%s, 1, 'position.marked', '{}', %s, NULL, %s, '{}', NULL, NULL, NULL)",
            (uuid4(), uuid4(), bytes(32)),
        )
        append(app, [mark_event(uuid4(), 1)])
        assert application.notification_log.select(1, 10) == []
        assert application.recorder.max_notification_id() is None
        slow.execute("COMMIT")
    assert [item.id for item in application.notification_log.select(1, 10)] == [1, 2]
    assert application.recorder.max_notification_id() == 2


def test_topics_filter_what_a_reader_gets(ledger: Ledger) -> None:
    ledger.execute(opening())
    with LedgerApplication(library_environment(ledger.database_url)) as application:
        found = application.recorder.select_notifications(1, 10, topics=["book.position_opened"])
    assert [item.topic for item in found] == ["book.position_opened"]


def test_the_stock_recorder_reads_the_table_as_it_is(ledger: Ledger) -> None:
    """Nothing of ours in between: the library's own class, told only where the table is."""
    ledger.execute(opening())
    parts = urlsplit(ledger.database_url)
    query = parse_qs(parts.query)
    stock = PostgresDatastore(
        parts.path[1:], query["host"][0], "5432", query["user"][0], "", schema="ledger", pool_size=1
    )
    with stock:
        recorder = PostgresApplicationRecorder(stock, events_table_name="events")
        found = recorder.select_notifications(1, 10)
        topics = ["account.position_booked", "book.position_opened", "position.opened"]
        assert sorted(item.topic for item in found) == topics
        stream = next(item.originator_id for item in found if item.topic == "position.opened")
        assert [event.originator_version for event in recorder.select_events(stream)] == [1]
        assert recorder.max_notification_id() == len(topics)


# Projections of the library


class MarksView(PostgresTrackingRecorder):
    """A materialised view as the library's documentation writes one."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self.table = SQL("{}.{}").format(Identifier(datastore.schema), Identifier("library_marks"))
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (stream uuid PRIMARY KEY, marks bigint NOT NULL)").format(self.table)
        )

    def count(self, stream: UUID, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                SQL("INSERT INTO {} AS m VALUES (%s, 1) ON CONFLICT (stream) DO UPDATE SET marks = m.marks + 1").format(
                    self.table
                ),
                (stream,),
            )

    def skip(self, tracking: Tracking) -> None:
        self.insert_tracking(tracking)

    def marks(self) -> dict[UUID, int]:
        with self.datastore.get_connection() as connection:
            rows = connection.execute(SQL("SELECT stream, marks FROM {}").format(self.table)).fetchall()
        return {row["stream"]: row["marks"] for row in rows}


class MarksProjection(Projection[MarksView]):
    """Counts the marks of each position."""

    name = "marks"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        if isinstance(domain_event.body, PositionMarked):
            self.view.count(domain_event.originator_id, tracking)
        else:
            self.view.skip(tracking)


def run_projection(url: str, upto: int) -> dict[UUID, int]:
    with ProjectionRunner(
        application_class=LedgerApplication,
        projection_class=MarksProjection,
        view_class=MarksView,
        env=library_environment(url, as_app=False),
    ) as runner:
        runner.wait(upto, timeout=20)
        return runner.projection.view.marks()


def test_a_stock_projection_runner_follows_the_log_and_goes_on_where_it_stopped(
    ledger: Ledger, app: Connection
) -> None:
    one, other = uuid4(), uuid4()
    ledger.execute(opening())
    append(app, mark_events(one, 5))
    assert run_projection(ledger.database_url, 7) == {one: 5}
    append(app, mark_events(other, 2))
    append(app, mark_events(one, 3, after=5))
    assert run_projection(ledger.database_url, 12) == {one: 8, other: 2}


# What importing does


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("level", ["NOTSET", "DEBUG"])
def test_importing_the_store_leaves_the_loggers_of_psycopg_alone(level: str) -> None:
    code = (
        "import logging\n"
        f"for name in ('psycopg', 'psycopg.pool'): logging.getLogger(name).setLevel(logging.{level})\n"
        "import {imported}\n"
        "print(*(logging.getLogger(name).level for name in ('psycopg', 'psycopg.pool')))"
    )
    with_psycopg_alone = in_a_fresh_process(code.format(imported="psycopg_pool"))
    assert in_a_fresh_process(code.format(imported="position_ledger.store.library")) == with_psycopg_alone


def test_importing_the_store_leaves_the_standard_library_alone() -> None:
    code = (
        "import dataclasses\n"
        "before = dataclasses._process_class\n"
        "import position_ledger.store.library\n"
        "print(dataclasses._process_class is before, before.__module__)"
    )
    assert in_a_fresh_process(code) == "True dataclasses"


def test_a_process_that_imported_the_library_itself_keeps_what_it_has() -> None:
    code = (
        "import eventsourcing.domain, dataclasses\n"
        "before = dataclasses._process_class\n"
        "import position_ledger.store.library\n"
        "print(dataclasses._process_class is before, before.__module__)"
    )
    assert in_a_fresh_process(code) == "True eventsourcing.domain"


def test_the_ledger_itself_does_not_need_the_library() -> None:
    """Commands, projecting and reading go below it, so they do not pay for its import."""
    code = "import sys, position_ledger.ledger; print('eventsourcing' in sys.modules)"
    assert in_a_fresh_process(code) == "False"
