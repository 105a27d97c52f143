"""The dramatiq actors. Messages are hints: lost, doubled or reordered ones change nothing."""

from __future__ import annotations

import dramatiq

from position_ledger.worker import this_process


def follow() -> None:
    """Hold the feed for a turn, then hand over by sending the next message."""
    this_process().follow(dramatiq.get_broker().get_actor("follow").send)


def load(generation_id: int) -> None:
    """Take parts of a rebuild that asks for help, in a process of their own; following goes on meanwhile."""
    this_process().load(generation_id, dramatiq.get_broker().get_actor("load").send)


ACTORS = (follow, load)
LONG = ("load",)
"""Actors with a queue of their own, so that no message for the others stands behind theirs."""
