"""Changes of projected tables with history: each ends with right rows and the right schema while commands go on."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, operations
from position_ledger.errors import LedgerError, MigrationError, SchemaMismatch, SwapBlocked, VerificationFailed
from position_ledger.operations import RebuildOptions
from position_ledger.settings import load_settings
from tests.support import engine, only_positions
from tests.support.command_line import InThisProcess
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE, migrated_template, settings
from tests.support.rebuilding import busy, execute, left_over
from tests.support.releases import (
    HOLDINGS,
    HOLDINGS_COLUMNS,
    VALUATIONS,
    VALUATIONS_COLUMNS,
    Releases,
    Table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from position_ledger.settings import Settings

__all__ = ["migrated_template", "settings"]

BOOK = replace(VALUATIONS, table="book")
FILL_EVENTS = "topic ~ '^position.(opened|increased|reduced|closed|settled)'"


VIEWS = """
CREATE VIEW current_holdings AS SELECT h.id, h.holding_id, h.size, h.fills FROM holdings AS h WHERE h.row_current_ind;
CREATE VIEW big_holdings AS SELECT c.holding_id, c.size FROM current_holdings AS c WHERE c.fills > 1;
GRANT SELECT ON current_holdings TO position_ledger_reader;
COMMENT ON VIEW big_holdings IS 'More than one fill.';
"""
BY_HAND = (
    "DO $$ BEGIN CREATE ROLE set_analyst; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    "CREATE SCHEMA desk",
    "CREATE VIEW desk.sizes AS SELECT h.holding_id AS holding, h.size FROM ledger.holdings AS h WHERE h.row_current_ind",
    "CREATE VIEW desk.doubled AS SELECT s.holding, s.size FROM desk.sizes AS s",
    "GRANT SELECT ON desk.doubled, desk.sizes, ledger.big_holdings TO set_analyst",
    "GRANT SELECT (holding) ON desk.sizes TO set_analyst WITH GRANT OPTION",
    "COMMENT ON VIEW desk.sizes IS 'of the desk'",
    "COMMENT ON COLUMN desk.doubled.size IS 'as text'",
    "COMMENT ON COLUMN ledger.current_holdings.size IS 'seen by the desk'",
    "GRANT SELECT ON ledger.holdings TO set_analyst",
)


@pytest.fixture
def releases(settings: Settings, tmp_path: Path) -> Releases:
    return Releases(settings, tmp_path)


@pytest.fixture
def history(settings: Settings) -> None:
    """A history that the positions of the shipped release have been projected from."""
    with Ledger(settings, engine.reached(settings)) as ledger:
        Traffic(ledger, 21).run(50)
    engine.project_all(settings)


@pytest.fixture(scope="module")
def team_template(
    ledger_server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a database of a team with two tables of its own, users' views on them, and history in all."""
    name = f"{migrated_template}_team"
    shipped = load_settings(
        database_url=engine.new_database(ledger_server_url, name, migrated_template),
        redis_url=NO_QUEUE,
        projections=only_positions.MODULE,
    )
    with Ledger(shipped, engine.reached(shipped)) as ledger:
        Traffic(ledger, 21).run(50)
    team = first_release(Releases(shipped, tmp_path_factory.mktemp("team")))
    up(team)
    execute(team, *BY_HAND)
    engine.project_all(team)
    yield name
    engine.drop_database(ledger_server_url, name)


@pytest.fixture
def team(ledger_server_url: str, team_template: str, releases: Releases) -> Iterator[Settings]:
    """A database of that team for one test, and the release that it is at."""
    name = f"{team_template}_{secrets.token_hex(3)}"
    url = engine.new_database(ledger_server_url, name, team_template)
    yield first_release(releases).model_copy(update={"database_url": url})
    engine.drop_database(ledger_server_url, name)


def up(settings: Settings, target: int | None = None, **options: Any) -> list[str]:
    """Migrate; answers what was told."""
    told: list[str] = []
    chosen = RebuildOptions(**options) if options else None
    operations.migrate_up(settings, engine.reached(settings), target, told.append, options=chosen)
    return told


def down(settings: Settings, number: int) -> list[str]:
    told: list[str] = []
    operations.migrate_down(settings, engine.reached(settings), number, told.append)
    return told


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with engine.connected(settings, as_app=False) as owner:
        return owner.execute(statement.encode()).fetchall()


