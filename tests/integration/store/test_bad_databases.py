"""Databases that the ledger cannot work with: each is one typed error in one sentence, and leaves nothing half done."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import psycopg
import pytest

from position_ledger import (
    DatabaseUnavailable,
    Ledger,
    MarkPosition,
    SchemaMismatch,
)
from position_ledger.settings import load_settings
from position_ledger.store.append import append
from position_ledger.testing.databases import address_of, migrate
from tests.support.commands import events_of, mark_event, opening
from tests.support.disks import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.embedded.temporary import TemporaryPostgres

    Connection = psycopg.Connection[Any]


def as_user(url: str, user: str, password: str = "") -> str:
    parts = urlsplit(url)
    host = parse_qs(parts.query)["host"][0]
    return f"postgresql://{quote(user)}:{quote(password)}@{parts.path}?host={quote(host, safe='')}"


@contextmanager
def login(owner: Connection, *grants: str) -> Iterator[str]:
    """A user of the cluster with these rights and no others."""
    user = f"user_{uuid4().hex[:8]}"
    owner.execute(f"CREATE ROLE {user} LOGIN")
    for grant in grants:
        owner.execute(f"GRANT {grant} TO {user}")
    try:
        yield user
    finally:
        owner.execute(f"DROP OWNED BY {user}")
        owner.execute(f"DROP ROLE {user}")


def count_of_events(owner: Connection) -> int:
    row = owner.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    return int(row[0])


# Users


def test_a_user_with_the_app_role_needs_no_other_right(ledger_database: str, redis_url: str, owner: Connection) -> None:
    with (
        login(owner, "position_ledger_app") as user,
        Ledger.open(database_url=as_user(ledger_database, user), redis_url=redis_url) as ledger,
    ):
        opened = ledger.execute(opening())
        ledger.wait_for(opened.token)
        assert ledger.position(opened.position_id or "")["quantity"] == 100


def test_a_user_who_may_only_read_reads_and_is_told_that_it_may_not_trade(
    ledger: Ledger, redis_url: str, owner: Connection
) -> None:
    opened = ledger.execute(opening())
    ledger.wait_for(opened.token)
    with (
        login(owner, "position_ledger_reader") as user,
        Ledger.open(database_url=as_user(ledger.database_url, user), redis_url=redis_url) as reader,
    ):
        assert reader.position(opened.position_id or "")["quantity"] == 100
        with pytest.raises(DatabaseUnavailable, match=r"may not do this .*append_event.*position_ledger_app"):
            reader.execute(opening())
    assert count_of_events(owner) == events_of(opening())


def test_a_user_without_any_right_is_refused_when_the_ledger_is_opened(
    ledger_database: str, redis_url: str, owner: Connection
) -> None:
    with (
        login(owner) as user,
        pytest.raises((DatabaseUnavailable, SchemaMismatch), match=r"position_ledger_app|migrate up"),
    ):
        Ledger.open(database_url=as_user(ledger_database, user), redis_url=redis_url)


def test_a_read_only_session_is_told_to_go_to_the_primary(ledger: Ledger, redis_url: str, owner: Connection) -> None:
    opened = ledger.execute(opening())
    with login(owner, "position_ledger_app") as user:
        owner.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
        with Ledger.open(database_url=as_user(ledger.database_url, user), redis_url=redis_url) as reader:
            with pytest.raises(DatabaseUnavailable, match=r"read-only .*connect to the primary"):
                reader.execute(opening())
            with pytest.raises(DatabaseUnavailable, match="read-only"):
                reader.execute(MarkPosition(position_id=opened.position_id or "", price="0.5"))
    assert count_of_events(owner) == events_of(opening())


# Addresses


@pytest.mark.parametrize(
    "address",
    ["postgresql:///nowhere?host=/nonexistent", "postgresql://localhost:1/x", "host=/nonexistent dbname=x"],
)
def test_a_server_that_is_not_there_is_told_at_once(redis_url: str, address: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="did not answer"):
        Ledger.open(database_url=address, redis_url=redis_url)


def test_a_database_that_is_not_there_is_named(ledger_server_url: str, redis_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="no_such_ledger"):
        Ledger.open(database_url=address_of(ledger_server_url, "no_such_ledger"), redis_url=redis_url)


# Schemas


@pytest.fixture
def empty_database(ledger_server_url: str) -> Iterator[str]:
    """A database in which no migration has run."""
    name = f"empty_{uuid4().hex[:8]}"
    with closing(psycopg.connect(ledger_server_url, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield address_of(ledger_server_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_without_migrations_names_the_command(empty_database: str, redis_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="run position-ledger migrate up"):
        Ledger.open(database_url=empty_database, redis_url=redis_url)


def test_a_table_that_was_never_set_up_names_the_command(
    ledger_database: str, redis_url: str, owner: Connection
) -> None:
    owner.execute("DELETE FROM projection_checkpoints")
    owner.execute("DELETE FROM projection_generations")
    with pytest.raises(SchemaMismatch, match=r"positions.* never been set up.*run position-ledger migrate up"):
        Ledger.open(database_url=ledger_database, redis_url=redis_url)


FROM_THE_FUTURE = {
    "a column that the code does not know": (
        "ALTER TABLE positions ADD COLUMN worst_mark numeric",
        r"the row type lacks worst_mark",
    ),
    "a column that the code needs is gone": (
        "ALTER TABLE positions DROP COLUMN exit_reason CASCADE",
        r"the table lacks exit_reason",
    ),
    "rows that newer code made": (
        "UPDATE projection_generations SET fingerprint = 'newer', release = '9.9', columns = columns || '{worst_mark}'",
        r"release 9\.9.*lacks worst_mark.*start the code that has the columns of positions",
    ),
    "a table that was removed": ("DROP TABLE positions CASCADE", r"ledger\.positions does not exist"),
}


@pytest.mark.parametrize(("change", "sentence"), FROM_THE_FUTURE.values(), ids=FROM_THE_FUTURE.keys())
def test_a_database_that_this_code_does_not_fit_is_refused_at_the_start(
    ledger_database: str, redis_url: str, owner: Connection, change: str, sentence: str
) -> None:
    """S69: the process refuses to start and names the gap."""
    owner.execute(change)
    with pytest.raises(SchemaMismatch, match=sentence):
        Ledger.open(database_url=ledger_database, redis_url=redis_url)


FUTURE_EVENTS = {
    "an unknown kind": {"topic": "position.teleported"},
    "a newer version": {"state": b'{"class_version":2,"price":"0.5","unrealized_pnl":"8","mood":"good"}'},
}


@pytest.mark.parametrize("event", FUTURE_EVENTS.values(), ids=FUTURE_EVENTS.keys())
def test_an_event_from_the_future_stops_commands_and_projecting_on_its_stream(
    ledger: Ledger, app: Connection, owner: Connection, event: dict[str, Any]
) -> None:
    # given a position whose last event was written by newer code
    opened = ledger.execute(opening())
    row = owner.execute("SELECT originator_id FROM events WHERE topic = 'position.opened'").fetchone()
    assert row is not None
    append(app, [mark_event(row[0], 2, **event)])
    # then nobody decides anything on it
    ledger.forget()
    with pytest.raises(SchemaMismatch, match=r"does not know|has version 2, this release reads up to 1"):
        ledger.execute(MarkPosition(position_id=opened.position_id or "", price=Decimal("0.6")))
    assert count_of_events(owner) == events_of(opening()) + 1


# Disk


@pytest.mark.uncounted
@pytest.mark.slow
def test_a_full_disk_refuses_the_append_in_words_and_nothing_is_lost(
    own_postgres: TemporaryPostgres, ledger_settings: dict[str, object], redis_url: str
) -> None:
    # given a ledger whose log is on a small disk
    with small_disk(own_postgres, megabytes=4) as disk:
        migrate(own_postgres.database_url, load_settings(**ledger_settings))
        with closing(psycopg.connect(own_postgres.database_url, autocommit=True)) as owner:
            owner.execute("SET search_path = ledger")
            owner.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            owner.execute("ALTER TABLE events SET TABLESPACE small")
            with Ledger.open(database_url=own_postgres.database_url, redis_url=redis_url) as ledger:
                acknowledged, error = fill_up(ledger)
                # then the append that does not fit is refused in words
                assert "no disk space left" in str(error)
                # and everything that was acknowledged is there, and nothing else
                rows = owner.execute("SELECT notification_id FROM events WHERE topic = 'position.opened'").fetchall()
                assert len(rows) == acknowledged
                # and when there is space again, it goes on
                owner.execute("ALTER TABLE events SET TABLESPACE pg_default")
                done = ledger.execute(opening(command_id="after"))
                ledger.wait_for(done.token, timeout_s=30)
                assert ledger.position(done.position_id or "")["quantity"] == 100
            owner.execute("DROP TABLESPACE small")


def fill_up(ledger: Ledger) -> tuple[int, DatabaseUnavailable]:
    """Open positions with a lot of metadata until the database refuses; how many it took, and what it said."""
    for number in range(1, 10_000):
        try:
            ledger.execute(opening(strategy=number, metadata={"noise": os.urandom(3_000).hex()}))
        except DatabaseUnavailable as error:
            return number - 1, error
    raise AssertionError("the disk did not fill up")
