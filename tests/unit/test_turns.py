"""Turns: callers that met follow each other, nobody waits for ever, and nothing is left behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from position_ledger.execution.turns import Turns, pause

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
CALLERS = 16
LIMIT_S = 10.0


def test_one_caller_at_a_time_has_the_turn_on_a_stream() -> None:
    turns, inside, most = Turns(), [], []

    def take(number: int) -> None:
        with turns.turn() as turn:
            turn.take([ONE, TWO] if number % 2 else [TWO, THREE, ONE])
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(take, range(10 * CALLERS), timeout=LIMIT_S))

    assert set(most) == {1}
    assert not turns.is_line([ONE, TWO, THREE])


def test_a_line_is_there_as_long_as_somebody_is_in_it() -> None:
    turns = Turns()
    taken = []
    with turns.turn() as turn:
        taken.append(turn.was_taken)
        turn.take([ONE])
        taken.append(turn.was_taken)
        assert turns.is_line([TWO, ONE])
        assert not turns.is_line([TWO])
    assert taken == [False, True]
    assert not turns.is_line([ONE])


def test_other_streams_are_not_waited_for() -> None:
    turns = Turns()
    with turns.turn() as first, turns.turn() as second:
        first.take([ONE])
        second.take([TWO], wait_max_s=LIMIT_S)
        assert turns.is_line([ONE])
        assert turns.is_line([TWO])


def test_who_has_waited_too_long_goes_on_without_a_turn_and_leaves_the_line() -> None:
    turns = Turns()
    with turns.turn() as stuck:
        stuck.take([ONE])
        with turns.turn() as late:
            late.take([ONE, TWO], wait_max_s=0.01)
            assert late.was_taken
            assert turns.is_line([ONE])
    assert not turns.is_line([ONE, TWO])


def test_a_caller_that_fails_gives_its_turn() -> None:
    turns = Turns()

    def fail() -> None:
        with turns.turn() as turn:
            turn.take([ONE])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not turns.is_line([ONE])


def test_a_turn_grows_without_two_callers_waiting_for_each_other() -> None:
    turns, start = Turns(), threading.Barrier(2)

    def take(first: UUID, second: UUID) -> None:
        with turns.turn() as turn:
            turn.take([first])
            start.wait(LIMIT_S)
            turn.take([first, second], wait_max_s=LIMIT_S)

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(take, ONE, TWO), pool.submit(take, TWO, ONE)]
        for one in done:
            one.result(LIMIT_S / 2)
    assert not turns.is_line([ONE, TWO])


def test_a_pause_is_short_however_often_callers_have_met() -> None:
    for conflicts in (0, 1, 10_000):
        pause(conflicts)