def generation_ids(settings: Settings) -> dict[str, int]:
    return dict(query(settings, "SELECT projection, generation_id FROM projection_generations WHERE state = 'active'"))


def as_it_should_be(settings: Settings, by_hand: Sequence[str] = ()) -> None:
    """Rows equal the log, the schema is that of the migrations and what was done by hand, and nothing else is left."""
    engine.project_all(settings)
    engine.proven(settings)
    drift = operations.migrate_verify(settings, engine.reached(settings))
    assert drift == list(by_hand) or (not by_hand and all(_is_by_hand(line) for line in drift))
    assert operations.migration_status(settings, engine.reached(settings)).is_current
    assert left_over(settings) == []


def _is_by_hand(line: str) -> bool:
    """What `BY_HAND` has done to the schema of the ledger."""
    return "set_analyst" in line or "seen by the desk" in line


def first_release(releases: Releases) -> Settings:
    releases.add(HOLDINGS.create(HOLDINGS_COLUMNS), "DROP TABLE holdings;")
    releases.add(VALUATIONS.create(VALUATIONS_COLUMNS), "DROP TABLE valuations;")
    releases.add(VIEWS, "DROP VIEW big_holdings; DROP VIEW current_holdings;")
    return releases.release(HOLDINGS, VALUATIONS)


def next_of(team: Settings, releases: Releases, *tables: Table) -> Settings:
    """The next release, for the database of the team."""
    return releases.release(*tables).model_copy(update={"database_url": team.database_url})


def test_new_tables_appear_complete_and_together(settings: Settings, history: None, releases: Releases) -> None:
    """Given a ledger with history, when tables come while it is traded, then nobody ever sees them without their rows."""
    team = first_release(releases)
    seen: list[int] = []

    def tell(message: str) -> None:
        if query(settings, "SELECT to_regclass('ledger.valuations') IS NOT NULL") == [(True,)]:
            seen.append(query(settings, "SELECT count(*) FROM ledger.valuations")[0][0])

    with busy(settings, writers=1, workers=1):
        outcome = operations.migrate_up(team, engine.reached(team), None, tell)

    assert [file.number for file in outcome.files] == [releases.last - 1, releases.last]
    assert "to fill holdings, valuations for" in outcome.messages[0]
    assert seen
    assert min(seen) >= 80 // 10
    as_it_should_be(team)
    assert query(team, "SELECT count(*) FROM holdings") == query(
        team, f"SELECT count(*) FROM events WHERE {FILL_EVENTS}"
    )
    states = query(
        team, "SELECT projection, state FROM projection_generations WHERE projection <> 'positions' ORDER BY 1"
    )
    assert states == [("holdings", "active"), ("valuations", "active")]
    # and they go as they came
    down(team, releases.last - 1)
    assert query(team, "SELECT to_regclass('ledger.holdings') IS NULL") == [(True,)]
    assert operations.migrate_verify(team, engine.reached(team)) == []


KEPT_BY_VIEWS = """
SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner),
       (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) AS x),
       (SELECT array_agg((a.attname, a.attacl)::text ORDER BY a.attnum) FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL),
       (SELECT array_agg((d.objsubid, d.description)::text ORDER BY 1) FROM pg_description AS d WHERE d.objoid = c.oid)
  FROM pg_class AS c WHERE c.relname IN ('current_holdings', 'big_holdings', 'sizes', 'doubled') ORDER BY 1
"""
SIZES = (
    "SELECT count(*) FROM holdings AS h FULL JOIN positions AS p USING (id) JOIN events AS e ON e.notification_id = id"
    f" WHERE e.{FILL_EVENTS} AND h.size::numeric IS DISTINCT FROM p.quantity"
)


