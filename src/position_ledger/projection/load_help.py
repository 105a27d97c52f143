"""Helping with the load of a rebuild that runs elsewhere: a worker machine takes parts for a while.

In a process of its own, so that following the log never shares its interpreter with a load, and at a low priority.
Nothing is agreed on with the rebuild: the list of parts says what is missing, and the lock on a part whose it is.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
import time
from contextlib import closing
from typing import Any

import psycopg

from position_ledger.database import connect
from position_ledger.projection import chunk_ledger, generations
from position_ledger.projection.crews import end_with_parent, give_way, projection_of
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation
from position_ledger.projection.load_crew import take_parts
from position_ledger.projection.loading import Loader
from position_ledger.settings import Settings

TURN_S = 60.0
"""How long one message helps: no new part is begun after that."""

TURN_MAX_S = 100.0
"""A process that still has its last part then is ended; the part is free again."""

LOOK_S = 0.2

log = logging.getLogger(__name__)


class LoadHelper:
    """Takes parts for a worker process. Any number of threads may help at once; `stop` ends them all."""

    def __init__(self, url: str, settings: Settings, projections: tuple[Projection[Any], ...]) -> None:
        self._url = url
        self._settings = settings
        self._fingerprints = {projection.table: fingerprint_of(projection) for projection in projections}
        self._stop = threading.Event()

    def help(self, generation_id: int, turn_s: float = TURN_S) -> bool:
        """Take parts of the load of a generation until none is left or the time is up; answers whether some are left.

        A load that has ended, was never begun or needs other code is none of ours, and no error.
        """
        generation = self._to_load(generation_id)
        if generation is None or self._stop.is_set():
            return False
        arguments = (self._url, self._settings, generation, turn_s)
        process = multiprocessing.get_context("spawn").Process(target=_help, args=arguments, daemon=True)
        process.start()
        end = time.monotonic() + TURN_MAX_S
        while process.is_alive() and time.monotonic() < end and not self._stop.is_set():
            process.join(LOOK_S)
        has_failed = process.exitcode not in {0, None}
        process.kill()
        process.join()
        return not has_failed and not self._stop.is_set() and self._to_load(generation_id) is not None

    def stop(self) -> None:
        """End what is under way; the parts are free again."""
        self._stop.set()

    def _to_load(self, generation_id: int) -> Generation | None:
        """The generation, if parts of it are missing that this code can load."""
        name = "position-ledger worker"
        with closing(connect(self._url, self._settings, as_app=True, name=name)) as connection:
            found = [one for one in generations.kept(connection) if one.generation_id == generation_id]
            generation = found[0] if found and found[0].state == "building" else None
            if generation is None or not chunk_ledger.exists(connection, generation.schema):
                return None
            if self._fingerprints.get(generation.projection) != generation.fingerprint:
                words = "not helping to load generation %d of %s: it belongs to other code (release %s)"
                log.warning(words, generation_id, generation.projection, generation.release)
                return None
            return None if chunk_ledger.is_complete(connection, generation.schema) else generation


def _help(url: str, settings: Settings, generation: Generation, turn_s: float) -> None:
    end_with_parent()
    give_way()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s position-ledger worker: %(message)s")
    projection = projection_of(settings, generation.projection)
    try:
        with Loader(
            url, settings, projection, generation.schema, generation_id=generation.generation_id, as_app=True
        ) as loader:
            take_parts(loader, until=time.monotonic() + turn_s)
    except psycopg.errors.UndefinedTable:
        return  # the load has ended, or was cancelled, and its list is gone
    except psycopg.Error as error:
        log.warning("helping to load %s ended: %s", generation.projection, error)
        sys.exit(1)
