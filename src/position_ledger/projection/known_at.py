"""What was known at a time: wait until the tables have everything that the ledger had recorded by then.

Every event gets its number before its recorded time (migration 004). So whatever was recorded before T has a number up
to the mark that is read once the clock of the database has passed T: a table that has reached this mark holds it all.

A standby knows neither the clock nor the numbers of its primary. Workers write both down once a second, in this order, and
the standby replays that: it waits for a clock past T, and for the mark that was read after it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from position_ledger.database import only_row
from position_ledger.errors import KnownAtRefused
from position_ledger.projection.definition import Projection
from position_ledger.projection.leases import told_of
from position_ledger.projection.waiting import Connect, wait_until
from position_ledger.store import feed
from position_ledger.store.codec import Codec

KnownAt = datetime | int
"""A recorded time (aware), or the token of a command: everything numbered up to it."""

CLOCK = "SELECT clock_timestamp()"

REACHED = """
SELECT coalesce(min(c.position) FILTER (WHERE g.mode = 'worker'), %(mark)s) >= %(mark)s, bool_or(g.mode = 'inline')
  FROM projection_generations AS g LEFT JOIN projection_checkpoints AS c USING (generation_id)
 WHERE g.state = 'active' AND g.projection = ANY(%(tables)s)
"""


NEVER = datetime.min.replace(tzinfo=UTC)
NOT_REACHED = "look at position-ledger status, start a worker and ask again"
NOT_TOLD = (
    "this server is a standby, and no worker has told yet how far the log of its primary was after that; see that one "
    "runs there, and ask again"
)


class Settling:
    """Waits until tables have what a reader of the past asks for, and remembers what they have. Safe for threads."""

    def __init__(
        self, connect: Connect, projections: Iterable[Projection[Any]], codec: Codec, *, read_only: bool = False
    ) -> None:
        """``read_only``: the database may be a standby, and nothing is projected here."""
        self._connect = connect
        self._read_only = read_only
        self._projections = tuple(projections)
        self._codec = codec
        self._lock = threading.Lock()
        self._settled: dict[str, tuple[datetime, int]] = {}
        """The time and the number up to which each table has everything: that never changes, whatever is rebuilt."""

    def through(self, known_at: KnownAt, tables: Sequence[str], timeout_s: float) -> None:
        """Return when the live rows of the tables show everything known then; at once for what was asked before.

        Projects in the caller when no worker does, as `waiting.wait_for`.

        Raises:
            KnownAtRefused: without a time zone, after the clock of the database (a token: not handed out yet), on a
                standby of a table that is projected inline, or the rows did not come within ``timeout_s``.
        """
        if isinstance(known_at, datetime) and known_at.utcoffset() is None:
            msg = f"known_at {known_at.isoformat()} has no time zone, so it names no moment: give an aware time"
            raise KnownAtRefused(msg)
        if all(self._is_settled(known_at, table) for table in tables):
            return
        bound: tuple[datetime, int] | None = None

        def is_there(link: psycopg.Connection[Any]) -> bool:
            nonlocal bound
            bound = bound or _moment_and_mark(link, known_at)
            return bound is not None and has_reached(link, tables, bound[1])

        came = wait_until(self._connect, self._projections, self._codec, is_there, timeout_s, read_only=self._read_only)
        if not came or bound is None:
            remedy = NOT_REACHED if bound is not None else NOT_TOLD
            msg = f"what was known at {_words(known_at)} is not yet in {', '.join(tables)} after {timeout_s:g} s: {remedy}"
            raise KnownAtRefused(msg)
        self._remember(tables, *bound)

    def forget(self) -> None:
        """Drop what is remembered: the log itself was replaced."""
        with self._lock:
            self._settled.clear()

    def _is_settled(self, known_at: KnownAt, table: str) -> bool:
        with self._lock:
            moment, mark = self._settled.get(table, (NEVER, 0))
        return known_at < moment if isinstance(known_at, datetime) else known_at <= mark

    def _remember(self, tables: Sequence[str], moment: datetime, mark: int) -> None:
        with self._lock:
            for table in tables:
                before = self._settled.get(table, (moment, mark))
                self._settled[table] = (max(before[0], moment), max(before[1], mark))


def _moment_and_mark(connection: psycopg.Connection[Any], known_at: KnownAt) -> tuple[datetime, int] | None:
    """A moment after ``known_at`` by the clock of the database, and then, in this order, the highest number.

    On a standby what a worker has told, or None: none has yet.

    Raises:
        KnownAtRefused: it has not come yet.
    """
    if feed.is_standby(connection):
        return told_of(connection, known_at) if isinstance(known_at, datetime) else (NEVER, known_at)
    if isinstance(known_at, datetime):
        now = _clock(connection)
        while now == known_at:  # within one microsecond an event could still come to be recorded at that very time
            now = _clock(connection)
        if known_at > now:
            msg = f"known_at {_words(known_at)} lies after the clock of the database, {_words(now)}: ask for a time that has come"
            raise KnownAtRefused(msg)
        return now, feed.mark(connection)
    mark = feed.mark(connection)
    if known_at > mark:
        msg = f"known_at {known_at} is a token that no command has returned: the highest number is {mark}"
        raise KnownAtRefused(msg)
    return NEVER, known_at


def has_reached(connection: psycopg.Connection[Any], tables: Sequence[str], mark: int) -> bool:
    """Whether the live rows of the tables show every event up to a number.

    A table that workers project does so when its checkpoints have passed it; one that is projected inline as soon as no
    append with such a number is in flight.

    Raises:
        KnownAtRefused: one that is projected inline, on a standby: what is in flight can be seen on the primary alone.
    """
    has_rows, is_inline = only_row(connection.execute(REACHED, {"tables": list(tables), "mark": mark}, prepare=True))
    if is_inline and feed.is_standby(connection):
        msg = (
            f"this server is a standby, and {', '.join(tables)} is projected by the commands themselves, so that nobody can "
            "tell here whether all is there that was known then: ask the primary"
        )
        raise KnownAtRefused(msg)
    return bool(has_rows) and (not is_inline or feed.horizon(connection) >= mark)


def _clock(connection: psycopg.Connection[Any]) -> datetime:
    now: datetime = only_row(connection.execute(CLOCK, prepare=True))[0]
    return now


def _words(known_at: KnownAt) -> str:
    return known_at.astimezone(UTC).isoformat() if isinstance(known_at, datetime) else f"token {known_at}"
