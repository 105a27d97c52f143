"""Change sets that fail, that cannot be, or that are interrupted: the database is as it was, and a sentence says what next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger import operations
from position_ledger.errors import LedgerError, MigrationError, SchemaMismatch, SwapBlocked, VerificationFailed
from tests.support import engine
from tests.support.change_sets import (
    as_it_should_be,
    generation_ids,
    next_of,
    query,
    releases,
    team,
    team_template,
    up,
)
from tests.support.command_line import InThisProcess
from tests.support.engine_fixtures import migrated_template, settings
from tests.support.rebuilding import execute
from tests.support.releases import HOLDINGS, VALUATIONS, Releases

if TYPE_CHECKING:
    from position_ledger.settings import Settings

__all__ = ["migrated_template", "releases", "settings", "team", "team_template"]


def failing_set(team: Settings, releases: Releases) -> tuple[Settings, int]:
    """A release whose rows do not fit: a reference table in place, then a CHECK that history breaks."""
    first = releases.add(
        "CREATE TABLE desks (code text PRIMARY KEY); INSERT INTO desks VALUES ('a');", "DROP TABLE desks;"
    )
    releases.add("COMMENT ON TABLE desks IS 'of the team';", "COMMENT ON TABLE desks IS NULL;")
    releases.add("ALTER TABLE holdings ADD CONSTRAINT never_many CHECK (fills < 2);")
    return next_of(team, releases, HOLDINGS, VALUATIONS), first


@pytest.mark.uncounted
def test_a_set_that_fails_leaves_the_database_as_it_was(team: Settings, releases: Releases) -> None:
    ids, rows = generation_ids(team), query(team, "SELECT h.* FROM holdings AS h ORDER BY h.id")
    bad, first = failing_set(team, releases)
    told: list[str] = []
    with pytest.raises(VerificationFailed, match=r"history does not fit table holdings .*never_many.*Failing row"):
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


OFF, ON = (f"ALTER TABLE events {word} TRIGGER ALL;" for word in ("DISABLE", "ENABLE"))
LOSSES = {
    "an event that goes": (f"{OFF} DELETE FROM events WHERE notification_id = 1; {ON}", "writes events"),
    "all that go": (f"{OFF} TRUNCATE events; {ON}", "writes events"),
    "events in a block without triggers": (
        "DO $$ BEGIN SET LOCAL session_replication_role = replica; UPDATE events SET topic = 'x'; END $$;",
        "writes events",
    ),
    "keys that could be used again": ("DELETE FROM append_keys;", "writes append_keys"),
    "rows of a projected table": (
        "ALTER TABLE holdings DISABLE TRIGGER ALL; DELETE FROM holdings; ALTER TABLE holdings ENABLE TRIGGER ALL;",
        "writes rows of the projected table holdings",
    ),
    "the log itself": ("DROP TABLE events CASCADE;", "events goes"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_history_is_never_lost_by_a_migration_that_nobody_planned(
    team: Settings, releases: Releases, case: str
) -> None:
    """What `plan` calls an error and no backup but one of the server's could bring back, `up` does not begin."""
    forward, says = LOSSES[case]
    log = "SELECT e.notification_id, e.topic, e.state FROM events AS e ORDER BY 1"
    before = query(team, log)
    first = releases.add("CREATE TABLE desks (code text PRIMARY KEY);", "DROP TABLE desks;")
    releases.add(forward, "SELECT 1;")
    with pytest.raises(MigrationError, match=rf"{first + 1:03}_step.sql .*{says}"):
        up(next_of(team, releases, HOLDINGS, VALUATIONS))
    assert query(team, log) == before
    assert query(team, "SELECT to_regclass('ledger.desks')::text") == [(None,)]


def test_an_index_of_the_log_and_a_column_of_another_type_are_no_loss(team: Settings, releases: Releases) -> None:
    releases.add("CREATE INDEX by_topic ON events (topic);", "DROP INDEX by_topic;")
    releases.add(
        "ALTER TABLE append_keys ADD COLUMN note integer NOT NULL DEFAULT 1;",
        "ALTER TABLE append_keys DROP COLUMN note;",
    )
    releases.add("ALTER TABLE append_keys ALTER note TYPE bigint;", "ALTER TABLE append_keys ALTER note TYPE integer;")
    up(next_of(team, releases, HOLDINGS, VALUATIONS))
    assert query(team, "SELECT to_regclass('ledger.by_topic') IS NOT NULL") == [(True,)]


