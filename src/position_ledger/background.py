"""Work that goes on in a thread of a worker process: until it is stopped, and again after a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from position_ledger.domain.errors import LedgerError

__all__ = ["RETRY_MAX_S", "Background"]

RETRY_MAX_S: Final = 60.0
"""Pauses between failures double up to this; work that has gone on for so long before it failed begins with the first."""


class Background:
    """One thread. ``work`` is called with the event that stops it, and returns soon after it is set.

    Raises nothing: a `LedgerError` or an error of the driver is logged with ``what`` has stopped, and tried again.
    """

    def __init__(self, name: str, what: str, work: Callable[[threading.Event], None], *, retry_first_s: float) -> None:
        self._name = name
        self._what = what
        self._work = work
        self._retry_first_s = retry_first_s
        self._log = logging.getLogger(f"position_ledger.{name}")
        self._thread: threading.Thread | None = None
        self.stopped = threading.Event()

    def start(self) -> None:
        """Begin. Starting twice is fine."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread has begun and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after what is under way, and wait for that; one that never began stops too."""
        self.stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        retry_s = self._retry_first_s
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                self._work(self.stopped)
            except (psycopg.Error, LedgerError) as error:
                if time.monotonic() - began > RETRY_MAX_S:
                    retry_s = self._retry_first_s
                words = (self._what, type(error).__name__, error, retry_s)
                self._log.warning("%s stopped: %s: %s; trying again in %.2g s", *words)
                self.stopped.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
