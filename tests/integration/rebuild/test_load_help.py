"""A worker machine helps with the load of a rebuild that runs elsewhere: what it takes, and what is none of its own."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from position_ledger.operations import helping
from position_ledger.projection import building, chunk_ledger, load_help
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_help import LoadHelper
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.rebuilding import execute, left_over, rebuild, shadows

if TYPE_CHECKING:
    from position_ledger import Ledger
    from position_ledger.settings import Settings


def helper_of(settings: Settings, *, knows: bool = True) -> LoadHelper:
    projections = load_projections(settings.projections) if knows else ()
    return LoadHelper(str(settings.database_url), settings, projections)


@pytest.fixture
def left(settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """A rebuild that ended before the first part was loaded: generation and schema."""

    def interrupted(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    Traffic(ledger, 7).run(60)
    engine.project_all(settings)
    with monkeypatch.context() as patched:
        patched.setattr(building, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rebuild(settings)
    ((generation_id, schema),) = shadows(settings)
    return generation_id, schema


def test_a_helper_loads_what_is_left_and_the_rebuild_goes_on_from_there(
    settings: Settings, left: tuple[int, str]
) -> None:
    generation_id, schema = left
    before = engine.positions_rows(settings)
    assert helper_of(settings).help(generation_id) is False  # nothing is left to do
    with engine.connected(settings, as_app=False) as connection:
        assert chunk_ledger.is_complete(connection, schema)
    # When the rebuild is run again, then it has nothing to load, and the table is the same
    report = rebuild(settings)
    assert (report.generation_id, report.swapped) == (generation_id, True)
    assert engine.positions_rows(settings) == before
    assert left_over(settings) == []


def test_what_is_none_of_its_own_is_left_alone(
    settings: Settings, left: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    generation_id, schema = left
    # Given code of another definition, a helper that was stopped, and a generation that there never was
    assert helper_of(settings, knows=False).help(generation_id) is False
    assert "it belongs to other code" in caplog.text
    stopped = helper_of(settings)
    stopped.stop()
    assert stopped.help(generation_id) is False
    assert helper_of(settings).help(generation_id + 1) is False
    # Then nothing was loaded
    with engine.connected(settings, as_app=False) as connection:
        assert not chunk_ledger.is_complete(connection, schema)
    # And when it has ended, nothing is to be done either
    rebuild(settings)
    assert helper_of(settings).help(generation_id) is False


def test_a_helper_that_is_told_to_stop_ends_in_the_middle_of_a_part_and_lets_go_of_it(
    settings: Settings, left: tuple[int, str]
) -> None:
    generation_id, schema = left
    helper = helper_of(settings)
    with engine.connected(settings, as_app=False) as owner, ThreadPoolExecutor(1) as pool:
        # Given a helper that has taken a part and cannot write it, since somebody holds the table
        with psycopg.connect(str(settings.database_url)) as holding:
            holding.execute(f"LOCK TABLE {schema}.positions IN SHARE MODE".encode())
            helped = pool.submit(helper.help, generation_id)
            while not chunk_ledger.holders(owner, schema):
                assert not helped.done(), helped.result()
                time.sleep(0.01)
            # When it is told to stop, then it asks for no other turn, and its process is gone
            helper.stop()
            assert helped.result(10) is False
            assert not [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
        # and the part is free for others, with nothing of it loaded
        while chunk_ledger.holders(owner, schema):
            time.sleep(0.01)
        assert chunk_ledger.progress(owner, schema).done == 0


@pytest.mark.uncounted
def test_a_helper_that_cannot_load_says_why_and_asks_for_no_other_turn(
    settings: Settings, left: tuple[int, str], capfd: pytest.CaptureFixture[str]
) -> None:
    generation_id, schema = left
    # Given a turn that is over before the first part, then parts are left and another turn is asked for
    assert helper_of(settings).help(generation_id, turn_s=0.0) is True
    # When workers may not take parts, then another turn would fail as well
    execute(settings, f"REVOKE UPDATE ON {schema}.{chunk_ledger.TABLE} FROM {chunk_ledger.LOADERS}")
    assert helper_of(settings).help(generation_id) is False
    assert "position-ledger worker: helping to load positions ended: permission denied" in capfd.readouterr().err
    with engine.connected(settings, as_app=False) as owner:
        assert chunk_ledger.progress(owner, schema).done == 0


def test_a_load_that_ends_while_a_helper_begins_is_no_error(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given the process of a helper that was told of a load, and the list of its parts is gone when it looks
    gone = replace(engine.active(settings), state="building")
    arguments = (str(settings.database_url), settings, gone, 60.0)
    process = multiprocessing.get_context("spawn").Process(target=load_help._help, args=arguments)
    process.start()
    process.join(30)
    # Then it ends well and without a word
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_without_a_queue_a_load_goes_on_alone_and_says_so(settings: Settings) -> None:
    told: list[str] = []
    helping.call_workers(settings, engine.reached(settings), 1, 0, told.append)
    assert told == []
    assert settings.redis_url == NO_QUEUE
    helping.call_workers(settings, engine.reached(settings), 1, 2, told.append)
    assert len(told) == 1
    assert told[0].startswith("no worker could be called (")
    assert told[0].endswith("): this process loads alone")
