"""Lines of a log that would be written again and again while nothing changes: at once, then once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 60.0
REMEMBERED_MAX = 100


class Seldom:
    """Knows what was said lately. One thread at a time."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, float] = {}

    def may_say(self, words: str) -> bool:
        """Whether these words were not said for a while; then they count as said now."""
        now = self._clock()
        said = self._said.get(words)
        if said is not None and now < said + self._every_s:
            return False
        if len(self._said) >= REMEMBERED_MAX:
            self._said.clear()
        self._said[words] = now
        return True
