"""What somebody attached to a projected table goes along with a swap, or is named before anything happens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import Ledger
from position_ledger.errors import SwapBlocked
from position_ledger.operations.common import migrator_of
from position_ledger.projection.swap import movable
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.rebuilding import execute, left_over, rebuild, roll_back

if TYPE_CHECKING:
    from position_ledger.migration.catalogue import Catalogue
    from position_ledger.settings import Settings


@pytest.fixture
def history(settings: Settings, ledger: Ledger) -> Traffic:
    """A projected history."""
    traffic = Traffic(ledger, 11)
    traffic.run(60)
    engine.project_all(settings)
    return traffic


ROLES = """
DO $$ BEGIN CREATE ROLE engine_analyst; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE engine_second; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE engine_late; EXCEPTION WHEN duplicate_object THEN NULL; END $$
"""
KEYS = """
CREATE SCHEMA team;
CREATE TABLE team.notes (row_id bigint REFERENCES positions (id) ON DELETE RESTRICT, note text);
CREATE TABLE team.versions (position_id text, version bigint,
    CONSTRAINT full_match FOREIGN KEY (position_id, version) REFERENCES positions (position_id, version) MATCH FULL);
CREATE TABLE team.kinds (
    a bigint CONSTRAINT cascades REFERENCES positions (id) ON DELETE CASCADE ON UPDATE CASCADE,
    b bigint CONSTRAINT sets_null REFERENCES positions (id) ON DELETE SET NULL ON UPDATE SET NULL,
    c bigint DEFAULT NULL CONSTRAINT sets_default REFERENCES positions (id) ON DELETE SET DEFAULT,
    d bigint CONSTRAINT deferred REFERENCES positions (id) DEFERRABLE INITIALLY DEFERRED,
    e bigint CONSTRAINT at_will REFERENCES positions (id) DEFERRABLE INITIALLY IMMEDIATE,
    f bigint, g text, h bigint);
ALTER TABLE team.kinds ADD CONSTRAINT not_looked_at FOREIGN KEY (f) REFERENCES positions (id) NOT VALID;
ALTER TABLE team.kinds ADD CONSTRAINT one_of_two FOREIGN KEY (g, h) REFERENCES positions (position_id, version)
    ON DELETE SET NULL (h);
INSERT INTO team.notes SELECT id, 'seen' FROM positions;
INSERT INTO team.versions SELECT position_id, version FROM positions;
INSERT INTO team.kinds SELECT id, id, id, id, id, id, position_id, version FROM positions;
COMMENT ON CONSTRAINT cascades ON team.kinds IS 'goes with its row'
"""
KEYS_18 = """
CREATE TABLE team.parts (row_id bigint REFERENCES positions (id)) PARTITION BY RANGE (row_id);
CREATE TABLE team.part PARTITION OF team.parts DEFAULT;
INSERT INTO team.parts SELECT id FROM positions;
ALTER TABLE team.kinds ADD CONSTRAINT not_enforced FOREIGN KEY (f) REFERENCES positions (id) NOT ENFORCED
"""
VIEWS = """
CREATE VIEW team.big WITH (security_barrier = true) AS SELECT id, quantity FROM positions WHERE quantity > 3;
CREATE VIEW team.bigger AS SELECT id FROM team.big WHERE quantity > 5;
CREATE VIEW team.checked WITH (security_invoker = true) AS SELECT id, account_id FROM positions WHERE id > 0
    WITH CASCADED CHECK OPTION;
COMMENT ON VIEW team.big IS 'big ones';
COMMENT ON COLUMN team.big.quantity IS 'how big';
ALTER VIEW team.checked ALTER COLUMN account_id SET DEFAULT 'main';
ALTER VIEW team.bigger OWNER TO engine_second
"""
RIGHTS = """
GRANT SELECT ON positions TO engine_analyst WITH GRANT OPTION;
GRANT SELECT ON positions TO engine_second;
GRANT UPDATE (exit_reason) ON positions TO engine_analyst WITH GRANT OPTION;
GRANT UPDATE (exit_reason), SELECT (quantity) ON positions TO engine_second;
GRANT SELECT ON team.big TO engine_analyst;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO engine_late
"""
TRIGGERS = """
CREATE FUNCTION team.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER users_own AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION team.tell();
CREATE TRIGGER users_off AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION team.tell();
CREATE TRIGGER users_replica AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION team.tell();
CREATE TRIGGER users_always AFTER UPDATE OF quantity ON positions FOR EACH ROW WHEN (NEW.quantity > 5)
    EXECUTE FUNCTION team.tell();
