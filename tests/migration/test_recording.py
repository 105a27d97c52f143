"""What is recorded without running: a baseline, an accepted edit; and the history, which nothing can change (S62)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration import MigrationFile, Migrator, parse_file
from position_ledger.migration.bookkeeping import read_applied, read_history
from position_ledger.migration.recording import Place, accept_checksum, baseline
from position_ledger.migration.scratch import Targets
from position_ledger.migration.session import Limits
from tests.support.migration_files import T1, T2, T3, migration, migration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.parametrize("server_url", ["18"], indirect=True)
ROWS = migration(
    2,
    "INSERT INTO strategies VALUES (1, 'first');",
    "-- expect: 1 row\nSELECT id FROM strategies;",
    "DELETE FROM strategies;",
)


def place(database_url: str, files: Sequence[MigrationFile]) -> Place:
    return Place(database_url, "ledger", tuple(files), Targets(database_url, files), Limits())


def edited(file: MigrationFile, old: str, new: str) -> MigrationFile:
    """The file with a part of its text changed."""
    text = migration_text(
        file.number,
        file.forward.text.strip(),
        file.verify.text.strip(),
        file.rollback.text.strip(),
        transactional=file.is_transactional,
    )
    assert text.count(old) >= 1
    return parse_file(file.filename, text.replace(old, new, 1).encode())


def made_by_hand(database_url: str, connection: psycopg.Connection, files: Sequence[MigrationFile]) -> None:
    """A database that has the schema and no record of it, as a dump without the two tables leaves it: a function stays."""
    Migrator(database_url, files).up()
    connection.execute("DROP TABLE ledger.schema_migrations, ledger.schema_migration_history")


def test_a_database_that_has_the_schema_is_adopted(database_url: str, connection: psycopg.Connection) -> None:
    made_by_hand(database_url, connection, [T1, T2, T3])
    done = baseline(place(database_url, [T1, T2, T3]))
    assert (done.files, done.unproven) == ((T1, T2, T3), ())
    migrator = Migrator(database_url, [T1, T2, T3])
    assert migrator.status().is_current
    assert migrator.up().files == ()
    assert [(row.number, row.action) for row in read_history(connection, "ledger")] == [
        (1, "baseline"),
        (2, "baseline"),
        (3, "baseline"),
    ]
    assert [file.number for file in migrator.down(2).files] == [3, 2]


def test_up_to_a_number_and_the_rest_is_applied(database_url: str, connection: psycopg.Connection) -> None:
    made_by_hand(database_url, connection, [T1, T2])
    connection.execute("DROP FUNCTION ledger.schema_migration_history_is_append_only()")
    assert [file.number for file in baseline(place(database_url, [T1, T2, T3]), 2).files] == [1, 2]
    assert [file.number for file in Migrator(database_url, [T1, T2, T3]).up().files] == [3]


def test_rows_that_files_write_are_told_as_not_proven(database_url: str, connection: psycopg.Connection) -> None:
    made_by_hand(database_url, connection, [T1, ROWS])
    [line] = baseline(place(database_url, [T1, ROWS])).unproven
    assert "002_step.sql writes (line 11: \"INSERT INTO strategies VALUES (1, 'first')\")" in line


def test_a_schema_that_differs_is_not_adopted(database_url: str, connection: psycopg.Connection) -> None:
    made_by_hand(database_url, connection, [T1, T2])
    connection.execute("ALTER TABLE ledger.strategies ALTER COLUMN name TYPE varchar(20)")
    with pytest.raises(
        MigrationError, match=r"not what migrations 001 to 002 make: table strategies: column name: type"
    ):
        baseline(place(database_url, [T1, T2]))
    assert connection.execute("SELECT to_regclass('ledger.schema_migrations')").fetchone() == (None,)


def test_the_number_that_fits_is_named(database_url: str, connection: psycopg.Connection) -> None:
    made_by_hand(database_url, connection, [T1, T2])
    with pytest.raises(MigrationError, match=r"column note is gone|index strategies_name is gone") as refused:
        baseline(place(database_url, [T1, T2, T3]))
    assert "001 to 002 make: run `position-ledger migrate baseline 002`" in str(refused.value)


def test_a_baseline_whose_verification_does_not_hold_records_nothing(
    database_url: str, connection: psycopg.Connection
) -> None:
    made_by_hand(database_url, connection, [T1, ROWS])
    connection.execute("DELETE FROM ledger.strategies")
    with pytest.raises(
        MigrationError, match=r"002_step.sql line 15: the verification .* returned no row instead of 1 row"
    ):
        baseline(place(database_url, [T1, ROWS]))
    assert connection.execute("SELECT to_regclass('ledger.schema_migrations')").fetchone() == (None,)


def test_a_baseline_is_for_an_unrecorded_database_with_a_schema(
    database_url: str, connection: psycopg.Connection
) -> None:
    with pytest.raises(MigrationError, match=r"holds nothing to adopt; run `position-ledger migrate up`"):
        baseline(place(database_url, [T1, T2]))
    with pytest.raises(MigrationError, match=r"there is no migration 007; the folder holds 001 to 002"):
        baseline(place(database_url, [T1, T2]), 7)
    Migrator(database_url, [T1]).up()
    with pytest.raises(MigrationError, match=r"has 1 migrations recorded, up to 001_step; a baseline is for"):
        baseline(place(database_url, [T1, T2]))
    assert len(read_applied(connection, "ledger")) == 1


WITHOUT_EFFECT = (
    ("-- Summary: one step", "-- Summary: the first step"),
    ("CREATE TABLE strategies (", "-- a remark\nCREATE TABLE strategies ("),
    ("id bigint", "id int8"),
    ("IS NOT NULL;", "IS NOT NULL; SELECT true;"),
    ("DROP TABLE strategies", "DROP TABLE ledger.strategies"),
)


def test_an_edit_without_effect_is_accepted_and_remembered(database_url: str, connection: psycopg.Connection) -> None:
    Migrator(database_url, [T1, T2]).up()
    before = T1
    for old, new in WITHOUT_EFFECT:
        files = [edited(T1, old, new), T2]
        with pytest.raises(
            MigrationError, match=r"if it changes nothing .* `position-ledger migrate accept-checksum 001`"
        ):
            Migrator(database_url, files).up()
        assert accept_checksum(place(database_url, files), 1, reason=new).files == (files[0],)
        assert Migrator(database_url, files).up().files == ()
        last = read_history(connection, "ledger")[-1]
        assert (last.number, last.action, last.reason) == (1, "accept", new)
        assert (last.old_checksum, last.checksum) == (before.checksums.whole, files[0].checksums.whole)
        before = files[0]
    assert accept_checksum(place(database_url, [before, T2]), 1).files == ()
    assert len(read_history(connection, "ledger")) == 2 + len(WITHOUT_EFFECT)


MAYBE_WITH_EFFECT = (
    (1, "name text", "name varchar(9)", r"section forward was edited and table strategies: column name: type"),
    (1, "id bigint PRIMARY KEY", "id bigint", r"was edited and .*constraint strategies_pkey is new"),
    (
        1,
        "(id bigint",
        "(id nonsense",
        r"was edited and .*do not run from empty: 001_step.sql line 11: .* type \"nonsense\"",
    ),
    (2, "'first'", "'other'", r"was edited and the rows that 002_step.sql writes .* are in no catalogue, compare them"),
    (2, "-- expect: 1 row", "-- expect: 2 rows", r"section verify was edited and 002_step.sql .* instead of 2 rows"),
)


@pytest.mark.uncounted
def test_an_edit_that_may_have_an_effect_is_refused_unless_forced(
    database_url: str, connection: psycopg.Connection
) -> None:
    applied = [T1, ROWS]
    Migrator(database_url, applied).up()
    for number, old, new, message in MAYBE_WITH_EFFECT:
        files = [edited(file, old, new) if file.number == number else file for file in applied]
        with pytest.raises(MigrationError, match=message) as refused:
            accept_checksum(place(database_url, files), number)
        assert "restore the file and write a new migration, or add --force" in str(refused.value)
    assert [row.action for row in read_history(connection, "ledger")] == ["up", "up"]
    forced = accept_checksum(place(database_url, files), number, is_forced=True)
    assert "instead of 2 rows" in "; ".join(forced.unproven)
    assert Migrator(database_url, files).status().is_current


def test_only_a_whole_applied_migration_is_accepted(database_url: str, connection: psycopg.Connection) -> None:
    Migrator(database_url, [T1, T2, T3]).up()
    connection.execute("UPDATE ledger.schema_migrations SET state = 'reverting' WHERE number = 3")
    with pytest.raises(MigrationError, match=r"003_step.sql is reverting; finish it first"):
        accept_checksum(place(database_url, [T1, T2, edited(T3, "one step", "a step")]), 3)
    four = migration(4, "SELECT 1;")
    with pytest.raises(MigrationError, match=r"004_step.sql is not applied, so it may be edited freely"):
        accept_checksum(place(database_url, [T1, T2, T3, four]), 4)


def test_the_bookkeeping_of_an_older_release_is_brought_up_to_date(
    database_url: str, connection: psycopg.Connection
) -> None:
    """The history made before reasons were kept can be read as it is, and the next run adds what it lacks."""
    Migrator(database_url, [T1]).up()
    connection.execute(
        "ALTER TABLE ledger.schema_migration_history DROP COLUMN reason, DROP COLUMN old_checksum,"
        " DROP CONSTRAINT schema_migration_history_action_check, ADD CONSTRAINT schema_migration_history_action_check"
        " CHECK (action IN ('start', 'up', 'revert', 'down'))"
    )
    [old] = read_history(connection, "ledger")
    assert (old.action, old.reason, old.old_checksum) == ("up", None, None)
    Migrator(database_url, [T1, T2]).up()
    Migrator(database_url, [T1, T2], reason="it was wrong").down(2)
    assert [(row.number, row.action, row.reason) for row in read_history(connection, "ledger")] == [
        (1, "up", None),
        (2, "up", None),
        (2, "down", "it was wrong"),
    ]


def test_the_history_of_an_unmigrated_database_is_empty(connection: psycopg.Connection) -> None:
    assert read_history(connection, "ledger") == ()
