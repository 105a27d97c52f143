"""When the connection breaks: what only reads is read again, an append is looked up before it is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import UUID

import psycopg

from position_ledger.errors import DatabaseUnavailable
from position_ledger.store.append import Key, KeyTaken, VersionConflict
from position_ledger.store.envelope import NewEvent, Receipt

__all__ = ["BROKEN", "LOST_ANSWER_TRIES_MAX", "Append_", "BrokenReads", "append_surely"]

Append_ = Callable[[Sequence[NewEvent], Sequence[Key], Sequence[tuple[UUID, int]]], Sequence[Receipt]]
Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnavailable)
LOST_ANSWER_TRIES_MAX = 5
LOST_ANSWER_WAIT_S = 0.5
READS_AT_ONCE: Final = 10
"""Connections that may be found dead one after the other before a reader begins to wait."""
READS_WAITING: Final = 5

APPENDED_BY_US = """
SELECT e.originator_id, e.originator_version, e.notification_id, e.recorded_at, e.event_id
  FROM unnest(%s::uuid[], %s::bigint[]) AS w (stream, version)
  JOIN events AS e ON e.originator_id = w.stream AND e.originator_version = w.version
"""


class BrokenReads:
    """Counts the connections that broke under one caller while it only read."""

    def __init__(self) -> None:
        self._count = 0

    def again(self, error: Exception) -> None:
        """Return, after a wait if need be, when reading again is worth it; else raise the error."""
        self._count += 1
        if not _is_connection_loss(error) or self._count > READS_AT_ONCE + READS_WAITING:
            raise error
        if self._count > READS_AT_ONCE:
            _wait()


def append_surely(
    append: Append_,
    connect: Connect,
    events: Sequence[NewEvent],
    keys: Sequence[Key],
    reads: Sequence[tuple[UUID, int]],
) -> Sequence[Receipt]:
    """Append; when the connection broke, find out whether it was committed, and append again only if it was not.

    Raises:
        KeyTaken, VersionConflict: as `append`; it was not ours.
        DatabaseUnavailable: the database did not come back to tell.
    """
    lost: Exception | None = None
    for tries in range(LOST_ANSWER_TRIES_MAX):
        try:
            return append(events, keys, reads)
        except (KeyTaken, VersionConflict):
            receipts = _receipts_of_ours(connect, events) if tries else None
            if receipts is not None:
                return receipts
            raise
        except BROKEN as error:
            if not _is_connection_loss(error):
                raise
            lost = error
        _wait()
    msg = (
        "the connection broke during the append and the database did not come back: it is not known whether it was "
        "committed; repeat the command with the same command_id when it is back"
    )
    raise DatabaseUnavailable(msg) from lost


def _receipts_of_ours(connect: Connect, events: Sequence[NewEvent]) -> list[Receipt] | None:
    with connect() as connection:
        rows = connection.execute(
            APPENDED_BY_US, ([event.stream for event in events], [event.version for event in events])
        ).fetchall()
    found = {(row[0], row[1], row[4]): Receipt(row[0], row[1], row[2], row[3]) for row in rows}
    ours = [found.get((event.stream, event.version, event.event_id)) for event in events]
    return [receipt for receipt in ours if receipt is not None] if all(ours) else None


def _is_connection_loss(error: BaseException) -> bool:
    """Whether the transaction's fate is unknown: the server gave no answer (an answer would carry an SQLSTATE)."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
    state = getattr(cause, "sqlstate", None)
    return state is None or state in {"57P01", "57P02", "57P03", "08006", "08003", "08000"}


def _wait() -> None:
    time.sleep(LOST_ANSWER_WAIT_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
