"""How long a rebuild will still take: from what it has read in the last minute, and from what came after loads before."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0
"""The rate is that of so many seconds of work: long enough to be steady, short enough to follow helpers that come and go."""

AFTER_SHARE = 0.5
"""Indexes, statistics, catch-up, proof and swap, as a share of the load: what is assumed before the first rebuild of a table
has ended. The indexes of a million events alone took 0.37 of their load (docs/reference/performance.md); an assumption."""

AFTER_S_PER_EVENT = 10e-6
"""The same for a load that is held to a pace, whose length says nothing about the rest."""

PARTS_MIN = 8
PARTS_USUAL = 64
PARTS_MAX = 4096
"""Equal ranges of the stream id, always a power of two: so the 64 of an archive are each in one part, or whole parts."""

PART_EVENTS_MIN = 2_000
"""A part costs a transaction or two however little is in it, so a short log is cut into fewer than the usual ones."""

PART_EVENTS_MAX = 100_000
"""What a kill costs for each process at most, and how long one transaction lasts: some three seconds at 30,000 events/s."""

PART_S_MAX = 30.0
"""With a pace: how long one part may keep its transaction open, for no vacuum looks behind the oldest one."""


def parts_for(events: int, throttle_per_s: float | None) -> int:
    """How many parts a load or a proof has: small enough that none keeps a transaction open for long."""
    part = PART_EVENTS_MAX if throttle_per_s is None else min(PART_EVENTS_MAX, throttle_per_s * PART_S_MAX)
    small = min(part, PART_EVENTS_MIN)
    parts = PARTS_MIN
    while parts < PARTS_MAX and events > parts * (small if parts < PARTS_USUAL else part):
        parts *= 2
    return parts


@dataclass(slots=True)
class Rate:
    """Events a second over the last `WINDOW_S` seconds of work; the time in which nothing was to happen does not count."""

    samples: deque[tuple[float, int]] = field(default_factory=deque)
    """(seconds of work, events) as they were seen, oldest first."""

    def seen(self, worked_s: float, events: int) -> None:
        """So many events were done after so many seconds of work."""
        if self.samples and events < self.samples[-1][1]:
            self.samples.clear()  # a process was killed, and its part begins again
        if self.samples and events == self.samples[0][1] and len(self.samples) == 1:
            self.samples.clear()  # nothing has come yet: its start-up is not the load
        self.samples.append((worked_s, events))
        while len(self.samples) > 2 and self.samples[1][0] <= worked_s - WINDOW_S:  # noqa: PLR2004 - two make a rate
            self.samples.popleft()

    @property
    def per_s(self) -> float | None:
        """Events a second; None before there are two looks."""
        if len(self.samples) < 2:  # noqa: PLR2004 - likewise
            return None
        (began_s, before), (now_s, events) = self.samples[0], self.samples[-1]
        return (events - before) / (now_s - began_s) if now_s > began_s and events > before else None


def after_load_s(events: int, per_s: float, known_s_per_event: float | None, *, is_paced: bool) -> float:
    """How long everything behind the load will take: as the last time, or as a share of the load, or as a constant."""
    if known_s_per_event is not None:
        return events * known_s_per_event
    return events * (AFTER_S_PER_EVENT if is_paced else AFTER_SHARE / per_s)


def left_s(
    total: int, done: int, per_s: float | None, known_s_per_event: float | None, *, is_paced: bool
) -> float | None:
    """Seconds until the end, swap included; None while nothing is known."""
    if per_s is None or per_s <= 0:
        return None
    behind = after_load_s(total, per_s, known_s_per_event, is_paced=is_paced)
    return max(0, total - done) / per_s + behind


def as_duration(seconds: float) -> str:
    """Hours, minutes and seconds for people: 1:02:03, 2:03."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
