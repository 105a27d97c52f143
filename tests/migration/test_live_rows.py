"""Rows of a live database on their way into a scratch database: limits, parents, triggers, sequences."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from position_ledger.migration.rows import CopiedTable, copy_rows
from position_ledger.migration.scratch import scratch_database
from position_ledger.migration.session import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
CREATE SCHEMA ledger;
CREATE TABLE ledger.parents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, twice bigint
    GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE ledger.children (id bigint PRIMARY KEY, parent bigint REFERENCES ledger.parents, boss bigint
    REFERENCES ledger.children);
CREATE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused''; END';
CREATE TRIGGER kept BEFORE INSERT OR DELETE ON ledger.children FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER always BEFORE DELETE ON ledger.parents FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
ALTER TABLE ledger.parents ENABLE ALWAYS TRIGGER always;
"""
LIVE = """
INSERT INTO ledger.parents (name) SELECT 'p' || n FROM generate_series(1, 50) AS n;
ALTER TABLE ledger.children DISABLE TRIGGER kept;
INSERT INTO ledger.children SELECT n, n, CASE WHEN n > 1 THEN n - 1 END FROM generate_series(1, 50) AS n;
ALTER TABLE ledger.parents ADD COLUMN only_here text DEFAULT 'x';
"""


@pytest.fixture
def scratch(database_url: str, connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A scratch database with the schema and a seeded row, beside a live one with rows and a column more."""
    connection.execute(SCHEMA)
    connection.execute(LIVE)
    with (
        scratch_database(database_url, Limits()) as url,
        contextlib.closing(psycopg.connect(url, autocommit=True)) as opened,
    ):
        opened.execute(SCHEMA)
        opened.execute("INSERT INTO ledger.parents (name) VALUES ('seeded')")
        yield opened


def copied(live: psycopg.Connection, scratch: psycopg.Connection, **more: object) -> dict[str, CopiedTable]:
    with live.transaction(), scratch.transaction():
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return copy_rows(live, scratch, "ledger", ["parents", "children", "nowhere"], **more)


def test_all_rows_of_small_tables_come_and_seeds_go(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    found = copied(connection, scratch)
    assert found == {"parents": CopiedTable("parents", 50, 50), "children": CopiedTable("children", 50, 50)}
    assert scratch.execute("SELECT count(*), min(name), max(twice) FROM ledger.parents").fetchone() == (50, "p1", 100)
    assert scratch.execute("SELECT count(boss) FROM ledger.children").fetchone() == (49,)


def test_what_a_migration_seeded_does_not_make_a_large_table_small(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    """The seeded rows are deleted before the copy, but their pages stay until the scratch database goes."""
    for database in (connection, scratch):
        database.execute("INSERT INTO ledger.parents (name) SELECT 'p' || n FROM generate_series(1, 20000) AS n")
    found = copied(connection, scratch, limit=2_000)["parents"]
    assert found.copied == 2_000
    assert 15_000 <= found.rows <= 25_000  # whole pages are counted


def test_triggers_are_as_they_were_and_sequences_go_on(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    query = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"
    before = scratch.execute(query).fetchall()
    copied(connection, scratch)
    assert scratch.execute(query).fetchall() == before
    made = scratch.execute("INSERT INTO ledger.parents (name) VALUES ('new') RETURNING id").fetchone()
    assert made == (51,)


def test_of_large_tables_come_rows_whose_parents_came_along(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    found = copied(connection, scratch, limit=20)
    assert found["parents"].copied == 20
    assert not found["parents"].is_complete
    assert found["children"].copied <= 20
    orphans = "SELECT count(*) FROM ledger.children WHERE parent NOT IN (SELECT id FROM ledger.parents)"
    assert scratch.execute(orphans).fetchone() == (0,)


def test_a_condition_chooses_rows_and_what_refers_to_others_is_said(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    found = copied(connection, scratch, only={"parents": sql.SQL("id <= 5")})
    assert found["parents"].copied == 5
    assert found["children"].copied == 5
    assert found["children"].problem == "45 of them refer to rows that were not copied"


def test_a_table_that_may_not_be_read_is_said_and_the_others_come(
    connection: psycopg.Connection, scratch: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE ROLE clerk; GRANT USAGE ON SCHEMA ledger TO clerk; GRANT SELECT ON ledger.parents TO clerk"
    )
    try:
        connection.execute("SET ROLE clerk")
        found = copied(connection, scratch)
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY clerk; DROP ROLE clerk")
    assert found["parents"].is_complete
    assert "permission denied for table children" in found["children"].problem
    assert not found["children"].is_complete
