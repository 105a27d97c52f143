"""What was known at a time, asked of a standby: what the primary answers, never less, and no answer where nobody can know."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from position_ledger import KnownAtRefused
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic, clock
from tests.support.feed_steps import Step, SteppedAppend
from tests.support.standby import briefly, opened

if TYPE_CHECKING:
    from tests.support.standby import Pair

ASKED = 6
NOBODY_TOLD = "this server is a standby, and no worker has told yet how far the log of its primary was after that"


def ids(rows: list[dict[str, object]]) -> list[object]:
    return sorted(row["id"] for row in rows)  # type: ignore[type-var]


@pytest.mark.uncounted
def test_beside_trading_a_standby_tells_of_a_time_what_the_primary_tells_of_it_for_ever(pair: Pair) -> None:
    # Given writers and a worker of the primary
    stop = threading.Event()
    told: list[tuple[datetime, list[object]]] = []

    def write(seed: int) -> None:
        with opened(pair.settings) as writing:
            traffic = Traffic(writing, seed)
            while not stop.is_set():
                traffic.once()

    def work() -> None:
        with engine.following(pair.settings, "worker") as follower:
            follower.follow(stop)

    with ThreadPoolExecutor(4) as pool, opened(pair.reading) as reading:
        running = [*(pool.submit(write, seed) for seed in (31, 32, 33)), pool.submit(work)]
        try:
            # When the standby is asked again and again what is known right now
            for _ in range(ASKED):
                now = clock(pair.settings)
                told.append((now, ids(reading.positions(known_at=now))))
        finally:
            stop.set()
        for one in running:
            one.result(20)
    # Then that is what the primary knows of these times when all is there
    engine.project_all(pair.settings)
    with opened(pair.settings) as asking:
        assert [(moment, ids(asking.positions(known_at=moment))) for moment, _ in told] == told
    assert told[0][1] != told[-1][1]


def test_who_asks_a_standby_waits_for_an_append_that_was_stopped_before_its_rows(pair: Pair) -> None:
    # Given a writer that has its number and its recorded time, and stands still before its rows
    with engine.connected(pair.settings, as_app=False) as writer, engine.following(pair.settings, "worker") as follower:
        append = SteppedAppend(writer)
        writer.execute("BEGIN")
        for step in (Step.LOCK, Step.NUMBER, Step.CLOCK):
            append.do(step)
        moment = clock(pair.settings)
        # and a worker that has told since then how far the log is, and has projected what can be
        engine.drain(follower)
        pair.replay()
        # When the standby is asked what was known after that, then it does not answer
        with opened(briefly(pair.reading)) as impatient, pytest.raises(KnownAtRefused, match="look at position-ledger"):
            impatient.positions(known_at=moment)
        # until the writer has ended, the tables have passed it, and that is replayed
        append.do(Step.INSERT)
        writer.execute("COMMIT")
        engine.drain(follower)
        pair.replay()
        with opened(briefly(pair.reading)) as reading, opened(pair.settings) as asking:
            assert ids(reading.positions(known_at=moment)) == ids(asking.positions(known_at=moment)) != []


def test_without_a_worker_that_tells_nobody_can_know(pair: Pair) -> None:
    with opened(pair.settings) as trading:
        trading.wait_for(trading.execute(opening()).token)
        with engine.connected(pair.settings, as_app=False) as owner:
            owner.execute("DELETE FROM projection_workers")
        pair.replay()
        with opened(briefly(pair.reading)) as reading:
            with pytest.raises(KnownAtRefused, match=NOBODY_TOLD):
                reading.positions(known_at=datetime(2026, 1, 1, tzinfo=UTC))
            # When a worker of a release before the migration tells that it lives, then that is not enough
            with engine.connected(pair.settings, as_app=False) as owner:
                owner.execute(
                    "INSERT INTO projection_workers (worker, fingerprints, seen_at) VALUES ('old', '{}', clock_timestamp())"
                )
            pair.replay()
            with pytest.raises(KnownAtRefused, match=NOBODY_TOLD):
                reading.positions(known_at=datetime(2026, 1, 1, tzinfo=UTC))
            # One of this release tells
            with engine.following(pair.settings, "worker") as follower:
                engine.drain(follower)
                pair.replay()
                assert reading.positions(known_at=datetime(2026, 1, 1, tzinfo=UTC)) == []
        with engine.connected(pair.settings, as_app=False) as owner:
            owner.execute("DELETE FROM projection_workers")
