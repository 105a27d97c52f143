"""Processes and threads that give way to whatever else runs on the machine: trading first, then a rebuild or a proof."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Final

NICE: Final = 10
"""The lower priority, as nice(1) counts."""


class _GentleProcess(SpawnProcess):
    """From its first instruction, so that its imports give way too."""

    def start(self) -> None:
        super().start()
        if self.pid is not None:
            _give_way(self.pid)


class GentleContext(SpawnContext):
    """Starts fresh processes at a low priority."""

    Process = _GentleProcess


def thread_gives_way() -> None:
    """Run this thread, and those that it starts, at a low priority; only Linux knows priorities of threads."""
    if sys.platform == "linux":
        _give_way(threading.get_native_id())


def _give_way(number: int) -> None:
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, number, max(NICE, os.getpriority(os.PRIO_PROCESS, number)))
