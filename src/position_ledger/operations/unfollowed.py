"""Saying so when a table was swapped in that no worker keeps current: its readers would see it stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from position_ledger.operations.common import Tell, log_size, owner
from position_ledger.projection import generations
from position_ledger.projection.leases import workers_alive
from position_ledger.settings import Settings
from position_ledger.setup import Reached

HAS_GENERATIONS = "SELECT to_regclass('projection_generations') IS NOT NULL"


@contextmanager
def telling_unfollowed(settings: Settings, reached: Reached, tell: Tell) -> Iterator[list[str]]:
    """Around what may swap tables: afterwards ``tell`` hears which of those that were swapped no worker follows.

    What it heard stands in the yielded list too, once the block is left without an error.
    """
    with owner(settings, reached) as connection:
        before = set(_active(connection))
    told: list[str] = []
    yield told
    with owner(settings, reached) as connection:
        swapped = {number: one for number, one in _active(connection).items() if number not in before}
        if not swapped or not log_size(connection):
            return
        alive = workers_alive(connection)
    alone = sorted(
        (one.projection, one.fingerprint[:8])
        for one in swapped.values()
        if one.mode == "worker" and one.fingerprint not in alive
    )
    if alone:
        named = ", ".join(f"{table} ({code})" for table, code in alone)
        told.append(
            f"no worker that is running has the code of {named}, so what happens from now on is not in there yet: start "
            "position-ledger worker with that code, then stop the workers of other code"
        )
        tell(told[-1])


def _active(connection: psycopg.Connection[Any]) -> dict[int, generations.Generation]:
    if connection.execute(HAS_GENERATIONS).fetchone() != (True,):
        return {}
    return {one.generation_id: one for one in generations.kept(connection) if one.state == "active"}
