"""A process that follows the feed. ``python -m tests.support.feed_reader URL KIND``.

KIND: ``horizon`` (ours), ``unguarded`` (the control), ``library`` (its recorder's select, as its subscriptions use it)
or ``subscription`` (iterating one). When its input ends it reads what is left and prints the numbers it has seen.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.support.feed_steps import PAGE_EVENTS, TOPIC, read_behind_horizon, read_unguarded
from tests.support.feed_writer import connect, input_has_ended

if TYPE_CHECKING:
    import psycopg

Read = Callable[[int], tuple[Sequence[int], int]]
POLL_S = 0.001


def follow(read: Read, highest: Callable[[], int]) -> list[int]:
    """Read on and on; after the input has ended, until everything was passed."""
    seen: list[int] = []
    cursor = 0
    while True:
        ended = input_has_ended()
        numbers, cursor = read(cursor)
        seen += numbers
        if ended and not numbers and cursor >= highest():
            return seen
        if not numbers:
            time.sleep(POLL_S)


def highest_event(connection: psycopg.Connection[Any]) -> Callable[[], int]:
    """The highest number in the log."""

    def highest() -> int:
        row = connection.execute("SELECT coalesce(max(notification_id), 0) FROM events").fetchone()
        return int(row[0]) if row else 0

    return highest


def read_by_library(recorder: Any) -> Read:
    """Pages of notifications; the cursor goes to the last one, as the library keeps it."""

    def read(after: int) -> tuple[Sequence[int], int]:
        found = recorder.select_notifications(after, PAGE_EVENTS, topics=[TOPIC], inclusive_of_start=False)
        numbers = [one.id for one in found]
        return numbers, numbers[-1] if numbers else after

    return read


def subscribe(recorder: Any, highest: Callable[[], int]) -> list[int]:
    """Iterate a subscription up to the highest number there is when the input has ended."""
    seen: list[int] = []
    subscription = recorder.subscribe(gt=0, topics=[TOPIC])

    def stop_at_the_end() -> None:
        while not input_has_ended():
            time.sleep(POLL_S)
        last = highest()
        while not seen or seen[-1] < last:
            time.sleep(POLL_S)
        subscription.stop()

    stopper = threading.Thread(target=stop_at_the_end)
    stopper.start()
    for notification in subscription:
        seen.append(notification.id)  # noqa: PERF401 - the stopper watches it grow
    stopper.join()
    return seen


def follow_by_library(url: str, kind: str, highest: Callable[[], int]) -> list[int]:
    """Follow through the library's application."""
    from position_ledger.store.library import LedgerApplication, library_environment

    with LedgerApplication(library_environment(url, as_app=False)) as application:
        recorder = application.recorder
        return follow(read_by_library(recorder), highest) if kind == "library" else subscribe(recorder, highest)


def main(url: str, kind: str) -> None:
    """Follow, then print."""
    connection = connect(url, "feed reader")
    highest = highest_event(connection)
    match kind:
        case "horizon":
            seen = follow(lambda after: read_behind_horizon(connection, after), highest)
        case "unguarded":
            seen = follow(lambda after: read_unguarded(connection, after), highest)
        case _:
            seen = follow_by_library(url, kind, highest)
    connection.close()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
