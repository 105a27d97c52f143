"""Values that one migration gives an enum type and a later one uses: in PostgreSQL never safe within one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger import operations
from tests.support import engine
from tests.support.change_sets import as_it_should_be, next_of, query, releases, team, team_template, up
from tests.support.engine_fixtures import migrated_template, settings
from tests.support.releases import HOLDINGS, VALUATIONS, Releases

if TYPE_CHECKING:
    from position_ledger.settings import Settings

__all__ = ["migrated_template", "releases", "settings", "team", "team_template"]

pytestmark = pytest.mark.uncounted

FILES = (
    ("CREATE TYPE mood AS ENUM ('calm');", "DROP TYPE mood;"),
    ("ALTER TYPE mood ADD VALUE 'wild';", "DROP TYPE mood; CREATE TYPE mood AS ENUM ('calm');"),
    (
        "CREATE TABLE moods (mood mood PRIMARY KEY DEFAULT 'wild'); INSERT INTO moods DEFAULT VALUES;",
        "DROP TABLE moods;",
    ),
)


def planned(team: Settings) -> set[str]:
    """Codes of the errors of a plan of everything that is pending."""
    plan = operations.migrate_plan(team, engine.reached(team))
    return {one.code for one in plan.findings if one.severity == "error"}


def test_a_value_is_used_by_a_later_file_of_the_same_run(team: Settings, releases: Releases) -> None:
    for forward, rollback in FILES:
        releases.add(forward, rollback)
    later = next_of(team, releases, HOLDINGS, VALUATIONS)
    assert planned(later) == set()
    up(later)
    assert query(later, "SELECT m.mood::text FROM moods AS m") == [("wild",)]


def test_a_value_is_used_by_a_file_that_comes_after_it(team: Settings, releases: Releases) -> None:
    """Given files that are applied, when they are replayed with the one that follows, then as if each had been committed."""
    for forward, rollback in FILES:
        releases.add(forward, rollback)
        later = next_of(team, releases, HOLDINGS, VALUATIONS)
        assert planned(later) == set()
        up(later)
    releases.add(
        "ALTER TABLE holdings ADD CONSTRAINT few CHECK (fills < 1000000);", "ALTER TABLE holdings DROP CONSTRAINT few;"
    )
    last = next_of(team, releases, HOLDINGS, VALUATIONS)
    assert planned(last) == set()
    up(last)
    as_it_should_be(last)
