"""What was known at a time: never less than was recorded by then, whoever is stopped where; and one index range a key."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Identifier

from bench.counting import Count, counted
from position_ledger import CommandRejected, KnownAtRefused, Ledger, MarkPosition, operations
from position_ledger.errors import ConfigurationError
from position_ledger.projection import known_at
from position_ledger.projection.known_at import has_reached
from position_ledger.reading import TableReader
from tests.support import engine
from tests.support.commands import opening
from tests.support.engine import Traffic, clock
from tests.support.feed_steps import Step, SteppedAppend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from position_ledger.settings import Settings

NUMBER_FIRST = (Step.LOCK, Step.NUMBER, Step.CLOCK)
CLOCK_FIRST = (Step.CLOCK, Step.LOCK, Step.NUMBER)
"""As appends did before migration 004."""


def set_mode(settings: Settings, mode: Any) -> None:
    operations.set_mode(settings, engine.reached(settings), "positions", mode, tell=engine.quiet)


@pytest.fixture
def moments(settings: Settings, ledger: Ledger) -> list[tuple[str, datetime, int]]:
    """A position in four versions: price of each, a moment before the next one, and its token."""
    opened = ledger.execute(opening(entry_price="0.40"))
    found = [("0.40", clock(settings), opened.token)]
    for price in ("0.41", "0.42", "0.43"):
        token = ledger.execute(MarkPosition(position_id=str(opened.position_id), price=price)).token
        found.append((price, clock(settings), token))
    return found


# What is answered


@pytest.mark.parametrize("mode", ["worker", "inline"])
def test_each_version_is_read_at_its_time_and_by_its_token(
    settings: Settings, ledger: Ledger, moments: list[tuple[str, datetime, int]], mode: str
) -> None:
    set_mode(settings, mode)
    name = ledger.positions(known_at=moments[0][1])[0]["position_id"]
    Traffic(ledger, 1).run(20)
    for price, moment, token in reversed(moments):
        for known in (moment, token):
            assert f"{ledger.position(name, known_at=known)['current_price']:.2f}" == price
            assert [f"{row['current_price']:.2f}" for row in ledger.positions(known_at=known)] == [price]
            row = ledger.row("positions", name, known_at=known)
            assert row == ledger.position(name, known_at=known)
            assert ledger.rows("positions", known_at=known, position_id=name, side="NO") == []
    assert ledger.row("positions", name) == ledger.position(name)
    assert ledger.versions("positions", name) == ledger.history(name)


def test_a_version_is_known_from_its_first_microsecond_on(ledger: Ledger, moments: list[Any]) -> None:
    ledger.wait_for(moments[-1][2])
    name = ledger.positions()[0]["position_id"]
    for row in ledger.history(name):
        assert ledger.position(name, known_at=row["row_effective_date"])["id"] == row["id"]
        before = row["row_effective_date"] - timedelta(microseconds=1)
        if row["version"] == 1:
            with pytest.raises(CommandRejected):
                ledger.position(name, known_at=before)
            assert ledger.row("positions", name, known_at=before) is None
        else:
            assert ledger.position(name, known_at=before)["version"] == row["version"] - 1


def test_a_filter_speaks_of_what_was_known_then(settings: Settings, ledger: Ledger) -> None:
    """Given a position that was open and is closed, when open ones are asked for as of before, then it is there."""
    from tests.support.commands import closing

    opened = ledger.execute(opening())
    before = clock(settings)
    token = ledger.execute(closing(str(opened.position_id), "0.50")).token
    assert [row["position_id"] for row in ledger.positions(status="open", known_at=before)] == [opened.position_id]
    assert [row["position_id"] for row in ledger.positions(status="open", known_at=opened.token)] == [
        opened.position_id
    ]
    assert ledger.positions(status="open", known_at=token) == ledger.positions(status="closed", known_at=before) == []
    assert ledger.positions(status="open") == []


@pytest.mark.parametrize("mode", ["worker", "inline"])
def test_a_time_that_has_not_come_is_refused(settings: Settings, ledger: Ledger, mode: str) -> None:
    set_mode(settings, mode)
    token = ledger.execute(opening()).token
    for known, words in (
        (clock(settings) + timedelta(seconds=30), "lies after the clock of the database"),
        (token + 5, f"known_at {token + 5} is a token that no command has returned"),
        (datetime(2026, 1, 1), "has no time zone"),  # noqa: DTZ001 - that is what is refused
    ):
        with pytest.raises(KnownAtRefused, match=words):
            ledger.positions(known_at=known)


def test_a_table_or_column_that_is_not_there_is_refused_in_words(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="there is no projected table 'nothing'"):
        ledger.rows("nothing")
    with pytest.raises(ConfigurationError, match="table positions has no column colour"):
        ledger.rows("positions", colour="red")


# Waiting


def test_the_past_is_projected_by_who_asks_when_nobody_else_does(settings: Settings, ledger: Ledger) -> None:
    Traffic(ledger, 2).run(30)
    before = clock(settings)
    known = ledger.positions(known_at=before)
    engine.project_all(settings)
    assert len(known) == len(ledger.positions())
    engine.proven(settings)


@pytest.mark.parametrize("mode", ["worker", "inline"])
def test_who_asks_waits_for_an_append_that_was_stopped_before_its_rows(
    settings: Settings, ledger: Ledger, mode: str
) -> None:
    # Given a writer that has its number and its recorded time, and stands still before its rows
    set_mode(settings, mode)
    ledger.execute(opening())
    with engine.connected(settings, as_app=False) as writer, ThreadPoolExecutor(1) as pool:
        append = SteppedAppend(writer)
        writer.execute("BEGIN")
        for step in NUMBER_FIRST:
            append.do(step)
        moment = clock(settings)
        # When somebody asks what was known after that, then he gets no answer in time
        short = ledger.settings.model_copy(update={"wait_timeout_s": 0.3})
        with Ledger(short, engine.reached(settings)) as impatient, pytest.raises(KnownAtRefused, match="after 0.3 s"):
            impatient.positions(known_at=moment)
        # and who is patient gets it when the writer has ended
        asked = pool.submit(ledger.positions, known_at=moment)
        assert not asked.done()
        append.do(Step.INSERT)
        writer.execute("COMMIT")
        assert len(asked.result(10)) == 1


def test_what_was_asked_for_before_costs_one_statement(settings: Settings, moments: list[Any]) -> None:
    one = settings.model_copy(update={"pool_size_max": 1})
    with Ledger(one, engine.reached(settings)) as ledger:
        ledger.wait_for(moments[-1][2])
        name = ledger.positions()[0]["position_id"]
        ledger.row("positions", name, known_at=moments[-1][1])
        with ledger._connection() as connection:
            watched = connection
        with counted(watched) as count:
            assert ledger.row("positions", name, known_at=moments[0][1]) is not None
    assert count == Count(statements=1, round_trips=1)


# Every order in which the steps of an append and of a reader can happen


def lies(settings: Settings, order: Sequence[Step]) -> Iterator[bool]:
    """For each schedule: whether something recorded at or before T appears after T was answered."""
    with engine.connected(settings, as_app=False) as writing, engine.connected(settings, as_app=False) as reading:
        for places in combinations(range(7), 3):
            append = SteppedAppend(writing)
            reader = _Reader(reading)
            steps = iter([*order, Step.INSERT])
            for place in range(7):
                if place in places:
                    reader.step()
                else:
                    _write(writing, append, next(steps))
            yield reader.was_lied_to()


def _write(connection: Any, append: SteppedAppend, step: Step) -> None:
    if connection.info.transaction_status == TransactionStatus.IDLE:
        connection.execute("BEGIN")
    append.do(step)
    if step is Step.INSERT:
        connection.execute("COMMIT")


class _Reader:
    """Takes T, reads a mark after it, and answers what was recorded up to T if the tables say that they have it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._done = 0
        self._moment = datetime.min.replace(tzinfo=UTC)
        self._mark = 0
        self._answer: list[Any] | None = None

    def step(self) -> None:
        """The next of its three steps."""
        if self._done == 0:
            (self._moment,) = self._connection.execute("SELECT clock_timestamp()").fetchone()
        elif self._done == 1:
            bound = known_at._moment_and_mark(self._connection, self._moment)
            assert bound is not None
            self._mark = bound[1]
        elif has_reached(self._connection, ["positions"], self._mark):
            self._answer = self._recorded()
        self._done += 1

    def _recorded(self) -> list[Any]:
        statement = "SELECT notification_id FROM events WHERE recorded_at <= %s ORDER BY 1"
        return list(self._connection.execute(statement, (self._moment,)).fetchall())

    def was_lied_to(self) -> bool:
        """Whether the answer of then would be another one now."""
        return self._answer is not None and self._answer != self._recorded()


