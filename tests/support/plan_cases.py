"""Migrations that strangers might write, good, bad and doubtful, each with what its plan has to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support import fold_gives_none

TEAM = "position_ledger.demo.team.projections"
DESKS = """
CREATE TABLE desks (desk_id bigint PRIMARY KEY, name text NOT NULL, code text, lots integer);
CREATE TABLE desk_limits (limit_id bigint PRIMARY KEY, desk_id bigint, amount numeric(38,18) NOT NULL);
CREATE TABLE ticks (tick_id bigint PRIMARY KEY, price numeric(38,18) NOT NULL, note text);
CREATE TABLE empty_rooms (room_id bigint PRIMARY KEY);
CREATE VIEW desk_names AS SELECT desk_id, name FROM desks;
GRANT SELECT ON desk_names, desks TO position_ledger_reader;
"""
ROWS = """
INSERT INTO ledger.desks VALUES (1, 'rates', '10', 1), (2, 'rates', '20', 2), (3, 'vol', 'x', 3);
INSERT INTO ledger.desk_limits VALUES (1, 1, 100), (2, 99, 50);
INSERT INTO ledger.ticks SELECT n, n, NULL FROM generate_series(1, 130001) AS n;
CREATE TABLE ledger.by_hand (id bigint);
"""


@dataclass(frozen=True)
class Case:
    """One migration and what its plan has to say: codes of errors and warnings (notes are free), the table to rebuild."""

    name: str
    forward: str
    rollback: str
    errors: set[str] = field(default_factory=set)
    warnings: set[str] = field(default_factory=set)
    verify: str = "SELECT true;"
    says: str = ""
    safe: str = ""
    rebuilds: str = ""
    projections: str = ""
    rollback_says: str = "see below"


GOOD = [
    Case("nullable column", "ALTER TABLE desks ADD COLUMN note text;", "ALTER TABLE desks DROP COLUMN note;"),
    Case(
        "not null with a constant default rewrites nothing",
        "ALTER TABLE desks ADD COLUMN open boolean NOT NULL DEFAULT true;",
        "ALTER TABLE desks DROP COLUMN open;",
    ),
    Case(
        "required column of an empty table",
        "ALTER TABLE empty_rooms ADD COLUMN name text NOT NULL;",
        "ALTER TABLE empty_rooms DROP COLUMN name;",
    ),
    Case(
        "enum type",
        "CREATE TYPE mood AS ENUM ('calm', 'wild'); ALTER TABLE desks ADD COLUMN mood mood;",
        "ALTER TABLE desks DROP COLUMN mood; DROP TYPE mood;",
    ),
    Case(
        "view and function",
        "CREATE VIEW rich AS SELECT desk_id FROM desks; CREATE FUNCTION twice(n bigint) RETURNS bigint"
        " LANGUAGE sql AS 'SELECT n * 2';",
        "DROP VIEW rich; DROP FUNCTION twice(bigint);",
        verify="SELECT twice(21) = 42;",
    ),
    Case(
        "grants only",
        "GRANT SELECT ON desk_limits TO position_ledger_reader;",
        "REVOKE SELECT ON desk_limits FROM position_ledger_reader;",
    ),
    Case(
        "comment on a projected table",
        "COMMENT ON INDEX positions_pkey IS 'by number';",
        "COMMENT ON INDEX positions_pkey IS NULL;",
        rebuilds="nothing",
    ),
    Case(
        "seed data",
        "INSERT INTO desks VALUES (4, 'credit', '30', 4);",
        "DELETE FROM desks WHERE desk_id = 4;",
        verify="SELECT count(*) = 1 FROM desks WHERE desk_id = 4;\n-- expect: 4 rows\nSELECT desk_id FROM desks;",
        rebuilds="nothing",
    ),
    Case(
        "index of a projected table",
        "CREATE INDEX by_reason ON positions (exit_reason);",
        "DROP INDEX by_reason;",
        rebuilds="nothing",
    ),
    Case(
        "foreign key to all parents",
        "INSERT INTO desks VALUES (99, 'lost', NULL, NULL); ALTER TABLE desk_limits ADD CONSTRAINT of_desk"
        " FOREIGN KEY (desk_id) REFERENCES desks (desk_id);",
        "ALTER TABLE desk_limits DROP CONSTRAINT of_desk; DELETE FROM desks WHERE desk_id = 99;",
    ),
    Case(
        "column that history fills",
        "ALTER TABLE positions ADD COLUMN worst_mark numeric(38,18) NOT NULL;",
        "ALTER TABLE positions DROP COLUMN worst_mark;",
        rebuilds="positions",
        projections=TEAM,
    ),
]
BAD = [
    Case(
        "required column on rows (S71)",
        "ALTER TABLE desks ADD COLUMN owner text NOT NULL;",
        "ALTER TABLE desks DROP COLUMN owner;",
        {"not-null-violation"},
        says='column "owner" of relation "desks" contains null values',
        safe="ALTER TABLE desks ADD COLUMN owner text;",
    ),
    Case(
        "SET NOT NULL on rows with null",
        "ALTER TABLE ticks ALTER COLUMN note SET NOT NULL;",
        "ALTER TABLE ticks ALTER COLUMN note DROP NOT NULL;",
        {"not-null-violation", "adding-not-nullable-field"},
        safe="CHECK (note IS NOT NULL) NOT VALID",
    ),
    Case(
        "table that a view reads",
        "DROP TABLE desks;",
        "SELECT 1;",
        {"used-by-others"},
        {"ban-drop-table"},
        says="cannot drop table desks because other objects depend on it (view desk_names",
    ),
    Case(
        "CASCADE takes the view along",
        "DROP TABLE desks CASCADE;",
        "SELECT 1;",
        {"cascade-drops", "rollback-wrong"},
        {"ban-drop-table"},
        says="view desk_names",
    ),
    Case(
        "foreign key with a missing parent",
        "ALTER TABLE desk_limits ADD CONSTRAINT of_desk FOREIGN KEY (desk_id) REFERENCES desks (desk_id);",
        "ALTER TABLE desk_limits DROP CONSTRAINT of_desk;",
        {"foreign-key-violation"},
        says="(desk_id)=(99)",
        safe="LEFT JOIN desks AS p ON p.desk_id = c.desk_id",
    ),
    Case(
        "text to integer with a bad row (S24)",
        "ALTER TABLE desks ALTER COLUMN code TYPE integer USING code::integer;",
        "ALTER TABLE desks ALTER COLUMN code TYPE text;",
        {"type-mismatch"},
        says='invalid input syntax for type integer: "x"',
        safe="pg_input_is_valid(code::text, 'integer')",
    ),
    Case(
        "unique over duplicates",
        "CREATE UNIQUE INDEX one_name ON desks (name);",
        "DROP INDEX one_name;",
        {"unique-violation"},
        says="(name)=(rates)",
    ),
    Case(
        "CHECK that rows break",
        "ALTER TABLE desks ADD CONSTRAINT few CHECK (lots < 3);",
        "ALTER TABLE desks DROP CONSTRAINT few;",
        {"check-violation"},
        safe="NOT VALID",
    ),
    Case(
        "unbatched update of a large table",
        "UPDATE ticks SET note = 'seen';",
        "UPDATE ticks SET note = NULL;",
        {"unbatched-write"},
        says=" rows of ticks in one transaction",
        safe="LIMIT 5000",
    ),
    Case(
        "large table written again",
        "ALTER TABLE ticks ALTER COLUMN tick_id TYPE numeric;",
        "ALTER TABLE ticks ALTER COLUMN tick_id TYPE bigint;",
        {"table-rewrite"},
        says=" rows of ticks is written again",
    ),
    Case(
        "index of a large table",
        "CREATE INDEX by_price ON ticks (price);",
        "DROP INDEX by_price;",
        {"require-concurrent-index-creation"},
        safe="CREATE INDEX CONCURRENTLY by_price ON ticks (price);",
    ),
    Case(
        "CONCURRENTLY in a transaction",
        "CREATE INDEX CONCURRENTLY by_price ON ticks (price);",
        "DROP INDEX by_price;",
        {"not-in-a-transaction"},
        safe="-- Transactional: no",
    ),
    Case(
        "rollback that leaves something behind",
        "ALTER TABLE desks ADD COLUMN note text; CREATE TABLE notes (id bigint);",
        "ALTER TABLE desks DROP COLUMN note;",
        {"rollback-wrong"},
        says="table notes is new",
    ),
    Case(
        "rollback that fails",
        "ALTER TABLE desks ADD COLUMN note text;",
        "ALTER TABLE desks DROP COLUMN notes;",
        {"rollback-wrong"},
        says="the rollback fails",
    ),
    Case(
        "verification that does not hold",
        "ALTER TABLE desks ADD COLUMN note text;",
        "ALTER TABLE desks DROP COLUMN note;",
        {"verification-failed"},
        verify="SELECT true;\nSELECT count(*) = 0 FROM desks;\n-- expect: 'none'\nSELECT max(name) FROM desks;",
        says="returned ('vol',)",
    ),
    Case(
        "syntax error",
        "ALTER TABLE desks ADD COLUMNS note text;",
        "SELECT 1;",
        {"syntax-error"},
    ),
    Case(
        "misspelt column",
        "ALTER TABLE desks DROP COLUMN kode;",
        "SELECT 1;",
        {"unknown-column"},
        {"ban-drop-column"},
    ),
    Case(
        "rows of a projected table",
        "UPDATE positions SET status = 'open';",
        "SELECT 1;",
        {"dml-on-projected"},
        says="they come from the event log only",
        safe="rebuild-projection positions",
    ),
    Case(
        "plain and projected in one file",
        "ALTER TABLE desks ADD COLUMN note text;\nALTER TABLE positions ADD COLUMN worst_mark numeric(38,18) NOT NULL;",
        "ALTER TABLE positions DROP COLUMN worst_mark; ALTER TABLE desks DROP COLUMN note;",
        {"mixed-file"},
        says="split it",
        safe="line 12: ALTER TABLE positions",
        projections=TEAM,
    ),
    Case(
        "projected column without a field",
        "ALTER TABLE positions ADD COLUMN worst_mark numeric(38,18) NOT NULL;",
        "ALTER TABLE positions DROP COLUMN worst_mark;",
        {"column-without-field"},
        safe="worst_mark: Decimal",
        rebuilds="positions",
    ),
    Case(
        "field without a column",
        "COMMENT ON TABLE desks IS 'Who trades.';",
        "COMMENT ON TABLE desks IS NULL;",
        {"field-without-column"},
        says="field worst_mark",
        projections=TEAM,
    ),
    Case(
        "fold that gives None for NOT NULL",
        "ALTER TABLE positions ADD COLUMN last_mark numeric(38,18) NOT NULL;",
        "ALTER TABLE positions DROP COLUMN last_mark;",
        {"fold-gives-null"},
        {"row-type"},
        says="(position.opened)",
        safe="ALTER COLUMN last_mark DROP NOT NULL",
        rebuilds="positions",
        projections=fold_gives_none.MODULE,
    ),
    Case(
        "CHECK that history breaks",
        "ALTER TABLE positions ADD CONSTRAINT never_flat CHECK (quantity > 0);",
        "ALTER TABLE positions DROP CONSTRAINT never_flat;",
        {"check-violation"},
        says="never_flat",
        rebuilds="positions",
    ),
    Case(
        "default that changes on a projected table",
        "ALTER TABLE positions ADD COLUMN worst_mark numeric(38,18) NOT NULL DEFAULT random();",
        "ALTER TABLE positions DROP COLUMN worst_mark;",
        {"changing-default"},
        projections=TEAM,
    ),
    Case(
        "type of a column that views show",
        "ALTER TABLE positions ALTER COLUMN restatements TYPE bigint;",
        "ALTER TABLE positions ALTER COLUMN restatements TYPE integer;",
        {"used-by-others"},
        safe="CREATE VIEW <view>",
    ),
    Case(
        "column that the code fills and that may be unknown",
        "DROP VIEW open_positions, exposure, realized_changes, current_positions;\n"
        "ALTER TABLE positions DROP COLUMN exit_reason;",
        "SELECT 1;",
        {"drop-of-used", "rollback-wrong"},
        says="has no column in positions any more",
        safe="ALTER TABLE positions ADD COLUMN exit_reason text;",
    ),
    Case(
        "key that history does not keep",
        "ALTER TABLE positions ADD CONSTRAINT one_reason UNIQUE (strategy_id);",
        "ALTER TABLE positions DROP CONSTRAINT one_reason;",
        {"unique-violation"},
        safe="the rows are what history says",
        rebuilds="positions",
    ),
    Case(
        "row security of a projected table",
        "ALTER TABLE positions ENABLE ROW LEVEL SECURITY;",
        "ALTER TABLE positions DISABLE ROW LEVEL SECURITY;",
        {"not-projectable", "history-hidden"},
        says="row level security, which a rebuild cannot make again",
        safe="WITH (security_barrier)",
    ),
    Case(
        "view that the code reads",
        "DROP VIEW open_positions;",
        "SELECT 1;",
        {"drop-of-used", "rollback-wrong"},
        {"ban-drop-view"},
        says="open_positions is still used by the code: src/position_ledger/demo/watcher.py:",
    ),
    Case(
        "made by hand already",
        "CREATE TABLE by_hand (id bigint);",
        "DROP TABLE by_hand;",
        {"already-there"},
        {"drift"},
        says="no migration made it",
    ),
]
DOUBTFUL = [
    Case(
        "value that the type would change",
        "ALTER TABLE positions ADD COLUMN worst_mark numeric(8,0) NOT NULL;",
        "ALTER TABLE positions DROP COLUMN worst_mark;",
        {"value-altered"},
        says="column worst_mark keeps",
        projections=TEAM,
    ),
    Case(
        "type that holds no such value",
        "ALTER TABLE positions ADD COLUMN worst_mark bigint NOT NULL;",
        "ALTER TABLE positions DROP COLUMN worst_mark;",
        {"type-mismatch"},
        {"row-type"},
        says="column worst_mark, value",
        projections=TEAM,
    ),
    Case(
        "renamed column that a view reads",
        "ALTER TABLE desks RENAME COLUMN name TO title;",
        "ALTER TABLE desks RENAME COLUMN title TO name;",
        set(),
        {"renaming-column"},
    ),
    Case(
        "default of chance on few rows",
        "ALTER TABLE desks ADD COLUMN luck double precision NOT NULL DEFAULT random();",
        "ALTER TABLE desks DROP COLUMN luck;",
        set(),
        {"table-rewrite"},
    ),
    Case(
        "types to regret (S72)",
        "ALTER TABLE desks ADD COLUMN at timestamp, ADD COLUMN nick varchar(10);",
        "ALTER TABLE desks DROP COLUMN at, DROP COLUMN nick;",
        set(),
        {"prefer-timestamp-tz", "prefer-text-field"},
    ),
    Case(
        "dropped table",
        "DROP TABLE desk_limits;",
        "",
        set(),
        {"ban-drop-table", "no-rollback"},
        rollback_says="none, because the limits live elsewhere",
    ),
    Case(
        "column with values dropped",
        "ALTER TABLE desks DROP COLUMN code;",
        "ALTER TABLE desks ADD COLUMN code text; ALTER TABLE desks DROP COLUMN lots, ADD COLUMN lots integer;",
        set(),
        {"ban-drop-column", "rows-lost"},
        says="the rollback gives back the schema, but not 3 of 3 values of desks.code, 3 of 3 values of desks.lots",
    ),
    Case(
        "values changed and changed back",
        "UPDATE desks SET lots = lots + 10 WHERE desk_id < 9; ALTER TABLE desks RENAME COLUMN lots TO parcels;",
        "ALTER TABLE desks RENAME COLUMN parcels TO lots; UPDATE desks SET lots = lots - 10 WHERE desk_id < 9;",
        set(),
        {"renaming-column"},
    ),
    Case(
        "view made again without its grants",
        "DROP VIEW desk_names; CREATE VIEW desk_names AS SELECT desk_id, name, lots FROM desks;",
        "DROP VIEW desk_names; CREATE VIEW desk_names AS SELECT desk_id, name FROM desks;"
        " GRANT SELECT ON desk_names TO position_ledger_reader;",
        set(),
        {"grants-lost"},
    ),
]


REASONS = """
CREATE TABLE exit_reasons (reason_code text PRIMARY KEY);
INSERT INTO exit_reasons VALUES ('target'), ('stop_loss'), ('trailing_stop'), ('manual'), ('settlement'), ('flip');
"""
REFERS = (
    "ALTER TABLE positions ADD CONSTRAINT of_reason FOREIGN KEY (exit_reason) REFERENCES exit_reasons (reason_code);"
)
MORE = [
    Case(
        "history without its keeper",
        "DROP TRIGGER append_only ON events;",
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();",
        {"history-unprotected"},
        safe="CREATE TRIGGER append_only",
    ),
    Case(
        "log that others may write",
        "GRANT INSERT ON events TO position_ledger_app;",
        "REVOKE INSERT ON events FROM position_ledger_app;",
        {"history-writable"},
        says="INSERT to position_ledger_app",
    ),
    Case(
        "the log itself",
        "UPDATE events SET topic = 'x';",
        "SELECT 1;",
        {"no-permission"},
        says="append-only",
    ),
    Case(
        "verification of rows that the plan has in part",
        "ALTER TABLE ticks ADD COLUMN seen boolean NOT NULL DEFAULT false;",
        "ALTER TABLE ticks DROP COLUMN seen;",
        set(),
        {"verification-unproven"},
        verify="SELECT count(*) = 130001 FROM ticks WHERE NOT seen;",
    ),
    Case("nothing at all", "CREATE TABLE IF NOT EXISTS desks (id bigint);", "SELECT 1;", set(), {"does-nothing"}),
    Case("rows thrown away", "TRUNCATE desk_limits;", "SELECT 1;", set(), {"rows-lost"}),
    Case(
        "empty column dropped",
        "ALTER TABLE ticks DROP COLUMN note;",
        "ALTER TABLE ticks ADD COLUMN note text;",
        set(),
        {"ban-drop-column"},
    ),
    Case(
        "values rounded",
        "ALTER TABLE desk_limits ALTER COLUMN amount TYPE numeric(38, 0) USING amount / 40;",
        "ALTER TABLE desk_limits ALTER COLUMN amount TYPE numeric(38, 18) USING amount * 40;",
        set(),
        {"rows-lost", "table-rewrite"},
        says="2 of 2 values of desk_limits.amount",
    ),
    Case(
        "insists on rows, which a new ledger has not",
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM desks) THEN RAISE 'no desks'; END IF; END $$;"
        " ALTER TABLE desks ADD COLUMN note text;",
        "ALTER TABLE desks DROP COLUMN note;",
        {"needs-rows"},
        says="fails on empty tables (no desks)",
    ),
    Case(
        "rows deleted",
        "DELETE FROM ticks WHERE tick_id <= 2;",
        "SELECT 1;",
        set(),
        {"rows-lost"},
        says="2 of 10,000 rows of ticks (of the rows of ticks that the plan copied)",
    ),
    Case("outside a transaction", "VACUUM desks;", "SELECT 1;", {"not-in-a-transaction"}),
    Case(
        "function that does not parse its own body",
        "CREATE FUNCTION broken() RETURNS bigint LANGUAGE sql AS 'SELECT nothing FROM nowhere';",
        "DROP FUNCTION broken();",
        {"unknown-table"},
    ),
    Case(
        "foreign key on a projected table, its parent in the same plan missing",
        REFERS.replace("exit_reasons", "desks").replace("reason_code", "code"),
        "ALTER TABLE positions DROP CONSTRAINT of_reason;",
        {"statement-failed"},
        says="there is no unique constraint matching given keys",
    ),
]
