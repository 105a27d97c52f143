"""What a loading process asks every couple of thousand events: whether it may go on, and when.

One statement writes down how far the part is and answers what is wanted. It runs over a connection of its own, because
the part itself is one long transaction. With a throttle it takes its turn in the one row of the rebuild, so the pace
holds over all processes and machines together; without one it locks nothing that others need, and while commands append
it rests for a part of its time, so that they keep theirs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.projection import chunk_ledger

ASK_EVENTS = 2_000
"""Events between two questions."""

ASK_S = 0.5
"""With a throttle: seconds of its pace between two questions, so that a slow one is even too."""

HOLD_POLL_S = 0.2
TURN_POLL_S = 0.5
"""Who waits for its turn asks so often whether that has changed: a slow pace must not make it deaf."""

HOLD_IN_PART_S = 10.0
"""A process that is held for longer gives its part back: no transaction stays open while a load stands still."""

REST_SHARE = 1.0
"""While commands append, a load without a throttle rests for this share of the time that it has worked since it last asked: half
of its time is theirs."""

REST_S_MAX = 0.5

ASK = """
WITH read AS (
    UPDATE {read} AS p SET events = %(events)s WHERE p.number = %(part)s
), paced AS (
    UPDATE projection_rebuilds AS r
       SET next_at = greatest(r.next_at, clock_timestamp()) + make_interval(secs => %(new)s / r.throttle_per_s)
     WHERE r.generation_id = %(generation)s AND r.throttle_per_s IS NOT NULL
    RETURNING extract(epoch FROM r.next_at - clock_timestamp())::float8 AS wait_s
)
SELECT r.wanted, r.yields_to IS NOT NULL, r.throttle_per_s, coalesce((SELECT p.wait_s FROM paced AS p), 0), feed_mark()
  FROM projection_rebuilds AS r WHERE r.generation_id = %(generation)s
"""


class StopFlag(Protocol):
    """A threading or multiprocessing event."""

    def is_set(self) -> bool:
        """Whether to stop."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until told to stop, or until the time is up."""


class Stopped(Exception):
    """The load is to end here: it was cancelled, it is over, or this process is to stop. Not an error."""


class GivenBack(Exception):
    """The load stands still, so the part under way is undone and free for whoever goes on."""


LISTEN = """
SELECT r.wanted, r.yields_to IS NOT NULL, r.throttle_per_s, 0.0::float8, feed_mark()
  FROM projection_rebuilds AS r WHERE r.generation_id = %s
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a loading process is told."""

    wanted: str
    yields: bool
    throttle_per_s: float | None
    wait_s: float
    mark: int
    """The highest number handed out in the log: commands append while it grows."""

    @property
    def is_held(self) -> bool:
        """Whether nothing is to be read for now."""
        return self.wanted == "pause" or self.yields


class Pace:
    """Asks for one loading process. Without a generation nobody is asked, and only ``stop`` ends the load."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        generation_id: int | None,
        stop: StopFlag,
        *,
        gives_way: bool = False,
    ) -> None:
        """``connection`` is autocommit, and used for nothing else while a part is loaded.

        It rests beside commands if it ``gives_way``.
        """
        self._connection = connection
        # Who loses a count to a crash counts again, so nobody waits for the disk.
        connection.execute("SELECT set_config('synchronous_commit', 'off', false)")
        self._ask = SQL(ASK).format(read=Identifier(schema, chunk_ledger.READ))
        self._generation_id = generation_id
        self._stop = stop
        self._new = 0
        self._every = ASK_EVENTS
        self._gives_way = gives_way
        self._mark: int | None = None
        self._working_since = time.monotonic()

    def gate(self) -> None:
        """Before a part is taken: wait, outside of any transaction, for as long as the load is held.

        Raises:
            Stopped: there is nothing more to do.
        """
        while self._asked(None, 0).is_held:
            self.rest(HOLD_POLL_S)
        self._working_since = time.monotonic()

    def read(self, part: int, events: int, new: int) -> None:
        """In a part: ``new`` more events were read, ``events`` in all. Waits for its turn.

        Raises:
            Stopped: as `gate`.
            GivenBack: the load has been held for so long that the part is to be undone.
        """
        self._new += new
        if self._new < self._every:
            if self._stop.is_set():
                raise Stopped
            return
        asked_at = time.monotonic()
        while (answer := self._asked(part, events)).is_held:
            if time.monotonic() - asked_at > HOLD_IN_PART_S:
                raise GivenBack
            self.rest(HOLD_POLL_S)
        if self._gives_way and answer.throttle_per_s is None:
            self.rest(rest_s(asked_at - self._working_since, is_appended=self._mark not in {None, answer.mark}))
        self._mark = answer.mark
        self._working_since = time.monotonic()

    def rest(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        if self._stop.wait(seconds):
            raise Stopped

    def _asked(self, part: int | None, events: int) -> Answer:
        if self._stop.is_set():
            raise Stopped
        if self._generation_id is None:
            self._new = 0
            return Answer("run", yields=False, throttle_per_s=None, wait_s=0.0, mark=0)
        parameters = {"part": part, "events": events, "new": self._new, "generation": self._generation_id}
        self._new = 0
        answer = _heard(self._connection.execute(self._ask, parameters, prepare=True).fetchone())
        turn = time.monotonic() + answer.wait_s
        while answer.throttle_per_s is not None and not answer.is_held and (left_s := turn - time.monotonic()) > 0:
            self.rest(min(left_s, TURN_POLL_S))
            answer = _heard(self._connection.execute(LISTEN, (self._generation_id,), prepare=True).fetchone())
        self._every = asked_every(answer.throttle_per_s)
        return answer


def _heard(row: tuple[Any, ...] | None) -> Answer:
    """What was answered; Stopped if the rebuild is cancelled or gone."""
    if row is None or row[0] == "cancel":
        raise Stopped
    return Answer(*row)


def rest_s(worked_s: float, *, is_appended: bool) -> float:
    """For how long a load rests that has worked for so long, if commands have appended meanwhile."""
    return min(worked_s * REST_SHARE, REST_S_MAX) if is_appended else 0.0


def asked_every(throttle_per_s: float | None) -> int:
    """How many events a process reads between two questions."""
    return ASK_EVENTS if throttle_per_s is None else max(1, min(ASK_EVENTS, int(throttle_per_s * ASK_S)))
