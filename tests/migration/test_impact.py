"""What a rollback would lose is found and counted before it happens (S59)."""

from __future__ import annotations

import psycopg
import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration import Migrator
from position_ledger.migration import impact as impact_module
from position_ledger.migration.impact import losses
from tests.support.migration_files import T1, migration

pytestmark = pytest.mark.parametrize("server_url", ["18"], indirect=True)
FORWARD = """
CREATE TYPE mood AS ENUM ('calm');
CREATE SEQUENCE tickets;
CREATE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
CREATE TABLE notes (id bigint PRIMARY KEY, row_current_ind boolean NOT NULL, body text NOT NULL);
ALTER TABLE strategies ADD COLUMN note text, ADD COLUMN rank int NOT NULL DEFAULT 1, ALTER COLUMN id TYPE numeric,
    ADD CONSTRAINT ranked CHECK (rank > 0);
CREATE INDEX by_note ON strategies (note);
CREATE VIEW ranked_notes AS SELECT s.note FROM strategies AS s;
INSERT INTO strategies (id, name) VALUES (3, 'third');
"""
ROLLBACK = """
DELETE FROM strategies WHERE id = 3;
DROP VIEW ranked_notes; DROP TABLE notes; DROP FUNCTION answer(); DROP SEQUENCE tickets; DROP TYPE mood;
ALTER TABLE strategies DROP COLUMN note, DROP COLUMN rank, ALTER COLUMN id TYPE bigint;
"""
FILES = (T1, migration(2, FORWARD, rollback=ROLLBACK))


def found(migrator: Migrator, connection: psycopg.Connection, projected: tuple[str, ...] = ()) -> list[str]:
    now, then = (migrator.targets.catalogue_at(number) for number in (2, 1))
    return [str(loss) for loss in losses(connection, "ledger", now, then, migrator.planned_down(2), projected)]


@pytest.fixture
def migrator(database_url: str, connection: psycopg.Connection) -> Migrator:
    """Both files applied, two rows more, and an index that somebody made by hand."""
    migrator = Migrator(database_url, FILES)
    migrator.up()
    connection.execute("SET search_path = ledger, pg_catalog")
    connection.execute("INSERT INTO strategies (id, name, note) VALUES (1, 'a', 'x'), (2, 'b', NULL)")
    connection.execute("INSERT INTO notes VALUES (1, false, 'old'), (2, true, 'new')")
    connection.execute("CREATE INDEX by_hand ON strategies (name)")
    return migrator


def test_everything_that_goes_is_named_and_counted(migrator: Migrator, connection: psycopg.Connection) -> None:
    assert found(migrator, connection, ("notes",)) == [
        "table notes with 2 rows (from the log: they come back with the migration)",
        "column strategies.note with 1 value",
        "column strategies.rank with 3 values",
        "type of column strategies.id: numeric becomes bigint again",
        "constraint ranked: of strategies, CHECK (rank > 0)",
        "index by_note: of strategies",
        "view ranked_notes",
        "function answer()",
        "sequence tickets",
        "type mood",
        f"rows that 002_step.sql writes: line {FILES[1].rollback.statements[0].line}: DELETE FROM strategies WHERE id = 3",
    ]
    assert len(migrator.down(2).files) == 1


def test_a_count_that_takes_long_is_given_up_for_an_estimate(
    migrator: Migrator, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a table that somebody has locked, when it is counted, then nobody waits longer than the limit."""
    connection.execute("ANALYZE notes")
    monkeypatch.setattr(impact_module, "COUNT_LIMIT_MS", 50)
    with psycopg.connect(connection.info.dsn) as other:
        other.execute("LOCK TABLE ledger.notes IN ACCESS EXCLUSIVE MODE")
        assert found(migrator, connection)[0] == "table notes with about 2 rows"


def test_what_is_gone_by_hand_already_is_not_counted(migrator: Migrator, connection: psycopg.Connection) -> None:
    connection.execute("DROP TABLE notes")
    connection.execute("ALTER TABLE strategies DROP COLUMN rank")
    assert found(migrator, connection)[:3] == [
        "table notes",
        "column strategies.note with 1 value",
        "column strategies.rank",
    ]


def test_current_values_are_those_of_current_rows(database_url: str, connection: psycopg.Connection) -> None:
    one = migration(1, "CREATE TABLE t (row_current_ind boolean);", rollback="DROP TABLE t;")
    two = migration(2, "ALTER TABLE t ADD COLUMN x int;", rollback="ALTER TABLE t DROP COLUMN x;")
    migrator = Migrator(database_url, [one, two])
    migrator.up()
    connection.execute("INSERT INTO ledger.t VALUES (false, 1), (false, 2), (true, 3), (true, NULL)")
    assert found(migrator, connection, ("t",)) == [
        "column t.x with 1 value (from the log: they come back with the migration)"
    ]


def test_what_was_applied_since_it_was_shown_is_not_rolled_back(database_url: str) -> None:
    migrator = Migrator(database_url, FILES)
    migrator.up(1)
    shown = migrator.planned_down(1)
    migrator.up()
    with pytest.raises(MigrationError, match=r"it would take back 002_step, 001_step instead of 001_step; nothing was"):
        migrator.down(1, only=shown)
    assert migrator.status().is_current
