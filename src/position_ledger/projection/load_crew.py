"""The processes of a load: each takes parts until none is missing, and the one that started them looks on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from position_ledger.errors import MigrationError
from position_ledger.projection.crews import work
from position_ledger.projection.definition import Projection
from position_ledger.projection.loading import History, Loaded, Loader
from position_ledger.projection.pacing import GivenBack, StopFlag, Stopped
from position_ledger.settings import Settings

LOOK_AGAIN_S = 0.2
"""How often a process that finds every missing part taken looks whether one was let go."""


class LoadInterrupted(MigrationError):
    """A loading process was killed; what is loaded stays, run the command again and it goes on from there."""


def load(
    url: str,
    settings: Settings,
    projection: Projection[Any],
    schema: str,
    *,
    processes: int,
    generation_id: int | None = None,
    history: History | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Loaded:
    """Load what the list in ``schema`` says is missing, beside anybody else who does; answers what this crew loaded.

    With a ``history`` events come from there, and nothing reads the log.
    ``tick`` is called several times a second; what it raises ends the load, and parts under way are undone.

    Raises:
        FoldFailed, VerificationFailed: as `Loader.take`.
        LoadInterrupted: a process of ours was killed.
    """
    task = _Task(url, settings, projection.table, schema, generation_id, history)
    try:
        done = work(task, projection, processes, tick)
    except BrokenProcessPool as error:
        msg = (
            f"a process that loaded {projection.table} was killed (by whoever ends processes when memory is short, if "
            "nobody did): what is loaded stays, run the same command again and it goes on from there"
        )
        raise LoadInterrupted(msg) from error
    return Loaded(sum(one.events for one in done), sum(one.versions for one in done))


def take_parts(loader: Loader, *, until: float | None = None) -> Loaded:
    """Load parts until none is missing, whoever is at the last ones; or until told to stop, or that monotonic time."""
    events = versions = 0
    with suppress(Stopped):
        while until is None or time.monotonic() < until:
            loader.pace.gate()
            try:
                loaded = loader.take()
            except GivenBack:
                continue
            if loaded is not None:
                events, versions = events + loaded.events, versions + loaded.versions
            elif loader.is_complete():
                break
            else:
                loader.pace.rest(LOOK_AGAIN_S)
    return Loaded(events, versions)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a process of a load is told."""

    url: str
    settings: Settings
    table: str
    schema: str
    generation_id: int | None
    history: History | None
    gives_way: bool = True

    def run(self, projection: Projection[Any], _number: int, stop: StopFlag) -> Loaded:
        """Load until nothing is missing."""
        with Loader(
            self.url,
            self.settings,
            projection,
            self.schema,
            generation_id=self.generation_id,
            stop=stop,
            history=self.history,
        ) as loader:
            return take_parts(loader)
