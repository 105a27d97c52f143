"""How long a retired table is kept: by the clock of the database, dropped by commands and by workers, and then said so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from rich.console import Console

from position_ledger import Ledger, operations
from position_ledger.cli.status import rendered
from position_ledger.errors import GenerationNotOurs
from position_ledger.projection.generation_notes import drop_expired
from position_ledger.projection.rebuild import REBUILD_LOCK
from position_ledger.projection.retention import nothing_to_go_back_to
from position_ledger.status import read_status
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.rebuilding import execute, left_over, rebuild, roll_back

if TYPE_CHECKING:
    from position_ledger.settings import Settings

OVER = "UPDATE projection_generations SET kept_until = clock_timestamp() - interval '1 s' WHERE state = 'retired'"


@pytest.fixture
def swapped(settings: Settings, ledger: Ledger) -> Settings:
    """A table that was rebuilt, beside the one before."""
    Traffic(ledger, 3).run(20)
    rebuild(settings)
    return settings


def generations(settings: Settings) -> list[tuple[Any, ...]]:
    with engine.connected(settings) as connection:
        return connection.execute(
            "SELECT g.generation_id, g.state, extract(epoch FROM g.kept_until - g.retired_at)::int / 3600 AS hours,"
            " to_regnamespace(g.schema_name) IS NOT NULL AS is_there FROM projection_generations AS g ORDER BY 1"
        ).fetchall()


@pytest.mark.uncounted
def test_a_retired_table_is_kept_for_its_hours_and_then_dropped(swapped: Settings) -> None:
    # Given a swap, then the table of before is kept for 72 hours, which status says
    assert generations(swapped) == [(1, "retired", 72, True), (2, "active", None, True)]
    retired = next(one for one in read_status(swapped, engine.reached(swapped)).projections if one.state == "retired")
    assert retired.kept_until is not None
    # When it goes back, then the other one is the retired one, for the hours of who did it
    roll_back(swapped.model_copy(update={"retired_kept_hours": 5}))
    assert generations(swapped) == [(1, "active", None, True), (2, "retired", 5, True)]
    # (a generation of a release that did not tell what it is made of is told by the next command)
    execute(swapped, "UPDATE projection_generations SET fingerprint_parts = '{}'")
    operations.migrate_up(swapped, engine.reached(swapped), None, engine.quiet)
    assert engine.active(swapped).parts["folds"]
    # When the time is over, one can still go back as long as nobody has dropped it
    execute(swapped, OVER)
    roll_back(swapped)
    execute(swapped, OVER)
    # and the next command that looks drops it
    operations.migrate_up(swapped, engine.reached(swapped), None, engine.quiet)
    assert [row[:2] for row in generations(swapped)] == [(1, "dropped"), (2, "active")]
    assert left_over(swapped) == []
    # Then a rollback says that it is gone, until when it was kept, and what leads there
    with pytest.raises(
        GenerationNotOurs, match=r"was kept until .* UTC and is dropped .* run rebuild-projection positions"
    ):
        roll_back(swapped)
    engine.project_all(swapped)
    engine.proven(swapped)


def test_with_no_hours_nothing_is_kept(settings: Settings, ledger: Ledger) -> None:
    Traffic(ledger, 3).run(5)
    rebuild(settings.model_copy(update={"retired_kept_hours": 0}))
    assert [row[1] for row in generations(settings)] == ["dropped", "active"]
    assert left_over(settings) == []


def test_a_migration_that_cannot_go_back_any_more_says_what_to_do(swapped: Settings) -> None:
    execute(swapped, "UPDATE projection_generations SET migrations = '{11}' WHERE state = 'active'", OVER)
    with engine.connected(swapped) as worker:
        assert drop_expired(worker) == [1]
        said = nothing_to_go_back_to(worker, "positions")
    assert "its rows are in the log: write a migration that undoes 011 and run position-ledger migrate up" in said


def test_a_worker_drops_it_and_never_waits(swapped: Settings, ledger: Ledger) -> None:
    """S54: the role of the workers may drop nothing but what is over, and nothing that is in use."""
    with engine.connected(swapped) as worker, engine.connected(swapped, as_app=False) as owner:
        # Given a retired table whose time is not over, then nothing happens
        assert drop_expired(worker) == []
        execute(swapped, OVER)
        # While somebody reads it, projects into it, or rebuilds or rolls back, it stays
        held = [
            "LOCK TABLE ledger_g1.positions IN ACCESS SHARE MODE",
            "SELECT pg_advisory_xact_lock_shared(5262407, 1)",
            f"SELECT pg_advisory_xact_lock({REBUILD_LOCK}, hashtext('positions'))",
        ]
        for statement in held:
            with owner.transaction():
                owner.execute(statement.encode())
                assert drop_expired(worker) == []
        # When nobody does, it is dropped once
        assert drop_expired(worker) == [1]
        assert drop_expired(worker) == []
        assert left_over(swapped) == []
        # and the worker's role can neither lengthen nor shorten the time, nor drop the table itself
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("UPDATE projection_generations SET kept_until = clock_timestamp()")
    # Old workers that kept it current have nothing to write any more, and the live table goes on
    token = ledger.execute(engine.Traffic(ledger, 4).command()).token
    engine.project_all(swapped)
    ledger.wait_for(token)


def test_whoever_may_not_drop_may_not_call(swapped: Settings) -> None:
    with engine.connected(swapped, as_app=False) as owner:
        rights = owner.execute(
            "SELECT r.rolname::text FROM pg_roles AS r WHERE r.rolname ~ '^position_ledger_'"
            " AND has_function_privilege(r.oid, 'drop_expired_generations()', 'EXECUTE') ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in rights] == ["position_ledger_app", "position_ledger_projector"]


def test_the_text_of_status_says_until_when(swapped: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=200)
    console.print(rendered(read_status(swapped, engine.reached(swapped)), console))
    out = capsys.readouterr().out
    assert re.search(r"retired, kept until \d\d \w{3} \d\d:\d\d", out)
    assert "definitions 1 current" in out
