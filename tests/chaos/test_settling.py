"""Those who pay a market are killed -9 again and again; every position is paid exactly once all the same."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger, SettleMarket
from tests.support import engine
from tests.support.processes import kill, running
from tests.support.settling import MARKET, figures, opened, paid_count, payouts, query, registered

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.uncounted]

POSITIONS = 1_500
LIMIT_S = 100.0

CALLER = """
import sys
from position_ledger import Ledger
with Ledger.open(wait_timeout_s=60, settling_batch_max=20) as ledger:
    print("open", flush=True)
    ledger.settle_market("paper", sys.argv[1], 1, fee="0.01")
    print("paid", flush=True)
"""
WORKER = """
import threading
from position_ledger.worker import this_process
this_process().start(lambda: None)
print("open", flush=True)
threading.Event().wait()
"""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; nothing tells this process when it comes true in another."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def killed_when(url: str, code: str, paid: int) -> None:
    """Start somebody who pays, and kill it -9 once so many positions are paid."""
    environment = {
        "POSITION_LEDGER_DATABASE_URL": url,
        "POSITION_LEDGER_REDIS_URL": "redis://127.0.0.1:1/0",
        "POSITION_LEDGER_SETTLING_POLL_S": "0.05",
        "POSITION_LEDGER_SETTLING_BATCH_MAX": "20",
    }
    with running("-c", code, MARKET, **environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "open"
        until(lambda: paid_count(url) >= paid or process.poll() is not None, f"{paid} positions were never paid")
        assert process.poll() is None, "it has paid everything before it could be killed"
        kill(process)


@pytest.mark.timeout(300)
def test_every_position_is_paid_once_whoever_is_killed_half_way(ledger_database: str) -> None:
    # given a market of many positions
    dice = random.Random(20260501)
    with Ledger.open(database_url=ledger_database, redis_url="redis://unused", wait_timeout_s=100) as ledger:
        registered(ledger)
        ledger.wait_for(opened(ledger, POSITIONS))

        # when the caller who settles it is killed half way, and after him one worker after the other
        killed_when(ledger_database, CALLER, dice.randrange(100, 200))
        for share in (0.3, 0.5, 0.7):
            killed_when(ledger_database, WORKER, int(POSITIONS * share) + dice.randrange(50))
        stopped_at = paid_count(ledger_database)
        assert 0 < stopped_at < POSITIONS

        # then the same call pays the rest, every position has exactly one payout and its book knows
        done = ledger.settle_market("paper", MARKET, 1, fee="0.01")
        assert (done.settled, done.left, done.having_it) == (POSITIONS - stopped_at, 0, POSITIONS)
        assert set(payouts(ledger_database).values()) == {1}
        assert {row["status"] for row in figures(ledger_database, MARKET)} == {"settled"}
        closed = query(ledger_database, "SELECT count(*) AS n FROM events WHERE topic = 'book.position_closed'")
        assert closed[0]["n"] == POSITIONS
        engine.proven(ledger.settings)


@pytest.mark.timeout(300)
def test_a_killed_worker_leaves_the_rest_to_the_next(ledger_database: str) -> None:
    with Ledger.open(database_url=ledger_database, redis_url="redis://unused", wait_timeout_s=100) as ledger:
        registered(ledger)
        opened(ledger, 600)
        ledger.execute(SettleMarket(environment="paper", market=MARKET, value=0))
        killed_when(ledger_database, WORKER, 100)
        environment = {
            "POSITION_LEDGER_DATABASE_URL": ledger_database,
            "POSITION_LEDGER_REDIS_URL": "redis://127.0.0.1:1/0",
            "POSITION_LEDGER_SETTLING_POLL_S": "0.05",
        }
        with running("-c", WORKER, **environment):
            until(lambda: paid_count(ledger_database) == 600, "the next worker did not go on")
        assert set(payouts(ledger_database).values()) == {1}