def test_in_no_order_of_the_steps_does_the_past_change_after_it_was_told(settings: Settings, ledger: Ledger) -> None:
    """With the number before the clock, as appends take them; the same orders find the lie in the reverse."""
    ledger.execute(opening())
    set_mode(settings, "inline")
    assert list(lies(settings, NUMBER_FIRST)).count(True) == 0
    assert any(lies(settings, CLOCK_FIRST))


@pytest.mark.uncounted
def test_under_load_the_past_is_told_once_and_for_ever(settings: Settings, ledger: Ledger) -> None:
    # Given writers and a worker
    stop = threading.Event()
    told: list[tuple[datetime, list[int]]] = []

    def write(seed: int) -> None:
        with Ledger(settings, engine.reached(settings)) as writing:
            traffic = Traffic(writing, seed)
            while not stop.is_set():
                traffic.once()

    def work() -> None:
        with engine.following(settings, "worker") as follower:
            follower.follow(stop)

    with ThreadPoolExecutor(4) as pool:
        running = [*(pool.submit(write, seed) for seed in (21, 22, 23)), pool.submit(work)]
        try:
            # When somebody asks again and again what is known right now
            for _ in range(25):
                now = clock(settings)
                told.append((now, sorted(row["id"] for row in ledger.positions(known_at=now))))
        finally:
            stop.set()
        for one in running:
            one.result(20)
    # Then the answers are the same for ever
    engine.project_all(settings)
    assert len(told[-1][1]) > 0
    for moment, ids in told:
        assert sorted(row["id"] for row in ledger.positions(known_at=moment)) == ids


