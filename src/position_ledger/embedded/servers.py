"""The users' side: join the servers of a data folder, starting them if need be, and leave them."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from position_ledger.embedded import layout as layouts
from position_ledger.embedded import locks
from position_ledger.embedded.launch import Watcher, launch_if_alone
from position_ledger.embedded.postgres import postgres_answers
from position_ledger.embedded.process import log_tail
from position_ledger.embedded.state import Phase, State, read_state
from position_ledger.embedded.valkey import valkey_answers
from position_ledger.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from position_ledger.embedded.layout import Layout

START_LIMIT_S = 90.0
"""How long `start` waits: a new data folder takes about 2 s, recovery after a crash may have to read 2 GB of log."""
LAUNCHES_MAX = 3


class EmbeddedServers:
    """A hold on the running servers of one data folder; they run for as long as any process has one.

    A process forked from this one shares the hold. The hold ends with the process, however the process ends.
    """

    def __init__(self, layout: Layout, users_fd: int, socket_folder: Path) -> None:
        self._layout = layout
        self._users_fd: int | None = users_fd
        self._socket_folder = socket_folder
        self._closing = threading.Lock()
        self._watcher = Watcher.watch(layout)
        atexit.register(self.close)

    @classmethod
    def start(cls, home: Path | None = None) -> Self:
        """Start or join the servers of `home` and return when both answer; repeating it is cheap (about 5 ms).

        Raises ConfigurationError when the folder or the machine cannot be used, DatabaseUnavailable when the servers
        do not come up; both say what to do.
        """
        home = cls.default_home() if home is None else Path(home)
        try:
            layout = layouts.open_layout(home)
            users_fd = locks.open_lock_file(layout.users_lock)
        except (OSError, RuntimeError, ValueError) as error:  # the last two: a loop of links, no home, a zero byte
            raise _unusable(home, error) from error
        try:
            state = _join(layout, users_fd)
        except OSError as error:
            os.close(users_fd)
            raise _unusable(home, error) from error
        except BaseException:
            os.close(users_fd)
            raise
        return cls(layout, users_fd, Path(state.socket_folder))

    @staticmethod
    def default_home() -> Path:
        """Return the data folder when none is named."""
        return layouts.default_home()

    @property
    def home(self) -> Path:
        """The data folder, as it was named."""
        return self._layout.home

    @property
    def place(self) -> Path:
        """Where the files of the servers are: the data folder, or for root a folder that a system user can reach."""
        return self._layout.place

    @property
    def database_url(self) -> str:
        """The address of the database, for libpq and psycopg; stays the same when the servers are restarted."""
        return layouts.database_url(self._socket_folder)

    @property
    def redis_url(self) -> str:
        """The address of Valkey, for redis-py and dramatiq; stays the same when the servers are restarted."""
        return layouts.redis_url(self._socket_folder)

    def close(self) -> None:
        """Leave; when nobody is left, the servers stop a few seconds later. May be repeated."""
        with self._closing:
            users_fd, self._users_fd = self._users_fd, None
        if users_fd is not None:
            atexit.unregister(self.close)
            self._watcher.leave()
            os.close(users_fd)  # closed, not unlocked: a forked child that lives on keeps the hold

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _join(layout: Layout, users_fd: int) -> State:
    """Take part, see to it that there is a supervisor, and wait for its word that both servers answer."""
    began_s = time.monotonic()
    if not locks.lock_within(users_fd, START_LIMIT_S, shared=True):
        msg = f"the servers of {layout.home} are stopping and did not end within {START_LIMIT_S:g} s; try again"
        raise DatabaseUnavailable(msg)
    os.utime(users_fd)  # tells the supervisor of users that come and go between two of its looks
    launches = 0
    while time.monotonic() < began_s + START_LIMIT_S:
        launches += launch_if_alone(layout)
        state = read_state(layout.state_file)
        if state is not None and _is_ready(state, began_s):
            return state
        if launches > LAUNCHES_MAX:
            msg = f"the supervisor of {layout.home} ends at once: {log_tail(layout.supervisor_log)}"
            raise DatabaseUnavailable(msg)
        time.sleep(locks.POLL_S)
    raise DatabaseUnavailable(_too_slow(layout))


def _is_ready(state: State, began_s: float) -> bool:
    """Whether both servers answer. Raises what the supervisor reported since `began_s`."""
    if state.phase is Phase.FAILED and state.at_s >= began_s:
        raise state.error()
    folder = Path(state.socket_folder)
    return state.phase is Phase.READY and postgres_answers(folder) and valkey_answers(folder)


def _too_slow(layout: Layout) -> str:
    logs = {name: log_tail(layout.control / f"{name}.log") for name in ("postgres", "valkey", "supervisor")}
    words = "; ".join(f"{name}: {tail}" for name, tail in logs.items())
    return f"the servers of {layout.home} did not answer within {START_LIMIT_S:g} s; last log lines: {words}"


def _unusable(home: Path, error: Exception) -> ConfigurationError | DatabaseUnavailable:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DatabaseUnavailable(f"no space is left for the data folder {home}; free some and try again")
    return ConfigurationError(
        f"the data folder {home} cannot be used ({error}); set POSITION_LEDGER_HOME to a folder that you can write to, "
        "or POSITION_LEDGER_DATABASE_URL and POSITION_LEDGER_REDIS_URL to servers of your own"
    )
