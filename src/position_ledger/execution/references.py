"""Which rows of the reference tables are known to exist: asked of the database once, because none is ever deleted.

A table without rows is not in use, and then nothing is checked against it. That can end at any moment, in another
process, so it is believed for a few seconds only; a row that was found is believed for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.domain.references import REFERENCE_TABLES

__all__ = ["KEY_COLUMNS", "KnownReferences"]

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

KEY_COLUMNS: Final = {
    "strategies": "strategy_id",
    "probability_models": "model_id",
    "platforms": "platform_id",
    "market_events": "market_event_id",
}
UNUSED_BELIEVED_S: Final = 5.0
"""How long another process may take to notice the first row of a table."""
KNOWN_MAX: Final = 100_000
"""Rows remembered of each table; beyond it memory starts afresh."""
LOOK: Final = SQL("SELECT EXISTS (SELECT FROM {table} WHERE {key} = %s), EXISTS (SELECT FROM {table})")


class KnownReferences:
    """What this process knows about the reference tables. Safe for threads."""

    def __init__(self, connect: Connect, clock: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Ask the database again about everything: rows were added here, or the database was replaced."""
        with self._lock:
            self._known: dict[str, set[str | int]] = {table: set() for table in KEY_COLUMNS}
            self._unused_until: dict[str, float] = {}

    def has(self, field: str, value: str | int) -> bool:
        """Whether the row that a field of a command names exists, or its table is not in use."""
        table = REFERENCE_TABLES[field]
        if value in self._known[table] or self._clock() < self._unused_until.get(table, 0.0):
            return True
        with self._connect() as connection:
            row = connection.execute(_look(table), (value,)).fetchone()
        exists, is_used = row or (False, True)
        with self._lock:
            if exists:
                self._remember(table, value)
            elif not is_used:
                self._unused_until[table] = self._clock() + UNUSED_BELIEVED_S
        return exists or not is_used

    def _remember(self, table: str, value: str | int) -> None:
        known = self._known[table]
        if len(known) >= KNOWN_MAX:
            known.clear()
        known.add(value)


def _look(table: str) -> Composed:
    return LOOK.format(table=Identifier(table), key=Identifier(KEY_COLUMNS[table]))