def test_names_types_and_columns_change_while_commands_go_on(team: Settings, releases: Releases) -> None:
    """S3: a renamed, a dropped and a new column, varchar to numeric, integer to bigint, below views."""
    views = query(team, KEPT_BY_VIEWS)
    # When a column is renamed, one dropped, text becomes a number and an integer a bigint, in two files of one set
    releases.add("ALTER TABLE holdings RENAME environment TO env; ALTER TABLE holdings DROP label;")
    releases.add(
        "DROP VIEW big_holdings; DROP VIEW current_holdings;\n"
        "ALTER TABLE holdings ALTER size TYPE numeric(38,18) USING size::numeric, ALTER fills TYPE bigint;\n" + VIEWS,
        verify="SELECT format_type(a.atttypid, a.atttypmod) = 'numeric(38,18)' FROM pg_attribute AS a"
        " WHERE a.attrelid = to_regclass(current_schema() || '.current_holdings') AND a.attname = 'size';",
    )
    team = next_release(team, next_of(team, releases, TYPED, VALUATIONS))
    # Then the rows are right, and the views have what migrations and users had given them
    assert query(team, SIZES) == [(0,)]
    assert query(team, "SELECT DISTINCT env FROM holdings") == [("paper",)]
    assert query(team, KEPT_BY_VIEWS) == views
    assert query(team, "SELECT pg_typeof(s.size)::text FROM desk.doubled AS s LIMIT 1") == [("numeric",)]
    assert query(team, "SELECT conname FROM pg_constraint WHERE conname = 'holdings_fills_count'") != []
    # When two tables get columns that only history knows, in one file
    releases.add(
        "ALTER TABLE holdings ADD first_price numeric(38,18) NOT NULL;\n"
        "ALTER TABLE valuations ADD lowest numeric(38,18) NOT NULL, ADD CHECK (lowest <= price);",
        "ALTER TABLE holdings DROP first_price; ALTER TABLE valuations DROP lowest;",
    )
    ids, before = generation_ids(team), team
    team = next_release(team, next_of(team, releases, PRICED, LOWEST_VALUED))
    assert query(team, FIRST_PRICES) == [(0,)]
    assert query(team, LOWEST) == [(0,)]
    # Then one rollback takes both back
    engine.project_all(before)
    down(team, releases.last)
    assert generation_ids(before) == ids
    assert query(team, KEPT_BY_VIEWS) == views
    engine.project_all(before)
    engine.proven(before)


def test_constraints_and_the_columns_of_scd2_change_while_commands_go_on(team: Settings, releases: Releases) -> None:
    """S3: UNIQUE, CHECK, a foreign key to a reference table that comes with it, another key column and version type."""
    releases.add(
        "CREATE TABLE environments (code text PRIMARY KEY); INSERT INTO environments VALUES ('paper'), ('live');\n"
        "GRANT SELECT ON environments TO position_ledger_projector;",
        "DROP TABLE environments;",
    )
    releases.add(
        "ALTER TABLE holdings ADD CONSTRAINT a_fill_a_version UNIQUE (holding_id, fills),"
        " ADD CONSTRAINT not_endless CHECK (fills < 1000000), ADD FOREIGN KEY (environment) REFERENCES environments;"
    )
    releases.add(
        "DROP VIEW big_holdings; DROP VIEW current_holdings; DROP INDEX holdings_one_current_row;\n"
        "ALTER TABLE holdings RENAME holding_id TO holding_key; ALTER TABLE holdings ALTER version TYPE integer;\n"
        "CREATE UNIQUE INDEX holdings_one_current_row ON holdings (holding_key) WHERE row_current_ind;\n"
        + VIEWS.replace("h.holding_id", "h.holding_key AS holding_id")
    )
    execute(team, "DROP VIEW desk.doubled; DROP VIEW desk.sizes")
    team = next_release(team, next_of(team, releases, replace(HOLDINGS, key="holding_key"), VALUATIONS))
    assert query(team, SIZES) == [(0,)]
    assert query(team, KEYS) == [(True, "environments")]
    for broken, words in (("id", "0"), "a_fill_a_version"), (("fills", "1000000"), "not_endless"):
        with pytest.raises(Exception, match=words):
            execute(team, COPY.format(*broken))


