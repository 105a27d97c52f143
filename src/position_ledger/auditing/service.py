"""The audit in a worker process: one thread, one process at a time, at a bounded rate."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import Any, Final

import psycopg

from position_ledger.auditing.auditor import Auditor
from position_ledger.auditing.state import is_possible
from position_ledger.database import connect
from position_ledger.domain.errors import LedgerError
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

RETRY_MAX_S: Final = 60.0

log = logging.getLogger(__name__)


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
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to audit, in a thread of its own, unless the rate is 0. Starting twice is fine."""
        if self._thread is None and self._settings.audit_events_per_s:
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the look that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        retry_s = IDLE_S
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with closing(self._connected()) as connection:
                    self._wait_for_turn(connection)
                    self._look_again_and_again(connection)
            except (psycopg.Error, LedgerError) as error:
                retry_s = IDLE_S if time.monotonic() - began > RETRY_MAX_S else retry_s
                log.warning("the audit stopped: %s: %s; trying again in %.0f s", type(error).__name__, error, retry_s)
                self._stop.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)

    def _connected(self) -> psycopg.Connection[Any]:
        return connect(self._url, self._settings, as_app=True, name="position-ledger audit")

    def _look_again_and_again(self, connection: psycopg.Connection[Any]) -> None:
        rate = self._settings.audit_events_per_s
        auditor = Auditor(connection, self._projections, self._codec, limit=min(rate, LOOK_EVENTS_MAX))
        while not self._stop.is_set():
            began = time.monotonic()
            looked = auditor.look()
            self._stop.wait(pause_s(looked.events, rate, time.monotonic() - began, is_round=looked.is_round))

    def _wait_for_turn(self, connection: psycopg.Connection[Any]) -> None:
        """Return when no other worker audits, and there is where to write down what is found; or when told to stop.

        The turn ends with the connection.
        """
        key = (AUDIT_LOCK, self._settings.ledger_schema)
        while not self._stop.is_set():
            if is_possible(connection) and connection.execute(TRY_LOCK, key).fetchone() == (True,):
                return
            self._stop.wait(IDLE_S)
