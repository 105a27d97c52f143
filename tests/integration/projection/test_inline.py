"""Inline mode: the rows of a command are committed with its events, and a change of mode loses and doubles nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import CommandRejected, Ledger, MarkPosition, operations
from position_ledger.errors import ConfigurationError, GenerationNotOurs, SwapBlocked
from position_ledger.operations import RebuildOptions
from position_ledger.projection import generations, inline
from position_ledger.projection.definition import load_projections
from position_ledger.store.append import ModeChanged, append
from tests.support import engine
from tests.support.commands import mark_event, opening
from tests.support.engine import CODEC, Traffic

if TYPE_CHECKING:
    from position_ledger.settings import Settings

WRITERS = 4


def set_mode(settings: Settings, mode: inline.Mode) -> bool:
    """Set positions to a mode."""
    return operations.set_mode(settings, engine.reached(settings), "positions", mode, tell=engine.quiet)


def set_every_mode(settings: Settings, mode: inline.Mode) -> set[bool]:
    """Set every table to a mode; what each was answered."""
    tables = [projection.table for projection in load_projections(settings.projections)]
    return {operations.set_mode(settings, engine.reached(settings), one, mode, tell=engine.quiet) for one in tables}


def test_rows_are_there_when_the_command_returns(settings: Settings, ledger: Ledger) -> None:
    # Given every table in inline mode, with a history from before
    Traffic(ledger, 1).run(20)
    assert set_every_mode(settings, "inline") == {True}
    # When commands are executed and nobody projects
    opened = ledger.execute(opening())
    ledger.execute(MarkPosition(position_id=str(opened.position_id), price="0.55"))
    # Then their rows are there at once, and waiting takes no time
    ledger.wait_for(opened.token, timeout_s=0.001)
    assert ledger.position(str(opened.position_id))["current_price"] == Decimal("0.55")
    assert [row["version"] for row in ledger.history(str(opened.position_id))] == [1, 2]
    engine.proven(settings)


@pytest.mark.uncounted
def test_inline_rows_are_those_that_a_worker_would_write(settings: Settings, ledger: Ledger) -> None:
    # Given a random history, half of it projected by a worker and half inline, with batches and refused commands
    traffic = Traffic(ledger, 5)
    traffic.run(60)
    set_mode(settings, "inline")
    traffic.run(60)
    ledger.execute_many([opening(account="batch", handle="a"), opening(account="batch", side="NO")])
    rows = engine.positions_rows(settings)
    # When the table is projected again by a worker from the beginning
    set_mode(settings, "worker")
    operations.rebuild(settings, engine.reached(settings), "positions", options=RebuildOptions(), tell=engine.quiet)
    # Then every byte is the same
    assert engine.positions_rows(settings) == rows
    engine.proven(settings)


def test_a_command_that_cannot_be_projected_is_not_committed(settings: Settings, ledger: Ledger) -> None:
    # Given a position whose row somebody has taken away
    opened = ledger.execute(opening())
    set_mode(settings, "inline")
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("ALTER TABLE positions DISABLE TRIGGER USER")
        owner.execute("DELETE FROM positions")
    before = _events(settings)
    # When it is marked
    with pytest.raises(Exception, match="cannot fold|is not what the log says"):
        ledger.execute(MarkPosition(position_id=str(opened.position_id), price="0.55"))
    # Then neither event nor row was written
    assert _events(settings) == before


def _events(settings: Settings) -> int:
    with engine.connected(settings) as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    return int(row[0])


def test_two_inline_writers_on_one_key_open_one_position(settings: Settings) -> None:
    # Given an inline table and two ledgers that have both seen an empty key
    set_mode(settings, "inline")
    with Ledger(settings, engine.reached(settings)) as one, Ledger(settings, engine.reached(settings)) as two:
        for number in range(10):
            start = threading.Barrier(2)

            def fill(ledger: Ledger, number: int = number, start: threading.Barrier = start) -> str:
                from position_ledger import RecordFill

                start.wait(10)
                done = ledger.execute(
                    RecordFill(
                        environment="paper", account="main", market=f"M{number}", side="YES", action="buy",
                        quantity=5, price="0.40",
                    )
                )  # fmt: skip
                return str(done.position_id)

            # When both record a fill at the same moment
            with ThreadPoolExecutor(2) as pool:
                first, second = pool.map(fill, (one, two))
            # Then both are on one position
            assert first == second
            assert one.position(first)["quantity"] == 10
    engine.proven(settings)


def test_a_stale_append_is_refused_by_the_database(settings: Settings, ledger: Ledger) -> None:
    # Given a writer below the ledger, which knows nothing of modes
    import uuid

    set_mode(settings, "inline")
    generation = engine.active(settings).generation_id
    with engine.connected(settings) as connection:
        for events in ([mark_event(uuid.uuid4(), 1)], [mark_event(uuid.uuid4(), 1), mark_event(uuid.uuid4(), 1)]):
            # When it appends as if workers projected, then it is refused
            with pytest.raises(ModeChanged, match=f"projected inline are .*{generation}"):
                append(connection, events)
        # and so is one that says it projects inline when workers do
        set_mode(settings, "worker")
        with connection.transaction(), pytest.raises(ModeChanged), connection.transaction():
            connection.execute(inline.SAY, (str(generation),))
            inline.append_here(connection, [mark_event(uuid.uuid4(), 1)])
        # What was said ends with its transaction
        append(connection, [mark_event(uuid.uuid4(), 1)])


def test_an_open_ledger_follows_the_mode_both_ways(settings: Settings, ledger: Ledger) -> None:
    for mode in ("inline", "worker", "inline", "worker"):
        assert set_every_mode(settings, mode) == {True}  # type: ignore[arg-type]
        assert set_every_mode(settings, mode) == {False}  # type: ignore[arg-type]
        opened = ledger.execute(opening())
        if mode == "inline":
            ledger.wait_for(opened.token, timeout_s=0.001)
        assert active_mode(settings) == mode
    ledger.wait_for(opened.token)
    engine.proven(settings)


def active_mode(settings: Settings) -> str:
    return engine.active(settings).mode


@pytest.mark.uncounted
def test_switching_while_four_writers_go_on_loses_and_doubles_nothing(settings: Settings) -> None:
    # Given four writers, each with a ledger of its own, and a worker
    stop = threading.Event()
    writing: list[Traffic] = []

    def write(seed: int) -> int:
        with Ledger(settings, engine.reached(settings)) as ledger:
            traffic = Traffic(ledger, seed)
            writing.append(traffic)
            while not stop.is_set():
                traffic.once()
            return traffic.accepted

    def work() -> None:
        with engine.following(settings, "worker") as follower:
            follower.follow(stop)

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        writers = [pool.submit(write, seed) for seed in range(WRITERS)]
        worker = pool.submit(work)
        try:
            # When the mode is switched to and fro
            for _ in range(6):
                for mode in ("inline", "worker"):
                    reached = _events(settings) + 20
                    assert set_mode(settings, mode)  # type: ignore[arg-type]
                    while _events(settings) < reached and not any(one.done() for one in writers):
                        stop.wait(0.01)
        finally:
            stop.set()
        accepted = [one.result(30) for one in writers]
        worker.result(30)
    # Then every event of every writer has its row, once
    assert min(accepted) > 10
    engine.project_all(settings)
    engine.proven(settings)


def test_other_code_cannot_append_beside_an_inline_table(settings: Settings, ledger: Ledger) -> None:
    # Given a table that is inline in a generation of other code
    set_mode(settings, "inline")
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("UPDATE projection_generations SET fingerprint = 'other', release = '0.0.9'")
    # When this code executes a command
    with pytest.raises(GenerationNotOurs, match=r"positions is projected inline by other code \(release 0\.0\.9\)"):
        ledger.execute(opening())
    # Then nothing was written
    assert _events(settings) == 0
    # and after the return to worker mode, which any code may do, it may append again
    set_mode(settings, "worker")
    ledger.execute(opening())


def test_other_code_cannot_set_inline_mode(settings: Settings) -> None:
    with engine.connected(settings, as_app=False) as owner:
        owner.execute("UPDATE projection_generations SET fingerprint = 'other', release = '0.0.9'")
    with pytest.raises(GenerationNotOurs, match="was built by other code"):
        set_mode(settings, "inline")
    with pytest.raises(ConfigurationError, match="mode cannot be 'both'"):
        set_mode(settings, "both")  # type: ignore[arg-type]


def test_an_append_that_is_left_open_blocks_the_change_and_not_the_others(settings: Settings, ledger: Ledger) -> None:
    import uuid

    with engine.connected(settings) as open_, open_.transaction():
        inline.append_here(open_, [mark_event(uuid.uuid4(), 1)])
        # When the mode is to change meanwhile
        with engine.connected(settings, as_app=False) as owner, pytest.raises(SwapBlocked, match="nothing was changed"):
            inline.set_mode(
                owner, engine.positions_of(settings), CODEC, "inline", catch_up=lambda _one: None, budget_s=0.3
            )
        # Then it was not, and commands go on
        ledger.execute(opening())
    assert active_mode(settings) == "worker"


@pytest.mark.uncounted
def test_an_inline_table_is_rebuilt_after_a_change_to_worker_mode(settings: Settings, ledger: Ledger) -> None:
    set_mode(settings, "inline")
    ledger.execute(opening())
    where = (settings, engine.reached(settings), "positions")
    with pytest.raises(SwapBlocked, match="set it to worker mode"):
        operations.rebuild(*where, options=RebuildOptions(), tell=engine.quiet)
    with engine.connected(settings, as_app=False) as owner:
        assert len(generations.kept(owner, "positions")) == 1
    set_mode(settings, "worker")
    operations.rebuild(*where, options=RebuildOptions(), tell=engine.quiet)
    set_mode(settings, "inline")
    with pytest.raises(SwapBlocked, match="set it to worker mode"):
        operations.roll_back(*where, tell=engine.quiet)
    ledger.execute(opening())
    engine.proven(settings)


def test_a_refused_command_leaves_an_inline_ledger_usable(settings: Settings, ledger: Ledger) -> None:
    set_mode(settings, "inline")
    with pytest.raises(CommandRejected):
        ledger.execute(MarkPosition(position_id="POS-99", price="0.5"))
    ledger.execute(opening())
    with engine.connected(settings) as connection:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    engine.proven(settings)