TYPED = (
    HOLDINGS.without("environment")
    .without("label")
    .with_field("env", "str", "event.body.environment")
    .with_field("size", "Decimal", "event.body.figures.quantity", "event.body.figures.quantity")
)
PRICED = TYPED.with_field("first_price", "Decimal", "event.body.fill.price")
LOWEST_VALUED = VALUATIONS.with_field("lowest", "Decimal", "event.body.fill.price", "min(row.lowest, event.body.price)")
KEYS = """
SELECT convalidated, confrelid::regclass::text FROM pg_constraint
 WHERE conrelid = 'holdings'::regclass AND contype = 'f'
"""
COPY = """
INSERT INTO holdings SELECT (jsonb_populate_record(NULL::holdings, to_jsonb(h)
    || '{{"id": 0, "version": 0, "row_current_ind": false, "{}": {}}}')).* FROM holdings AS h LIMIT 1
"""
FIRST_PRICES = """
SELECT count(*) FROM holdings AS h JOIN positions AS p ON p.position_id = h.holding_id AND p.version = 1
 WHERE h.first_price <> p.entry_price
"""
LOWEST = """
SELECT count(*) FROM (SELECT v.lowest, min(v.price) OVER (PARTITION BY v.valuation_id ORDER BY v.version) AS seen
                        FROM valuations AS v) AS v WHERE v.lowest <> v.seen
"""


def next_release(old: Settings, new: Settings) -> Settings:
    """Migrate from one release to the next while a writer and a worker of the old one go on; prove what came of it."""
    ids, by_hand = generation_ids(old), operations.migrate_verify(old, engine.reached(old))
    with busy(old, writers=1, workers=1) as working:
        told = up(new)
    assert min(working.accepted) > 0
    assert any(line.startswith("swapped") for line in told), told
    assert generation_ids(new)["positions"] == ids["positions"]
    as_it_should_be(new, by_hand)
    return new


def test_what_needs_no_history_rebuilds_nothing(team: Settings, releases: Releases) -> None:
    """S4: seed data, an index, comments, grants and data alone."""
    ids = generation_ids(team)
    releases.add(
        "CREATE TABLE desks (code text PRIMARY KEY, note text); INSERT INTO desks VALUES ('a', 'seed');",
        "DROP TABLE desks;",
    )
    releases.add(
        "CREATE INDEX holdings_by_environment ON holdings (environment);", "DROP INDEX holdings_by_environment;"
    )
    releases.add("COMMENT ON COLUMN holdings.size IS 'pieces'; GRANT SELECT ON holdings TO pg_monitor;",
                 "COMMENT ON COLUMN holdings.size IS NULL; REVOKE SELECT ON holdings FROM pg_monitor;")  # fmt: skip
    releases.add("UPDATE desks SET note = 'data';")
    releases.add(
        "CREATE INDEX CONCURRENTLY holdings_by_fills ON holdings (fills);",
        "DROP INDEX CONCURRENTLY holdings_by_fills;",
        transactional=False,
    )
    later = next_of(team, releases, HOLDINGS, VALUATIONS)
    told = up(later)
    assert generation_ids(later) == ids
    assert told[0].startswith("to apply in place: ")
    assert not any("rebuil" in line for line in told)
    as_it_should_be(later)


# Sets that fail, and sets that cannot be


def failing_set(team: Settings, releases: Releases) -> tuple[Settings, int]:
    """A release whose rows do not fit: a reference table in place, then a CHECK that history breaks."""
    first = releases.add(
        "CREATE TABLE desks (code text PRIMARY KEY); INSERT INTO desks VALUES ('a');", "DROP TABLE desks;"
    )
    releases.add("COMMENT ON TABLE desks IS 'of the team';", "COMMENT ON TABLE desks IS NULL;")
    releases.add("ALTER TABLE holdings ADD CONSTRAINT never_many CHECK (fills < 2);")
    return next_of(team, releases, HOLDINGS, VALUATIONS), first


def test_a_set_that_fails_leaves_the_database_as_it_was(team: Settings, releases: Releases) -> None:
    ids, rows = generation_ids(team), query(team, "SELECT h.* FROM holdings AS h ORDER BY h.id")
    bad, first = failing_set(team, releases)
    told: list[str] = []
    with pytest.raises(VerificationFailed, match=r"history does not fit table holdings .*never_many"):
        operations.migrate_up(bad, engine.reached(bad), None, told.append)
    assert f"after {first:03}_step.sql, {first + 1:03}_step.sql in place" in told[0]
    assert told[-1].endswith("the database is as it was before")
    assert generation_ids(team) == ids
    assert query(team, "SELECT h.* FROM holdings AS h ORDER BY h.id") == rows
    as_it_should_be(team)
    actions = query(team, f"SELECT number, action FROM schema_migration_history WHERE number >= {first} ORDER BY id")
    assert actions == [
        (first, "expand"), (first + 1, "expand"), (first + 2, "build"),
        (first + 2, "abort"), (first + 1, "abort"), (first, "abort"),
    ]  # fmt: skip


