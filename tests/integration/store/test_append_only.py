"""The log and the history of a table stay as they were written, whoever asks: each test tries to break one rule."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg import errors

from position_ledger.database import connect
from position_ledger.settings import Settings
from position_ledger.store.append import Key, append
from tests.support.commands import mark_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    import psycopg

CHANGES = {
    "update events": "UPDATE events SET metadata = '{}'",
    "update one column of events": "UPDATE events SET recorded_at = recorded_at - interval '1 day'",
    "delete from events": "DELETE FROM events",
    "truncate events": "TRUNCATE events",
    "truncate events with what refers to it": "TRUNCATE events CASCADE",
    "update append_keys": "UPDATE append_keys SET digest = digest",
    "delete from append_keys": "DELETE FROM append_keys",
    "truncate append_keys": "TRUNCATE append_keys",
    "merge into events": "MERGE INTO events AS e USING (VALUES (1)) AS v (n) ON e.notification_id = v.n "
    "WHEN MATCHED THEN DELETE",
}

ONLY_THE_OWNER = {
    "insert into events": "INSERT INTO events SELECT gen_random_uuid(), 1, topic, state, 99, gen_random_uuid(), "
    "recorded_at, effective_at, stream_hash, metadata FROM events",
    "insert into append_keys": "INSERT INTO append_keys VALUES ('command:x', decode(repeat('00', 32), 'hex'), '{}')",
    "take a number": "SELECT nextval('events_notification_id_seq')",
    "set the number": "SELECT setval('events_notification_id_seq', 1)",
    "change the namespace of the feed": "UPDATE feed SET namespace = 9",
    "make a generation": "INSERT INTO projection_generations (projection, fingerprint, columns, schema_name, "
    "state, release) VALUES ('positions', 'x', '{}', 'x', 'building', '1')",
    "activate a generation": "UPDATE projection_generations SET state = 'retired'",
    "make a checkpoint": "INSERT INTO projection_checkpoints (generation_id, shard, stream_from, stream_to, position) "
    "SELECT generation_id, 99, stream_from, stream_to, 0 FROM projection_checkpoints LIMIT 1",
    "move a shard": "UPDATE projection_checkpoints SET stream_to = stream_from",
    "delete a checkpoint": "DELETE FROM projection_checkpoints",
    "change a version": "UPDATE positions SET quantity = 0",
    "delete a version": "DELETE FROM positions",
    "truncate positions": "TRUNCATE positions",
    "switch a trigger off": "ALTER TABLE events DISABLE TRIGGER ALL",
    "skip the triggers": "SET session_replication_role = replica",
    "replace the append": "CREATE OR REPLACE FUNCTION feed_mark() RETURNS bigint LANGUAGE sql AS 'SELECT 0'",
    "make a table in the ledger's schema": "CREATE TABLE mine (n integer)",
}


@pytest.fixture(scope="module")
def stored_database(shared_database: str) -> str:
    """A database with one event and its key in the log, which no test of this module manages to change."""
    key = Key("command:1", bytes(32), {"events": []})
    with closing(connect(shared_database, Settings(), as_app=True)) as connection:
        append(connection, [mark_event(uuid4(), 1)], [key])
    return shared_database


@pytest.fixture
def stored(stored_database: str) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection to that database."""
    with closing(connect(stored_database, Settings(), as_app=False)) as connection:
        yield connection


@pytest.fixture
def trading(stored_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to that database with the rights of trading code."""
    with closing(connect(stored_database, Settings(), as_app=True)) as connection:
        yield connection


def log_of(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(
        "SELECT e::text FROM events AS e UNION ALL SELECT k::text FROM append_keys AS k ORDER BY 1"
    ).fetchall()


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES.keys())
def test_nobody_changes_the_log_not_even_its_owner(
    stored: psycopg.Connection[Any], trading: psycopg.Connection[Any], statement: str
) -> None:
    before = log_of(stored)
    for connection in (trading, stored):
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)
    assert log_of(stored) == before


def test_the_refusal_names_the_table_and_the_remedy(stored: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match=r"UPDATE on ledger.events is refused.*as a new event"):
        stored.execute(CHANGES["update events"])


@pytest.mark.parametrize("statement", ONLY_THE_OWNER.values(), ids=ONLY_THE_OWNER.keys())
def test_trading_code_has_no_right_to(trading: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        trading.execute(statement)


@pytest.mark.parametrize("table", ["events", "append_keys", "feed", "positions", "projection_checkpoints"])
def test_a_temporary_table_of_the_session_never_stands_in_for_one_of_the_ledger(
    app: psycopg.Connection[Any], owner: psycopg.Connection[Any], stream: UUID, table: str
) -> None:
    # given a session that made a temporary table of the same name and shape, in which nothing is unique
    app.execute("RESET ROLE")
    app.execute(f"CREATE TEMPORARY TABLE {table} AS SELECT t.* FROM ledger.{table} AS t WITH NO DATA")
    app.execute(f"GRANT ALL ON pg_temp.{table} TO PUBLIC")
    app.execute("SET ROLE position_ledger_app")
    # when it appends
    append(app, [mark_event(stream, 1)], [Key("command:1", bytes(32), {})])
    # then the event and its key are in the log, and the session reads them there
    assert owner.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert owner.execute("SELECT count(*) FROM append_keys").fetchone() == (1,)
    assert app.execute(f"SELECT tableoid::regclass::text FROM {table}").fetchone() in {(table,), None}
    assert app.execute(f"SELECT '{table}'::regclass = 'ledger.{table}'::regclass").fetchone() == (True,)
