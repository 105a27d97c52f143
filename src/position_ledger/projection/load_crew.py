"""The processes of a load: each takes parts until none is missing, and the one that started them looks on meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection as multiprocessing_connection
from typing import Any

from position_ledger.errors import ConfigurationError, MigrationError
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.loading import History, Loaded, Loader
from position_ledger.projection.pacing import GivenBack, StopFlag, Stopped
from position_ledger.settings import Settings

TICK_S = 0.25
"""How often whoever started the load is asked to look on."""

LOOK_AGAIN_S = 0.2
"""How often a process that finds every missing part taken looks whether one was let go."""

NICE = 10
"""Loading processes give way to whatever else runs on the machine."""


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
    with _crew(task, projection, processes) as (running, stop):
        try:
            waiting = set(running)
            while waiting:
                ended, waiting = wait(waiting, TICK_S, FIRST_COMPLETED)
                for one in ended:
                    one.result()
                tick()
        except BrokenProcessPool as error:
            msg = (
                f"a process that loaded {projection.table} was killed (by whoever ends processes when memory is short, if "
                "nobody did): what is loaded stays, run the same command again and it goes on from there"
            )
            raise LoadInterrupted(msg) from error
        finally:
            stop()
    done = [one.result() for one in running]
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

    def run(self, projection: Projection[Any], stop: StopFlag) -> Loaded:
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


@contextmanager
def _crew(
    task: _Task, projection: Projection[Any], processes: int
) -> Iterator[tuple[list[Future[Loaded]], Callable[[], None]]]:
    """The running loaders, and what stops them: one in a thread of this process, more in processes of their own."""
    pool: Executor
    if processes <= 1:
        flag = threading.Event()
        pool = ThreadPoolExecutor(1, "loading")
        running = [pool.submit(task.run, projection, flag)]
        stop = flag.set
    else:
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        flag_there = ClosedPipe(theirs)
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up, initargs=(task, flag_there))
        running = [pool.submit(_run_here) for _ in range(processes)]
        stop = ours.close
    try:
        yield running, stop
    finally:
        stop()
        pool.shutdown(cancel_futures=True)


class ClosedPipe:
    """A `StopFlag` for other processes: set when the other end of a pipe is closed.

    Not an Event of multiprocessing: setting one waits for ever for a process that was killed while it waited for it.
    """

    def __init__(self, reader: multiprocessing_connection.Connection[Any, Any]) -> None:
        self._reader = reader

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._reader.poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until told to stop, or until the time is up."""
        return self._reader.poll(timeout)


_here: list[tuple[_Task, Projection[Any], StopFlag]] = []
"""What this process of a pool loads; it ends with the process."""


def _set_up(task: _Task, stop: StopFlag) -> None:
    end_with_parent()
    give_way()
    _here.append((task, projection_of(task.settings, task.table), stop))


def _run_here() -> Loaded:
    task, projection, stop = _here[0]
    return task.run(projection, stop)


def projection_of(settings: Settings, table: str) -> Projection[Any]:
    """The definition of a table, in a process that was only told its name.

    Raises:
        ConfigurationError: the settings of this process define no such table.
    """
    found = next((one for one in load_projections(settings.projections) if one.table == table), None)
    if found is None:
        msg = f"setting projections: {settings.projections!r} defines no table {table!r}"
        raise ConfigurationError(msg)
    return found


def give_way() -> None:
    """Run at a low priority from now on, where that is allowed."""
    with suppress(OSError, AttributeError):
        os.nice(NICE)


def end_with_parent() -> None:
    """End this process when its parent is killed: it would go on loading for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), name="end with parent", daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing_connection.wait([sentinel])
    os._exit(1)