def test_a_plain_file_of_a_set_that_fails_takes_those_before_it_back(team: Settings, releases: Releases) -> None:
    releases.add("CREATE TABLE desks (code text PRIMARY KEY);", "DROP TABLE desks;")
    releases.add("ALTER TABLE desks ADD rate integer CHECK (rate > 0); INSERT INTO desks VALUES ('a', 1 - 1);")
    releases.add("ALTER TABLE holdings ADD CHECK (fills < 1000000);")
    with pytest.raises(MigrationError, match="CHECK violation"):
        up(next_of(team, releases, HOLDINGS, VALUATIONS))
    as_it_should_be(team)


def test_what_could_not_be_undone_is_no_part_of_a_set(team: Settings, releases: Releases) -> None:
    lasting = releases.add("CREATE TABLE desks (code text);", "", rollback_says="none, because it has rows of the desk")
    releases.add(
        "ALTER TABLE holdings ADD CHECK (fills < 1000000);",
        "ALTER TABLE holdings DROP CONSTRAINT holdings_fills_check;",
    )
    later = next_of(team, releases, HOLDINGS, VALUATIONS)
    with pytest.raises(
        MigrationError, match=rf"cannot be part of the change set .* run `position-ledger migrate up {lasting:03}`"
    ):
        up(later)
    as_it_should_be(team)
    up(later, lasting)
    up(later)
    as_it_should_be(later)


def test_a_release_that_fits_a_later_migration_is_told_which(team: Settings, releases: Releases) -> None:
    first = releases.add("ALTER TABLE holdings ADD one integer;", "ALTER TABLE holdings DROP one;")
    releases.add("ALTER TABLE holdings ADD two integer;", "ALTER TABLE holdings DROP two;")
    both = HOLDINGS.with_field("one", "int | None", "None").with_field("two", "int | None", "None")
    later = next_of(team, releases, both, VALUATIONS)
    with pytest.raises(
        SchemaMismatch, match=rf"fits migration {first + 1:03}: run position-ledger migrate up {first + 1:03}"
    ):
        up(later, first)
    as_it_should_be(team)
    up(later, first + 1)
    as_it_should_be(later)


def test_a_view_that_does_not_fit_is_named_and_nothing_changes(team: Settings, releases: Releases) -> None:
    execute(team, "CREATE VIEW desk.labels AS SELECT h.label FROM ledger.holdings AS h")
    releases.add("ALTER TABLE holdings DROP label;", "ALTER TABLE holdings ADD label text;")
    ids = generation_ids(team)
    with pytest.raises(SwapBlocked, match=r"view desk.labels does not fit the new tables: .*label.* does not exist"):
        up(next_of(team, releases, HOLDINGS.without("label"), VALUATIONS))
    assert generation_ids(team) == ids
    as_it_should_be(team)


def test_one_rebuild_does_for_a_release_with_plain_files_between(team: Settings, releases: Releases) -> None:
    """Several releases at once: the code fits the last migration only, and what stands between moves with the set."""
    first = releases.add("ALTER TABLE holdings ADD one integer;", "ALTER TABLE holdings DROP one;")
    releases.add(
        "CREATE INDEX holdings_by_one ON holdings (one); COMMENT ON COLUMN holdings.one IS 'first';"
        " CREATE VIEW ones AS SELECT h.one FROM holdings AS h;",
        "DROP VIEW ones; DROP INDEX holdings_by_one; COMMENT ON COLUMN holdings.one IS NULL;",
        "SELECT count(*) > 0 FROM ones;",
    )
    releases.add("CREATE TABLE desks (code text PRIMARY KEY); INSERT INTO desks VALUES ('a');", "DROP TABLE desks;")
    releases.add("ALTER TABLE holdings ADD two integer;", "ALTER TABLE holdings DROP two;")
    both = HOLDINGS.with_field("one", "int | None", "None").with_field("two", "int | None", "None")
    later = next_of(team, releases, both, VALUATIONS)
    told = up(later)
    assert sum(line.startswith("swapped") for line in told) == 1
    as_it_should_be(later)
    assert query(later, "SELECT count(*) FROM ones") == query(later, "SELECT count(*) FROM holdings")
    # and back in one swap
    engine.project_all(team)
    down(later, first)
    as_it_should_be(team)
    assert query(team, "SELECT to_regclass('desks') IS NULL AND to_regclass('ones') IS NULL") == [(True,)]


