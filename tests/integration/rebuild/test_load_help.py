"""A worker machine helps with the load of a rebuild that runs elsewhere: what it takes, and what is none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.operations import helping
from position_ledger.projection import building, chunk_ledger
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_help import LoadHelper
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.rebuilding import left_over, rebuild, shadows

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


def test_without_a_queue_a_load_goes_on_alone_and_says_so(settings: Settings) -> None:
    told: list[str] = []
    helping.call_workers(settings, engine.reached(settings), 1, 0, told.append)
    assert told == []
    assert settings.redis_url == NO_QUEUE
    helping.call_workers(settings, engine.reached(settings), 1, 2, told.append)
    assert len(told) == 1
    assert told[0].startswith("no worker could be called (")
    assert told[0].endswith("): this process loads alone")
