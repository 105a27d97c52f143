"""One server process: started with dropped rights, found again, asked to stop, and made to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from position_ledger.embedded import become, locks
from position_ledger.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from position_ledger.embedded.accounts import Account

LOG_BYTES_MAX = 10_000_000
LOG_TAIL_LINES = 4
LOG_TAIL_BYTES = 4_000
PROBE_LIMIT_S = 2.0
GENTLE_STOP_LIMIT_S = 30.0
HARD_STOP_LIMIT_S = 5.0
ORPHAN_GRACE_S = 1.0
PREDECESSOR_GRACE_S = 20.0
SERVER_PROGRAMS = frozenset({"postgres", "initdb", "valkey-server"})
"""Only these are ever signalled; another process may have a lock file open by a fork at the wrong moment."""


@dataclass(kw_only=True, eq=False)
class ServerProcess:
    """A server that holds a lock file for as long as any process of it lives.

    `gentle` is the signal for a clean shutdown, `hard` the one for an immediate one; `asks` asks the server whether it
    works; `prepare` gets the held lock just before a start, when nothing of an earlier server is left.
    """

    name: str
    command: Sequence[str | os.PathLike[str]]
    account: Account
    lock_file: Path
    log_file: Path
    asks: Callable[[], bool]
    gentle: signal.Signals
    hard: signal.Signals
    prepare: Callable[[int], None] = lambda _lock_fd: None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id, or 0 when it does not run."""
        return self._process.pid if self._process is not None and self.is_running() else 0

    def is_running(self) -> bool:
        """Whether the process that was started has not ended."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """How the process ended; negative for a signal."""
        return None if self._process is None else self._process.poll()

    def answers(self) -> bool:
        """Whether the server does its work now."""
        return self.is_running() and self.asks()

    def start(self) -> None:
        """Start the server once nothing of an earlier one is left. Raises DatabaseUnavailable when that will not go."""
        lock_fd = locks.open_lock_file(self.lock_file)
        try:
            self._wait_for_predecessor(lock_fd)
            self.prepare(lock_fd)
            with open_log(self.log_file) as log_fd:
                self._process = spawn(
                    self.command, self.account, log_fd=log_fd, death_signal=self.gentle, lock_fd=lock_fd
                )
            _note_main_pid(lock_fd, self._process.pid)
        finally:
            os.close(lock_fd)

    def _wait_for_predecessor(self, lock_fd: int) -> None:
        """Take the lock; a predecessor that is shutting down gets time to, its orphans do not."""
        is_main_alive = _main_pid(lock_fd) in self._leftovers()
        grace_s = PREDECESSOR_GRACE_S if is_main_alive else ORPHAN_GRACE_S
        for limit_s, then in ((grace_s, self.hard), (HARD_STOP_LIMIT_S, signal.SIGKILL), (HARD_STOP_LIMIT_S, None)):
            if locks.lock_within(lock_fd, limit_s):
                return
            if then is not None:
                self._signal_leftovers(then)
        msg = f"an earlier {self.name} still runs and does not end (it holds {self.lock_file}); end it and start again"
        raise DatabaseUnavailable(msg)

    def _leftovers(self) -> list[int]:
        return [pid for pid in holders(self.lock_file) if _program(pid) in SERVER_PROGRAMS]

    def _signal_leftovers(self, signal_number: signal.Signals) -> None:
        for pid in self._leftovers():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal_number)

    def stop(self) -> None:
        """Shut the server down cleanly; one that does not end in time is ended, which its recovery is made for."""
        steps = ((self.gentle, GENTLE_STOP_LIMIT_S), (self.hard, HARD_STOP_LIMIT_S), (signal.SIGKILL, None))
        for signal_number, limit_s in steps:
            if self._end_with(signal_number, limit_s):
                return

    def sweep(self) -> None:
        """End what a killed server left behind: a session in the middle of a calculation does not notice its death."""
        lock_fd = locks.open_lock_file(self.lock_file)
        try:
            self._wait_for_predecessor(lock_fd)
        finally:
            os.close(lock_fd)

    def kill(self, signal_number: signal.Signals = signal.SIGKILL) -> None:
        """End the server at once, as a crash would, and wait until it has ended."""
        self._end_with(signal_number, None)

    def _end_with(self, signal_number: signal.Signals, limit_s: float | None) -> bool:
        if self._process is None:
            return True
        with suppress(ProcessLookupError):
            self._process.send_signal(signal_number)
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_tail(self) -> str:
        """Return the last lines of the server's log on one line."""
        return log_tail(self.log_file)


def spawn(
    command: Sequence[str | os.PathLike[str]],
    account: Account,
    *,
    log_fd: int,
    death_signal: signal.Signals,
    lock_fd: int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program as `account`, in a session of its own, that gets `death_signal` when this thread ends.

    It keeps `lock_fd` and nothing else of ours: its output goes to `log_fd`, its environment is empty.
    """
    prefix = [sys.executable, "-I", "-S", become.__file__, str(os.getpid()), str(int(death_signal))]
    return subprocess.Popen(  # noqa: S603
        [*prefix, str(account.uid), str(account.gid), "--", *command],
        stdin=stdin,
        stdout=log_fd,
        stderr=log_fd,
        pass_fds=(lock_fd,),
        start_new_session=True,
        cwd="/",
    )


class open_log:  # noqa: N801  (used as a function, like open)
    """A log file opened to append to; appending makes it safe to cut under a writer."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def cut_log(path: Path) -> None:
    """Keep a log from growing for ever: past the limit it is copied to `<name>.1` and emptied in place."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def log_tail(path: Path) -> str:
    """Return the last lines of a log as one line, or say that there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    last = [line.strip() for line in lines if line.strip()][-LOG_TAIL_LINES:]
    return " | ".join(last) or "the log is empty"


def holders(lock_file: Path) -> list[int]:
    """Return the processes, as far as we may see them, that have `lock_file` open."""
    try:
        wanted = lock_file.stat()
    except FileNotFoundError:
        return []
    return [pid for pid in _all_pids() if _has_open(pid, wanted)]


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    return any(_is_file(descriptor, wanted) for descriptor in descriptors)


def _is_file(path: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), wanted)
    except OSError:
        return False


def _program(pid: int) -> str:
    """Return the name of the program that a process executes, also when its file was replaced since."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return ""


def _main_pid(lock_fd: int) -> int:
    """Return the process id that the last starter noted in the lock file; 0 when there is none."""
    text = os.pread(lock_fd, 20, 0)
    return int(text) if text.strip().isdigit() else 0


def _note_main_pid(lock_fd: int, pid: int) -> None:
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, str(pid).encode(), 0)


def connect(socket_path: Path) -> socket.socket:
    """Connect to a server; every wait on the connection is limited. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PROBE_LIMIT_S)
    try:
        connection.connect(str(socket_path))
    except OSError:
        connection.close()
        raise
    return connection


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Poll `condition` for up to `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(locks.POLL_S)
    return True
