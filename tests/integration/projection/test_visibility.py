"""Read-your-writes: waiting for a token, in whichever process it was given and whoever projects."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger, MarkPosition
from position_ledger.database import connect
from position_ledger.errors import NotYetVisible
from position_ledger.store.append import append_here
from tests.support import engine
from tests.support.commands import mark_event, opening
from tests.support.processes import running

if TYPE_CHECKING:
    from position_ledger.settings import Settings

WAIT = """
import sys
from position_ledger import Ledger
with Ledger.open(database_url=sys.argv[1], redis_url="redis://127.0.0.1:1/0") as ledger:
    ledger.wait_for(int(sys.argv[2]), timeout_s=10)
    print(ledger.position(int(sys.argv[2]))["status"], flush=True)
"""


def test_without_a_worker_the_caller_projects_himself(settings: Settings, ledger: Ledger) -> None:
    opened = ledger.execute(opening())
    assert ledger.positions() == []
    ledger.wait_for(opened.token, timeout_s=5)
    assert [row["position_id"] for row in ledger.positions()] == [opened.position_id]
    # and leaves no shard behind that a worker would have to wait for
    with engine.following(settings) as follower:
        follower.step()
        assert follower.held == engine.shards(settings)


@pytest.mark.uncounted
def test_another_process_waits_for_a_token_that_it_was_told(settings: Settings, ledger: Ledger) -> None:
    opened = ledger.execute(opening())
    position = str(opened.position_id).removeprefix("POS-")
    with running("-c", WAIT, str(settings.database_url), position) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "open"
        assert process.wait(10) == 0


def test_with_a_worker_the_caller_waits_for_it(settings: Settings, ledger: Ledger) -> None:
    stop = threading.Event()

    def work() -> None:
        with engine.following(settings, "worker") as follower:
            follower.follow(stop)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for price in ("0.50", "0.51", "0.52"):
            opened = ledger.execute(opening(entry_price=price))
            ledger.wait_for(opened.token, timeout_s=10)
            ledger.position(str(opened.position_id))
    finally:
        stop.set()
        worker.join(10)
    engine.proven(settings)


def test_what_is_held_back_is_not_yet_visible(settings: Settings, ledger: Ledger) -> None:
    # Given an append that is still in flight, with a number below ours
    import uuid

    writer = connect(str(settings.database_url), settings, as_app=True)
    with writer, writer.transaction(force_rollback=True):
        append_here(writer, [mark_event(uuid.uuid4(), 1)])
        opened = ledger.execute(opening())
        # When we wait for our own event, then we are told that it is committed and must not be repeated
        with pytest.raises(NotYetVisible, match=rf"token {opened.token} is committed .* do not repeat") as failure:
            ledger.wait_for(opened.token, timeout_s=0.2)
        assert failure.value.token == opened.token
        assert ledger.positions() == []
    # When it has ended, then ours becomes visible
    ledger.wait_for(opened.token, timeout_s=5)
    assert len(ledger.positions()) == 1


def test_a_time_out_is_kept(settings: Settings, ledger: Ledger) -> None:
    opened = ledger.execute(opening())
    with engine.following(settings, "holder") as holder:
        holder._keep_up()
        holder._seek()
        started = time.monotonic()
        with pytest.raises(NotYetVisible):
            ledger.wait_for(opened.token, timeout_s=0.3)
        assert 0.3 <= time.monotonic() - started < 3


def test_strong_consistency_waits_by_itself(settings: Settings) -> None:
    strong = settings.model_copy(update={"consistency": "strong"})
    with Ledger(strong, engine.reached(settings)) as ledger:
        opened = ledger.execute(opening())
        assert ledger.position(str(opened.position_id))["version"] == 1
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price="0.6"))
        assert ledger.position(str(opened.position_id))["version"] == 2
        done = ledger.execute_each([opening(account="x"), opening(account="y")])
        assert len(done) == len(ledger.positions()) - 1 == 2
