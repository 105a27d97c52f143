"""Indexes of a loaded table, several at a time: each CREATE INDEX takes a lock that others of its kind can share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from queue import Empty, SimpleQueue

import psycopg
from psycopg.sql import SQL, Composable

from position_ledger.database import connect
from position_ledger.settings import Settings

AT_ONCE = 2
"""Connections that build at the same time; each has the server's parallel maintenance workers beside it."""

TICK_S = 0.25
"""How often the caller is asked to look on."""

MEMORY = "256MB"
"""What each may use to sort, its parallel workers included."""


def build_side_by_side(
    url: str,
    settings: Settings,
    indexes: Sequence[Composable],
    search_path: Composable,
    *,
    at_once: int = AT_ONCE,
    memory: str = MEMORY,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run the statements, each in a transaction of its own under ``search_path`` (a SET LOCAL), at most ``at_once`` together.

    The table must be committed, and nobody may write to it meanwhile. ``tick`` is called several times a second. After an
    error, also of its, nothing more is begun, and what others were building is cancelled; indexes that are complete stay.

    Raises:
        psycopg.Error: the first statement that failed.
    """
    waiting: SimpleQueue[Composable] = SimpleQueue()
    for index in indexes:
        waiting.put(index)
    building: list[psycopg.Connection[tuple[object, ...]]] = []

    def build() -> None:
        with closing(connect(url, settings, as_app=False, name="position-ledger rebuild")) as connection:
            building.append(connection)
            connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", (memory,))
            connection.execute("SET statement_timeout = 0")
            try:
                while True:
                    _build_one(connection, search_path, waiting.get_nowait())
            except Empty:
                return
            except BaseException:
                _abandon(waiting)
                raise

    builders = max(1, min(at_once, len(indexes)))
    with ThreadPoolExecutor(builders) as pool:
        running = [pool.submit(build) for _ in range(builders)]
        try:
            pending = set(running)
            while pending:
                ended, pending = wait(pending, TICK_S, FIRST_COMPLETED)
                for one in ended:
                    one.result()
                tick()
        except BaseException:
            _abandon(waiting)
            for connection in building:
                with suppress(psycopg.Error):  # it has ended by itself
                    connection.cancel_safe()
            raise


def _build_one(connection: psycopg.Connection[tuple[object, ...]], search_path: Composable, index: Composable) -> None:
    with connection.transaction():
        connection.execute(SQL("{}").format(search_path))
        connection.execute(SQL("{}").format(index))


def _abandon(waiting: SimpleQueue[Composable]) -> None:
    with suppress(Empty):
        while True:
            waiting.get_nowait()
