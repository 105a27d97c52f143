"""The one process per data folder that starts the servers, restarts them, and stops them when nobody is left.

Single-threaded and on the standard library alone. It owns no truth: killed at any point, the next one starts over.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from position_ledger.embedded import locks
from position_ledger.embedded.accounts import server_account
from position_ledger.embedded.binaries import reachable_binaries
from position_ledger.embedded.layout import Layout, make_server_folders, make_socket_folder, still_there
from position_ledger.embedded.postgres import Cluster
from position_ledger.embedded.process import cut_log
from position_ledger.embedded.state import Phase, State, write_state
from position_ledger.embedded.valkey import valkey_server
from position_ledger.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from position_ledger.embedded.process import ServerProcess

LINGER_S = 3.0
"""How long the servers go on after the last user, so that short commands in a row do not restart them."""
LOOK_S = 0.25
LOOK_WHILE_STARTING_S = 0.02
RETRY_S_MAX = 5.0
RECOVERY_LIMIT_S = 600.0
CUT_LOGS_S = 10.0
_WOKEN_BY = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> None:
    """Run until nobody uses the servers; arguments are home, place and the descriptor of the held lock."""
    home, place, lock_fd = arguments
    os.umask(0o077)
    os.set_inheritable(int(lock_fd), False)  # noqa: FBT003
    signal.pthread_sigmask(signal.SIG_BLOCK, _WOKEN_BY)
    Supervisor(Layout(Path(home), Path(place)), int(lock_fd)).run()


def say(text: str) -> None:
    """Add a line to the supervisor's log."""
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} [{os.getpid()}] {text}", file=sys.stderr, flush=True)  # noqa: T201


class Failure(NamedTuple):
    """What went wrong, and when by the monotonic clock in seconds."""

    error: LedgerError
    at_s: float


