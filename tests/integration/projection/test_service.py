"""The follower of a worker process: held by turns, started once, and patient with a database that does not fit yet."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.events import EVENTS
from position_ledger.projection import service as service_module
from position_ledger.projection.definition import load_projections
from position_ledger.projection.service import RETRY_FIRST_S, FollowerService
from position_ledger.store.codec import Codec
from tests.support import engine
from tests.support.commands import opening
from tests.support.rebuilding import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from position_ledger import Ledger
    from position_ledger.settings import Settings

HELD = "SELECT count(*) FROM projection_checkpoints WHERE holder IS NOT NULL AND lease_until > clock_timestamp()"
LIMIT_S = 20.0


@pytest.fixture
def service(settings: Settings) -> Iterator[FollowerService]:
    made = FollowerService(
        str(settings.database_url), settings, load_projections(settings.projections), Codec(EVENTS)
    )  # fmt: skip
    yield made
    made.stop()


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def held(settings: Settings) -> int:
    with engine.connected(settings) as connection:
        row = connection.execute(HELD).fetchone()
    return int(row[0]) if row else 0


def test_a_worker_whose_code_does_not_fit_says_so_and_goes_on_once_it_does(
    settings: Settings, service: FollowerService, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a table that other code has built
    fingerprint = engine.active(settings).fingerprint
    execute(settings, "UPDATE projection_generations SET fingerprint = 'of other code' WHERE projection = 'positions'")
    # When the worker starts, then it says that it has nothing to write, and with which command that is mended
    with caplog.at_level(logging.WARNING):
        service.start()
        until(lambda: "nothing to write" in caplog.text)
    assert "rebuild-projection positions" in caplog.text
    assert held(settings) == 0
    # and says it once, however often it looks again
    until(lambda: service._retry_s > 8 * RETRY_FIRST_S)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    # and once there is a table of its code, it follows
    execute(settings, f"UPDATE projection_generations SET fingerprint = '{fingerprint}' WHERE projection = 'positions'")
    until(lambda: held(settings) == engine.shards(settings))


def test_a_worker_that_runs_says_once_that_a_table_is_of_other_code_now_and_drops_what_is_over(
    settings: Settings, service: FollowerService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker at work that looks often
    monkeypatch.setattr(service_module, "TEND_S", 0.0)
    service.start()
    until(lambda: held(settings) == engine.shards(settings))
    # When its generation goes over to other code, and a retired one of long ago is there
    with caplog.at_level(logging.INFO):
        execute(
            settings,
            "UPDATE projection_generations SET fingerprint = 'of other code' WHERE projection = 'positions'",
            "CREATE SCHEMA ledger_g77",
            "INSERT INTO projection_generations (projection, fingerprint, columns, schema_name, state, release, kept_until)"
            " VALUES ('positions', 'f', '{id}', 'ledger_g77', 'retired', '0', '-infinity')",
        )
        until(lambda: "no longer writes all of its tables" in caplog.text and "were dropped" in caplog.text)
        until(lambda: held(settings) == 0 or service._follower is None or not service._follower.held)
    # Then it says both once, and writes nothing
    assert caplog.text.count("no longer writes all of its tables") == 1
    with engine.connected(settings) as connection:
        assert connection.execute("SELECT to_regnamespace('ledger_g77')::oid").fetchone() == (None,)


def test_a_batch_of_other_code_is_refused_though_the_lease_is_held(settings: Settings, ledger: Ledger) -> None:
    """An empty table that is migrated in place goes over to new code under the same generation: old code must not write."""
    with engine.following(settings) as follower:
        # Given a follower that holds its leases, and a generation that goes over to other code before its next look
        follower.step()
        ledger.execute(opening())
        execute(
            settings, "UPDATE projection_generations SET fingerprint = 'of other code' WHERE projection = 'positions'"
        )
        # When it projects, then it is refused and lets go
        engine.drain(follower)
        assert follower.held == 0
    assert engine.positions_rows(settings) == []


def test_one_turn_at_a_time_and_it_ends_only_when_it_is_handed_over(
    settings: Settings, service: FollowerService
) -> None:
    service.start()
    service.start()
    asked: list[bool] = []

    def hand_over() -> bool:
        asked.append(bool(asked))
        return asked[-1]  # no at first, then yes

    turn = threading.Thread(target=service.follow_for, args=(0.3, hand_over))
    turn.start()
    until(lambda: service._waiting)
    assert service.follow_for(0.1, lambda: True) is False
    turn.join(LIMIT_S)
    assert asked == [False, True]
    until(lambda: held(settings) == engine.shards(settings))
    service.stop()
    assert held(settings) == 0


def test_a_service_that_never_started_stops(service: FollowerService) -> None:
    service.stop()
