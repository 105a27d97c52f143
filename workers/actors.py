"""The dramatiq actors. Messages are hints: lost, doubled or reordered ones change nothing."""

from __future__ import annotations

import dramatiq

from position_ledger.worker import this_process


def follow() -> None:
    """Hold the feed for a turn, then hand over by sending the next message."""
    this_process().follow(dramatiq.get_broker().get_actor("follow").send)


ACTORS = (follow,)
