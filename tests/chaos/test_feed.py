"""Nothing is lost and nothing is doubled by whoever follows the log; and the harness that says so can tell.

``POSITION_LEDGER_SOAK=1`` makes the long form: at least 200,000 events by 8 writers (`make soak`).
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack, closing
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.feed_harness import Harness
from tests.support.feed_steps import (
    LOCK_AFTER_NUMBER,
    RIGHT,
    Step,
    SteppedAppend,
    assert_same_order,
    read_behind_horizon,
)
from tests.support.feed_writer import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import psycopg

    Connection = psycopg.Connection[Any]

IS_SOAK = os.environ.get("POSITION_LEDGER_SOAK", "") not in {"", "0"}
SEED = int(os.environ.get("POSITION_LEDGER_SEED", "20260101"))
SHORT_S = 6.0
CONTROL_S = 3.0
SOAK_EVENTS = 200_000
READER = 2
"""The third actor of a schedule, after two writers."""
READERS = ["horizon", "library", "subscription", "unguarded"]

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.uncounted]


def test_the_steps_that_are_tested_are_those_of_the_functions(ledger_database: str) -> None:
    with closing(connect(ledger_database)) as owner:
        assert_same_order(owner)


def test_no_reader_behind_the_horizon_loses_or_doubles_an_event(ledger_database: str) -> None:
    harness = Harness(ledger_database, SEED)
    found = harness.run(writers=["right"] * 3 + ["function"] * 2, readers=READERS, seconds=SHORT_S)
    assert all(found[kind].is_exact for kind in ("horizon", "library", "subscription")), (found, harness)
    assert found["unguarded"].lost > 0, f"the control found no loss, so this run proves nothing: {found}"
    assert min(harness.disturbances.values()) > 0
    assert len(harness.disturbances) == 3


def test_with_the_lock_after_the_number_the_same_readers_lose_events(ledger_database: str) -> None:
    harness = Harness(ledger_database, SEED)
    found = harness.run(writers=["late-lock"] * 4, readers=["horizon"], seconds=CONTROL_S)
    assert found["horizon"].lost > 0, found
    assert found["horizon"].doubled == found["horizon"].invented == 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not IS_SOAK, reason="the long form: make soak, or POSITION_LEDGER_SOAK=1 with -m soak")
@pytest.mark.parametrize("seed", [1, 2])
def test_over_many_events_no_reader_loses_or_doubles_one(ledger_database: str, seed: int) -> None:
    harness = Harness(ledger_database, seed)
    found = harness.run(
        writers=["right"] * 4 + ["function"] * 4, readers=READERS, seconds=SHORT_S, events_min=SOAK_EVENTS
    )
    print(found, harness.disturbances)  # noqa: T201 - the figures of a long run
    assert all(found[kind].is_exact for kind in ("horizon", "library", "subscription")), (found, harness)
    assert found["unguarded"].lost > 0, found


# Every order in which the steps of two appends and one reader can happen


class Reader:
    """A reader whose three statements can be separated. It follows from where the schedule begins."""

    def __init__(self, connection: Connection, *, is_guarded: bool) -> None:
        self._connection = connection
        self._is_guarded = is_guarded
        self.cursor = self._mark = self._bound = 0
        self.seen: list[int] = []

    def begin(self) -> None:
        """Start at the highest number there is."""
        self.cursor = self._one("SELECT feed_mark()")
        self.seen = []

    def do(self, step: int) -> None:
        """The mark, then the lowest number in flight, then the page."""
        if step == 0:
            self._mark = self._one("SELECT feed_mark()")
        elif step == 1:
            self._bound = min(self._mark, self._one(IN_FLIGHT)) if self._is_guarded else self._mark
        elif self._bound > self.cursor:
            rows = self._connection.execute(PAGE, (self.cursor, self._bound), prepare=True).fetchall()
            self.seen += [row[0] for row in rows]
            self.cursor = self._bound

    def drain(self) -> None:
        """Read what is left when nobody writes any more."""
        for step in range(3):
            self.do(step)

    def _one(self, statement: str) -> int:
        row = self._connection.execute(statement, prepare=True).fetchone()
        assert row is not None
        return int(row[0])


IN_FLIGHT = """
SELECT coalesce(min(((l.classid::bigint & 65535) << 32) | l.objid::bigint), 9223372036854775807)
  FROM pg_locks AS l
 WHERE l.locktype = 'advisory' AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND (l.classid::bigint >> 16) = (SELECT f.namespace FROM feed AS f)
