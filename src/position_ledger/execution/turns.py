"""Taking turns: callers that met on the same streams follow each other instead of racing again.

Within a process there is a line for every stream on which callers have met; whoever comes while it is there joins it.
Between processes nobody can stand in line, so each waits a random time. Lines are for speed and fairness only: what is
true is decided by the append, so a caller that has waited too long may go on without its turn.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from uuid import UUID

WAIT_MAX_S = 5.0
"""How long one caller stands in line before it goes on without its turn: the one ahead may be stuck."""

PAUSE_FIRST_S = 0.001
PAUSE_MAX_S = 0.016
DOUBLINGS_MAX = 16


class _Line:
    """Those who want one stream: the one whose turn it is, and those behind."""

    __slots__ = ("callers", "turn")

    def __init__(self) -> None:
        self.callers = 0
        self.turn = threading.Lock()


class Turns:
    """The lines of one process. Safe for threads. A line exists while somebody is in it."""

    def __init__(self) -> None:
        self._lines: dict[UUID, _Line] = {}
        self._lock = threading.Lock()

    def turn(self) -> Turn:
        """A turn that is not taken yet, for the length of a with block."""
        return Turn(self)

    def is_line(self, streams: Iterable[UUID]) -> bool:
        """Whether anybody stands in line for one of the streams."""
        return bool(self._lines) and any(stream in self._lines for stream in streams)

    def join(self, stream: UUID, deadline: float) -> _Line | None:
        """Stand in the line of a stream until it is the caller's turn; None: it was not within the time."""
        with self._lock:
            line = self._lines.setdefault(stream, _Line())
            line.callers += 1
        if line.turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return line
        self._leave(stream, line)
        return None

    def give(self, stream: UUID, line: _Line) -> None:
        """Give the turn to the next in line."""
        line.turn.release()
        self._leave(stream, line)

    def _leave(self, stream: UUID, line: _Line) -> None:
        with self._lock:
            line.callers -= 1
            if not line.callers:
                del self._lines[stream]


class Turn:
    """The turn of one caller on some streams; given to the next at the end of the with block, whatever happens."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held: dict[UUID, _Line] = {}
        self.was_taken = False
        """Whether the caller has stood in line, also if it went on without its turn."""

    def take(self, streams: Iterable[UUID], wait_max_s: float = WAIT_MAX_S) -> None:
        """Wait for the turn on all of the streams, in one order for everybody, so that no two wait for each other."""
        wanted = set(streams)
        self.was_taken = True
        if wanted <= self._held.keys():
            return
        self.give()
        deadline = time.monotonic() + wait_max_s
        for stream in sorted(wanted):
            line = self._turns.join(stream, deadline)
            if line is not None:
                self._held[stream] = line

    def give(self) -> None:
        """Give every turn that is held to the next in line."""
        while self._held:
            self._turns.give(*self._held.popitem())

    def __enter__(self) -> Self:
        """The turn itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it."""
        self.give()


def pause(conflicts: int) -> None:
    """Wait with full jitter, longer after each conflict, so that processes that met do not meet again at once."""
    longest_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(conflicts, DOUBLINGS_MAX))
    time.sleep(random.uniform(0, longest_s))  # noqa: S311 - jitter