CREATE CONSTRAINT TRIGGER users_deferred AFTER INSERT ON positions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION team.tell();
ALTER TABLE positions DISABLE TRIGGER users_off;
ALTER TABLE positions ENABLE REPLICA TRIGGER users_replica;
ALTER TABLE positions ENABLE ALWAYS TRIGGER users_always;
COMMENT ON TRIGGER users_own ON positions IS 'the team''s'
"""
SETTINGS = """
CREATE PUBLICATION users_feed FOR TABLE positions (id, position_id, quantity) WHERE (id > 5);
CREATE PUBLICATION users_plain FOR TABLE positions, events;
CREATE PUBLICATION users_schema FOR TABLES IN SCHEMA ledger;
ALTER TABLE positions REPLICA IDENTITY USING INDEX positions_pkey;
ALTER TABLE positions CLUSTER ON positions_known_at;
COMMENT ON TABLE positions IS 'the team''s own words';
COMMENT ON COLUMN positions.quantity IS 'open, in pieces';
COMMENT ON INDEX positions_known_at IS 'for the desk';
COMMENT ON CONSTRAINT positions_side ON positions IS 'four sides';
COMMENT ON CONSTRAINT positions_pkey ON positions IS 'the key';
COMMENT ON TRIGGER history_is_kept ON positions IS 'really';
ALTER TABLE positions SET (fillfactor = 90, parallel_workers = 3, toast.autovacuum_vacuum_threshold = 77);
ALTER TABLE positions ALTER COLUMN account_id SET STATISTICS 250;
ALTER TABLE positions ALTER COLUMN account_id SET (n_distinct = -0.5);
ALTER TABLE positions ALTER COLUMN position_metadata SET STORAGE EXTERNAL;
ALTER TABLE positions ALTER COLUMN position_metadata SET COMPRESSION pglz;
ALTER INDEX positions_known_at SET (fillfactor = 70)
"""


def test_everything_that_hangs_on_the_table_goes_along(
    settings: Settings, history: Traffic, postgres_major: int
) -> None:
    # Given all that a user can attach to the table and a swap can move
    newest = [KEYS_18] if postgres_major >= 18 else []
    execute(settings, ROLES, KEYS, *newest, VIEWS, RIGHTS, TRIGGERS, SETTINGS)
    before = hanging(settings)
    # When the table is swapped, and back
    rebuild(settings)
    # Then all of it is as it was, on the new table
    assert hanging(settings) == before
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        execute(settings, "INSERT INTO team.notes VALUES (999999, 'no such row')")
    # and the retired one, which old workers keep current, sets off none of the user's triggers
    assert users_triggers_of(settings, "retired") == []
    history.run(10)
    engine.project_all(settings)
    execute(settings, "INSERT INTO team.notes SELECT max(id), 'new' FROM positions")
    roll_back(settings)
    assert hanging(settings) == before
    assert left_over(settings) == ["unvalidated not_enforced"] * len(newest) + ["unvalidated not_looked_at"]
    engine.proven(settings)


def users_triggers_of(settings: Settings, state: str) -> list[str]:
    with engine.connected(settings, as_app=False) as owner:
        rows = owner.execute(
            "SELECT t.tgname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN projection_generations AS g ON g.schema_name = n.nspname"
            " WHERE g.state = %s AND t.tgname LIKE 'users%%' ORDER BY 1",
            (state,),
        ).fetchall()
    return [row[0] for row in rows]


LIVE = "'ledger.positions'::regclass"
HANGING = {
    "keys": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, condeferrable, condeferred,"
    f" obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'f' AND confrelid = {LIVE} ORDER BY 1, 2",
    "views": "SELECT c.relname, pg_get_viewdef(c.oid), c.reloptions, c.relacl::text, c.relowner::regrole::text,"
    " obj_description(c.oid, 'pg_class') FROM pg_class AS c"
    " WHERE c.relkind = 'v' AND c.relnamespace IN ('ledger'::regnamespace, 'team'::regnamespace) ORDER BY 1",
    "view columns": "SELECT c.relname, a.attname, col_description(c.oid, a.attnum), pg_get_expr(d.adbin, d.adrelid)"
    " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
    " LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum"
    " WHERE c.relkind = 'v' AND c.relnamespace = 'team'::regnamespace ORDER BY 1, 2",
    "view tables": "SELECT DISTINCT r.ev_class::regclass::text, d.refobjid::regclass::text FROM pg_depend AS d"
    " JOIN pg_rewrite AS r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid IN"
    " (SELECT oid FROM pg_class WHERE relname = 'positions') ORDER BY 1",
    "grants": "SELECT privilege_type, grantee, is_grantable FROM information_schema.table_privileges"
    " WHERE table_schema = 'ledger' AND table_name = 'positions' ORDER BY 1, 2",
    "column grants": "SELECT column_name, privilege_type, grantee, is_grantable FROM information_schema.column_privileges"
    " WHERE table_schema = 'ledger' AND table_name = 'positions' AND grantee LIKE 'engine%' ORDER BY 1, 2, 3",
    "triggers": "SELECT tgname, pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger') FROM pg_trigger"
    f" WHERE tgrelid = {LIVE} AND NOT tgisinternal ORDER BY 1",
    "publications": "SELECT pubname, attnames::text, rowfilter FROM pg_publication_tables WHERE tablename = 'positions'"
    " ORDER BY 1",
    "comments": f"SELECT objsubid, description FROM pg_description WHERE objoid = {LIVE} ORDER BY 1",
    "settings": "SELECT c.reloptions, c.relowner::regrole::text, c.relreplident, t.reloptions FROM pg_class AS c"
    f" LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid WHERE c.oid = {LIVE}",
    "columns": "SELECT attname, attstattarget, attoptions, attstorage, attcompression FROM pg_attribute"
    f" WHERE attrelid = {LIVE} AND attnum > 0 ORDER BY attnum",
    "indexes": "SELECT pg_get_indexdef(i.oid), i.reloptions, x.indisclustered, x.indisreplident,"
    " obj_description(i.oid, 'pg_class') FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid"
    f" WHERE x.indrelid = {LIVE} ORDER BY 1",
    "constraints": "SELECT conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint')"
    f" FROM pg_constraint WHERE conrelid = {LIVE} ORDER BY 1",
}


def hanging(settings: Settings) -> dict[str, Any]:
    """What the catalogue says about the live table, by kind, without anything that names an oid."""
    with engine.connected(settings, as_app=False) as owner:
        return {kind: owner.execute(query.encode()).fetchall() for kind, query in HANGING.items()}


BLOCKERS = {
    "CREATE MATERIALIZED VIEW users_summary AS SELECT count(*) FROM positions": "materialized view ledger.users_summary",
    "CREATE VIEW v AS SELECT id FROM positions; CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM v": "view ledger.m ",
    "CREATE FUNCTION users_count() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM positions; END": (
        r"function ledger.users_count\(\) is bound to its body \(drop it"
    ),
    "CREATE FUNCTION f(positions) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'": "function .* bound to its row type",
    "CREATE RULE users_rule AS ON INSERT TO positions WHERE false DO INSTEAD NOTHING": "rule users_rule on ledger.positions",
    "CREATE INDEX users_index ON positions (account_id)": "index users_index is not in the migrations",
    "ALTER TABLE positions ADD CONSTRAINT users_check CHECK (quantity < 1000000)": "constraint users_check is not in the",
    "ALTER TABLE positions ADD FOREIGN KEY (id) REFERENCES positions (id)": "constraint .* is not in the migrations",
    "CREATE STATISTICS users_statistics ON account_id, market_id FROM positions": "statistics users_statistics are not in",
    "CREATE SCHEMA s; CREATE STATISTICS s.away ON account_id, market_id FROM positions": "statistics object s.away depends",
    "ALTER TABLE positions ENABLE ROW LEVEL SECURITY": r"row level security, .* \(drop its policies",
    "CREATE POLICY own ON positions USING (true)": "row level security",
    "CREATE TABLE t (id bigint); CREATE POLICY p ON t USING (EXISTS (SELECT FROM positions AS q WHERE q.id = t.id))": (
        r"policy p on table ledger.t depends on it \(drop"
    ),
    "CREATE TABLE users_copies (old positions)": r"column ledger.users_copies.old has its row type \(drop",
    "CREATE DOMAIN whole AS positions": "domain .*whole is made of its row type",
    "CREATE TABLE child () INHERITS (positions)": r"inheritance, .* \(ALTER TABLE … NO INHERIT",
    "CREATE SEQUENCE numbers OWNED BY positions.quantity": r"sequence ledger.numbers is owned by it \(ALTER SEQUENCE",
    "ALTER TABLE positions SET UNLOGGED": r"not being logged, .* \(ALTER TABLE … SET LOGGED",
    "ALTER TABLE positions ALTER COLUMN exit_reason SET DEFAULT 'none'": "column exit_reason has the default 'none'",
    "ALTER TABLE positions ALTER COLUMN mark_source SET NOT NULL": "column mark_source is NOT NULL, which",
    "INSERT INTO pg_seclabel VALUES ('positions'::regclass, 'pg_class'::regclass, 0, 'selinux', 'secret')": (
        "security label of selinux"
    ),
    "CREATE TABLE t (id bigint); CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    " CREATE CONSTRAINT TRIGGER watches AFTER INSERT ON t FROM positions FOR EACH ROW EXECUTE FUNCTION g()": (
        "trigger watches on table ledger.t refers to it"
    ),
}
"""What is attached, and how it is named."""
ONLY_15 = {
    "CREATE TABLE parts (r bigint REFERENCES positions (id)) PARTITION BY RANGE (r)": "foreign key .* of the partitioned",
}


def test_what_cannot_be_moved_is_named_with_what_to_do(settings: Settings, postgres_major: int) -> None:
    table = BLOCKERS if postgres_major >= 18 else {**BLOCKERS, **ONLY_15}
    migrator = migrator_of(settings, engine.reached(settings))
    before = migrator.targets.catalogue_at(len(migrator.files))
    unnamed = []
    with engine.connected(settings, as_app=False) as owner:
        assert movable(owner, "ledger", "positions", before).others == ()
        for statement, words in table.items():
            with owner.transaction(force_rollback=True):
                owner.execute(statement.encode())
                said = named(owner, before)
                if not re.search(words, said):
                    unnamed.append((statement, said))
    assert unnamed == []


def named(owner: engine.Connection, before: Catalogue) -> str:
    """What is in the way of a swap."""
    try:
        movable(owner, "ledger", "positions", before)
    except SwapBlocked as error:
        return str(error)
    return "nothing"


def test_a_blocker_stops_a_rebuild_before_it_begins(settings: Settings, history: Traffic) -> None:
    execute(settings, "CREATE MATERIALIZED VIEW users_summary AS SELECT count(*) FROM positions")
    rows, generations = engine.positions_rows(settings), states(settings)
    with pytest.raises(SwapBlocked, match="materialized view ledger.users_summary"):
        rebuild(settings)
    assert (engine.positions_rows(settings), states(settings)) == (rows, generations)
    assert left_over(settings) == []


def states(settings: Settings) -> list[Any]:
    with engine.connected(settings) as connection:
        return connection.execute(
            "SELECT g.generation_id, g.state FROM projection_generations AS g ORDER BY g.generation_id"
        ).fetchall()
