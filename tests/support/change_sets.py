"""A team with two tables of its own in a database with history, for tests of what changes them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, operations
from position_ledger.operations import RebuildOptions
from position_ledger.settings import load_settings
from tests.support import engine, only_positions
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.rebuilding import execute, left_over
from tests.support.releases import HOLDINGS, HOLDINGS_COLUMNS, VALUATIONS, VALUATIONS_COLUMNS, Releases, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from position_ledger.settings import Settings

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
