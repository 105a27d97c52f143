"""Steer a rebuild that runs in another process: pause it, let it go on, cancel it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from position_ledger.database import translated
from position_ledger.errors import MigrationError
from position_ledger.operations.common import owner, projection_named
from position_ledger.projection import rebuild as rebuilding
from position_ledger.projection import rebuilds
from position_ledger.settings import Settings
from position_ledger.setup import Reached

Wanted = Literal["pause", "run", "cancel"]

CANCEL_LIMIT_S = 120.0
"""How long a rebuild has to end: it hears of it within a second, and ends at once unless it is in its swap."""

ROW_LIMIT_S = 10.0
"""How long a rebuild that has just begun has to write down that it has."""

LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Steered:
    """What became of it; ``generation_id`` is None if there was nothing to cancel."""

    table: str
    wanted: Wanted
    generation_id: int | None


def steer_rebuild(settings: Settings, reached: Reached, table: str, wanted: Wanted) -> Steered:
    """Pause the running rebuild of a table, let it go on, or cancel it. What was cancelled has been dropped when this ends.

    Cancelling needs no running process: what an interrupted rebuild has left is dropped.

    Raises:
        ConfigurationError: there is no such table.
        MigrationError: none is running that could be paused or go on; or it did not end in time.
    """
    with translated(), owner(settings, reached) as connection:
        projection_named(settings, table)
        if not rebuilds.exist(connection):
            msg = "rebuilds cannot be steered before migration 014 is applied: run position-ledger migrate up"
            raise MigrationError(msg)
        if wanted == "cancel":
            return Steered(table, wanted, _cancel(connection, table))
        return Steered(table, wanted, _want(connection, table, wanted))


def _want(connection: psycopg.Connection[Any], table: str, wanted: Wanted) -> int:
    end = time.monotonic() + ROW_LIMIT_S
    while rebuilds.is_running(connection, table) and time.monotonic() < end:
        generation_id = rebuilds.want(connection, table, wanted)
        if generation_id is not None:
            return generation_id
        time.sleep(LOOK_S)
    msg = (
        f"no rebuild of {table} is running: what an interrupted one has built stays, and rebuild-projection {table} goes on "
        f"with it (--cancel drops it)"
    )
    raise MigrationError(msg)


def _cancel(connection: psycopg.Connection[Any], table: str) -> int | None:
    found = None
    end = time.monotonic() + CANCEL_LIMIT_S
    while rebuilds.is_running(connection, table):
        found = rebuilds.want(connection, table, "cancel") or found
        if time.monotonic() > end:
            msg = (
                f"the rebuild of {table} has not ended within {CANCEL_LIMIT_S:g} s: look at position-ledger status, and "
                "try again"
            )
            raise MigrationError(msg)
        time.sleep(LOOK_S)
    left = rebuilds.building(connection, table)
    rebuilding.abandon(connection, [table])
    return left or found
