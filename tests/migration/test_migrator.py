"""Applying, repeating and rolling back on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from position_ledger.errors import DatabaseUnavailable, MigrationError, SchemaMismatch
from position_ledger.migration import Migrator, diff, parse_file, read_catalogue, write_sum
from tests.support.migration_files import T1, T2, T3, migration, migration_text

if TYPE_CHECKING:
    from pathlib import Path


def scalar(connection: psycopg.Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_up_applies_all_files_and_records_them(database_url: str, connection: psycopg.Connection) -> None:
    """S15, S22."""
    outcome = Migrator(database_url, [T1, T2, T3]).up()
    assert [file.number for file in outcome.files] == [1, 2, 3]
    rows = connection.execute(
        "SELECT number, name, state, checksum, duration_ms >= 0, applied_by FROM ledger.schema_migrations ORDER BY 1"
    ).fetchall()
    assert rows == [
        (file.number, f"{file.number:03}_step", "done", file.checksums.whole, True, "admin") for file in (T1, T2, T3)
    ]
    assert scalar(connection, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ledger.strategies_name'::regclass")


def test_up_to_a_number_then_the_rest(database_url: str) -> None:
    """S22: one by number, or all."""
    migrator = Migrator(database_url, [T1, T2, T3])
    assert [file.number for file in migrator.up(2).files] == [1, 2]
    assert [row.state for row in migrator.status().rows] == ["applied", "applied", "pending"]
    assert [file.number for file in migrator.up().files] == [3]


def test_a_second_up_does_nothing_and_says_so(database_url: str, connection: psycopg.Connection) -> None:
    """S68."""
    migrator = Migrator(database_url, [T1, T2])
    migrator.up()
    before = connection.execute("SELECT * FROM ledger.schema_migrations ORDER BY 1").fetchall()
    again, one = migrator.up(), migrator.up(1)
    assert again.files == one.files == ()
    assert again.messages == ("nothing to do: all 2 migrations are already applied",)
    assert one.messages == ("nothing to do: 001_step.sql is already applied",)
    assert connection.execute("SELECT * FROM ledger.schema_migrations ORDER BY 1").fetchall() == before


def test_status_of_an_empty_database_writes_nothing(database_url: str, connection: psycopg.Connection) -> None:
    assert [row.state for row in Migrator(database_url, [T1, T2]).status().rows] == ["pending", "pending"]
    assert scalar(connection, "SELECT to_regnamespace('ledger')") is None


def test_an_unmigrated_database_is_named_behind(database_url: str) -> None:
    """S69."""
    with pytest.raises(
        SchemaMismatch, match=r"behind: 001_step, 002_step not applied; run `position-ledger migrate up`"
    ):
        Migrator(database_url, [T1, T2]).require_current()


def test_a_database_from_the_future_is_refused_and_untouched(database_url: str) -> None:
    """S69."""
    Migrator(database_url, [T1, T2]).up()
    older = Migrator(database_url, [T1])
    for call in (older.up, older.require_current, lambda: older.down(1)):
        with pytest.raises(
            SchemaMismatch, match=r"ahead of this release: it has 002_step applied and the folder ends at"
        ):
            call()
    assert [row.state for row in older.status().rows] == ["applied", "unknown"]


@pytest.mark.parametrize(
    ("changed", "section"),
    [
        (
            migration_text(1, T1.forward.statements[0].text + " ;", T1.verify.text.strip(), "DROP TABLE strategies;"),
            "forward",
        ),
        (migration_text(1, T1.forward.text.strip(), "SELECT 1 = 1;", "DROP TABLE strategies;"), "verify"),
        (
            migration_text(1, T1.forward.text.strip(), T1.verify.text.strip(), "DROP TABLE strategies CASCADE;"),
            "rollback",
        ),
        (
            migration_text(
                1, T1.forward.text.strip(), T1.verify.text.strip(), "DROP TABLE strategies;", rollback_says="x"
            ),
            "header",
        ),
    ],
)
def test_an_edited_applied_file_is_refused_naming_the_section(database_url: str, changed: str, section: str) -> None:
    Migrator(database_url, [T1]).up()
    edited = Migrator(database_url, [parse_file("001_step.sql", changed.encode()), T2])
    with pytest.raises(
        MigrationError, match=rf"001_step.sql was edited after it was applied on .* UTC: section {section};"
    ):
        edited.up()
    assert edited.status().rows[0].edited == (section,)
    assert edited.status().rows[1].state == "pending"


def test_line_ends_are_no_edit(database_url: str) -> None:
    Migrator(database_url, [T1]).up()
    text = migration_text(1, T1.forward.text.strip(), T1.verify.text.strip(), "DROP TABLE strategies;")
    dos = parse_file("001_step.sql", text.replace("\n", "\r\n").encode())
    assert Migrator(database_url, [dos]).up().files == ()


def test_a_file_left_out_before_an_applied_one_is_out_of_order(
    database_url: str, connection: psycopg.Connection
) -> None:
    migrator = Migrator(database_url, [T1, T2])
    migrator.up()
    connection.execute("DELETE FROM ledger.schema_migrations WHERE number = 1")
    with pytest.raises(MigrationError, match=r"001_step.sql is not applied but the later 002_step is: out of order"):
        migrator.up()


def test_the_history_keeps_ups_and_downs_and_cannot_be_changed(
    database_url: str, connection: psycopg.Connection
) -> None:
    migrator = Migrator(database_url, [T1, T2, T3])
    migrator.up()
    migrator.down(2)
    history = connection.execute("SELECT number, action FROM ledger.schema_migration_history ORDER BY id").fetchall()
    assert history == [(1, "up"), (2, "up"), (3, "start"), (3, "up"), (3, "revert"), (3, "down"), (2, "down")]
    connection.execute("SET session_replication_role = replica")
    for attempt in ("UPDATE {} SET action = 'up'", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"append-only"):
            connection.execute(attempt.format("ledger.schema_migration_history").encode())


def test_down_restores_the_exact_catalogue(database_url: str, connection: psycopg.Connection) -> None:
    """S60."""
    migrator = Migrator(database_url, [T1, T2, T3])
    migrator.up(1)
    before = read_catalogue(connection, "ledger")
    migrator.up()
    assert diff(before, read_catalogue(connection, "ledger")) == [
        "table strategies: column note is new",
        "table strategies: index strategies_name is new",
    ]
    assert [file.number for file in migrator.down(2).files] == [3, 2]
    assert read_catalogue(connection, "ledger") == before
    assert migrator.down(2).messages == ("nothing to do: 002_step.sql is not applied",)


def test_a_rollback_that_leaves_something_is_refused_and_undone(
    database_url: str, connection: psycopg.Connection
) -> None:
    """S60."""
    leaky = migration(2, "CREATE TABLE a (x int); CREATE TABLE b (x int);", rollback="DROP TABLE a;")
    migrator = Migrator(database_url, [T1, leaky])
    migrator.up()
    with pytest.raises(
        MigrationError, match=r"rollback of 002_step.sql does not lead back .*: table b is new; nothing was"
    ):
        migrator.down(2)
    assert scalar(connection, "SELECT to_regclass('ledger.a')") == "ledger.a"
    assert [row.state for row in migrator.status().rows] == ["applied", "applied"]


def test_a_rollback_leaves_what_was_made_by_hand(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, [T1, T2])
    migrator.up()
    connection.execute("CREATE INDEX by_hand ON ledger.strategies (name)")
    migrator.down(2)
    assert "by_hand" in read_catalogue(connection, "ledger").tables["strategies"].indexes


def test_an_irreversible_file_says_so(database_url: str) -> None:
    final = migration(1, "CREATE TABLE a (x int);", rollback="", rollback_says="none, because the bank wants it so")
    migrator = Migrator(database_url, [final])
    migrator.up()
    with pytest.raises(
        MigrationError, match="cannot be rolled back, its header says: Rollback: none, because the bank"
    ):
        migrator.down(1)


def test_an_unknown_number_is_refused(database_url: str) -> None:
    migrator = Migrator(database_url, [T1])
    for call in (migrator.up, migrator.down):
        with pytest.raises(MigrationError, match=r"there is no migration 007; the folder holds 001 to 001"):
            call(7)


def test_the_sum_file_of_the_folder_is_checked(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "001_first.sql").write_text(migration_text(1, "CREATE TABLE a (x int);"))
    write_sum(tmp_path)
    (tmp_path / "002_second.sql").write_text(migration_text(2, "CREATE TABLE b (x int);"))
    with pytest.raises(MigrationError, match=r"migrations.sum does not fit 002_second.sql"):
        Migrator(database_url, tmp_path).up()
    write_sum(tmp_path)
    assert len(Migrator(database_url, str(tmp_path)).up().files) == 2
    Migrator(database_url, tmp_path).require_current()
    with (tmp_path / "migrations.sum").open("a", encoding="utf-8") as sums:
        sums.write("<<<<<<< HEAD\n")
    with pytest.raises(MigrationError, match="migrations.sum"):
        Migrator(database_url, tmp_path).require_current()


def test_another_schema_is_migrated_apart(database_url: str, connection: psycopg.Connection) -> None:
    file = migration(1, "CREATE TABLE a (x int);", rollback="DROP TABLE a;")
    Migrator(database_url, [file], "Other One").up()
    Migrator(database_url, [file]).up()
    assert scalar(connection, "SELECT count(*) FROM pg_tables WHERE tablename = 'a'") == 2
    Migrator(database_url, [file], "Other One").down(1)
    assert scalar(connection, "SELECT to_regclass('ledger.a')") == "ledger.a"


def test_no_server_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"refused the connection or did not answer"):
        Migrator(make_conninfo(host=str(tmp_path), user="x", dbname="x"), [T1]).up()


@pytest.mark.parametrize("is_migrated", [False, True])
def test_a_user_without_rights_gets_one_sentence(
    database_url: str, connection: psycopg.Connection, *, is_migrated: bool
) -> None:
    if is_migrated:
        Migrator(database_url, [T1]).up()
    connection.execute("DROP ROLE IF EXISTS reader")
    connection.execute("CREATE ROLE reader LOGIN")
    reader = Migrator(make_conninfo(database_url, user="reader"), [T1, T2])
    if is_migrated:
        with pytest.raises(MigrationError, match=r"role reader may not read ledger.schema_migrations; grant it SELECT"):
            reader.status()
        connection.execute("GRANT pg_read_all_data TO reader")
    assert [row.state for row in reader.status().rows] == ["applied" if is_migrated else "pending", "pending"]
    with pytest.raises(MigrationError, match=r"role reader may not migrate schema ledger of database .* as the owner"):
        reader.up()


def test_a_read_only_session_gets_one_sentence(database_url: str) -> None:
    read_only = make_conninfo(database_url, options="-c default_transaction_read_only=on")
    with pytest.raises(MigrationError, match=r"may not migrate schema ledger .*read-only"):
        Migrator(read_only, [T1]).up()
    Migrator(database_url, [T1]).up()
    with pytest.raises(MigrationError, match=r"may not migrate schema ledger .*read-only"):
        Migrator(read_only, [T1, T2]).up()


def test_an_ordinary_owner_needs_no_superuser(database_url: str, connection: psycopg.Connection) -> None:
    """CREATEDB and its own database are enough for everything, the scratch database included."""
    connection.execute("DROP DATABASE IF EXISTS of_owner")
    connection.execute("DROP ROLE IF EXISTS ordinary")
    connection.execute("CREATE ROLE ordinary LOGIN CREATEDB")
    connection.execute("CREATE DATABASE of_owner OWNER ordinary")
    try:
        migrator = Migrator(
            make_conninfo(database_url, user="ordinary", dbname="of_owner"), [T1, T2, T3], projected={"x"}
        )
        assert len(migrator.up().files) == 3
        assert [effect.kind for effect in migrator.targets.effects([1, 2, 3])] == ["plain"] * 3
        assert len(migrator.down(1).files) == 3
    finally:
        connection.execute("DROP DATABASE of_owner WITH (FORCE)")


def test_a_recorded_file_cannot_be_recorded_twice(database_url: str) -> None:
    migrator = Migrator(database_url, [T1, T2])
    migrator.up()
    with psycopg.connect(database_url) as other, other.cursor() as cursor:
        with pytest.raises(MigrationError, match=r"002_step.sql was recorded as applied by another runner"):
            migrator.record_applied(cursor, [T2])
        other.rollback()
        migrator.record_rolled_back(cursor, [T2])
        with pytest.raises(MigrationError, match=r"002_step.sql is not recorded as applied"):
            migrator.record_rolled_back(cursor, [T2])


def test_the_files_of_a_database_in_another_encoding_arrive_whole(
    connection: psycopg.Connection, database_url: str
) -> None:
    connection.execute("DROP DATABASE IF EXISTS latin")
    connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        url = make_conninfo(database_url, dbname="latin")
        file = migration(1, "CREATE TABLE a (x int); COMMENT ON TABLE a IS 'Größe';", rollback="DROP TABLE a;")
        migrator = Migrator(url, [file])
        migrator.up()
        with psycopg.connect(url, client_encoding="utf8") as inside:
            assert read_catalogue(inside, "ledger").tables["a"].comment == "Größe"
        assert len(migrator.down(1).files) == 1
    finally:
        connection.execute("DROP DATABASE latin WITH (FORCE)")
