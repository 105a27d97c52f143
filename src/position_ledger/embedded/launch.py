"""Start a supervisor where there is none, now or the moment one dies. Whoever holds its lock hands the lock over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from position_ledger.embedded import locks
from position_ledger.embedded.process import cut_log, log_tail, open_log
from position_ledger.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.embedded.layout import Layout

LAUNCH_LIMIT_S = 20.0
FREE_BYTES_MIN = 32 << 20
SHORT_LIFE_S = 5.0
"""A supervisor that lived shorter than this is followed by the next only after this time."""
_SCRIPT = Path(__file__).with_name("run_supervisor.py")


def launch_if_alone(layout: Layout) -> bool:
    """Start a supervisor if there is none; True when one was started."""
    with _supervisor_lock(layout) as lock_fd:
        if not locks.try_lock(lock_fd):
            return False
        _launch(layout, lock_fd)
        return True


def _launch(layout: Layout, lock_fd: int) -> None:
    """Start the supervisor with the held lock. It detaches itself, so that it is nobody's child and no zombie."""
    _check_space(layout)
    layout.state_file.unlink(missing_ok=True)
    cut_log(layout.supervisor_log)
    command = [sys.executable, "-P", str(_SCRIPT), str(layout.home), str(layout.place), str(lock_fd)]
    try:
        with open_log(layout.supervisor_log) as log_fd:
            subprocess.run(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=(lock_fd,),
                start_new_session=True,
                cwd="/",
                env=_environment(),
                timeout=LAUNCH_LIMIT_S,
                check=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        tail = log_tail(layout.supervisor_log)
        msg = f"the supervisor could not be started with {sys.executable} ({error}); its log ends: {tail}"
        raise DatabaseUnavailable(msg) from error


def _check_space(layout: Layout) -> None:
    """Refuse early and in words: on a full disk the servers, and the supervisor's report of why, would fail."""
    room = os.statvfs(layout.control)
    free_bytes = room.f_bavail * room.f_frsize
    if free_bytes < FREE_BYTES_MIN:
        msg = (
            f"only {free_bytes >> 20} MB are free at {layout.place} and the servers need {FREE_BYTES_MIN >> 20} MB; "
            "free some and try again"
        )
        raise DatabaseUnavailable(msg)


def _environment() -> dict[str, str]:
    """Our environment, with our import path and without what would turn a warning into the end of the supervisor."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "PYTHONPATH")}
    return {**kept, "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)}


class Watcher(threading.Thread):
    """A thread per process and data folder that waits for the supervisor to die and starts the next one.

    It waits in the kernel for the supervisor's lock, so it costs nothing and acts at once; of all processes that wait
    exactly one gets the lock. It cannot be interrupted: after the last `leave` it stays until the supervisor ends.
    """

    _all: dict[Path, Watcher] = {}  # noqa: RUF012  (one per process, on purpose)
    _guard = threading.Lock()

    def __init__(self, layout: Layout) -> None:
        super().__init__(name="position-ledger-servers", daemon=True)
        self._layout = layout
        self._holds = 0

    @classmethod
    def watch(cls, layout: Layout) -> Watcher:
        """Join the watcher of a data folder, starting it if there is none; `leave` ends it."""
        with cls._guard:
            watcher = cls._all.get(layout.control)
            if watcher is None:
                watcher = cls._all[layout.control] = cls(layout)
                watcher.start()
            watcher._holds += 1
            return watcher

    def leave(self) -> None:
        """Give one `watch` back."""
        with self._guard:
            self._holds -= 1

    def run(self) -> None:
        """Replace every supervisor that dies, for as long as this process uses the servers."""
        launched_s = time.monotonic() - SHORT_LIFE_S
        while True:
            with _supervisor_lock(self._layout) as lock_fd:
                locks.lock(lock_fd)
                if self._is_over(lock_fd):
                    return
                if time.monotonic() < launched_s + SHORT_LIFE_S:
                    time.sleep(SHORT_LIFE_S)
                launched_s = time.monotonic()
                with suppress(OSError, DatabaseUnavailable):  # the next round tries again
                    _launch(self._layout, lock_fd)

    def _is_over(self, lock_fd: int) -> bool:
        """Whether nobody here uses the servers any more, or their folder was removed."""
        with self._guard:
            if self._holds > 0 and locks.is_same_file(lock_fd, self._layout.supervisor_lock):
                return False
            if self._all.get(self._layout.control) is self:
                del self._all[self._layout.control]
            return True

    @classmethod
    def forget_after_fork(cls) -> None:
        """Begin anew in a forked child, where the threads of its parent do not run."""
        cls._all = {}
        cls._guard = threading.Lock()


_lock_fds: set[int] = set()
"""Open supervisor locks of this process. A forked child must not keep one: it would hold the lock for its life."""


@contextmanager
def _supervisor_lock(layout: Layout) -> Iterator[int]:
    fd = locks.open_lock_file(layout.supervisor_lock)
    _lock_fds.add(fd)
    try:
        yield fd
    finally:
        _lock_fds.discard(fd)
        os.close(fd)


def _drop_in_child() -> None:
    for fd in _lock_fds:
        with suppress(OSError):
            os.close(fd)
    _lock_fds.clear()
    Watcher.forget_after_fork()


os.register_at_fork(after_in_child=_drop_in_child)