def test_what_cannot_be_taken_back_is_found_before_a_set_begins(team: Settings, releases: Releases) -> None:
    """Rows that a trigger keeps: the rollback section is there, and fails. Refused while nothing has begun."""
    keeps = releases.add(
        "INSERT INTO strategies (strategy_id, name) VALUES (1, 'a');", "DELETE FROM strategies WHERE strategy_id = 1;"
    )
    releases.add("ALTER TABLE holdings ADD CONSTRAINT never_many CHECK (fills < 2);")
    bad = next_of(team, releases, HOLDINGS, VALUATIONS)
    with pytest.raises(
        MigrationError,
        match=rf"cannot be rolled back \({keeps:03}_step.sql line \d+: 'DELETE .* failed: refused: .*history refers.*\), so"
        rf" it cannot be part of the change set .* run `position-ledger migrate up {keeps:03}`, then",
    ):
        up(bad)
    assert query(team, f"SELECT action FROM schema_migration_history WHERE number >= {keeps}") == []
    # and the command that is named leads on
    up(bad, keeps)
    with pytest.raises(VerificationFailed, match="never_many"):
        up(bad)
    assert query(team, f"SELECT number, state FROM schema_migrations WHERE number >= {keeps}") == [(keeps, "done")]


@pytest.mark.uncounted
def test_a_set_that_cannot_be_undone_any_more_is_left_by_abort(team: Settings, releases: Releases) -> None:
    """While the set is under way somebody builds on what it made: its rollback was proven, and fails nevertheless."""
    bad, first = failing_set(team, releases)

    def build_on_it(message: str) -> None:
        if message.startswith("building"):
            execute(team, "CREATE VIEW desk.on_desks AS SELECT d.code FROM ledger.desks AS d")

    with pytest.raises(
        MigrationError, match=r"undoing the change set failed as well: .*desk.on_desks.*up --abort`: it"
    ):
        operations.migrate_up(bad, engine.reached(bad), None, build_on_it)
    states = f"SELECT number, state FROM schema_migrations WHERE number >= {first} ORDER BY number"
    assert query(team, states) == [(first, "expanded")]

    told: list[str] = []
    operations.migrate_abort(bad, engine.reached(bad), told.append)

    assert "view desk.on_desks depends on table desks" in told[-1]
    assert f"{first:03}_step.sql stays applied" in told[-1]
    assert f"`position-ledger migrate down {first:03}`" in told[-1]
    assert query(team, states) == [(first, "done")]
    # when the view is gone, that command takes it back
    execute(team, "DROP VIEW desk.on_desks")
    operations.migrate_down(bad, engine.reached(bad), first, told.append)
    as_it_should_be(team)


@pytest.mark.soak
def test_a_plain_file_of_a_set_that_fails_takes_those_before_it_back(team: Settings, releases: Releases) -> None:
    releases.add("CREATE TABLE desks (code text PRIMARY KEY);", "DROP TABLE desks;")
    releases.add("ALTER TABLE desks ADD rate integer CHECK (rate > 0); INSERT INTO desks VALUES ('a', 1 - 1);")
    releases.add("ALTER TABLE holdings ADD CHECK (fills < 1000000);")
    with pytest.raises(MigrationError, match="CHECK violation"):
        up(next_of(team, releases, HOLDINGS, VALUATIONS))
    as_it_should_be(team)


@pytest.mark.soak
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
    assert query(team, "SELECT to_regclass('desks') IS NULL") == [(True,)]
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


def test_what_cannot_move_is_named_before_anything_is_begun(team: Settings, releases: Releases) -> None:
    execute(team, "CREATE MATERIALIZED VIEW desk.counted AS SELECT count(*) FROM ledger.holdings")
    number = releases.add("CREATE TABLE desks (code text);", "DROP TABLE desks;")
    releases.add("ALTER TABLE holdings DROP label;")
    with pytest.raises(SwapBlocked, match=r"materialized view desk.counted \(drop it"):
        up(next_of(team, releases, HOLDINGS.without("label"), VALUATIONS))
    assert query(team, f"SELECT action FROM schema_migration_history WHERE number >= {number}") == []
    as_it_should_be(team)
