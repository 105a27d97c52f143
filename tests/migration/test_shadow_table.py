"""A table made again from its catalogue equals the table it was read from, and what hangs on a live one is found."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from position_ledger.errors import MigrationError
from position_ledger.migration import (
    attached_to,
    create_table,
    diff,
    finish_table,
    read_catalogue,
    read_table,
    shadow_path,
    unfit_for_projection,
)

EVERYTHING = """
CREATE SCHEMA ledger;
SET search_path = ledger, pg_catalog;
CREATE TABLE strategies (id bigint PRIMARY KEY);
CREATE TYPE side AS ENUM ('YES', 'NO');
CREATE DOMAIN price AS numeric(10, 4) CHECK (VALUE >= 0);
CREATE FUNCTION is_fine(bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE positions (
    id bigint PRIMARY KEY,
    position_id text COLLATE "C" NOT NULL,
    strategy bigint CONSTRAINT to_strategy REFERENCES strategies DEFERRABLE INITIALLY DEFERRED,
    "Side" side NOT NULL DEFAULT 'YES',
    price price,
    quantity bigint NOT NULL DEFAULT 0 CHECK (quantity >= 0) CHECK (is_fine(quantity + 1)),
    twice bigint GENERATED ALWAYS AS (quantity * 2) STORED,
    note text COMPRESSION pglz,
    row_current_ind boolean NOT NULL,
    effective tstzrange,
    made_at timestamptz(3),
    version int NOT NULL,
    CONSTRAINT one_version UNIQUE (position_id, version) WITH (fillfactor = 80),
    CONSTRAINT "no OVERLAP" EXCLUDE USING gist (effective WITH &&) WITH (fillfactor = 60) DEFERRABLE,
    CONSTRAINT put_off UNIQUE NULLS NOT DISTINCT (note) INCLUDE (version) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false);
ALTER TABLE positions ADD CONSTRAINT later CHECK (version > 0) NOT VALID;
CREATE UNIQUE INDEX one_current ON positions (position_id) WHERE row_current_ind;
CREATE INDEX by_length ON positions (lower(note) DESC NULLS LAST, (quantity + version)) INCLUDE (price)
    WITH (fillfactor = 70);
ALTER INDEX by_length ALTER COLUMN 2 SET STATISTICS 300;
CREATE STATISTICS together (dependencies) ON position_id, strategy FROM positions;
ALTER TABLE positions ALTER COLUMN note SET STORAGE EXTERNAL, ALTER COLUMN strategy SET STATISTICS 500,
    ALTER COLUMN strategy SET (n_distinct = 20);
CREATE TRIGGER looks AFTER UPDATE OF quantity ON positions FOR EACH ROW WHEN (new.quantity > 5)
    EXECUTE FUNCTION look('a');
CREATE TRIGGER sleeps AFTER INSERT ON positions EXECUTE FUNCTION look();
ALTER TABLE positions DISABLE TRIGGER sleeps;
CREATE CONSTRAINT TRIGGER always AFTER INSERT ON positions DEFERRABLE FOR EACH ROW EXECUTE FUNCTION look();
ALTER TABLE positions ENABLE ALWAYS TRIGGER always;
COMMENT ON TABLE positions IS 'It''s the "table"';
COMMENT ON COLUMN positions."Side" IS 'YES or NO';
COMMENT ON CONSTRAINT one_version ON positions IS 'one each';
COMMENT ON INDEX one_current IS 'one current';
COMMENT ON TRIGGER looks ON positions IS 'looks';
GRANT SELECT ON positions TO pg_monitor WITH GRANT OPTION;
GRANT INSERT, UPDATE ON positions TO pg_read_all_data;
GRANT SELECT (note) ON positions TO PUBLIC;
REVOKE TRUNCATE ON positions FROM CURRENT_USER;
RESET search_path;
"""


def make_shadow(connection: psycopg.Connection, table_name: str = "positions") -> None:
    table = read_table(connection, "ledger", table_name)
    with connection.transaction():
        connection.execute("CREATE SCHEMA shadow")
        connection.execute(shadow_path("shadow", "ledger"))
        connection.execute(create_table(table, "shadow"))
        for statement in finish_table(table, "shadow"):
            connection.execute(statement)


def test_a_shadow_equals_its_original_in_everything(connection: psycopg.Connection) -> None:
    connection.execute(EVERYTHING.encode())
    make_shadow(connection)
    original = read_table(connection, "ledger", "positions")
    shadow = read_table(connection, "shadow", "positions", beside="ledger")
    assert diff(original, shadow) == []
    assert shadow == original
    assert list(shadow.columns) == list(original.columns)


def test_a_load_is_held_to_the_checks_that_every_row_keeps(connection: psycopg.Connection) -> None:
    """And to no other: of one that is NOT VALID nobody knows whether the rows that are there keep it."""
    connection.execute(
        "CREATE SCHEMA ledger; CREATE SCHEMA shadow;"
        " CREATE TABLE ledger.t (a int CONSTRAINT positive CHECK (a > 0), b int);"
        " ALTER TABLE ledger.t ADD CONSTRAINT later CHECK (b > 0) NOT VALID"
    )
    table = read_table(connection, "ledger", "t")
    connection.execute(create_table(table, "shadow"))
    connection.execute("INSERT INTO shadow.t VALUES (1, -1)")
    with pytest.raises(psycopg.errors.CheckViolation, match="positive"):
        connection.execute("INSERT INTO shadow.t VALUES (-1, 1)")
    for statement in finish_table(table, "shadow"):
        connection.execute(statement)
    assert read_table(connection, "shadow", "t", beside="ledger") == table


def test_what_an_older_release_made_without_checks_gets_them_at_the_end(connection: psycopg.Connection) -> None:
    connection.execute(EVERYTHING.encode())
    table = read_table(connection, "ledger", "positions")
    with connection.transaction():
        connection.execute("CREATE SCHEMA shadow")
        connection.execute(shadow_path("shadow", "ledger"))
        connection.execute(create_table(table, "shadow"))
        made = list(read_table(connection, "shadow", "positions", beside="ledger").constraints)
        checks = [name for name in made if table.constraints[name].kind == "c"]
        assert checks
        for name in checks:
            connection.execute(f'ALTER TABLE shadow.positions DROP CONSTRAINT "{name}"'.encode())
        for statement in finish_table(table, "shadow", checks=()):
            connection.execute(statement)
    assert read_table(connection, "shadow", "positions", beside="ledger") == table


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE shadow.positions ALTER quantity DROP NOT NULL",
        "ALTER TABLE shadow.positions ALTER quantity DROP DEFAULT",
        "ALTER TABLE shadow.positions ALTER version TYPE bigint",
        'ALTER TABLE shadow.positions ALTER note TYPE text COLLATE "C"',
        "ALTER TABLE shadow.positions ALTER strategy SET STATISTICS 501",
        "ALTER TABLE shadow.positions ALTER note SET STORAGE EXTENDED",
        "ALTER TABLE shadow.positions SET (fillfactor = 91)",
        "ALTER TABLE shadow.positions DROP CONSTRAINT later",
        "ALTER TABLE shadow.positions RENAME CONSTRAINT later TO sooner",
        "ALTER TABLE shadow.positions DISABLE TRIGGER looks",
        "ALTER INDEX shadow.one_current RENAME TO one",
        "ALTER TABLE shadow.positions ADD extra int",
        "ALTER TABLE shadow.positions RENAME COLUMN note TO notes",
        "DROP STATISTICS shadow.together",
        "DROP TRIGGER looks ON shadow.positions",
        "COMMENT ON COLUMN shadow.positions.\"Side\" IS 'other'",
        "COMMENT ON TRIGGER looks ON shadow.positions IS NULL",
        "GRANT DELETE ON shadow.positions TO pg_monitor",
        "REVOKE GRANT OPTION FOR SELECT ON shadow.positions FROM pg_monitor",
        "REVOKE SELECT (note) ON shadow.positions FROM PUBLIC",
        "GRANT TRUNCATE ON shadow.positions TO CURRENT_USER",
        "ALTER TABLE shadow.positions ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE shadow.positions REPLICA IDENTITY FULL",
    ],
)
def test_each_kind_of_difference_is_seen(connection: psycopg.Connection, change: str) -> None:
    connection.execute(EVERYTHING.encode())
    make_shadow(connection)
    connection.execute(change.encode())
    original = read_table(connection, "ledger", "positions")
    changed = read_table(connection, "shadow", "positions", beside="ledger")
    assert changed != original
    assert diff(original, changed)


def test_a_dropped_and_added_column_is_no_difference(connection: psycopg.Connection) -> None:
    """Keyed by name, never by column number."""
    connection.execute(EVERYTHING.encode())
    before = read_catalogue(connection, "ledger")
    connection.execute("ALTER TABLE ledger.positions ADD a int, ADD b int")
    connection.execute("ALTER TABLE ledger.positions DROP a, DROP b, DROP made_at, ADD made_at timestamptz(3)")
    assert diff(before, read_catalogue(connection, "ledger")) == []


@pytest.mark.parametrize(
    ("definition", "feature"),
    [
        ("CREATE TABLE ledger.t (id bigint GENERATED ALWAYS AS IDENTITY)", "identity column id"),
        ("CREATE UNLOGGED TABLE ledger.t (id bigint)", "not being logged"),
        ("CREATE TABLE ledger.t (id bigint) PARTITION BY RANGE (id)", "partitioning"),
        ("CREATE TABLE ledger.t (id bigint); CREATE TABLE ledger.u () INHERITS (ledger.t)", "inheritance"),
        ("CREATE TABLE ledger.t (id bigint); ALTER TABLE ledger.t ENABLE ROW LEVEL SECURITY", "row level security"),
        ("CREATE TABLE ledger.t (id bigint); CREATE RULE r AS ON DELETE TO ledger.t DO INSTEAD NOTHING", "rule r"),
    ],
)
def test_what_cannot_be_made_again_is_refused(connection: psycopg.Connection, definition: str, feature: str) -> None:
    connection.execute(f"CREATE SCHEMA ledger; {definition}".encode())
    table = read_table(connection, "ledger", "t")
    with pytest.raises(MigrationError, match=f"table t cannot be made again beside itself: it has .*{feature}"):
        create_table(table, "shadow")


def test_defaults_that_a_replay_would_not_repeat_are_named(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE SCHEMA ledger; CREATE TABLE ledger.t (a int DEFAULT 1 + 2, b text DEFAULT upper('x'),"
        " c timestamptz DEFAULT now(), d timestamptz DEFAULT CURRENT_TIMESTAMP, e uuid DEFAULT gen_random_uuid(),"
        " f bigserial, g date DEFAULT '2026-01-01', h int GENERATED ALWAYS AS (a + 1) STORED)"
    )
    reasons = unfit_for_projection(read_table(connection, "ledger", "t"))
    assert [reason.split()[1] for reason in reasons] == ["c", "d", "e", "f"]


def test_what_only_newer_servers_have_is_made_again_too(connection: psycopg.Connection) -> None:
    if connection.info.server_version < 180000:
        pytest.skip("virtual columns, temporal keys and NOT NULL NOT VALID came with PostgreSQL 18")
    connection.execute(
        "CREATE SCHEMA ledger; CREATE EXTENSION btree_gist;"
        " CREATE TABLE ledger.positions (id bigint, valid_at tstzrange, a int,"
        " b int GENERATED ALWAYS AS (a + 1) VIRTUAL,"
        " PRIMARY KEY (id, valid_at WITHOUT OVERLAPS) WITH (fillfactor = 60));"
        " ALTER TABLE ledger.positions ADD CONSTRAINT a_given NOT NULL a NOT VALID"
    )
    make_shadow(connection)
    original = read_table(connection, "ledger", "positions")
    assert (original.columns["a"].not_null, original.columns["id"].not_null) == (False, True)
    assert original.constraints["a_given"].definition == "NOT NULL a NOT VALID"
    assert read_table(connection, "shadow", "positions", beside="ledger") == original


def test_what_hangs_on_a_live_table_is_found(connection: psycopg.Connection) -> None:
    connection.execute(EVERYTHING.encode())
    target = read_table(connection, "ledger", "positions")
    connection.execute(
        """
        CREATE SCHEMA team;
        CREATE TABLE team.notes (position bigint CONSTRAINT to_position REFERENCES ledger.positions ON DELETE CASCADE);
        ALTER TABLE team.notes ADD CONSTRAINT later FOREIGN KEY (position) REFERENCES ledger.positions NOT VALID;
        CREATE VIEW ledger.current_positions AS SELECT id, note FROM ledger.positions WHERE row_current_ind;
        CREATE VIEW team.notes_of AS SELECT note FROM ledger.current_positions;
        CREATE MATERIALIZED VIEW team.totals AS SELECT count(*) AS n FROM ledger.positions;
        CREATE FUNCTION team.count_all() RETURNS bigint LANGUAGE sql
            BEGIN ATOMIC SELECT count(*) FROM ledger.positions; END;
        CREATE FUNCTION team.of(ledger.positions) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE TABLE team.kept (old ledger.positions);
        CREATE RULE to_log AS ON INSERT TO team.kept DO ALSO SELECT count(*) FROM ledger.positions;
        CREATE PUBLICATION some_rows FOR TABLE ledger.positions (id, note) WHERE (id > 5);
        CREATE PUBLICATION every FOR ALL TABLES;
        CREATE PUBLICATION in_schema FOR TABLES IN SCHEMA ledger;
        CREATE TRIGGER by_hand AFTER DELETE ON ledger.positions EXECUTE FUNCTION ledger.look();
        CREATE INDEX hand_made ON ledger.positions (version);
        GRANT DELETE ON ledger.positions TO pg_monitor;
        GRANT UPDATE (note) ON ledger.positions TO pg_monitor;
        """
    )
    found = attached_to(connection, "ledger", "positions", target)
    assert [(key.schema, key.table, key.name, key.validated) for key in found.foreign_keys] == [
        ("team", "notes", "later", False),
        ("team", "notes", "to_position", True),
    ]
    assert (
        found.foreign_keys[1].definition == 'FOREIGN KEY ("position") REFERENCES ledger.positions(id) ON DELETE CASCADE'
    )
    assert [(view.schema, view.name, view.materialized, view.depth) for view in found.views] == [
        ("ledger", "current_positions", False, 1),
        ("team", "totals", True, 1),
        ("team", "notes_of", False, 2),
    ]
    assert "FROM ledger.positions" in found.views[0].definition
    assert [(each.signature, each.reason) for each in found.functions] == [
        ("count_all()", "body"),
        ("of(ledger.positions)", "row type"),
    ]
    assert [(rule.relation, rule.name) for rule in found.rules] == [("kept", "to_log")]
    assert [(each.name, each.scope, each.columns, each.row_filter) for each in found.publications] == [
        ("every", "all", (), None),
        ("in_schema", "schema", (), None),
        ("some_rows", "table", ("id", "note"), "(id > 5)"),
    ]
    assert [(each.relation, each.column) for each in found.row_type_columns] == [("kept", "old")]
    assert found.extra_triggers == ("by_hand",)
    assert found.extra_indexes == ("hand_made",)
    assert [str(grant) for grant in found.extra_grants] == ["DELETE to pg_monitor"]
    assert [(name, str(grant)) for name, grant in found.extra_column_grants] == [("note", "UPDATE to pg_monitor")]
    assert found.live.owner == "admin"
    assert replace(found.live) == found.live


def test_a_table_that_is_not_there_is_named(connection: psycopg.Connection) -> None:
    with pytest.raises(MigrationError, match=r"there is no table ledger.positions; apply the migrations first"):
        attached_to(connection, "ledger", "positions")


def test_reading_leaves_the_search_path_alone(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA ledger")
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL search_path = public"))
        read_catalogue(connection, "ledger")
        assert connection.execute("SHOW search_path").fetchone() == ("public",)
