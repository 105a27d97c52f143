"""Two releases at once, as processes: each projects its own generation, the switch is the swap, and back."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import Ledger, operations
from tests.support import engine, processes
from tests.support.engine import Traffic
from tests.support.rebuilding import last_number, left_over, rebuild, team_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import Popen

    from position_ledger.settings import Settings

WORKER = """
import sys
from position_ledger.events import EVENTS
from position_ledger.projection.definition import load_projections
from position_ledger.projection.service import FollowerService
from position_ledger.settings import load_settings
from position_ledger.store.codec import Codec
settings = load_settings(database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0", projections=sys.argv[2])
projections = load_projections(settings.projections)
service = FollowerService(settings.database_url, settings, projections, Codec(EVENTS))
service.start()
sys.stdin.read()
service.stop()
"""
LIMIT_S = 40.0
WAITS = """
SELECT count(*) FROM pg_stat_activity AS a
 WHERE a.datname = current_database() AND a.application_name = 'position-ledger worker' AND a.wait_event_type = 'Lock'
"""
REACHED = """
SELECT g.generation_id, g.state, min(c.position), string_agg(DISTINCT c.holder, ', ') FROM projection_generations AS g
  JOIN projection_checkpoints AS c USING (generation_id) GROUP BY g.generation_id ORDER BY g.generation_id
"""


def worker(stack: ExitStack, settings: Settings) -> Popen[str]:
    """A worker process with the code that the settings name."""
    return stack.enter_context(processes.running("-c", WORKER, str(settings.database_url), settings.projections))


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(settings: Settings) -> list[str]:
    with engine.connected(settings) as connection:
        return [row[1] for row in connection.execute(REACHED).fetchall()]


def projected(settings: Settings, token: int, generations: int = 2) -> None:
    """Wait until workers, without our help, have brought so many generations to a token."""
    with engine.connected(settings) as connection:
        until(lambda: sum(row[2] >= token for row in connection.execute(REACHED).fetchall()) == generations)


def of_both(settings: Settings) -> tuple[list[Any], list[Any]]:
    """The columns that both releases have, by id: of the live table and of the other generation."""
    columns = ", ".join(f"t.{column}::text" for column in engine.positions_of(settings).columns)
    with engine.connected(settings, as_app=False) as owner:
        (aside,) = owner.execute(
            "SELECT g.schema_name FROM projection_generations AS g WHERE g.state IN ('retired', 'building')"
        ).fetchone() or ("",)
        live, other = (
            owner.execute(f"SELECT {columns} FROM {schema}.positions AS t ORDER BY t.id".encode()).fetchall()
            for schema in ("ledger", aside)
        )
    return live, other


@pytest.mark.uncounted
@pytest.mark.slow
def test_two_releases_project_side_by_side_and_one_can_go_back(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "positions.py").write_text("from position_ledger.demo.team.projections.positions import POSITIONS\n")
    team = team_settings(settings, tmp_path).model_copy(update={"projections": str(folder)})
    traffic = Traffic(ledger, 21)
    traffic.run(30)
    engine.project_all(settings)
    rebuild(team, swap=False)
    with ExitStack() as stack:
        # Given a worker process of each release, when events come, then each has projected its own generation
        old = worker(stack, settings)
        new = worker(stack, team)
        projected(settings, traffic.run(20))
        assert states(settings) == ["active", "building"]
        live, shadow = of_both(settings)
        assert {row[0] for row in live} <= {row[0] for row in shadow}

        # When the old worker is stopped in the middle of a batch, and the swap to the new release takes place meanwhile
        with engine.connected(settings, as_app=False) as owner, ExitStack() as pause:
            with owner.transaction():
                owner.execute("LOCK TABLE ledger.positions IN SHARE ROW EXCLUSIVE MODE")
                traffic.run(10)
                until(lambda: owner.execute(WAITS).fetchone() != (0,))
                pause.enter_context(processes.paused(old.pid))
            operations.migrate_up(team, engine.reached(team), None, engine.quiet)
            assert states(settings) == ["retired", "active"]
            swapped = traffic.token
        # and it goes on afterwards, then it has written nothing into the live table, and goes on with its own
        projected(settings, traffic.run(20))
        assert swapped < traffic.token
        engine.proven(team)
        live, retired = of_both(settings)
        assert {row[0] for row in retired} <= {row[0] for row in live}

        # When the new release is rolled back, then the rows of the old one are live at once, with what came since
        operations.migrate_down(team, engine.reached(team), last_number(team), engine.quiet)
        assert states(settings) == ["active", "retired"]
        assert of_both(settings)[0] == retired
        projected(settings, traffic.run(10))
        for one in (old, new):
            assert one.poll() is None
    engine.proven(settings)
    assert left_over(settings) == []
