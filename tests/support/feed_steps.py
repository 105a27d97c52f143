"""The steps of an append one by one, as the functions of migration 004 take them, so that a test can stop in between.

`assert_same_order` compares them with the source of the functions in the database: a copy that has drifted fails.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    Connection = psycopg.Connection[Any]

TOPIC: Final = "test.tick"

KEY: Final = "INSERT INTO append_keys (key, digest, appended) VALUES (%s, decode(repeat('00', 32), 'hex'), '{}')"
LOCK: Final = """
SELECT pg_advisory_xact_lock_shared(
    (f.namespace::bigint << 48) | coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0))
  FROM feed AS f
"""
NUMBERS: Final = "SELECT nextval('events_notification_id_seq') FROM generate_series(1, %s)"
INSERT: Final = """
INSERT INTO events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at,
                    effective_at, stream_hash, metadata)
SELECT %s, n.version, 'test.tick', '{}', n.number, gen_random_uuid(), coalesce(%s::timestamptz, clock_timestamp()),
       clock_timestamp(), decode(repeat('00', 32), 'hex'), '{}'
  FROM unnest(%s::bigint[]) WITH ORDINALITY AS n (number, version)
"""


class Step(Enum):
    """What one append does, in the order that makes the feed lossless."""

    KEY = "what can block"
    LOCK = "the shared lock with the number before ours"
    NUMBER = "our numbers"
    CLOCK = "the recorded time, taken and kept for the rows"
    INSERT = "the rows"


CLOCK: Final = "clock_timestamp("
"""Read after the numbers: what was recorded before a moment has a number that was handed out before it."""
RIGHT: Final = (Step.KEY, Step.LOCK, Step.NUMBER, Step.INSERT)
LOCK_AFTER_NUMBER: Final = (Step.KEY, Step.NUMBER, Step.LOCK, Step.INSERT)


class SteppedAppend:
    """One append of some events to a new stream, one step at a time, in a transaction that the caller ends."""

    def __init__(self, connection: Connection, events: int = 1) -> None:
        self._connection = connection
        self._events = events
        self._stream = uuid4()
        self.numbers: list[int] = []
        self.recorded_at: datetime | None = None

    def do(self, step: Step) -> None:
        """Take one step."""
        match step:
            case Step.KEY:
                self._connection.execute(KEY, (f"command:{self._stream}",), prepare=True)
            case Step.LOCK:
                self._connection.execute(LOCK, prepare=True)
            case Step.NUMBER:
                rows = self._connection.execute(NUMBERS, (self._events,), prepare=True).fetchall()
                self.numbers = [row[0] for row in rows]
            case Step.CLOCK:
                (self.recorded_at,) = self._connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
            case Step.INSERT:
                self._connection.execute(INSERT, (self._stream, self.recorded_at, self.numbers), prepare=True)


def assert_same_order(connection: Connection) -> None:
    """Fail unless both append functions take exactly these steps in the order of `RIGHT`."""
    expression = _spaceless(LOCK.split("(", 1)[1].rsplit("FROM", 1)[0])
    for name in ("append_event", "append_events"):
        row = connection.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", (name,)).fetchone()
        assert row is not None, name
        source = _spaceless(row[0])
        assert expression in source, f"{name} does not lock as the harness does"
        marks = {
            Step.KEY: "INSERTINTOappend_keys",
            Step.LOCK: "pg_advisory_xact_lock_shared((f.namespace",
            Step.NUMBER: "nextval(",
            Step.INSERT: "INSERTINTOevents",
        }
        places = {step: source.index(mark) for step, mark in marks.items()}
        for mark in (*marks.values(), CLOCK):
            assert source.count(mark) == 1, f"{name} has {mark} more than once"
        assert sorted(places, key=lambda step: places[step]) == list(RIGHT)
        assert places[Step.NUMBER] < source.index(CLOCK) < places[Step.INSERT], f"{name} reads the clock too early"


def _spaceless(text: str) -> str:
    return re.sub(r"\s+", "", re.sub(r"--[^\n]*", "", text))


# Readers: each takes a cursor and answers what it found and the next cursor

UNGUARDED: Final = """
SELECT e.notification_id FROM events AS e WHERE e.notification_id > %s ORDER BY e.notification_id LIMIT %s
"""
PAGE_EVENTS: Final = 200
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


def read_behind_horizon(connection: Connection, after: int) -> tuple[Sequence[int], int]:
    """As the projectors read: a page up to the horizon."""
    from position_ledger.store import feed

    upto = feed.horizon(connection)
    if upto <= after:
        return (), after
    rows = feed.page(connection, after=after, upto=upto, topics=[TOPIC], limit=PAGE_EVENTS)
    numbers = [row.seq for row in rows]
    return numbers, numbers[-1] if len(numbers) == PAGE_EVENTS else upto


def read_unguarded(connection: Connection, after: int) -> tuple[Sequence[int], int]:
    """As most event stores read: whatever is visible beyond the cursor. It loses events; the harness must see that."""
    rows = connection.execute(UNGUARDED, (after, PAGE_EVENTS), prepare=True).fetchall()
    numbers = [row[0] for row in rows]
    return numbers, numbers[-1] if numbers else after
