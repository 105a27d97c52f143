"""Who rebuilds gives way, and nobody else in the same process does."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from position_ledger.projection.gentle import NICE, GentleContext, thread_gives_way


def priority() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_process_gives_way_from_its_start() -> None:
    with ProcessPoolExecutor(1, mp_context=GentleContext()) as pool:
        assert pool.submit(priority).result(60) >= NICE
    assert priority() == os.getpriority(os.PRIO_PROCESS, os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of threads")
def test_a_thread_gives_way_alone_with_those_that_it_starts() -> None:
    before = priority()

    def and_of_another() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as inner:
            return priority(), inner.submit(priority).result(10)

    with ThreadPoolExecutor(1, initializer=thread_gives_way) as pool:
        assert pool.submit(and_of_another).result(10) == (max(before, NICE),) * 2
    assert priority() == before
