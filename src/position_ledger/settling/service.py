"""Paying in a worker process: one thread, which looks for work, does it, and gives way to others that do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from position_ledger.background import Background
from position_ledger.database import Connections, open_pool
from position_ledger.errors import NotYetVisible
from position_ledger.execution.executor import Executor
from position_ledger.projection.definition import Projection
from position_ledger.projection.inline import Appender
from position_ledger.projection.waiting import wait_for
from position_ledger.settings import Settings
from position_ledger.settling.payer import Payer
from position_ledger.settling.work import TABLES, Work
from position_ledger.store import feed
from position_ledger.store.codec import Codec

__all__ = ["SettlingService", "payer_of"]

SETTLING_LOCK: Final = 0x504C53
"""First half of the two-integer advisory lock under which workers pay; the hash of the schema is the second."""
CONNECTIONS_MAX: Final = 3
STREAMS_CACHED_MAX: Final = 2_000
LOAD_MAX: Final = 20
"""It rests so many times as long as it has looked, so that looking takes at most a twentieth of one connection."""
REST_MAX_S: Final = 30.0
CATCH_UP_LIMIT_S: Final = 600.0
"""How long one pass waits for the tables; what a market of millions of positions needs when nobody else projects."""

log = logging.getLogger(__name__)


def payer_of(
    connections: Connections,
    executor: Executor,
    settings: Settings,
    projections: tuple[Projection[Any], ...],
    codec: Codec,
    *,
    timeout_s: float = CATCH_UP_LIMIT_S,
    is_patient: bool = False,
) -> Payer | None:
    """Put a payer together; None if the tables that it reads are not projected.

    ``is_patient``: tables that are behind are no reason to stop; what they do not show yet is paid later.
    """
    if not {projection.table for projection in projections} >= TABLES:
        return None

    def catch_up() -> None:
        with connections.lent() as connection:
            committed = feed.horizon(connection)
        try:
            wait_for(connections.lent, projections, codec, committed, timeout_s)
        except NotYetVisible:
            if not is_patient:
                raise

    work = Work(connections.lent, settings.ledger_schema)
    return Payer(work, executor.execute_each, catch_up, batch_max=settings.settling_batch_max)


class SettlingService:
    """Pays in this process until stopped. Any number may run: one pays at a time, and others take over when it ends."""

    def __init__(self, url: str, settings: Settings, projections: tuple[Projection[Any], ...], codec: Codec) -> None:
        self._url = url
        self._settings = settings.model_copy(update={"pool_size_max": CONNECTIONS_MAX})
        self._projections = projections
        self._codec = codec
        self._background = Background("settling", "paying", self._pay, retry_first_s=settings.settling_poll_s)

    def start(self) -> None:
        """Begin to look for work, in a thread of its own. Starting twice is fine."""
        self._background.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the append that is under way."""
        self._background.stop(timeout_s)

    def _pay(self, stopped: threading.Event) -> None:
        with self._opened(stopped) as look:
            self._look_again_and_again(look, stopped)

    def _look_again_and_again(self, look: Callable[[], None] | None, stopped: threading.Event) -> None:
        if look is None:
            stopped.wait()
            return
        while not stopped.is_set():
            began = time.monotonic()
            look()
            rest_s = LOAD_MAX * (time.monotonic() - began)
            stopped.wait(max(self._settings.settling_poll_s, min(rest_s, REST_MAX_S)))

    @contextmanager
    def _opened(self, stopped: threading.Event) -> Iterator[Callable[[], None] | None]:
        """A function that looks for work once and does it; None: there are no tables to look at."""
        connections = Connections(open_pool(self._url, self._settings, name="position-ledger settling"))
        try:
            executor = Executor(
                connections.lent,
                Appender(connections.lent, self._projections, self._codec).append,
                self._codec,
                streams_cached_max=STREAMS_CACHED_MAX,
                retries_max=self._settings.conflict_retries_max,
            )
            payer = payer_of(
                connections,
                executor,
                self._settings,
                self._projections,
                self._codec,
                timeout_s=self._settings.wait_timeout_s,
                is_patient=True,
            )
            yield None if payer is None else lambda: self._look(connections, payer, stopped)
        finally:
            connections.close()

    def _look(self, connections: Connections, payer: Payer, stopped: threading.Event) -> None:
        with connections.lent() as connection, self._alone(connection) as is_alone:
            if not is_alone:
                return
            paid = payer.pay(until=stopped.is_set)
        if paid.positions or paid.busted:
            log.info("paid %d positions, busted %d trades", paid.positions, paid.busted)
        if paid.left:
            log.warning("%d positions or trades of decided markets cannot be paid: position-ledger verify", paid.left)

    @contextmanager
    def _alone(self, connection: psycopg.Connection[Any]) -> Iterator[bool]:
        """Whether no other worker pays now; held until the end of the block, or of this process."""
        key = (SETTLING_LOCK, self._settings.ledger_schema)
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone()
        try:
            yield row == (True,)
        finally:
            if row == (True,):
                connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)
