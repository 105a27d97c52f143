"""`migrate plan` over migrations that strangers might write, good and bad: each found for the right reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import Ledger
from position_ledger.settings import load_settings
from tests.support import engine, fold_gives_none
from tests.support.command_line import CommandLine, in_this_process
from tests.support.migration_files import migration_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

TEAM = "position_ledger.demo.team.projections"
SHIPPED = Path("migrations")
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
INSERT INTO ledger.ticks SELECT n, n, NULL FROM generate_series(1, 100001) AS n;
ANALYZE ledger.ticks;
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
        verify="SELECT count(*) = 1 FROM desks WHERE desk_id = 4;",
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
        says="100,001 of the 100,001 rows of ticks",
        safe="LIMIT 5000",
    ),
    Case(
        "large table written again",
        "ALTER TABLE ticks ALTER COLUMN tick_id TYPE numeric;",
        "ALTER TABLE ticks ALTER COLUMN tick_id TYPE bigint;",
        {"table-rewrite"},
        says="100,001 rows of ticks",
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
        verify="SELECT count(*) = 0 FROM desks;",
        says="returned (False,)",
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
        "view made again without its grants",
        "DROP VIEW desk_names; CREATE VIEW desk_names AS SELECT desk_id, name, lots FROM desks;",
        "DROP VIEW desk_names; CREATE VIEW desk_names AS SELECT desk_id, name FROM desks;"
        " GRANT SELECT ON desk_names TO position_ledger_reader;",
        set(),
        {"grants-lost"},
    ),
]


@pytest.fixture(scope="module")
def desk_database(ledger_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A ledger with history, plain tables with rows, one migration (013) more than the release, and a table by hand."""
    folder = tmp_path_factory.mktemp("migrations")
    for source in SHIPPED.glob("*.sql"):
        (folder / source.name).write_bytes(source.read_bytes())
    last = max(int(path.name[:3]) for path in folder.glob("*.sql"))
    rollback = "DROP VIEW desk_names; DROP TABLE empty_rooms, ticks, desk_limits, desks;"
    (folder / f"{last + 1:03}_desks.sql").write_text(migration_text(last + 1, DESKS, rollback=rollback))
    with ledger_template.clone() as url:
        settings = load_settings(database_url=url, redis_url="redis://127.0.0.1:1/0", migrations=str(folder))
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            traffic = engine.Traffic(ledger, 5)
            for _ in range(60):
                traffic.once()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ROWS.encode())
        yield url, folder


@pytest.fixture
def folder(desk_database: tuple[str, Path], tmp_path: Path) -> Path:
    """A copy of the migrations that are applied."""
    target = tmp_path / "migrations"
    target.mkdir()
    for source in desk_database[1].iterdir():
        (target / source.name).write_bytes(source.read_bytes())
    return target


@pytest.fixture
def run(desk_database: tuple[str, Path]) -> CommandLine:
    return in_this_process(desk_database[0])


def add(folder: Path, case: Case) -> str:
    """Write the case as the next migration; answers its file name."""
    number = max(int(path.name[:3]) for path in folder.glob("*.sql")) + 1
    text = migration_text(number, case.forward, case.verify, case.rollback, rollback_says=case.rollback_says)
    (folder / f"{number:03}_case.sql").write_text(text)
    return f"{number:03}_case.sql"


def planned(run: CommandLine, folder: Path, case: Case) -> tuple[int, dict[str, Any]]:
    add(folder, case)
    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder)}
    if case.projections:
        settings["POSITION_LEDGER_PROJECTIONS"] = case.projections
    answer = run("migrate", "plan", "--json", **settings)
    assert not answer.err, answer.err
    return answer.code, answer.document


def codes(plan: dict[str, Any], severity: str) -> set[str]:
    return {one["code"] for one in plan["findings"] if one["severity"] == severity}


