"""Rebuilds that are killed at any instant, and servers that are killed under them: the next run ends the same."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from position_ledger import Ledger, operations
from position_ledger.errors import LedgerError
from position_ledger.operations import RebuildOptions
from position_ledger.projection import foreign_keys
from position_ledger.settings import Settings, load_settings
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.processes import kill, running
from tests.support.rebuilding import arguments, execute, left_over, rebuild

if TYPE_CHECKING:
    from position_ledger.embedded.temporary import TemporaryPostgres

pytestmark = [pytest.mark.chaos, pytest.mark.uncounted]

REFERENCED = (
    "CREATE TABLE notes (row_id bigint REFERENCES positions (id))",
    "INSERT INTO notes SELECT id FROM positions",
)


def killed_and_run_again(settings: Settings, ledger: Ledger, kills: int, seed: int, processes: int = 1) -> None:
    """Kill rebuilds at random instants of their lives; after each, and after a last whole one, all is as it should be."""
    # Given a history, with a table of the team's own that refers to its rows
    dice = random.Random(seed)
    Traffic(ledger, seed).run(150)
    engine.project_all(settings)
    execute(settings, *REFERENCED)
    before = engine.positions_rows(settings)
    started = time.monotonic()
    rebuild(settings)
    whole_s = time.monotonic() - started
    for _ in range(kills):
        # When the process of a rebuild is killed somewhere between its first step and its end
        with running(*arguments(settings, processes)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(dice.uniform(0, 1.2 * whole_s))
            children = psutil.Process(process.pid).children(recursive=True)
            if children and dice.random() < 0.5:  # a loading process, and the rest notices
                dice.choice(children).kill()
                process.wait(60)
            kill(process)
        # Then readers see what they saw, and nobody goes on in the background
        assert engine.positions_rows(settings) == before
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
    # When it is run again, then it ends, and nothing of the killed ones is left
    assert rebuild(settings).swapped
    assert engine.positions_rows(settings) == before
    assert left_over(settings) == []
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        execute(settings, "INSERT INTO notes VALUES (99999999)")
    engine.proven(settings)


@pytest.mark.slow
@pytest.mark.soak
def test_a_rebuild_killed_at_random_instants(settings: Settings, ledger: Ledger) -> None:
    killed_and_run_again(settings, ledger, kills=5, seed=1)


@pytest.mark.slow
def test_a_rebuild_with_processes_of_its_own_killed_at_random_instants(settings: Settings, ledger: Ledger) -> None:
    killed_and_run_again(settings, ledger, kills=2, seed=2, processes=2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_rebuilds_killed_for_minutes(settings: Settings, ledger: Ledger, seed: int) -> None:
    killed_and_run_again(settings, ledger, kills=20, seed=100 + seed, processes=1 + seed % 2)


@pytest.mark.slow
def test_a_swap_whose_foreign_keys_were_not_validated_is_ended_by_the_next(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a rebuild that ended between its swap and the validation, as a killed one does
    Traffic(ledger, 5).run(50)
    engine.project_all(settings)
    execute(settings, *REFERENCED)
    with monkeypatch.context() as patched:
        patched.setattr(foreign_keys, "_validate", _killed)
        with pytest.raises(KeyboardInterrupt):
            rebuild(settings)
    assert left_over(settings) == ["unvalidated notes_row_id_fkey"]
    # When the next one runs, then it is made good
    rebuild(settings)
    assert left_over(settings) == []


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_database_killed_during_rebuilds(own_postgres: TemporaryPostgres) -> None:
    # Given a history on a durable server
    url = engine.new_database(own_postgres.database_url, "chaos")
    settings = load_settings(database_url=url, redis_url=NO_QUEUE)
    engine.migrate(settings)
    with Ledger(settings, engine.reached(settings)) as ledger:
        Traffic(ledger, 3).run(100)
        engine.project_all(settings)
    before = engine.positions_rows(settings)
    dice = random.Random(4)
    for _ in range(3):
        # When the server is killed under a rebuild
        with running(*arguments(settings)) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(dice.uniform(0.1, 2.5))
            own_postgres.kill9()
            assert process.wait(30) in {0, 1}
        own_postgres.start()
        # Then the table is what it was
        assert engine.positions_rows(settings) == before
    # and the next rebuild ends, with nothing left over
    rebuild(settings)
    assert engine.positions_rows(settings) == before
    assert left_over(settings) == []
    engine.proven(settings)


@pytest.mark.slow
def test_a_rebuild_whose_database_goes_away_says_so_in_a_sentence(settings: Settings, ledger: Ledger) -> None:
    # Given a rebuild whose session is ended by an administrator
    Traffic(ledger, 6).run(30)
    engine.project_all(settings)
    before = engine.positions_rows(settings)
    told: list[str] = []

    def tell(message: str) -> None:
        told.append(message)
        if message.startswith("loaded"):
            execute(
                settings,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'position-ledger operator' AND datname = current_database()",
            )

    with pytest.raises(LedgerError, match="the database did not answer"):
        operations.rebuild(settings, engine.reached(settings), "positions", options=RebuildOptions(), tell=tell)
    # Then the live table is unchanged, and the next one cleans up
    assert engine.positions_rows(settings) == before
    rebuild(settings)
    assert left_over(settings) == []
