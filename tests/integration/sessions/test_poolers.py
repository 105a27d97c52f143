"""Poolers between the ledger and PostgreSQL: one that keeps sessions is no matter, one that exchanges them is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import Ledger
from position_ledger.errors import ConfigurationError, LedgerError
from position_ledger.sessions import require_session
from position_ledger.store.library import LedgerApplication, library_environment
from tests.support import engine
from tests.support.command_line import REBUILD, in_this_process
from tests.support.commands import marking, opening
from tests.support.pooler import pooled

if TYPE_CHECKING:
    from position_ledger.settings import Settings

SENTENCE = "a pooler between the ledger and PostgreSQL gives the session to others after each transaction"
THREADS = 4


def through(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": url})


@pytest.mark.parametrize("others", [0, 5])
def test_a_pooler_that_exchanges_sessions_is_refused_before_anything_is_done(settings: Settings, others: int) -> None:
    """Alone there, and beside others who have transactions open."""
    with engine.connected(settings, as_app=False) as owner, pooled(str(settings.database_url), "transaction") as pooler:
        before = owner.execute("SELECT feed_mark()").fetchone()
        ours, run = through(settings, pooler.url), in_this_process(pooler.url)
        with ExitStack() as open_ones:
            for _ in range(others):
                open_ones.enter_context(psycopg.connect(pooler.url)).execute("SELECT 1")
            with pytest.raises(ConfigurationError, match=SENTENCE):
                Ledger(ours, engine.reached(ours))
            with pytest.raises(ConfigurationError, match=SENTENCE):
                LedgerApplication(library_environment(pooler.url))
            for arguments in (("positions",), ("status",), ("verify",), ("worker",), ("migrate", "up")):
                answer = run(*arguments)
                assert (answer.code, SENTENCE in answer.err) == (2, True), (arguments, answer)
            answer = run("positions", entry=REBUILD)
            assert (answer.code, SENTENCE in answer.err) == (2, True), answer
            assert SENTENCE in " ".join(run("doctor").out.split())
        assert owner.execute("SELECT feed_mark()").fetchone() == before


def test_a_pooler_that_keeps_sessions_is_no_matter(settings: Settings) -> None:
    with pooled(str(settings.database_url), "session") as pooler:
        ours = through(settings, pooler.url)
        with Ledger(ours, engine.reached(ours)) as ledger:

            def trade(number: int) -> None:
                for _ in range(5):
                    opened = ledger.execute(opening(market=f"M-{number}"))
                    ledger.wait_for(ledger.execute(marking(opened.position_id, "0.5")).token)

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(trade, range(THREADS)))
            assert len(ledger.positions()) == 5 * THREADS
        engine.project_all(ours)
        engine.proven(ours)


def test_who_has_to_wait_for_a_session_while_ours_is_idle_does_not_get_ours(settings: Settings) -> None:
    """A pool without another session: nobody answers the question, and that is answer enough."""
    with (
        pooled(str(settings.database_url), "session", sessions_max=1) as pooler,
        psycopg.connect(pooler.url, autocommit=True) as connection,
    ):
        require_session(connection, pooler.url, {})
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_pooler_that_begins_to_exchange_sessions_beside_an_open_ledger_does_no_harm(settings: Settings) -> None:
    """Commands fail with an error of the ledger, or are done: nothing is half done, and nothing is done twice."""
    with pooled(str(settings.database_url), "session") as pooler:
        ours = through(settings, pooler.url)
        with Ledger(ours, engine.reached(ours)) as ledger:
            position = ledger.execute(opening()).position_id
            together = threading.Barrier(THREADS)

            def mark(number: int) -> list[LedgerError]:
                failed = []
                for turn in range(20):
                    together.wait(10)
                    try:
                        ledger.execute(marking(position, "0.5", command_id=f"{number}-{turn}"))
                    except LedgerError as error:
                        failed.append(error)
                return failed

            pooler.mode = "transaction"
            with ThreadPoolExecutor(THREADS) as pool:
                failed = [error for each in pool.map(mark, range(THREADS)) for error in each]
    with Ledger(settings, engine.reached(settings)) as ledger:
        ledger.catch_up()
        marks = [event for event in ledger.events(position) if event["topic"] == "position.marked"]
        assert len(marks) + len(failed) == 20 * THREADS
    engine.proven(settings)
