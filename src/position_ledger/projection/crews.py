"""Processes of this machine that share one piece of work: begun together, told to stop, and never left behind."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from multiprocessing import connection as multiprocessing_connection
from typing import Any, Protocol, TypeVar

from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.pacing import StopFlag
from position_ledger.settings import Settings

TICK_S = 0.25
"""How often whoever started a crew looks on while it waits for it."""

NICE = 10
"""Processes that give way to whatever else runs on the machine."""

END_WITHIN_S = 10.0
"""How long a process that was told to stop may take; what it was at is undone."""

Done_co = TypeVar("Done_co", covariant=True)
Done = TypeVar("Done")


class Task(Protocol[Done_co]):
    """What each process of a crew is told; sent to it whole."""

    @property
    def settings(self) -> Settings:
        """Where the definition is found there."""

    @property
    def table(self) -> str:
        """Which definition it is."""

    @property
    def gives_way(self) -> bool:
        """Whether everything else on the machine comes first."""

    def run(self, projection: Projection[Any], number: int, stop: StopFlag) -> Done_co:
        """Do the share of one process, counted from 0, until it is done or it is told to stop."""


def work(task: Task[Done], projection: Projection[Any], processes: int, tick: Callable[[], None]) -> list[Done]:
    """Have so many processes do their shares, one of them in a thread of this process; answers what each has done.

    ``tick`` is called several times a second. What it or a share raises ends the work, and all are told to stop.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    with _crew(task, projection, processes) as running:
        waiting = set(running)
        while waiting:
            ended, waiting = wait(waiting, TICK_S, FIRST_COMPLETED)
            for one in ended:
                one.result()
            tick()
    return [one.result() for one in running]


@contextmanager
def _crew(task: Task[Done], projection: Projection[Any], processes: int) -> Iterator[list[Future[Done]]]:
    """What runs; told to stop at the end, and waited for."""
    if processes <= 1:
        flag = threading.Event()
        with ThreadPoolExecutor(1, "crew") as thread:
            try:
                yield [thread.submit(task.run, projection, 0, flag)]
            finally:
                flag.set()
        return
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    set_up = (task, ClosedPipe(theirs))
    with (
        ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up, initargs=set_up) as pool,
        closing(ours),
    ):
        yield _begun(pool, processes)


def _begun(pool: ProcessPoolExecutor, processes: int) -> list[Future[Any]]:
    try:
        return [pool.submit(_run_here, number) for number in range(processes)]
    except OSError as error:
        if error.errno is not None:
            raise
        raise BrokenProcessPool("a process was killed while others were begun") from error  # what they share is closed


@contextmanager
def _stopped_at_the_end(stop: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        stop()


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


_here: list[tuple[Task[Any], Projection[Any], StopFlag]] = []
"""What this process of a crew does; it ends with the process."""


def _set_up(task: Task[Any], stop: StopFlag) -> None:
    end_with_parent()
    threading.Thread(target=_end_after, args=(stop,), name="end when stopped", daemon=True).start()
    if task.gives_way:
        give_way()
    _here.append((task, projection_of(task.settings, task.table), stop))


def _run_here(number: int) -> Any:
    task, projection, stop = _here[0]
    return task.run(projection, number, stop)


def _end_after(stop: StopFlag) -> None:
    """End this process when it was told to stop and did not: a pool loses sight of one it began while another was killed."""
    stop.wait()
    time.sleep(END_WITHIN_S)
    os._exit(1)


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
