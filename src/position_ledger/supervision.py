"""Keeping worker processes alive: dramatiq as a child, started again when it ends by itself, stopped when we are.

dramatiq ends all its processes when one of them is killed. So the child is started again, after a pause that grows
while it keeps ending. The child has a process group of its own, so that whatever is left of it can be found and ended.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from position_ledger.packages import is_folder
from position_ledger.worker import BROKER_OF_FOLDER, broker_maker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from position_ledger.setup import Reached

SHUTDOWN_S: Final = 5.0
"""How long dramatiq waits for the threads of a process that it stops."""
STOP_LIMIT_S: Final = SHUTDOWN_S + 4.0
"""After this time what has not ended is killed."""
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 10.0
STEADY_S: Final = 20.0
"""A child that lived so long was fine: the pause begins at its shortest again."""

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CHILD = Path(__file__).with_name("supervised.py")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `position-ledger worker` is told."""

    processes: int
    threads: int
    is_verbose: bool = False


def check_workers(package: str) -> str:
    """The dramatiq address of the broker of a workers package, or of one that makes that of a folder.

    Raises:
        ConfigurationError: as `position_ledger.worker.broker_maker`.
    """
    broker_maker(package)
    return BROKER_OF_FOLDER if is_folder(package) else f"{package}.broker:make_broker"


def child_environment(reached: Reached) -> dict[str, str]:
    """Our environment with the servers that were reached, so that every process of the child uses these."""
    return {
        **os.environ,
        "POSITION_LEDGER_DATABASE_URL": reached.database_url,
        "POSITION_LEDGER_REDIS_URL": reached.redis_url,
    }


def child_command(broker: str, options: WorkerOptions) -> list[str]:
    """The command line of the child."""
    command = [sys.executable, "-P", str(_CHILD), str(os.getpid()), "--path"]
    command += ["--processes", str(options.processes), "--threads", str(options.threads)]
    command += ["--worker-shutdown-timeout", str(round(SHUTDOWN_S * 1000))]
    return [*command, *([] if options.is_verbose else ["--skip-logging"]), broker]


def supervise(command: list[str], environment: Mapping[str, str]) -> None:
    """Run the command until SIGTERM, SIGINT or SIGHUP, and again whenever it ends by itself. Main thread only.

    Returns when nothing of it is left.
    """
    pause_s = PAUSE_FIRST_S
    with _Wakeup() as wakeup:
        while not wakeup.is_stop_wanted():
            started = time.monotonic()
            code = _run_once(command, environment, wakeup)
            if not wakeup.is_stop_wanted():
                lived_s = time.monotonic() - started
                pause_s = PAUSE_FIRST_S if lived_s >= STEADY_S else pause_s
                log.warning("the worker processes ended (%s); starting them again in %.1f s", _reason(code), pause_s)
                wakeup.wait_until(wakeup.is_stop_wanted, timeout_s=pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _run_once(command: list[str], environment: Mapping[str, str], wakeup: _Wakeup) -> int:
    """Run the command until it ends or we are told to stop; answers its exit code when nothing of it is left."""
    child = _Child(command, environment, wakeup)
    try:
        wakeup.wait_until(lambda: child.has_ended or wakeup.is_stop_wanted())
    finally:
        code = child.end()
    return code


def _reason(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class _Wakeup:
    """Lets the main thread sleep until a signal or the end of a child; safe to use from signal handlers."""

    def __init__(self) -> None:
        self._stop_wanted = False
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _STOPS:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup asked for it
            self._before[number] = signal.signal(number, self._want_stop)
        return self

    def __exit__(self, *_unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def is_stop_wanted(self) -> bool:
        """Whether a signal has asked us to stop."""
        return self._stop_wanted

    def ring(self) -> None:
        """Wake the main thread. A full pipe wakes it as well; a closed one has nobody to wake."""
        with suppress(BlockingIOError, OSError):
            os.write(self._write_fd, b"!")

    def wait_until(self, done: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Sleep until a condition holds or the time is up."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not done():
            left_s = None if end is None else end - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            select.select([self._read_fd], [], [], left_s)
            with suppress(BlockingIOError):
                os.read(self._read_fd, 4096)

    def _want_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_wanted = True
        self.ring()


class _Child:
    """One run of the command, in a process group of its own."""

    def __init__(self, command: list[str], environment: Mapping[str, str], wakeup: _Wakeup) -> None:
        self._wakeup = wakeup
        self._has_ended = False
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)
        self._reaper.start()

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has ended; others of its group may live."""
        return self._has_ended

    def end(self) -> int:
        """Stop what still runs, gently and then not; answers the exit code of the process.

        Only the process itself is asked to stop: it asks the others, and dramatiq takes a second request for
        impatience. Processes that it left behind notice by themselves that they are alone.
        """
        if not self._has_ended:
            self._process.terminate()
        self._wakeup.wait_until(lambda: self._has_ended, timeout_s=STOP_LIMIT_S)
        deadline = time.monotonic() + STOP_LIMIT_S
        while self._has_ended and self._signal_group(0) and time.monotonic() < deadline:
            time.sleep(0.05)  # nobody tells us of the end of processes that are not our children
        self._signal_group(signal.SIGKILL)
        self._reaper.join()
        return self._process.returncode

    def _reap(self) -> None:
        self._process.wait()
        self._has_ended = True
        self._wakeup.ring()

    def _signal_group(self, number: int) -> bool:
        """Signal the whole group; false if nobody is left in it."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True
