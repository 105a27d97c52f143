"""Looking on while a rebuild runs: how far it is, what others want of it, and whether it should stand back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg

from position_ledger.database import connect, first_line
from position_ledger.errors import RebuildCancelled
from position_ledger.projection import chunk_ledger, estimate, rebuilds, yielding
from position_ledger.projection.yielding import Behind, Turn
from position_ledger.settings import Settings

LOOK_S = 0.5
"""How often the row is read and written: a pause or a cancel is heard of within that time."""

STILL_TOLD_AFTER_S = 5.0
"""A load that has not moved for so long says who is at the parts that are missing."""


class Progress(Protocol):
    """How far something is; every method may do nothing."""

    def start(self, total: int, what: str) -> None:
        """Something begins that will take ``total`` steps."""

    def advance(self, done: int, how: str = "") -> None:
        """So many more steps are done; ``how`` says in a few words how it goes."""

    def finish(self) -> None:
        """It is done."""


class Watch:
    """Looks on over a connection of its own, from the thread that rebuilds. Its row may be missing (`rebuilds.exist`)."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        table: str,
        *,
        tell: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._table = table
        self._tell = tell
        self._progress = progress
        self._connection: psycopg.Connection[Any] = connect(url, settings, as_app=False, name="position-ledger rebuild")
        self._has_rows = rebuilds.exist(self._connection)
        self._known = rebuilds.after_the_last(self._connection, table)
        self._generation_id = 0
        self._throttle_per_s: float | None = None
        self._rate = estimate.Rate()
        self._began = self._looked = self._moved = time.monotonic()
        self._held_s = 0.0
        self._done = -1
        self._total = 0
        self._behind: Behind | None = None
        self._turn = Turn(self._began)
        self._told_at = 0.0
        self._turn_told_at = -math.inf
        self._is_paused = False
        self._loaded_at: tuple[float, float] | None = None
        self.expected_s: float | None = None
        """How long all of it was said to take when a tenth was loaded; None if that was never said."""

    @property
    def generation_id(self) -> int | None:
        """Whose pace loading processes keep; None if there is no row to keep it in."""
        return self._generation_id if self._has_rows else None

    def open(self, generation_id: int, state: str, *, processes: int, throttle_per_s: float | None, total: int) -> None:
        """Begin, or go on with what was interrupted."""
        self._generation_id, self._throttle_per_s = generation_id, throttle_per_s
        if self._has_rows:
            rebuilds.open_row(
                self._connection,
                generation_id,
                self._table,
                state=state,
                processes=processes,
                throttle_per_s=throttle_per_s,
                total=total,
            )

    def enter(self, state: str) -> None:
        """The next phase begins, unless it is to wait or not to be.

        Raises:
            RebuildCancelled: as `look`.
        """
        if self._has_rows:
            parameters = {"generation": self._generation_id, "state": state}
            self._connection.execute(rebuilds.ENTER, parameters)
        self.wait()

    def loaded(self, events: int) -> None:
        """The load has ended, with so many events."""
        self._loaded_at = (time.monotonic(), self._held_s)
        if self._has_rows:
            self._connection.execute(rebuilds.LOADED, {"generation": self._generation_id, "events": events})

    def finish(self, state: str, problem: BaseException | None = None) -> None:
        """It has ended, in whatever way; nothing is written if the connection is gone."""
        after_load_s = None
        if self._loaded_at is not None and state in {"built", "done"}:
            after_load_s = time.monotonic() - self._loaded_at[0] - (self._held_s - self._loaded_at[1])
        if self._has_rows and self._generation_id and not self._connection.closed:
            words = _why(problem) if problem is not None and state == "failed" else None
            with suppress(psycopg.OperationalError):
                rebuilds.finish(self._connection, self._generation_id, state, problem=words, after_load_s=after_load_s)

    def wait(self) -> None:
        """Between two phases: wait while it is paused.

        Raises:
            RebuildCancelled: as `look`.
        """
        while self._asked():
            began = time.monotonic()
            time.sleep(LOOK_S)
            self._held_s += time.monotonic() - began

    def look(self) -> None:
        """Hear what others want; for phases that nothing can hold. Does nothing if it has just looked.

        Raises:
            RebuildCancelled: somebody has cancelled the rebuild.
        """
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self._asked()

    def look_at_load(self, schema: str) -> None:
        """While it loads: write down how far it is, and stand back if that helps somebody. As often as `look`.

        Raises:
            RebuildCancelled: as `look`.
        """
        now = time.monotonic()
        passed_s = now - self._looked
        if passed_s < LOOK_S:
            return
        self._looked = now
        if self._is_held:
            self._held_s += passed_s
        load = chunk_ledger.progress(self._connection, schema)
        self._count(load, time.monotonic())  # on a busy machine the answer is of now, not of when it was asked
        if self._has_rows:
            self._stand_back(yielding.furthest_behind(self._connection), now)
        if now - max(self._moved, self._told_at) > STILL_TOLD_AFTER_S and load.done < load.parts and not self._is_held:
            self._tell_who_holds(schema, now)

    @property
    def _is_held(self) -> bool:
        return self._is_paused or self._turn.stands_back

    def _count(self, load: chunk_ledger.Progress, now: float) -> None:
        if load.events != self._done:
            self._done, self._moved = load.events, now
        worked_s = now - self._began - self._held_s
        if not self._is_held:
            self._rate.seen(worked_s, load.events)
        per_s = self._rate.per_s
        total = self._advance(load.events, per_s)
        left_s = self._left_s(total, load.events)
        if self.expected_s is None and left_s is not None and 10 * load.events >= total > 0:
            self.expected_s = now - self._began + left_s
        self._progress.advance(load.events, _how(per_s, left_s))

    def _advance(self, done: int, per_s: float | None) -> int:
        """Write down how far it is, and hear what is wanted; answers how many events there are."""
        if not self._has_rows:
            return done
        parameters = {
            "generation": self._generation_id,
            "done": done,
            "per_s": per_s,
            "left_s": None if self._is_paused else self._left_s(self._total, done),
        }
        row = self._connection.execute(rebuilds.ADVANCE, parameters).fetchone()
        if row is None:
            return done
        wanted, self._total = row
        self._hear(wanted)
        return self._total

    def _left_s(self, total: int, done: int) -> float | None:
        return estimate.left_s(total, done, self._rate.per_s, self._known, is_paced=self._throttle_per_s is not None)

    def _asked(self) -> bool:
        """Whether it is to stand still, because somebody has paused it."""
        row = None
        if self._has_rows and self._generation_id:
            row = self._connection.execute(rebuilds.ASKED, (self._generation_id,)).fetchone()
        if row is not None:
            self._hear(row[0])
        return self._is_paused

    def _hear(self, wanted: str) -> None:
        if wanted == "cancel":
            msg = (
                f"the rebuild of {self._table} was cancelled by another command: nothing of it is left, the live table is "
                "unchanged"
            )
            raise RebuildCancelled(msg)
        if self._is_paused != (wanted == "pause"):
            self._is_paused = wanted == "pause"
            words = (
                f"paused: what is built stays, rebuild-projection {self._table} --resume goes on"
                if self._is_paused
                else "goes on"
            )
            self._tell(f"the rebuild of {self._table} {'is ' if self._is_paused else ''}{words}")

    def _stand_back(self, behind: Behind | None, now: float) -> None:
        """Begin or end to stand back, and say so; turns that it takes while something stays behind are told once a minute."""
        before, self._turn = self._turn, yielding.turn_after(self._turn, behind, self._settings.rebuild_lag_max_s, now)
        turn = self._turn
        if turn is before:
            return
        self._told_at = now  # who stood back has not moved, and waits for nobody
        what = "" if behind is None else f"{behind.what} is {behind.lag_s:.1f} s behind"
        self._connection.execute(rebuilds.YIELD, (what if turn.stands_back else None, self._generation_id))
        if turn.stands_back and not before.is_due:
            self._tell(f"the load of {self._table} stands back: {what}")
        elif not turn.stands_back and not turn.is_due:
            self._tell(f"the load of {self._table} goes on")
        elif turn.is_due and now - self._turn_told_at > yielding.TOLD_EVERY_S:
            self._turn_told_at = now
            self._tell(
                f"the load of {self._table} has stood back for {now - before.since:.0f} s and {what} all the same: "
                f"something else holds it up, so the load goes on for {yielding.TURN_S:.0f} s at a time; with "
                "POSITION_LEDGER_REBUILD_LAG_MAX_S=0 it never stands back"
            )

    def _tell_who_holds(self, schema: str, now: float) -> None:
        self._told_at = now
        holders = chunk_ledger.holders(self._connection, schema)
        named = ", ".join(f"server process {pid} ({application})" for pid, application in holders)
        if named:
            self._tell(
                f"waiting for parts of {self._table} that are being loaded by {named}; if one of them stands still, end it "
                "with SELECT pg_terminate_backend(its number), and its part is loaded by somebody else"
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()


def _why(problem: BaseException) -> str:
    return "it was interrupted" if isinstance(problem, KeyboardInterrupt) else first_line(problem)


def _how(per_s: float | None, left_s: float | None) -> str:
    """A rate and the time that is left, for people."""
    words = [] if per_s is None else [f"{per_s:,.0f} events/s"]
    words += [] if left_s is None else [f"{estimate.as_duration(left_s)} until the end"]
    return ", ".join(words)
