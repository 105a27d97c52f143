"""Changes of projected tables with history: each ends with right rows and the right schema while commands go on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, operations
from position_ledger.errors import MigrationError, SchemaMismatch, SwapBlocked, VerificationFailed
from position_ledger.operations import RebuildOptions
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.engine_fixtures import migrated_template, settings
from tests.support.rebuilding import busy, execute, left_over
from tests.support.releases import (
    HOLDINGS,
    HOLDINGS_COLUMNS,
    VALUATIONS,
    VALUATIONS_COLUMNS,
    Releases,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from position_ledger.settings import Settings

__all__ = ["migrated_template", "settings"]

FILL_EVENTS = "topic ~ '^position.(opened|increased|reduced|closed|settled)'"


@pytest.fixture
def releases(settings: Settings, tmp_path: Path) -> Releases:
    return Releases(settings, tmp_path)


@pytest.fixture
def history(settings: Settings) -> None:
    """A history that the positions of the shipped release have been projected from."""
    with Ledger(settings, engine.reached(settings)) as ledger:
        Traffic(ledger, 21).run(80)
    engine.project_all(settings)


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
    assert operations.migrate_verify(settings, engine.reached(settings)) == list(by_hand)
    assert operations.migration_status(settings, engine.reached(settings)).is_current
    assert left_over(settings) == []


def first_release(releases: Releases) -> Settings:
    releases.add(HOLDINGS.create(HOLDINGS_COLUMNS), "DROP TABLE holdings;")
    releases.add(VALUATIONS.create(VALUATIONS_COLUMNS), "DROP TABLE valuations;")
    return releases.release(HOLDINGS, VALUATIONS)


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
KEPT_BY_VIEWS = """
SELECT c.oid::regclass::text, (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) AS x), pg_get_userbyid(c.relowner),
       (SELECT array_agg((a.attname, a.attacl)::text ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL),
       (SELECT array_agg((d.objsubid, d.description)::text ORDER BY 1) FROM pg_description AS d WHERE d.objoid = c.oid)
  FROM pg_class AS c WHERE c.relname IN ('current_holdings', 'big_holdings', 'sizes', 'doubled') ORDER BY 1
"""
SIZES = (
    "SELECT count(*) FROM holdings AS h FULL JOIN positions AS p USING (id) JOIN events AS e ON e.notification_id = id"
    f" WHERE e.{FILL_EVENTS} AND h.size::numeric IS DISTINCT FROM p.quantity"
)


def test_each_kind_of_change_ends_with_right_rows_while_commands_go_on(
    settings: Settings, history: None, releases: Releases
) -> None:
    """S3: one database, one release after the other, a writer and a worker of the one before going on each time."""
    # Given a team's tables with history, views of migrations and of users on them, with grants and comments
    holdings, valuations = HOLDINGS, VALUATIONS
    releases.add(holdings.create(HOLDINGS_COLUMNS), "DROP TABLE holdings;")
    releases.add(valuations.create(VALUATIONS_COLUMNS), "DROP TABLE valuations;")
    releases.add(VIEWS, "DROP VIEW big_holdings; DROP VIEW current_holdings;")
    team = releases.release(holdings, valuations)
    up(team)
    execute(team, *BY_HAND)
    views = query(team, KEPT_BY_VIEWS)

    # When a column is renamed and another dropped
    releases.add("ALTER TABLE holdings RENAME environment TO env; ALTER TABLE holdings DROP label;")
    holdings = holdings.without("environment").without("label").with_field("env", "str", "event.body.environment")
    team = next_release(team, releases.release(holdings, valuations))
    assert query(team, SIZES) == [(0,)]
    assert query(team, "SELECT DISTINCT env FROM holdings") == [("paper",)]
    assert query(team, KEPT_BY_VIEWS) == views

    # When text becomes a number, and an integer a bigint, below views of migrations and users
    releases.add(
        "DROP VIEW big_holdings; DROP VIEW current_holdings;\n"
        "ALTER TABLE holdings ALTER size TYPE numeric(38,18) USING size::numeric, ALTER fills TYPE bigint;\n" + VIEWS,
        verify="SELECT format_type(a.atttypid, a.atttypmod) = 'numeric(38,18)' FROM pg_attribute AS a"
        " WHERE a.attrelid = to_regclass(current_schema() || '.current_holdings') AND a.attname = 'size';",
    )
    quantity = "event.body.figures.quantity"
    holdings = holdings.with_field("size", "Decimal", quantity, quantity)
    team = next_release(team, releases.release(holdings, valuations))
    assert query(team, SIZES) == [(0,)]
    assert query(team, KEPT_BY_VIEWS) == views
    assert query(team, "SELECT pg_typeof(s.size)::text FROM desk.doubled AS s LIMIT 1") == [("numeric",)]
    assert query(team, "SELECT conname FROM pg_constraint WHERE conname = 'holdings_fills_count'") != []

    # When two tables get columns that only history knows, in one file
    releases.add(
        "ALTER TABLE holdings ADD first_price numeric(38,18) NOT NULL;\n"
        "ALTER TABLE valuations ADD lowest numeric(38,18) NOT NULL, ADD CHECK (lowest <= price);",
        "ALTER TABLE holdings DROP first_price; ALTER TABLE valuations DROP lowest;",
    )
    holdings = holdings.with_field("first_price", "Decimal", "event.body.fill.price")
    lowest = "min(row.lowest, event.body.price)"
    valuations = valuations.with_field("lowest", "Decimal", "event.body.fill.price", lowest)
    before, ids = team, generation_ids(team)
    team = next_release(team, releases.release(holdings, valuations))
    assert query(team, FIRST_PRICES) == [(0,)]
    assert query(team, LOWEST) == [(0,)]
    # then one rollback takes both back, and both come again
    engine.project_all(before)
    down(team, releases.last)
    assert generation_ids(before) == ids
    engine.project_all(before)
    engine.proven(before)
    up(team)

    # When constraints come
    releases.add(
        "ALTER TABLE holdings ADD CONSTRAINT a_fill_a_version UNIQUE (holding_id, fills),"
        " ADD CONSTRAINT price_in_range CHECK (first_price BETWEEN 0 AND 1);",
        "ALTER TABLE holdings DROP CONSTRAINT a_fill_a_version, DROP CONSTRAINT price_in_range;",
    )
    team = next_release(team, releases.release(holdings, valuations))
    with pytest.raises(Exception, match="a_fill_a_version"):
        execute(team, "INSERT INTO holdings SELECT (jsonb_populate_record(NULL::holdings, to_jsonb(h) || '{\"id\": 0, \"version\": 0}')).*"
                " FROM holdings AS h LIMIT 1")  # fmt: skip

    # When a reference table comes with its rows, and a foreign key to it
    releases.add(
        "CREATE TABLE environments (code text PRIMARY KEY); INSERT INTO environments VALUES ('paper'), ('live');\n"
        "GRANT SELECT ON environments TO position_ledger_projector;",
        "DROP TABLE environments;",
    )
    releases.add("ALTER TABLE holdings ADD FOREIGN KEY (env) REFERENCES environments;")
    team = next_release(team, releases.release(holdings, valuations))
    keys = "SELECT convalidated, confrelid::regclass::text FROM pg_constraint WHERE conrelid = 'holdings'::regclass AND contype = 'f'"
    assert query(team, keys) == [(True, "environments")]

    # When the key column of SCD2 is called otherwise, and versions count in another type
    releases.add(
        "DROP VIEW big_holdings; DROP VIEW current_holdings; DROP INDEX holdings_one_current_row;\n"
        "ALTER TABLE holdings RENAME holding_id TO holding_key; ALTER TABLE holdings ALTER version TYPE integer;\n"
        "CREATE UNIQUE INDEX holdings_one_current_row ON holdings (holding_key) WHERE row_current_ind;\n"
        + VIEWS.replace("h.holding_id", "h.holding_key AS holding_id")
    )
    execute(team, "DROP VIEW desk.doubled; DROP VIEW desk.sizes")
    team = next_release(team, releases.release(replace(holdings, key="holding_key"), valuations))
    assert query(team, SIZES) == [(0,)]


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


def test_what_needs_no_history_rebuilds_nothing(settings: Settings, history: None, releases: Releases) -> None:
    """S4: seed data, an index, comments, grants and data alone."""
    team = first_release(releases)
    up(team)
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
    later = releases.release(HOLDINGS, VALUATIONS)
    told = up(later)
    assert generation_ids(later) == ids
    assert told[0].startswith("to apply in place: ")
    assert not any("rebuil" in line for line in told)
    as_it_should_be(later)


# Sets that fail, and sets that cannot be


def failing_set(releases: Releases) -> tuple[Settings, int]:
    """A release whose rows do not fit: a reference table in place, then a CHECK that history breaks."""
    first = releases.add(
        "CREATE TABLE desks (code text PRIMARY KEY); INSERT INTO desks VALUES ('a');", "DROP TABLE desks;"
    )
    releases.add("COMMENT ON TABLE desks IS 'of the team';", "COMMENT ON TABLE desks IS NULL;")
    releases.add("ALTER TABLE holdings ADD CONSTRAINT never_many CHECK (fills < 2);")
    return releases.release(HOLDINGS, VALUATIONS), first


def test_a_set_that_fails_leaves_the_database_as_it_was(settings: Settings, history: None, releases: Releases) -> None:
    team = first_release(releases)
    up(team)
    ids, rows = generation_ids(team), query(team, "SELECT h.* FROM holdings AS h ORDER BY h.id")
    bad, first = failing_set(releases)
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


def test_a_plain_file_of_a_set_that_fails_takes_those_before_it_back(
    settings: Settings, history: None, releases: Releases
) -> None:
    team = first_release(releases)
    up(team)
    releases.add("CREATE TABLE desks (code text PRIMARY KEY);", "DROP TABLE desks;")
    releases.add("ALTER TABLE desks ADD rate integer CHECK (rate > 0); INSERT INTO desks VALUES ('a', 1 - 1);")
    releases.add("ALTER TABLE holdings ADD CHECK (fills < 1000000);")
    with pytest.raises(MigrationError, match="CHECK violation"):
        up(releases.release(HOLDINGS, VALUATIONS))
    as_it_should_be(team)


def test_what_could_not_be_undone_is_no_part_of_a_set(settings: Settings, history: None, releases: Releases) -> None:
    team = first_release(releases)
    up(team)
    lasting = releases.add("CREATE TABLE desks (code text);", "", rollback_says="none, because it has rows of the desk")
    releases.add(
        "ALTER TABLE holdings ADD CHECK (fills < 1000000);",
        "ALTER TABLE holdings DROP CONSTRAINT holdings_fills_check;",
    )
    later = releases.release(HOLDINGS, VALUATIONS)
    with pytest.raises(
        MigrationError, match=rf"cannot be part of the change set .* run `position-ledger migrate up {lasting:03}`"
    ):
        up(later)
    as_it_should_be(team)
    up(later, lasting)
    up(later)
    as_it_should_be(later)


def test_a_release_that_fits_a_later_migration_is_told_which(
    settings: Settings, history: None, releases: Releases
) -> None:
    team = first_release(releases)
    up(team)
    first = releases.add("ALTER TABLE holdings ADD one integer;", "ALTER TABLE holdings DROP one;")
    releases.add("ALTER TABLE holdings ADD two integer;", "ALTER TABLE holdings DROP two;")
    both = HOLDINGS.with_field("one", "int | None", "None").with_field("two", "int | None", "None")
    later = releases.release(both, VALUATIONS)
    with pytest.raises(
        SchemaMismatch, match=rf"fits migration {first + 1:03}: run position-ledger migrate up {first + 1:03}"
    ):
        up(later, first)
    as_it_should_be(team)
    up(later, first + 1)
    as_it_should_be(later)


def test_a_view_that_does_not_fit_is_named_and_nothing_changes(
    settings: Settings, history: None, releases: Releases
) -> None:
    team = first_release(releases)
    up(team)
    execute(team, "CREATE SCHEMA desk", "CREATE VIEW desk.labels AS SELECT h.label FROM ledger.holdings AS h")
    releases.add("ALTER TABLE holdings DROP label;", "ALTER TABLE holdings ADD label text;")
    ids = generation_ids(team)
    with pytest.raises(SwapBlocked, match=r"view desk.labels does not fit the new tables: .*label.* does not exist"):
        up(releases.release(HOLDINGS.without("label"), VALUATIONS))
    assert generation_ids(team) == ids
    as_it_should_be(team)