class Keeper:
    """Keeps one server running: started, awaited, started again when it ends, more slowly while it fails."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.has_answered = False
        self.failure: Failure | None = None
        self._attempts = 0
        self._started_s: float | None = None
        self._retry_s = 0.0

    def look(self, now_s: float) -> None:
        """Do what is due now; a failure is kept in `failure` until the server answers again."""
        if self.server.is_running():
            self._look_at_running(now_s)
            return
        if self._started_s is not None:
            self._note_end(now_s)
        if now_s >= self._retry_s:
            self._start(now_s)

    def _look_at_running(self, now_s: float) -> None:
        if not self.has_answered and self.server.answers():
            say(f"{self.server.name} answers, process {self.server.pid}")
            self.has_answered, self.failure, self._attempts = True, None, 0
        elif not self.has_answered and now_s > (self._started_s or now_s) + RECOVERY_LIMIT_S:
            say(f"{self.server.name} did not answer within {RECOVERY_LIMIT_S:g} s, ended")
            self.server.kill(self.server.hard)

    def _note_end(self, now_s: float) -> None:
        self._started_s = None
        say(f"{self.server.name} ended with {self.server.exit_code()}")
        if self.has_answered:
            self.has_answered = False
        else:
            self._fail(LedgerError(f"{self.server.name} did not start: {self.server.log_tail()}"), now_s)

    def _start(self, now_s: float) -> None:
        try:
            self.server.start()
        except (LedgerError, OSError) as error:
            self._fail(error, now_s)
        else:
            self._started_s = now_s

    def _fail(self, error: LedgerError | OSError, now_s: float) -> None:
        self.failure = Failure(as_ledger_error(error), time.monotonic())
        self._attempts += 1
        self._retry_s = now_s + min(RETRY_S_MAX, 0.25 * 2**self._attempts)
        say(f"{self.server.name}, attempt {self._attempts}: {error}")


def as_ledger_error(error: LedgerError | OSError) -> LedgerError:
    """Return an error whose message is for people."""
    if isinstance(error, LedgerError):
        return error
    why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return LedgerError(f"the servers cannot be started ({why})")


class Supervisor:
    """Looks after both servers and the users of one data folder."""

    def __init__(self, layout: Layout, lock_fd: int) -> None:
        self._layout = layout
        self._lock_fd = lock_fd
        self._users_fd = locks.open_lock_file(layout.users_lock)
        self._keepers: list[Keeper] = []
        self._socket_folder = Path()
        self._reported: State | None = None
        self._set_up_failure: Failure | None = None
        self._last_use_s = time.monotonic()
        self._last_join_ns = 0
        self._last_cut_s = 0.0

    def run(self) -> None:
        """Look, report, wait, until nobody is left or a signal says stop."""
        say(f"begins for {self._layout.home} in {self._layout.place}")
        woken_by = None
        while woken_by in (None, signal.SIGCHLD):
            self._look(time.monotonic())
            if self._is_abandoned(time.monotonic()):
                break
            is_settled = self._is_ready() or self._failure() is not None
            woken = signal.sigtimedwait(_WOKEN_BY, LOOK_S if is_settled else LOOK_WHILE_STARTING_S)
            woken_by = woken.si_signo if woken else None
        self._stop()

    def _look(self, now_s: float) -> None:
        if not self._keepers:
            self._set_up(now_s)
        for keeper in self._keepers:
            keeper.look(now_s)
        self._report()
        if now_s > self._last_cut_s + CUT_LOGS_S:
            self._last_cut_s = now_s
            for log in self._layout.control.glob("*.log"):
                cut_log(log)

    def _set_up(self, now_s: float) -> None:
        if self._set_up_failure and now_s < self._set_up_failure.at_s + RETRY_S_MAX:
            return
        try:
            self._keepers = [Keeper(server) for server in self._servers()]
            self._set_up_failure = None
        except (LedgerError, OSError) as error:
            self._set_up_failure = Failure(as_ledger_error(error), time.monotonic())
            say(str(self._set_up_failure.error))

    def _servers(self) -> list[ServerProcess]:
        layout = self._layout
        account = server_account(layout.data)
        make_server_folders(layout, account.uid)
        self._socket_folder = make_socket_folder(layout, account.uid)
        binaries = reachable_binaries()
        cluster = Cluster(
            bin_folder=binaries.postgres_bin,
            data=layout.data,
            socket_folder=self._socket_folder,
            account=account,
            lock_file=layout.control / "postgres.lock",
            log_file=layout.control / "postgres.log",
        )
        valkey = valkey_server(
            program=binaries.valkey_server,
            folder=layout.valkey,
            socket_folder=self._socket_folder,
            account=account,
            lock_file=layout.control / "valkey.lock",
            log_file=layout.control / "valkey.log",
        )
        return [valkey, cluster.server()]

    def _is_ready(self) -> bool:
        return bool(self._keepers) and all(keeper.has_answered for keeper in self._keepers)

    def _failure(self) -> Failure | None:
        """Return the latest failure that has not been overcome."""
        failures = [self._set_up_failure, *(keeper.failure for keeper in self._keepers)]
        return max((failure for failure in failures if failure), key=lambda failure: failure.at_s, default=None)

    def _report(self) -> None:
        """Write what changed for the users. A full disk must not end the supervisor: the next look tries again."""
        failure = self._failure()
        pids = {keeper.server.name: keeper.server.pid for keeper in self._keepers}
        state = State(
            phase=Phase.READY if self._is_ready() else Phase.FAILED if failure else Phase.STARTING,
            at_s=failure.at_s if failure else 0.0,
            supervisor_pid=os.getpid(),
            socket_folder=str(self._socket_folder),
            postgres_pid=pids.get("PostgreSQL", 0),
            valkey_pid=pids.get("Valkey", 0),
            problem=str(failure.error) if failure else "",
            is_configuration=failure is not None and isinstance(failure.error, ConfigurationError),
        )
        if state != self._reported:
            with suppress(OSError):
                write_state(self._layout.state_file, state)
                self._reported = state

    def _is_abandoned(self, now_s: float) -> bool:
        """Whether to end: the folder was removed, or nobody used it for the linger time.

        In the second case the users' lock stays taken, so that whoever joins now waits until the servers have ended.
        """
        if self._is_removed() or not still_there(self._layout):
            say("the data folder was removed")
            return True
        joined_ns = os.fstat(self._users_fd).st_mtime_ns
        if joined_ns != self._last_join_ns or not locks.try_lock(self._users_fd):
            self._last_join_ns, self._last_use_s = joined_ns, now_s
            return False
        if now_s >= self._last_use_s + (0 if self._failure() else LINGER_S):
            return True
        locks.unlock(self._users_fd)
        return False

    def _is_removed(self) -> bool:
        return not locks.is_same_file(self._lock_fd, self._layout.supervisor_lock)

    def _stop(self) -> None:
        """End the servers cleanly; of a removed folder at once, before they touch a new one of the same name."""
        is_removed = self._is_removed()
        if not is_removed:
            self._layout.state_file.unlink(missing_ok=True)
        for keeper in self._keepers:
            if is_removed:
                keeper.server.kill()
            else:
                keeper.server.stop()
                with suppress(LedgerError, OSError):
                    keeper.server.sweep()
        if not self._socket_folder.is_relative_to(self._layout.place):
            with suppress(OSError):
                self._socket_folder.rmdir()
        say("ended")
