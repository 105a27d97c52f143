"""The order of what a feed says: by time, and among ticks of the same time by their number, where the feed has one."""

from __future__ import annotations

from datetime import datetime

__all__ = ["is_past"]


def is_past(at: datetime, tick: int | None, last_at: datetime, last_tick: int | None) -> bool:
    """Whether a tick comes before the last one that counted, or is that one again.

    Of two with the same time and no numbers the one that arrives later counts, as for marks.
    """
    if at != last_at:
        return at < last_at
    return tick is not None and last_tick is not None and tick <= last_tick