"""
PAGE = "SELECT notification_id FROM events WHERE notification_id > %s AND notification_id <= %s"


def schedules(*lengths: int) -> Iterator[tuple[int, ...]]:
    """Every way to interleave actors with so many steps each: which actor takes each step."""
    total = sum(lengths)
    if len(lengths) == 1:
        yield (0,) * total
        return
    for places in combinations(range(total), lengths[-1]):
        taken = set(places)
        for rest in schedules(*lengths[:-1]):
            others = iter(rest)
            yield tuple(len(lengths) - 1 if place in taken else next(others) for place in range(total))


class Schedules:
    """Two appends that take their steps in a given order, and a reader, in every order of their steps.

    An append stores its row and ends in one last step: nobody sees a row before the end of its transaction, so a stop
    between the two is no other case. The second append ends as ``ending`` says.
    """

    def __init__(
        self, connections: Sequence[Connection], order: Sequence[Step], *, ending: str, reader: Reader
    ) -> None:
        self._connections = connections
        self._order = [step for step in order if step in {Step.LOCK, Step.NUMBER}]
        self._endings = ("COMMIT", ending)
        self._reader = reader

    def losses(self) -> Iterator[bool]:
        """For each schedule, whether the reader has lost an event."""
        for schedule in schedules(3, 3, 3):
            self._reader.begin()
            appends = [SteppedAppend(connection) for connection in self._connections]
            taken = Counter[int]()
            for actor in schedule:
                if actor == READER:
                    self._reader.do(taken[actor])
                else:
                    self._write(actor, appends[actor], taken[actor])
                taken[actor] += 1
            self._reader.drain()
            yield self._has_lost(appends)

    def _write(self, actor: int, append: SteppedAppend, step: int) -> None:
        if step == 0:
            self._connections[actor].execute("BEGIN")
        if step < len(self._order):
            append.do(self._order[step])
        else:
            append.do(Step.INSERT)
            self._connections[actor].execute(self._endings[actor])

    def _has_lost(self, appends: Sequence[SteppedAppend]) -> bool:
        committed = zip(appends, self._endings, strict=True)
        expected = {number for append, ending in committed if ending == "COMMIT" for number in append.numbers}
        seen = self._reader.seen
        assert len(seen) == len(set(seen)), "an event was doubled"
        assert set(seen) <= expected, "an event was invented"
        return set(seen) != expected


@pytest.fixture
def schedules_of(ledger_database: str) -> Iterator[Callable[..., Schedules]]:
    """Makes schedules on three connections to a fresh database."""
    with ExitStack() as stack:
        one, other, third = (stack.enter_context(closing(connect(ledger_database))) for _ in range(3))

        def make(order: Sequence[Step], *, is_guarded: bool = True, ending: str = "COMMIT") -> Schedules:
            return Schedules([one, other], order, ending=ending, reader=Reader(third, is_guarded=is_guarded))

        yield make


@pytest.mark.parametrize("ending", ["COMMIT", pytest.param("ROLLBACK", marks=pytest.mark.soak)])
def test_in_no_order_of_the_steps_is_an_event_lost(schedules_of: Callable[..., Schedules], ending: str) -> None:
    outcomes = Counter(schedules_of(RIGHT, ending=ending).losses())
    assert outcomes == {False: 1680}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"order": RIGHT, "is_guarded": False}, id="no horizon"),
        pytest.param({"order": LOCK_AFTER_NUMBER}, id="lock after number"),
    ],
)
def test_the_same_orders_find_the_loss_in_what_is_wrong(
    schedules_of: Callable[..., Schedules], wrong: dict[str, Any]
) -> None:
    assert any(schedules_of(**wrong).losses())


def test_the_model_reads_as_the_ledger_does(ledger_database: str) -> None:
    """The statements of the model are those of `position_ledger.store.feed`, which cannot be stopped in between."""
    from position_ledger.store import feed

    inner = feed.LOWEST_IN_FLIGHT.split("SELECT min(", 1)[1].split(")\n", 1)
    mine = IN_FLIGHT.split("coalesce(min(", 1)[1].split("), 9223372036854775807)\n", 1)
    assert [part.split() for part in inner] == [part.split() for part in mine]
    with closing(connect(ledger_database)) as owner, closing(connect(ledger_database)) as slow:
        for connection in (slow, owner):
            append = SteppedAppend(connection)
            connection.execute("BEGIN")
            for step in RIGHT:
                append.do(step)
        owner.execute("COMMIT")
        reader = Reader(owner, is_guarded=True)
        reader.drain()
        assert (reader.seen, reader.cursor) == ([], 0)
        assert read_behind_horizon(owner, 0) == ((), 0)
        slow.execute("COMMIT")
        reader.drain()
        assert (sorted(reader.seen), reader.cursor) == ([1, 2], 2)
        assert read_behind_horizon(owner, 0) == ([1, 2], 2)