# One index range


@pytest.mark.parametrize("by", ["time", "token"])
def test_one_key_is_one_index_range_whatever_its_versions(settings: Settings, ledger: Ledger, by: str) -> None:
    opened = ledger.execute(opening())
    for start in range(0, 2000, 500):
        ledger.execute_many(
            [
                MarkPosition(position_id=str(opened.position_id), price=f"0.{10 + number % 80}")
                for number in range(start, start + 500)
            ]
        )
    engine.project_all(settings)
    versions = ledger.history(str(opened.position_id))
    middle = versions[1000]
    at = middle["row_effective_date"] if by == "time" else middle["id"]
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("CREATE INDEX IF NOT EXISTS positions_known_at ON positions (position_id, row_effective_date)")
        owner.execute(SQL("ANALYZE {}").format(Identifier("positions")))
        reader = TableReader(lambda: owner, "ledger", engine.positions_of(settings))  # type: ignore[arg-type, return-value]
        explain = SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(reader.known_query(at))
        row = owner.execute(explain, {"key": opened.position_id, "at": at}).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    scan = plan["Plans"][0]
    assert (plan["Node Type"], scan["Node Type"], scan["Actual Rows"]) == ("Limit", "Index Scan", 1)
    if by == "time":
        assert "position_id" in scan["Index Cond"]
        assert "row_effective_date" in scan["Index Cond"]
        assert "Filter" not in scan