@pytest.mark.parametrize("case", [*GOOD, *BAD, *DOUBTFUL], ids=lambda case: case.name)
def test_a_plan_says_what_is_right_and_wrong(run: CommandLine, folder: Path, case: Case) -> None:
    """S10, S12, S13, S24, S71, S72: what is found, at which line, with the safe form, and the exit code."""
    code, plan = planned(run, folder, case)

    assert codes(plan, "error") == case.errors, plan["findings"]
    assert codes(plan, "warning") - {"drift"} == case.warnings - {"drift"}, plan["findings"]
    assert code == (1 if case.errors else 0)
    assert plan["safe"] is not bool(case.errors)
    text = "\n".join(f"{one['cause']}\n{one['safe_form']}" for one in plan["findings"])
    assert case.says in text
    assert case.safe in text
    if case.rebuilds:
        needs = {one["table"]: one["need"] for one in plan["projections"]}
        assert [table for table, need in needs.items() if need == "rebuild"] == [case.rebuilds][
            : case.rebuilds != "nothing"
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
        verify="SELECT count(*) = 100001 FROM ticks WHERE NOT seen;",
    ),
    Case("nothing at all", "CREATE TABLE IF NOT EXISTS desks (id bigint);", "SELECT 1;", set(), {"does-nothing"}),
    Case("rows thrown away", "TRUNCATE desk_limits;", "SELECT 1;", set(), {"rows-lost"}),
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


@pytest.mark.parametrize("case", MORE, ids=lambda case: case.name)
def test_a_plan_says_what_else_is_wrong(run: CommandLine, folder: Path, case: Case) -> None:
    """What nobody would look for: values, keepers of history, effects that are none."""
    test_a_plan_says_what_is_right_and_wrong(run, folder, case)


def test_a_foreign_key_of_a_projected_table_stands_on_a_plain_file(run: CommandLine, folder: Path) -> None:
    """S67: the parents are made by one pending file, history is checked against them in the next."""
    plain = Case("parents", REASONS, "DROP TABLE exit_reasons;")
    add(folder, plain)
    code, plan = planned(run, folder, Case("key", REFERS, "ALTER TABLE positions DROP CONSTRAINT of_reason;"))
    assert (code, codes(plan, "error")) == (0, set()), plan["findings"]
    assert [one["kind"] for one in plan["files"]] == ["plain", "projected"]
    assert any("of_reason" in line for line in plan["files"][1]["foreign_keys"])

    first = min(folder.glob("*_case.sql"))
    first.write_text(re.sub(r"VALUES .*;", "VALUES ('lunch');", first.read_text()))
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert answer.code == 1
    (found,) = [one for one in answer.document["findings"] if one["severity"] == "error"]
    assert (found["code"], found["file"]) == ("foreign-key-violation", plan["files"][1]["filename"])


def test_an_index_built_while_everybody_goes_on_is_good(run: CommandLine, folder: Path) -> None:
    number = max(int(path.name[:3]) for path in folder.glob("*.sql")) + 1
    text = migration_text(
        number,
        "CREATE INDEX CONCURRENTLY by_price ON ticks (price);",
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_price');",
        "DROP INDEX CONCURRENTLY by_price;",
        transactional=False,
    )
    (folder / f"{number:03}_index.sql").write_text(text)
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert answer.code == 0, answer.document["findings"]
    (file,) = answer.document["files"]
    assert file["rollback"]["state"] == "proven"
    assert file["statements"][0]["locks"] == [{"table": "ticks", "mode": "SHARE UPDATE EXCLUSIVE"}]


