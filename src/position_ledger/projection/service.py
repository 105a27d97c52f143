"""One follower for each worker process: started at boot, held by turns, restarted when it fails, stopped cleanly.

The boot thread follows the feed as soon as the process lives, without needing Redis. An actor that comes along takes
the turn for a bounded time and hands it back; both use the same follower, so leases and rows in memory stay.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg

from position_ledger.database import connect, process_name
from position_ledger.domain.errors import LedgerError
from position_ledger.errors import SchemaMismatch
from position_ledger.projection.definition import Projection
from position_ledger.projection.follower import Follower
from position_ledger.projection.generation_notes import drop_expired
from position_ledger.projection.generations import check_start
from position_ledger.projection.seldom import Seldom
from position_ledger.settings import Settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
ALONE_CHECK_S = 1.0
TEND_S = 60.0
"""How often it looks whether its code still fits every table, and whether a retired one is to be dropped."""

log = logging.getLogger(__name__)


class FollowerService:
    """Follows the feed in this process until stopped. All methods may be called from any thread."""

    def __init__(self, url: str, settings: Settings, projections: tuple[Projection[Any], ...], codec: Codec) -> None:
        self._url = url
        self._settings = settings
        self._projections = projections
        self._codec = codec
        self._name = f"{process_name()}:{uuid.uuid4().hex[:8]}"
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._waiting = 0
        self._retry_s = RETRY_FIRST_S
        self._tend_due = 0.0
        self._seldom = Seldom()
        self._follower: Follower | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._thread: threading.Thread | None = None
        self._parent = os.getppid()

    def start(self) -> None:
        """Begin to follow, in a thread of its own. Starting twice is fine."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._boot, name="follower", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop following and give every shard back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def follow_for(self, seconds: float, hand_over: Callable[[], bool]) -> bool:
        """Hold the turn for a while, until ``hand_over`` answers true; false at once if another caller holds it.

        ``hand_over`` is asked when the time is up, and again after each further period in which it said no.
        """
        if self._waiting:
            return False
        self._waiting += 1
        try:
            with self._turn:
                while not self._stop.is_set():
                    end = time.monotonic() + seconds
                    while time.monotonic() < end and not self._stop.is_set():
                        self._follow(lambda: time.monotonic() >= end)  # noqa: B023 - called before the next loop
                    if hand_over():
                        break
        finally:
            self._waiting -= 1
        return True

    def _boot(self) -> None:
        while not self._stop.is_set():
            with self._turn:
                self._follow(lambda: self._waiting > 0)
            while self._waiting and not self._stop.wait(RETRY_FIRST_S):
                self._exit_when_alone()
        with self._turn:
            self._drop()

    def _follow(self, until: Callable[[], bool]) -> None:
        """Follow until told otherwise; after a failure, drop the connection and wait a little."""
        alone_due = 0.0

        def done() -> bool:
            nonlocal alone_due
            if time.monotonic() >= alone_due:
                alone_due = time.monotonic() + ALONE_CHECK_S
                self._exit_when_alone()
                self._tend()
            return until()

        try:
            follower = self._follower or self._open()
            follower.follow(self._stop, until=done)
            self._retry_s = RETRY_FIRST_S
        except (psycopg.Error, LedgerError) as error:
            self._say(error)
            self._drop()
            self._stop.wait(self._retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _open(self) -> Follower:
        self._connection = connect(self._url, self._settings, as_app=True, name="position-ledger worker")
        feed.check_connection(self._connection)
        check_start(self._connection, self._projections)
        self._follower = Follower(self._connection, self._projections, self._codec, name=self._name)
        return self._follower

    def _say(self, error: Exception) -> None:
        """Why nothing is projected: at once, and while it stays so once a minute."""
        if not self._seldom.may_say(f"{type(error).__name__}: {error}"):
            return
        if isinstance(error, SchemaMismatch):
            log.error("this worker has nothing to write: %s; it looks again until that has changed", error)
        else:
            log.warning("following stopped: %s: %s; trying again in %.2f s", type(error).__name__, error, self._retry_s)

    def _tend(self) -> None:
        """Now and then: drop what nobody can go back to any more, and say if a table has gone over to other code."""
        if self._connection is None or time.monotonic() < self._tend_due:
            return
        self._tend_due = time.monotonic() + TEND_S
        dropped = drop_expired(self._connection)
        if dropped:
            log.info("retired generations %s were dropped: the time to go back to them is over", dropped)
        try:
            check_start(self._connection, self._projections)
        except SchemaMismatch as error:
            if self._seldom.may_say(str(error)):
                log.error("this worker no longer writes all of its tables: %s", error)  # noqa: TRY400 - it says it all

    def _drop(self) -> None:
        if self._follower is not None:
            self._follower.close()
        if self._connection is not None:
            self._connection.close()
        self._follower = self._connection = None

    def _exit_when_alone(self) -> None:
        """End the process when its parent is gone: nobody would ever stop it."""
        if os.getppid() != self._parent:
            log.warning("the parent process is gone: stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            self._stop.set()
