"""A change set whose process is killed at every step of its way: `up` goes on with it, `up --abort` undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, operations
from position_ledger.errors import MigrationError
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.processes import running
from tests.support.rebuilding import execute, left_over
from tests.support.releases import HOLDINGS, HOLDINGS_COLUMNS, VALUATIONS, VALUATIONS_COLUMNS, Releases

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.settings import Settings

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.uncounted]

RUN = """
import os, re, signal, sys
from position_ledger import operations
from position_ledger.projection import foreign_keys
from position_ledger.projection.loading import Loader
from position_ledger.settings import load_settings
from tests.support import engine

settings = load_settings(
    database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0", projections=sys.argv[2], migrations=sys.argv[3]
)
pattern, nth = re.compile(sys.argv[4]), int(sys.argv[5])
validate = foreign_keys.validate_pending

def reached(message):
    global nth
    nth -= bool(pattern.search(message))
    if nth == 0:
        os.kill(os.getpid(), signal.SIGKILL)

take = Loader.take

def taken(loader):
    loaded = take(loader)
    if loaded is not None:
        reached("a part is loaded")
    return loaded

Loader.take = taken

def validating(connection, table):
    if connection.execute(foreign_keys.PENDING, (table,)).fetchall():
        reached("foreign keys are validated")
    validate(connection, table)

foreign_keys.validate_pending = validating
operations.migrate_up(settings, engine.reached(settings), None, reached)
print("not killed")
"""

STEPS = (
    ("^in place", 1),
    ("^rebuilding", 1),
    ("a part is loaded", 3),
    ("^building generation .* valuations", 1),
    ("a part is loaded", 11),
    ("^verified valuations", 1),
    ("foreign keys are validated", 1),
)
"""Where the process dies: the message, and how often it has been told by then."""


def die(settings: Settings, pattern: str, nth: int) -> None:
    """Run `up` in a process that kills itself at a step."""
    told = (str(settings.database_url), settings.projections, settings.migrations, pattern, str(nth))
    with running("-c", RUN, *told) as process:
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(60) == -9


def rows(settings: Settings) -> list[list[tuple[Any, ...]]]:
    statements = [f"SELECT t.* FROM {table} AS t ORDER BY t.id" for table in ("holdings", "valuations")]
    with engine.connected(settings, as_app=False) as owner:
        return [owner.execute(statement.encode()).fetchall() for statement in statements]


def states(settings: Settings) -> list[str]:
    return [str(row.state) for row in operations.migration_status(settings, engine.reached(settings)).rows][-3:]


@pytest.fixture
def set_out(settings: Settings, tmp_path: Path) -> tuple[Settings, Settings]:
    """The release before the change set, with history and a foreign key of users; and the release of the change set."""
    releases = Releases(settings, tmp_path)
    releases.add(HOLDINGS.create(HOLDINGS_COLUMNS), "DROP TABLE holdings;")
    releases.add(VALUATIONS.create(VALUATIONS_COLUMNS), "DROP TABLE valuations;")
    old = releases.release(HOLDINGS, VALUATIONS)
    with Ledger(settings, engine.reached(settings)) as ledger:
        Traffic(ledger, 31).run(80)
    operations.migrate_up(old, engine.reached(old), None, engine.quiet)
    execute(
        old,
        "CREATE SCHEMA desk",
        "CREATE TABLE desk.notes (row_id bigint REFERENCES ledger.holdings (id))",
        "INSERT INTO desk.notes SELECT h.id FROM ledger.holdings AS h",
    )
    releases.add("CREATE TABLE desks (code text PRIMARY KEY); INSERT INTO desks VALUES ('a');", "DROP TABLE desks;")
    releases.add("ALTER TABLE holdings ADD first_price numeric(38,18) NOT NULL;")
    releases.add("ALTER TABLE valuations ADD lowest numeric(38,18) NOT NULL;")
    new = releases.release(
        HOLDINGS.with_field("first_price", "Decimal", "event.body.fill.price"),
        VALUATIONS.with_field("lowest", "Decimal", "event.body.fill.price", "min(row.lowest, event.body.price)"),
    )
    return old, new


@pytest.mark.parametrize(
    "undone_at",
    [
        pytest.param(STEPS[4:5], id="undone at one step"),
        pytest.param(STEPS[:6], id="undone at each step", marks=pytest.mark.soak),
    ],
)
def test_killed_at_each_step_it_is_undone_or_goes_on(
    set_out: tuple[Settings, Settings], undone_at: tuple[tuple[str, int], ...]
) -> None:
    old, new = set_out
    engine.project_all(old)
    before = rows(old)
    last = len(operations.migration_status(new, engine.reached(new)).rows)
    # When it is killed and undone, then everything is as it was
    for pattern, nth in undone_at:
        die(new, pattern, nth)
        assert states(new) in (
            ["pending"] * 3,
            ["expanded", "pending", "pending"],
            ["expanded", "building", "building"],
        )
        undone = operations.migrate_abort(new, engine.reached(new), engine.quiet)
        assert undone.messages[-1].endswith("the database is as it was before")
        assert states(new) == ["pending"] * 3
        assert operations.migrate_verify(new, engine.reached(new)) == []
        assert left_over(new) == []
        assert rows(old) == before
    engine.proven(old)
    # When it is killed at one step after the other, then each run goes on where the one before was
    for pattern, nth in STEPS:
        die(new, pattern, min(nth, 3))
        if states(new) != ["applied"] * 3:
            assert states(new)[0] == "expanded"
            with pytest.raises(MigrationError, match=rf"has begun and cannot be split at {last - 1:03}"):
                operations.migrate_up(new, engine.reached(new), last - 1, engine.quiet)
            with pytest.raises(MigrationError, match="has begun and is not applied"):
                operations.migrate_down(new, engine.reached(new), last - 3, engine.quiet)
            assert rows(old) == before
    # Then the last one died behind the swap, and the next has only the foreign keys to look at
    assert states(new) == ["applied"] * 3
    assert any(line.startswith("unvalidated") for line in left_over(new))
    told: list[str] = []
    operations.migrate_up(new, engine.reached(new), None, told.append)
    assert told == [f"nothing to do: all {last} migrations are already applied"]
    assert left_over(new) == []
    engine.project_all(new)
    engine.proven(new)
    assert operations.migrate_verify(new, engine.reached(new)) == []