def test_the_document_says_who_sets_and_carries_a_column(run: CommandLine, folder: Path) -> None:
    """S12, S13: the checklist of open, update, close and list comes from the events of the log."""
    case = next(one for one in GOOD if one.projections)
    _, plan = planned(run, folder, case)
    (positions,) = [one for one in plan["projections"] if one["table"] == "positions"]
    (story,) = positions["checklist"]
    assert story["column"] == "worst_mark"
    assert story["set_by"] == ["position.opened"]
    assert story["changed_by"] == ["position.marked"]
    assert positions["need"] == "rebuild"
    assert positions["sampled_events"] > 0
    assert positions["estimated_s"] is not None
    (file,) = plan["files"]
    (table,) = file["tables"]
    assert (table["name"], table["change"], table["projected"]) == ("positions", "changed", True)
    assert [(one["name"], one["nullable"]) for one in table["columns"]] == [("worst_mark", False)]
    assert {line.partition(" ")[0] for line in file["views"]} >= {"current_positions", "open_positions"}

    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder), "POSITION_LEDGER_PROJECTIONS": TEAM}
    page = run("migrate", "plan", "--markdown", **settings).out
    for heading in ("# Migration plan", "### Table `positions` (changed)", "## Projected tables", "### Tests needed"):
        assert heading in page
    assert "- [ ] column worst_mark: set by position.opened; changed by position.marked" in page
    text = run("migrate", "plan", **settings)
    assert (text.code, "safe to run: position-ledger migrate up" in text.out) == (0, True)


def test_what_is_unsafe_is_shown_with_its_safe_form(run: CommandLine, folder: Path) -> None:
    name = add(folder, next(one for one in BAD if "S71" in one.name))
    for form in ((), ("--markdown",)):
        answer = run("migrate", "plan", *form, POSITION_LEDGER_MIGRATIONS=str(folder))
        assert answer.code == 1
        assert "1 error" in answer.out
        assert f"{name} line 11" in answer.out
        assert "VALIDATE CONSTRAINT desks_owner_given" in answer.out


def test_files_behind_one_that_fails_are_named_and_not_judged(run: CommandLine, folder: Path) -> None:
    add(folder, Case("first", "SELECT 1/0;", "SELECT 1;"))
    second = add(folder, Case("second", "CREATE TABLE rooms (id bigint);", "DROP TABLE rooms;"))
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert (answer.code, answer.document["untraced"]) == (1, [second])
    assert codes(answer.document, "error") == {"statement-failed"}
    assert f"{second}  not tried" in run("migrate", "plan", POSITION_LEDGER_MIGRATIONS=str(folder)).out


def test_what_a_migration_makes_in_the_cluster_does_not_outlive_its_plan(
    run: CommandLine, folder: Path, desk_database: tuple[str, Path]
) -> None:
    role = "plan_of_a_stranger"
    case = Case(
        "role",
        f"CREATE ROLE {role} NOLOGIN; GRANT SELECT ON desks TO {role};",
        f"DROP OWNED BY {role}; DROP ROLE {role};",
    )
    code, plan = planned(run, folder, case)
    assert code == 0, plan["findings"]
    with psycopg.connect(desk_database[0]) as connection:
        left = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [role]).fetchall()
        scratch = connection.execute("SELECT datname FROM pg_database WHERE datname ~ 'ledger_scratch'").fetchall()
    assert (left, scratch) == ([], [])


def test_nothing_pending_an_applied_number_and_files_that_are_no_migrations(run: CommandLine, folder: Path) -> None:
    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder)}
    nothing = run("migrate", "plan", **settings)
    assert (nothing.code, nothing.out) == (0, "nothing is pending: every migration of the folder is applied\n")
    applied = run("migrate", "plan", "13", **settings)
    assert applied.code == 0
    assert "table desks: new" in applied.out
    assert "already applied" in applied.out
    unknown = run("migrate", "plan", "99", **settings)
    assert (unknown.code, "there is no migration 099" in unknown.err) == (2, True)
    (folder / "014_case.sql").write_text("CREATE TABLE rooms (id bigint);")
    headless = run("migrate", "plan", **settings)
    assert (headless.code, "014_case.sql" in headless.err) == (2, True)
    assert "Traceback" not in headless.err


def test_the_sum_file_has_to_fit(run: CommandLine, folder: Path) -> None:
    (folder / "migrations.sum").write_text("001_events.sql 00\n")
    name = add(folder, GOOD[0])
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert (answer.code, codes(answer.document, "error")) == (1, {"sum-file"})
    assert answer.document["pending"] == [name]