def test_a_new_table_that_comes_with_other_things_is_filled_after_them(
    settings: Settings, history: None, releases: Releases
) -> None:
    releases.add(
        "CREATE TABLE environments (code text PRIMARY KEY); INSERT INTO environments VALUES ('paper');\n"
        + HOLDINGS.create(
            HOLDINGS_COLUMNS.replace("environment text NOT NULL", "environment text REFERENCES environments")
        )
        + "\nCREATE VIEW ones AS SELECT h.id FROM holdings AS h;",
        "DROP VIEW ones; DROP TABLE holdings; DROP TABLE environments;",
    )
    team = releases.release(HOLDINGS)
    told = up(team)
    assert "filling holdings from the log" in told
    assert query(team, "SELECT count(*) FROM ones") == query(team, f"SELECT count(*) FROM events WHERE {FILL_EVENTS}")
    as_it_should_be(team)
    down(team, releases.last)
    assert operations.migrate_verify(team, engine.reached(team)) == []


def test_a_table_that_came_with_a_change_goes_back_with_it(team: Settings, releases: Releases) -> None:
    """One file that changes a table and makes another: one swap each way."""
    releases.add(
        f"ALTER TABLE holdings DROP label;\n{BOOK.create(VALUATIONS_COLUMNS)}"
        "\nCREATE VIEW prices AS SELECT v.price FROM book AS v;",
        "DROP VIEW prices; DROP TABLE book; ALTER TABLE holdings ADD label text;",
    )
    later = next_of(team, releases, HOLDINGS.without("label"), VALUATIONS, BOOK)
    told = up(later)
    assert told[0].startswith("to rebuild holdings and fill book for ")
    as_it_should_be(later)
    engine.project_all(team)
    down(later, releases.last)
    as_it_should_be(team)
    assert generation_ids(team).keys() == {"positions", "holdings", "valuations"}
    up(later)
    as_it_should_be(later)


def test_an_interrupted_set_is_told_by_status_and_undone_by_abort(team: Settings, releases: Releases) -> None:
    """The command line: what `status` says of a set that was killed, and `up --abort`."""
    releases.add("CREATE TABLE desks (code text PRIMARY KEY);", "DROP TABLE desks;")
    releases.add("ALTER TABLE holdings DROP label;")
    later = next_of(team, releases, HOLDINGS.without("label"), VALUATIONS)
    number = releases.last

    def lost(message: str) -> None:
        if message.startswith("building"):
            with engine.connected(later, as_app=False) as owner:
                owner.execute(
                    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a"
                    " WHERE a.application_name ~ '^position-ledger (migrate|operator)' AND a.datname = current_database()"
                )

    with pytest.raises(LedgerError, match="connection was lost|terminating connection|closed"):
        operations.migrate_up(later, engine.reached(later), None, lost)
    command = InThisProcess(
        {
            "POSITION_LEDGER_DATABASE_URL": str(later.database_url),
            "POSITION_LEDGER_PROJECTIONS": later.projections,
            "POSITION_LEDGER_MIGRATIONS": later.migrations,
            "POSITION_LEDGER_REDIS_URL": str(later.redis_url),
        }
    )
    status = command("migrate", "status", "--json").document
    told = {row["number"]: (row["state"], row["change_set"]) for row in status["migrations"][-2:]}
    assert told == {f"{number - 1:03}": ("expanded", f"{number:03}"), f"{number:03}": ("building", f"{number:03}")}
    words = command("migrate", "status").out
    assert f"the change set {number - 1:03} to {number:03} has begun and is not applied" in " ".join(words.split())
    assert command("migrate", "up", "--abort", f"{number:03}").code == 2
    assert "the database is as it was before" in command("migrate", "up", "--abort").out
    assert "nothing to abort" in command("migrate", "up", "--abort").out
    as_it_should_be(team)
