"""Changes of projected tables with history: each ends with right rows and the right schema while commands go on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from position_ledger import operations
from position_ledger.projection import leases
from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import fingerprint_of
from tests.support import engine
from tests.support.change_sets import (
    FILL_EVENTS,
    VIEWS,
    as_it_should_be,
    down,
    first_release,
    generation_ids,
    history,
    next_of,
    query,
    releases,
    team,
    team_template,
    up,
)
from tests.support.engine_fixtures import migrated_template, settings
from tests.support.rebuilding import busy, execute
from tests.support.releases import HOLDINGS, HOLDINGS_COLUMNS, VALUATIONS, VALUATIONS_COLUMNS, Releases

if TYPE_CHECKING:
    from position_ledger.settings import Settings

__all__ = ["history", "migrated_template", "releases", "settings", "team", "team_template"]

BOOK = replace(VALUATIONS, table="book")


@pytest.mark.uncounted
def test_new_tables_appear_complete_and_together(settings: Settings, history: None, releases: Releases) -> None:
    """Given a ledger with history, when tables come while it is traded, then nobody ever sees them without their rows."""
    team = first_release(releases)
    seen: list[int] = []

    def tell(message: str) -> None:
        if query(settings, "SELECT to_regclass('ledger.valuations') IS NOT NULL") == [(True,)]:
            seen.append(query(settings, "SELECT count(*) FROM ledger.valuations")[0][0])

    with busy(settings, writers=1, workers=1):
        outcome = operations.migrate_up(team, engine.reached(team), None, tell)

    assert [file.number for file in outcome.files] == [releases.last - 2, releases.last - 1, releases.last]
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
    down(team, releases.last - 2)
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


@pytest.mark.uncounted
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


@pytest.mark.soak
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


@pytest.mark.soak
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


@pytest.mark.soak
def test_a_swap_that_no_worker_follows_says_so(settings: Settings, history: None, releases: Releases) -> None:
    """Given tables with history, when they are swapped in, then who runs no worker of their code is told, and how to."""
    team = first_release(releases)
    assert re.search(r"no worker that is running has the code of holdings \(.{8}\), valuations \(", up(team)[-1])
    releases.add(
        "ALTER TABLE holdings ADD first_price numeric(38,18) NOT NULL;", "ALTER TABLE holdings DROP first_price;"
    )
    priced = HOLDINGS.with_field("first_price", "Decimal", "event.body.fill.price")
    newer = next_of(team, releases, priced, VALUATIONS)
    ours = [fingerprint_of(one) for one in load_projections(newer.projections)]
    with engine.connected(newer, as_app=True) as connection:
        leases.heartbeat(connection, "of the newer code", ours)
        assert not any("no worker" in line for line in up(newer))
        leases.heartbeat(connection, "of the newer code", ours)
        assert "has the code of holdings" in down(newer, releases.last)[-1]
