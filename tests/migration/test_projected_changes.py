"""Target catalogues from a scratch database, and what happens to files that change a projected table."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from position_ledger.errors import MigrationError
from position_ledger.migration import Limits, Migrator, ProjectedChange, Targets, read_catalogue
from position_ledger.migration.classify import EffectRefused
from position_ledger.migration.scratch import scratch_database
from tests.support.migration_files import migration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from position_ledger.migration import MigrationFile

PROJECTED = {"positions"}
EVENTS = migration(1, "CREATE TABLE events (id bigint PRIMARY KEY);", rollback="DROP TABLE events;")
BASE = migration(
    2,
    """
    CREATE TABLE strategies (id bigint PRIMARY KEY, name text);
    CREATE TABLE positions (id bigint PRIMARY KEY, quantity integer NOT NULL, note text);
    CREATE VIEW open_positions AS SELECT id, quantity FROM positions;
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    """,
    rollback="DROP VIEW open_positions; DROP TABLE positions, strategies; DROP FUNCTION keep();",
)


def third(forward: str, rollback: str = "SELECT 1;", **more: object) -> list[MigrationFile]:
    return [EVENTS, BASE, migration(3, forward, rollback=rollback, **more)]


def scratch_names(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT datname FROM pg_database WHERE datname LIKE 'position_ledger_scratch%'"
    ).fetchall()
    return [name for (name,) in rows]


@pytest.mark.uncounted
def test_the_target_catalogue_equals_what_applying_gives(database_url: str, connection: psycopg.Connection) -> None:
    files = third(
        "CREATE INDEX CONCURRENTLY by_note ON positions (note);",
        rollback="DROP INDEX CONCURRENTLY by_note;",
        transactional=False,
    )
    targets = Targets(database_url, files, projected=PROJECTED)
    migrator = Migrator(database_url, files)
    for number in (1, 2, 3):
        migrator.up(number)
        assert targets.catalogue_at(number) == read_catalogue(connection, "ledger")
    assert targets.catalogue_at(0).tables == {}
    assert targets.catalogue_at(3) is targets.catalogue_at(3)
    assert scratch_names(connection) == []


def test_the_scratch_database_goes_also_after_an_error(database_url: str, connection: psycopg.Connection) -> None:
    with pytest.raises(MigrationError, match=r"003_step.sql line 11: 'SELECT 1/0' failed"):
        Targets(database_url, third("SELECT 1/0;")).catalogue_at(3)
    assert scratch_names(connection) == []


def test_scratch_databases_of_killed_runs_are_cleaned_up(database_url: str, connection: psycopg.Connection) -> None:
    old, young = (
        f"position_ledger_scratch_{int(time.time()) - 7200}_aa",
        f"position_ledger_scratch_{int(time.time())}_bb",
    )
    for name in (old, young):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        Targets(database_url, [EVENTS]).catalogue_at(1)
        assert scratch_names(connection) == [young]
    finally:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(young)))


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ("LC_COLLATE 'C' LC_CTYPE 'C'", 150000),
        ("LOCALE_PROVIDER icu ICU_LOCALE 'de' LC_COLLATE 'C' LC_CTYPE 'C'", 150000),
        ("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'", 170000),
    ],
)
def test_a_scratch_database_has_the_locale_of_the_real_one(
    connection: psycopg.Connection, server_url: str, options: str, needs: int
) -> None:
    if connection.info.server_version < needs:
        pytest.skip("this server does not know the locale provider")
    connection.execute("DROP DATABASE IF EXISTS like_this")
    try:
        connection.execute(f"CREATE DATABASE like_this TEMPLATE template0 ENCODING 'UTF8' {options}".encode())
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"this server was built without it: {error}")
    facts = (
        "SELECT encoding, datcollate, datctype, datlocprovider, to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale'"
        " FROM pg_database d WHERE datname = current_database()"
    )
    url = make_conninfo(server_url, dbname="like_this")
    try:
        with (
            scratch_database(url, Limits()) as scratch,
            psycopg.connect(scratch) as inside,
            psycopg.connect(url) as real,
        ):
            assert inside.execute(facts).fetchone() == real.execute(facts).fetchone()
    finally:
        connection.execute("DROP DATABASE like_this WITH (FORCE)")


def test_nothing_global_outlives_a_replay(database_url: str, connection: psycopg.Connection) -> None:
    Targets(database_url, third("CREATE ROLE made_in_scratch;")).catalogue_at(3)
    assert connection.execute("SELECT to_regrole('made_in_scratch')").fetchone() == (None,)


def test_without_createdb_the_sentence_says_what_to_do(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute("DROP ROLE IF EXISTS modest")
    connection.execute("CREATE ROLE modest LOGIN")
    modest = make_conninfo(database_url, user="modest")
    with pytest.raises(MigrationError, match=r"role modest may not create the scratch database .*SCRATCH_URL"):
        Targets(modest, [EVENTS]).catalogue_at(1)
    assert Targets(database_url, [EVENTS]).catalogue_at(1).tables.keys() == {"events"}


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        ("CREATE INDEX by_note ON positions (note);", "plain"),
        ("COMMENT ON COLUMN positions.note IS 'a note';", "plain"),
        ("GRANT SELECT ON positions TO pg_monitor;", "plain"),
        ("ALTER TABLE positions SET (fillfactor = 80); ALTER TABLE positions ALTER note SET STATISTICS 10;", "plain"),
        ("INSERT INTO strategies VALUES (1, 'one'); ALTER TABLE strategies ADD note text;", "plain"),
        ("CREATE OR REPLACE VIEW open_positions AS SELECT id, quantity, note FROM positions;", "plain"),
        ("CREATE TABLE exit_reasons (code text PRIMARY KEY); COMMENT ON TABLE positions IS 'x';", "plain"),
        ("ALTER TABLE positions ADD worst numeric NOT NULL;", "projected"),
        (
            (
                "DROP VIEW open_positions; ALTER TABLE positions ALTER quantity TYPE bigint;"
                " CREATE VIEW open_positions AS SELECT id, quantity FROM positions;"
            ),
            "projected",
        ),
        ("ALTER TABLE positions ADD CHECK (quantity >= 0);", "projected"),
        ("ALTER TABLE positions ADD UNIQUE (note); CREATE INDEX by_quantity ON positions (quantity);", "projected"),
        ("ALTER TABLE positions ADD strategy bigint REFERENCES strategies;", "projected"),
        ("ALTER TABLE positions RENAME note TO notes;", "projected"),
        ("ALTER TABLE positions DROP note; COMMENT ON TABLE positions IS 'fewer';", "projected"),
    ],
)
def test_a_file_is_judged_by_its_effect(server_url: str, forward: str, kind: str) -> None:
    """S3, S4."""
    (effect,) = Targets(server_url, third(forward), projected=PROJECTED).effects([3])
    assert effect.kind == kind
    assert effect.tables == (PROJECTED if kind == "projected" else set())


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            (
                "CREATE TABLE exit_reasons (code text PRIMARY KEY);"
                " ALTER TABLE positions ADD reason text REFERENCES exit_reasons;"
            ),
            (
                r"changes the projected table positions.*also other things \(table exit_reasons is new\);"
                r" split it: everything else in 003_…, what concerns positions in 004_…"
            ),
        ),
        ("ALTER TABLE positions ADD x int; INSERT INTO strategies VALUES (1);", "rows of table strategies are written"),
        ("ALTER TABLE positions ADD x int; UPDATE strategies SET name = 'x';", "rows of table strategies are written"),
        ("ALTER TABLE positions ADD x int; CREATE ROLE somebody;", "role somebody is new"),
        ("ALTER TABLE positions ADD x int; CREATE TABLE public.elsewhere (x int);", "relation public.elsewhere is new"),
        (
            "ALTER TABLE positions ADD x int; COMMENT ON TABLE strategies IS 'x';",
            "table strategies: comment None became 'x'",
        ),
        (
            "UPDATE positions SET note = 'x';",
            "UPDATE of rows of the projected table positions, which come from the event log",
        ),
        (
            "ALTER TABLE positions ADD x int; DELETE FROM positions WHERE false;",
            "line 11: .*DELETE of rows of the projected",
        ),
        ("TRUNCATE positions;", "TRUNCATE of rows of the projected table positions"),
        ("DO $$ BEGIN EXECUTE 'INSERT INTO positions VALUES (1, 2)'; END $$;", "INSERT of rows of the projected table"),
        (
            "DROP TABLE positions CASCADE; CREATE TABLE positions (id int); INSERT INTO positions VALUES (1);",
            "INSERT of rows of the projected table",
        ),
        (
            "DO $$ BEGIN DROP TABLE positions CASCADE; CREATE TABLE positions AS SELECT 1 AS id; END $$;",
            "puts rows into the projected table positions",
        ),
        (
            "ALTER TABLE positions ADD at timestamptz NOT NULL DEFAULT now();",
            r"column at has the changing default now\(\)",
        ),
        (
            "ALTER TABLE positions ADD n bigint GENERATED ALWAYS AS IDENTITY;",
            "also other things .*sequence positions_n_seq",
        ),
        (
            "ALTER TABLE positions ADD x int, ENABLE ROW LEVEL SECURITY;",
            "gives the projected table positions row level security",
        ),
    ],
)
def test_what_a_rebuild_could_not_do_is_refused(server_url: str, forward: str, message: str) -> None:
    with pytest.raises(MigrationError, match=rf"^003_step.sql.*{message}"):
        Targets(server_url, third(forward), projected=PROJECTED).effects([3])


@pytest.mark.parametrize(
    ("forward", "code"),
    [
        ("ALTER TABLE positions ENABLE ROW LEVEL SECURITY;", "not-projectable"),
        ("ALTER TABLE positions ADD at timestamptz DEFAULT now();", "changing-default"),
    ],
)
def test_each_refusal_has_a_code_of_its_own(server_url: str, forward: str, code: str) -> None:
    with pytest.raises(EffectRefused) as caught:
        Targets(server_url, third(forward), projected=PROJECTED).effects([3])
    assert caught.value.code == code


def swap_in(
    database_url: str, migrator: Callable[[], Migrator], seen: list[ProjectedChange], ddl: Sequence[str]
) -> Callable[[ProjectedChange], None]:
    """What a rebuild does at its end: bring the change and its record in one transaction."""

    def rebuild(change: ProjectedChange) -> None:
        seen.append(change)
        with psycopg.connect(database_url) as swapping, swapping.cursor() as cursor:
            for statement in ddl:
                cursor.execute(statement.encode())
            migrator().record_applied(cursor, change.whole)

    return rebuild


FOUR = [
    *third("CREATE TABLE exit_reasons (code text PRIMARY KEY);", "DROP TABLE exit_reasons;"),
    migration(
        4,
        "ALTER TABLE positions ADD worst numeric NOT NULL;",
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'positions'::regclass AND attname = 'worst';",
        "ALTER TABLE positions DROP worst;",
    ),
    migration(
        5,
        "ALTER TABLE positions ADD reason text REFERENCES exit_reasons;",
        rollback="ALTER TABLE positions DROP reason;",
    ),
    migration(6, "COMMENT ON TABLE positions IS 'done';", rollback="COMMENT ON TABLE positions IS NULL;"),
]
SWAP = ("ALTER TABLE ledger.positions ADD worst numeric NOT NULL DEFAULT 1, ADD reason text",)


def test_with_events_projected_files_go_to_the_rebuild_as_one_change(
    database_url: str, connection: psycopg.Connection
) -> None:
    Migrator(database_url, FOUR, projected=PROJECTED).up(2)
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    seen: list[ProjectedChange] = []
    outcome = migrator.up(rebuild=swap_in(database_url, lambda: migrator, seen, SWAP))
    assert [file.number for file in outcome.files] == [3, 4, 5, 6]
    (change,) = seen
    assert [file.number for file in change.files] == [4, 5]
    assert change.tables == PROJECTED
    assert "exit_reasons" in change.before.tables
    assert "worst" not in change.before.tables["positions"].columns
    assert {"worst", "reason"} <= change.after.tables["positions"].columns.keys()
    assert migrator.status().is_current


def test_without_a_rebuild_the_command_is_named_and_nothing_is_begun(
    database_url: str, connection: psycopg.Connection
) -> None:
    Migrator(database_url, FOUR, projected=PROJECTED).up(2)
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    with pytest.raises(
        MigrationError, match=r"004_step.sql, 005_step.sql changes .*run `rebuild-projection positions`"
    ):
        migrator.up()
    assert [row.state for row in migrator.status().rows][2:] == ["pending"] * 4
    assert "worst" not in read_catalogue(connection, "ledger").tables["positions"].columns


def test_a_rebuild_that_records_nothing_is_found_out(database_url: str, connection: psycopg.Connection) -> None:
    Migrator(database_url, FOUR, projected=PROJECTED).up(2)
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    with pytest.raises(MigrationError, match=r"ended without recording 003_step.sql, 004_step.sql, 005_step.sql"):
        migrator.up(rebuild=lambda _change: None)
    assert [row.state for row in migrator.status().rows][2:] == ["pending"] * 4
    assert read_catalogue(connection, "ledger") == migrator.targets.catalogue_at(2)


def test_a_swap_whose_verification_fails_records_nothing(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    migrator.up(3)
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    lame = swap_in(
        database_url, lambda: migrator, [], ["ALTER TABLE ledger.positions ADD worst numeric, ADD reason text"]
    )
    with pytest.raises(MigrationError, match=r"004_step.sql line 14: the verification .* returned \(False,\)"):
        migrator.up(rebuild=lame)
    assert "worst" not in read_catalogue(connection, "ledger").tables["positions"].columns
    assert [row.state for row in migrator.status().rows][3:] == ["pending"] * 3


def test_without_events_everything_runs_in_place(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    assert len(migrator.up().files) == 6
    assert read_catalogue(connection, "ledger") == migrator.targets.catalogue_at(6)
    assert [file.number for file in migrator.down(1).files] == [6, 5, 4, 3, 2, 1]
    assert read_catalogue(connection, "ledger") == migrator.targets.catalogue_at(0)


def test_the_first_event_cannot_slip_in_while_migrating_in_place(
    database_url: str, connection: psycopg.Connection
) -> None:
    Migrator(database_url, FOUR, projected=PROJECTED).up(3)
    with psycopg.connect(database_url) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("INSERT INTO ledger.events VALUES (1)")
        applying = pool.submit(Migrator(database_url, FOUR, projected=PROJECTED).up)
        end = time.monotonic() + 10
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%' AND datname = current_database()"
        ).fetchone() == (0,):
            assert time.monotonic() < end
            time.sleep(0.005)
        writer.commit()
        with pytest.raises(MigrationError, match=r"the first events arrived while migrating"):
            applying.result(timeout=20)
    assert "worst" not in read_catalogue(connection, "ledger").tables["positions"].columns


def test_an_error_that_nobody_foresaw_is_still_one_sentence(database_url: str, connection: psycopg.Connection) -> None:
    Migrator(database_url, FOUR, projected=PROJECTED).up(3)
    connection.execute("DROP ROLE IF EXISTS half_owner")
    connection.execute("CREATE ROLE half_owner LOGIN")
    connection.execute("GRANT USAGE, CREATE ON SCHEMA ledger TO half_owner")
    connection.execute("GRANT ALL ON ledger.schema_migrations, ledger.schema_migration_history TO half_owner")
    half = Migrator(make_conninfo(database_url, user="half_owner"), FOUR, projected=PROJECTED)
    with pytest.raises(
        MigrationError, match=r"a step of the migration failed: permission denied for table events; it was"
    ):
        half.up()


def test_down_hands_projected_files_to_the_restore(database_url: str, connection: psycopg.Connection) -> None:
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    migrator.up()
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    with pytest.raises(MigrationError, match=r"it needs the rebuild; run `rebuild-projection positions --rollback`"):
        migrator.down(4)
    seen: list[ProjectedChange] = []

    def restore(change: ProjectedChange) -> None:
        seen.append(change)
        with psycopg.connect(database_url) as swapping, swapping.cursor() as cursor:
            cursor.execute("ALTER TABLE ledger.positions DROP worst, DROP reason")
            migrator.record_rolled_back(cursor, change.files)

    assert [file.number for file in migrator.down(3, restore=restore).files] == [5, 4, 3]
    assert "worst" in seen[0].before.tables["positions"].columns
    assert "worst" not in seen[0].after.tables["positions"].columns
    assert read_catalogue(connection, "ledger") == migrator.targets.catalogue_at(2)


def test_a_database_of_an_older_release_is_read_as_it_is_and_brought_up_to_date(
    database_url: str, connection: psycopg.Connection
) -> None:
    # Given bookkeeping without change sets, reasons and accepted checksums
    Migrator(database_url, FOUR, projected=PROJECTED).up(2)
    connection.execute(
        "ALTER TABLE ledger.schema_migrations DROP change_set, DROP CONSTRAINT schema_migrations_state_check,"
        " ADD CONSTRAINT schema_migrations_state_check CHECK (state IN ('running', 'done', 'reverting'))"
    )
    connection.execute(
        "ALTER TABLE ledger.schema_migration_history DROP reason, DROP old_checksum,"
        " DROP CONSTRAINT schema_migration_history_action_check,"
        " ADD CONSTRAINT schema_migration_history_action_check CHECK (action IN ('start', 'up', 'revert', 'down'))"
    )
    connection.execute("INSERT INTO ledger.events VALUES (1)")
    migrator = Migrator(database_url, FOUR, projected=PROJECTED)
    # When it is only looked at, then it is as it was
    assert [row.state for row in migrator.status().rows] == ["applied"] * 2 + ["pending"] * 4
    # When a change set fails and another is applied, then what they did is written down
    with pytest.raises(MigrationError, match="ended without recording"):
        migrator.up(rebuild=lambda _change: None)
    migrator.up(rebuild=swap_in(database_url, lambda: migrator, [], SWAP))
    assert [row.applied.change_set for row in migrator.status().rows if row.applied] == [None, None, 5, 5, 5, None]
    actions = connection.execute(
        "SELECT action FROM ledger.schema_migration_history WHERE number IN (3, 4) ORDER BY id"
    )
    assert [action for (action,) in actions] == [
        *("expand", "build", "abort", "abort"),
        *("expand", "build", "up", "up"),
    ]
