"""Every way a file fails: one sentence naming file, line, statement and cause, and the database as before (S24)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration import Migrator, read_catalogue
from position_ledger.migration.scratch import scratch_database
from position_ledger.migration.session import Limits, open_session
from position_ledger.migration.trace import Tracer
from tests.support.migration_files import T1, migration

if TYPE_CHECKING:
    import psycopg

SETUP = migration(
    1,
    """
    CREATE TYPE mood AS ENUM ('a');
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE rows (id int PRIMARY KEY, t text, n int, parent int);
    INSERT INTO rows VALUES (1, 'x', NULL, 7), (2, 'x', 5, 7);
    """,
)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            "ALTER TABLE rows ALTER COLUMN t TYPE int USING t::int;",
            r"line 12: .*failed: type mismatch: invalid input syntax",
        ),
        ("ALTER TABLE rows ALTER COLUMN t TYPE int;", r"type mismatch: column \"t\" cannot be cast"),
        (
            "ALTER TABLE rows ALTER COLUMN n SET NOT NULL;",
            r"NOT NULL violation: column \"n\" of relation \"rows\" contains null",
        ),
        ("CREATE UNIQUE INDEX u ON rows (t);", r"unique violation: .* \(Key \(t\)=\(x\) is duplicated"),
        (
            "ALTER TABLE rows ADD FOREIGN KEY (parent) REFERENCES parents;",
            r"foreign key violation: .*Key \(parent\)=\(7\)",
        ),
        ("ALTER TABLE rows ADD CHECK (id > 1);", r"CHECK violation: check constraint"),
        ("CREATE TABLE rows (x int);", r"foreign object in the way: relation \"rows\" already exists"),
        ("VACUUM rows;", r"not allowed in a transaction: .*VACUUM changes no schema: run it by hand"),
        (
            "CREATE INDEX CONCURRENTLY i ON rows (t);",
            r"not allowed in a transaction: CREATE INDEX CONCURRENTLY.*in a file with",
        ),
        (
            "ALTER TYPE mood ADD VALUE 'b';\nSELECT 'b'::mood;",
            r"a new value is used in the transaction that adds it: .*; use it in a later file",
        ),
        (
            "SELECT 1;\n\nSELECT\n  missing FROM rows;",
            r"line 15: 'SELECT missing FROM rows' failed: column \"missing\"",
        ),
        ("SELECT 1/0;", r"failed: division by zero; nothing of this file was kept"),
        (
            (
                "ALTER TABLE rows ADD FOREIGN KEY (parent) REFERENCES parents DEFERRABLE INITIALLY DEFERRED NOT VALID;"
                "INSERT INTO rows VALUES (9, 'z', 1, 99);"
            ),
            r"the deferred constraints failed: foreign key violation: .*Key \(parent\)=\(99\)",
        ),
    ],
)
def test_a_failing_statement_is_named_and_nothing_is_kept(
    database_url: str, connection: psycopg.Connection, forward: str, message: str
) -> None:
    Migrator(database_url, [SETUP]).up()
    before = read_catalogue(connection, "ledger")
    bad = migration(2, f"CREATE TABLE earlier (x int);\n{forward}")
    with pytest.raises(
        MigrationError, match=rf"^002_step.sql line \d+: .*{message}" if "line" not in message else message
    ):
        Migrator(database_url, [SETUP, bad]).up()
    assert read_catalogue(connection, "ledger") == before
    assert connection.execute("SELECT max(number) FROM ledger.schema_migrations").fetchone() == (1,)


@pytest.mark.parametrize(
    ("verify", "returned"),
    [
        ("SELECT false;", r"\(False,\)"),
        ("SELECT NULL::boolean;", r"\(None,\)"),
        ("SELECT 1;", r"\(1,\)"),
        ("SELECT 't';", r"\('t',\)"),
        ("SELECT true, true;", r"\(True, True\)"),
        ("SELECT true FROM generate_series(1, 2);", r"2 rows, \(True,\); \(True,\)"),
        ("SELECT true WHERE false;", "no row"),
        ("SELECT true;\nSELECT to_regclass('ledger.nothing') IS NOT NULL;", r"\(False,\)"),
    ],
)
def test_a_verification_that_is_not_one_true_fails_the_migration(
    database_url: str, connection: psycopg.Connection, verify: str, returned: str
) -> None:
    """S18, S19."""
    with pytest.raises(
        MigrationError, match=rf"001_step.sql line \d+: the verification .* returned {returned} instead of"
    ):
        Migrator(database_url, [migration(1, "CREATE TABLE a (x int);", verify)]).up()
    assert connection.execute("SELECT to_regclass('ledger.a')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("verify", "returned"),
    [
        ("-- expect: 2 rows\nSELECT 7 FROM generate_series(1, 3);", r"3 rows, \(7,\); \(7,\) instead of 2 rows"),
        ("-- expect: no rows\nSELECT 7;", r"\(7,\) instead of no row"),
        ("-- expect: 'bigint'\nSELECT 'integer';", r"\('integer',\) instead of one row with the one value 'bigint'"),
        (
            "-- expect: '2026-01-31'\nSELECT date '2026-01-31';",
            r".* instead of one row with the one value '2026-01-31'; nothing of this file was kept; cast the value to text",
        ),
    ],
)
def test_a_verification_that_does_not_return_what_it_declares_fails_the_migration(
    database_url: str, connection: psycopg.Connection, verify: str, returned: str
) -> None:
    """S18, S19: declared by `-- expect:`."""
    with pytest.raises(MigrationError, match=rf"001_step.sql line 15: the verification .* returned {returned}"):
        Migrator(database_url, [migration(1, "CREATE TABLE a (x int);", verify)]).up()
    assert connection.execute("SELECT to_regclass('ledger.a')").fetchone() == (None,)


def test_what_the_server_returns_meets_what_is_declared(database_url: str) -> None:
    """Types as they come from the server: bigint, numeric, a domain over varchar, and an enum as text."""
    verify = """
    -- expect: 3 rows
    SELECT x FROM a;
    -- expect: 3
    SELECT count(*) FROM a;
    -- expect: 6.50
    SELECT sum(y) FROM a;
    -- expect: 'bigint'
    SELECT data_type FROM information_schema.columns WHERE table_name = 'a' AND column_name = 'x';
    -- expect: 'NO'
    SELECT is_nullable FROM information_schema.columns WHERE table_name = 'a' AND column_name = 'x';
    -- expect: 'open'
    SELECT 'open'::s::text;
    -- expect: no rows
    SELECT x FROM a WHERE y IS NULL;
    """
    forward = (
        "CREATE TYPE s AS ENUM ('open'); CREATE TABLE a (x bigint NOT NULL, y numeric(9,2));"
        "INSERT INTO a VALUES (1, 1.25), (2, 2), (3, 3.25);"
    )
    assert len(Migrator(database_url, [migration(1, forward, verify)]).up().files) == 1


def test_a_verification_may_not_write(database_url: str, connection: psycopg.Connection) -> None:
    repairing = migration(
        1,
        "CREATE TABLE a (x int);",
        "WITH repair AS (INSERT INTO a VALUES (1) RETURNING x) SELECT count(*) = 1 FROM repair;",
    )
    with pytest.raises(MigrationError, match=r"line 14: the verification 'WITH repair.*' writes; it may only read"):
        Migrator(database_url, [repairing]).up()
    assert connection.execute("SELECT to_regclass('ledger.a')").fetchone() == (None,)


def test_a_rollback_that_fails_names_the_command_that_rolls_back(
    database_url: str, connection: psycopg.Connection
) -> None:
    """S60: and everything is as before it."""
    migrator = Migrator(
        database_url, [T1, migration(2, "CREATE TABLE a (x int);", rollback="DROP TABLE a; SELECT 1/0;")]
    )
    migrator.up()
    before = read_catalogue(connection, "ledger")
    with pytest.raises(
        MigrationError, match=r"failed: division by zero; .* then run `position-ledger migrate down 002` again"
    ):
        migrator.down(2)
    assert read_catalogue(connection, "ledger") == before
    assert migrator.status().is_current


def test_files_before_the_failing_one_stay(database_url: str) -> None:
    migrator = Migrator(database_url, [T1, migration(2, "SELECT 1/0;")])
    with pytest.raises(MigrationError, match=r"002_step.sql"):
        migrator.up()
    assert [row.state for row in migrator.status().rows] == ["applied", "pending"]


def test_settings_of_one_file_do_not_reach_the_next(database_url: str, connection: psycopg.Connection) -> None:
    leaves = "SELECT set_config('search_path', current_schema() || ', public', false); SET default_transaction_read_only = on;"
    careless = migration(1, f"CREATE TABLE a (x int); {leaves}")
    following = migration(2, "CREATE TABLE b (x int);")
    Migrator(database_url, [careless, following]).up()
    assert connection.execute("SELECT to_regclass('ledger.b')::text").fetchone() == ("ledger.b",)


def test_two_statements_that_look_like_one_are_refused_by_the_server(database_url: str) -> None:
    """Were the lexer ever wrong, the extended protocol still takes one statement only."""
    merged = replace(T1.forward.statements[0], text="SELECT 1; COMMIT")
    wrong = replace(T1, forward=replace(T1.forward, statements=(merged,)))
    with pytest.raises(MigrationError, match=r"cannot insert multiple commands into a prepared statement"):
        Migrator(database_url, [wrong]).up()


@pytest.mark.parametrize("section", ["forward", "rollback"])
def test_what_would_land_in_another_schema_is_refused_and_not_kept(
    database_url: str, connection: psycopg.Connection, section: str
) -> None:
    """D8: no text shows what a block of code sets, so the runner looks where new things would land after it."""
    hidden = "DO $$ BEGIN PERFORM set_config('search_path', 'public', true); END $$; CREATE TABLE stray (x int);"
    sections = {"forward": "CREATE TABLE a (x int);", "rollback": "DROP TABLE a;", section: hidden}
    migrator = Migrator(database_url, [migration(1, sections["forward"], rollback=sections["rollback"])])
    with pytest.raises(
        MigrationError, match=r"^001_step.sql: .* lands in schema public instead of ledger, where nobody"
    ):
        migrator.up()
        migrator.down(1)
    assert connection.execute("SELECT to_regclass('public.stray')").fetchone() == (None,)
    assert migrator.status().rows[0].state == ("pending" if section == "forward" else "applied")


def test_a_refusal_of_a_trigger_is_no_missing_right(database_url: str) -> None:
    """D11: nobody has the right that the SQLSTATE of our own triggers speaks of."""
    keeps = migration(
        1,
        """
        CREATE TABLE kept (x int);
        INSERT INTO kept VALUES (1);
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'rows of kept stay' USING ERRCODE = 'insufficient_privilege'; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION keep();
        """,
    )
    with pytest.raises(
        MigrationError, match="failed: refused: rows of kept stay; .*; leave the statement out"
    ) as caught:
        Migrator(database_url, [keeps, migration(2, "DELETE FROM kept;")]).up()
    assert "owner" not in str(caught.value)


ROLES = {
    "statement": ("CREATE ROLE {role} NOLOGIN;", "DROP ROLE {role};"),
    "user": ("CREATE USER {role};", "DROP USER {role};"),
    "block": ("DO $$ BEGIN CREATE ROLE {role}; END $$;", "DO $$ BEGIN DROP ROLE {role}; END $$;"),
    "guarded": (
        "DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;",
        "DROP ROLE {role};",
    ),
}


@pytest.mark.parametrize("how", ROLES)
def test_a_role_that_a_file_made_stays_in_no_replays_way(
    database_url: str, connection: psycopg.Connection, how: str
) -> None:
    """D3: roles belong to the cluster, so every replay meets those that the applied files made."""
    role = f"desk_{how}_{connection.info.server_version}"
    make, drop = (text.format(role=role) for text in ROLES[how])
    files = [
        migration(1, "CREATE TABLE a (x int);", rollback="DROP TABLE a;"),
        migration(2, f"{make} GRANT SELECT ON a TO {role};", rollback=f"REVOKE SELECT ON a FROM {role}; {drop}"),
        migration(3, "CREATE TABLE b (x int);", rollback="DROP TABLE b;"),
    ]
    facts = f"SELECT oid, rolname FROM pg_roles WHERE rolname = '{role}'"
    Migrator(database_url, files[:2]).up()
    before = connection.execute(facts.encode()).fetchall()

    migrator = Migrator(database_url, files, projected=["positions"])
    effects = migrator.targets.effects([2, 3])
    assert [effect.is_elsewhere for effect in effects] == [True, True]
    assert migrator.targets.lasting([2, 3]) == {}
    migrator.up()
    assert migrator.differences() == []
    migrator.down(3)
    assert connection.execute(facts.encode()).fetchall() == before

    with scratch_database(database_url, Limits()) as scratch, open_session(scratch, Limits()) as session:
        tracer = Tracer(session, "ledger")
        tracer.replay(files[:1])
        tracer.begin(files[1:2])
        again = tracer.trace(files[1], is_new=False)
    assert (again.failure, again.rollback.state) == (None, "proven"), again.rollback
    assert connection.execute(facts.encode()).fetchall() == before

    migrator.down(2)
    assert connection.execute(facts.encode()).fetchall() == []


def test_a_plan_of_what_changes_a_role_leaves_it_alone(database_url: str, connection: psycopg.Connection) -> None:
    """D3: a password is in no view that anybody may read, so the lock on the roles tells that one was changed."""
    role = f"desk_alone_{connection.info.server_version}"
    connection.execute(f"CREATE ROLE {role} PASSWORD 'a'".encode())
    facts = f"SELECT a FROM pg_authid AS a WHERE rolname = '{role}'"
    before = connection.execute(facts.encode()).fetchall()
    changes = migration(1, f"ALTER ROLE {role} PASSWORD 'b';", rollback=f"ALTER ROLE {role} PASSWORD 'a';")
    makes = migration(2, f"CREATE ROLE {role};", rollback=f"DROP ROLE {role};")
    with scratch_database(database_url, Limits()) as scratch, open_session(scratch, Limits()) as session:
        tracer = Tracer(session, "ledger")
        tracer.begin([changes, makes])
        assert tracer.trace(changes).failure is None
        assert tracer.is_held
        refused = tracer.trace(makes)
    assert refused.failure is not None
    assert f'role "{role}" already exists' in refused.failure.cause, "as `up` would find it"
    assert connection.execute(facts.encode()).fetchall() == before
    connection.execute(f"DROP ROLE {role}".encode())
