"""The audit in a worker process: one thread, one process at a time, at a bounded rate."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any, Final

import psycopg

from position_ledger.auditing.auditor import Auditor
from position_ledger.auditing.state import is_possible
from position_ledger.background import Background
from position_ledger.database import connect
from position_ledger.projection.definition import Projection
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec

__all__ = ["AuditService", "pause_s"]

AUDIT_LOCK: Final = 0x504C41
"""First half of the two-integer advisory lock under which one worker audits; the hash of the schema is the second."""

LOOK_EVENTS_MAX: Final = 500
"""Events of one look: its snapshot lives for a fraction of a second."""

TRY_LOCK: Final = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"

PAUSE_MIN_S: Final = 0.2
IDLE_S: Final = 2.0
"""How long it waits before it looks again at tables that are behind or not ours, and for the lock."""

ROUND_PAUSE_S: Final = 5.0
"""How long it rests after the last stream: a small log is not read all the time."""


def pause_s(events: int, rate: int, took_s: float, *, is_round: bool) -> float:
    """How long to rest after a look that read so many events, so that no more than ``rate`` are read a second."""
    if not events:
        return IDLE_S
    rest_s = events / rate - took_s
    return max(rest_s, ROUND_PAUSE_S if is_round else PAUSE_MIN_S)


class AuditService:
    """Audits in this process until stopped. Any number may run: one audits, and another takes over when it ends."""

    def __init__(self, url: str, settings: Settings, projections: tuple[Projection[Any], ...], codec: Codec) -> None:
        self._url = url
        self._settings = settings
        self._projections = projections
        self._codec = codec
        self._background = Background("audit", "the audit", self._audit, retry_first_s=IDLE_S)

    def start(self) -> None:
        """Begin to audit, in a thread of its own, unless the rate is 0. Starting twice is fine."""
        if self._settings.audit_events_per_s:
            self._background.start()

    @property
    def is_running(self) -> bool:
        """Whether it audits or waits for its turn."""
        return self._background.is_running

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the look that is under way."""
        self._background.stop(timeout_s)

    def _audit(self, stopped: threading.Event) -> None:
        with closing(self._connected()) as connection:
            self._wait_for_turn(connection, stopped)
            self._look_again_and_again(connection, stopped)

    def _connected(self) -> psycopg.Connection[Any]:
        return connect(self._url, self._settings, as_app=True, name="position-ledger audit")

    def _look_again_and_again(self, connection: psycopg.Connection[Any], stopped: threading.Event) -> None:
        rate = self._settings.audit_events_per_s
        auditor = Auditor(connection, self._projections, self._codec, limit=min(rate, LOOK_EVENTS_MAX))
        while not stopped.is_set():
            began = time.monotonic()
            looked = auditor.look()
            stopped.wait(pause_s(looked.events, rate, time.monotonic() - began, is_round=looked.is_round))

    def _wait_for_turn(self, connection: psycopg.Connection[Any], stopped: threading.Event) -> None:
        """Return when no other worker audits, and there is where to write down what is found; or when told to stop.

        The turn ends with the connection.
        """
        key = (AUDIT_LOCK, self._settings.ledger_schema)
        while not stopped.is_set():
            if is_possible(connection) and connection.execute(TRY_LOCK, key).fetchone() == (True,):
                return
            stopped.wait(IDLE_S)
