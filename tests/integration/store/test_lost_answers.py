"""When the connection breaks during an append, nobody knows whether it was committed: the ledger finds out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import DatabaseUnavailable, Handle, Ledger, MarkPosition, ReducePosition
from position_ledger.execution.broken import LOST_ANSWER_TRIES_MAX
from position_ledger.store.audit import broken_links
from tests.support.commands import events_of, opening
from tests.support.proxy import Loss, LossyProxy, lossy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import psycopg

    from position_ledger import Command

BATCHES: dict[str, Sequence[Command]] = {
    "one": [opening()],
    "one with an id": [opening(command_id="c1")],
    "several": [
        opening(handle="new"),
        ReducePosition(position_id=Handle("new"), quantity=40, price="0.6"),
        MarkPosition(position_id=Handle("new"), price="0.7"),
    ],
    "several with ids": [
        opening(handle="new", command_id="c1"),
        ReducePosition(position_id=Handle("new"), quantity=40, price="0.6", command_id="c2"),
    ],
}


@pytest.fixture
def proxy(ledger_database: str, tmp_path: Path) -> Iterator[LossyProxy]:
    """A way to the database that loses what it is told to lose."""
    with lossy(tmp_path, ledger_database) as one:
        yield one


@pytest.fixture
def lossy_ledger(proxy: LossyProxy, redis_url: str) -> Iterator[Ledger]:
    """A ledger that reaches its database through the proxy."""
    with Ledger.open(database_url=proxy.url, redis_url=redis_url) as ledger:
        yield ledger


def stored(owner: psycopg.Connection[Any]) -> list[tuple[str, int]]:
    return owner.execute("SELECT topic, originator_version FROM events ORDER BY notification_id").fetchall()


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name.lower())
def test_an_append_whose_answer_or_request_was_lost_happens_exactly_once(
    lossy_ledger: Ledger, proxy: LossyProxy, owner: psycopg.Connection[Any], batch: Sequence[Command], loss: Loss
) -> None:
    proxy.lose(loss)
    answers = lossy_ledger.execute_many(batch)
    assert proxy.cuts == 1
    assert len(stored(owner)) == events_of(*batch)
    assert list(broken_links(owner)) == []
    assert not any(answer.is_repeat for answer in answers)
    # and the answer is the true one
    assert len({answer.position_id for answer in answers}) == 1
    lossy_ledger.wait_for(answers[-1].token)
    assert lossy_ledger.position(answers[0].position_id or "")["version"] == len(batch)


@pytest.mark.parametrize(
    "losses", [[Loss.ANSWER, Loss.ANSWER], [Loss.REQUEST, Loss.ANSWER], [Loss.REQUEST] * 3], ids=str
)
def test_several_losses_in_a_row_still_append_once(
    lossy_ledger: Ledger, proxy: LossyProxy, owner: psycopg.Connection[Any], losses: list[Loss]
) -> None:
    proxy.lose(*losses)
    done = lossy_ledger.execute(opening(command_id="c1"))
    assert proxy.cuts == len(losses)
    assert (len(stored(owner)), done.is_repeat) == (events_of(opening()), False)


@pytest.mark.parametrize(
    ("loss", "is_committed"), [(Loss.ANSWER, True), (Loss.REQUEST, False)], ids=["answers", "requests"]
)
def test_a_database_that_stays_away_is_told_and_a_repeat_settles_it(
    lossy_ledger: Ledger, proxy: LossyProxy, owner: psycopg.Connection[Any], loss: Loss, *, is_committed: bool
) -> None:
    # given that the answer to every try is lost
    proxy.lose(*[loss] * LOST_ANSWER_TRIES_MAX)
    # when the command is executed, then the caller is told that it is not known whether it was committed
    with pytest.raises(DatabaseUnavailable, match="not known whether it was"):
        lossy_ledger.execute(opening(command_id="c1"))
    assert len(stored(owner)) == (events_of(opening()) if is_committed else 0)
    # and repeating it with the same id makes it happen exactly once
    done = lossy_ledger.execute(opening(command_id="c1"))
    assert (len(stored(owner)), done.is_repeat) == (events_of(opening()), is_committed)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_a_backend_killed_before_its_commit_appends_exactly_once(
    ledger: Ledger, owner: psycopg.Connection[Any], batch: Sequence[Command]
) -> None:
    # given an append that waits inside its transaction, after it took its number's lock
    with owner.transaction():
        owner.execute("LOCK TABLE events IN SHARE MODE")
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(ledger.execute_many(batch)))
        asking.start()
        blocked = wait_for_blocked(owner)
        # when its backend is terminated
        owner.execute("SELECT pg_terminate_backend(%s, 5000)", (blocked,))
    asking.join(20)
    # then the ledger has noticed, and appended it once
    assert len(answers) == 1
    assert len(stored(owner)) == events_of(*batch)


def wait_for_blocked(connection: psycopg.Connection[Any]) -> int:
    """The process id of the backend that waits for a lock on events."""
    for _ in range(10_000):
        row = connection.execute(
            "SELECT l.pid FROM pg_locks AS l WHERE NOT l.granted AND l.relation = 'events'::regclass"
        ).fetchone()
        if row is not None:
            return int(row[0])
        connection.execute("SELECT pg_sleep(0.001)")
    raise AssertionError("no append is blocked")
