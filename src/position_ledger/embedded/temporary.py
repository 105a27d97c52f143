"""Throw-away servers for tests, which may stop, kill and start them; they end with the process that made them.

Started by a thread, they end with that thread: the kernel's parent death signal is the thread's.
"""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from typing import TYPE_CHECKING, Self

from position_ledger.embedded.accounts import Account, server_account
from position_ledger.embedded.binaries import postgres_major, reachable_binaries
from position_ledger.embedded.layout import database_url, make_folder, redis_url, runs_as_root
from position_ledger.embedded.postgres import Cluster
from position_ledger.embedded.process import ServerProcess, wait_until
from position_ledger.embedded.throw_away import make_folder_for
from position_ledger.embedded.valkey import valkey_server
from position_ledger.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

START_LIMIT_S = 60.0


class _TemporaryServer:
    """What both kinds share: a folder that goes with them, and one server on a socket that stays the same."""

    _server: ServerProcess

    def __init__(self, *, is_durable: bool = True) -> None:
        self._folder, self._owner = make_folder_for(is_durable=is_durable)
        self._account: Account = server_account(self._folder / "data")
        if runs_as_root():
            self._folder.chmod(0o711)
        self._socket_folder = self._folder / "run"
        make_folder(self._socket_folder, self._account.uid, 0o700)

    def start(self) -> None:
        """Start the server if it does not run, and wait until it answers. Raises DatabaseUnavailable."""
        if not self._server.is_running():
            self._server.start()
        wait_until(lambda: self._server.answers() or not self._server.is_running(), START_LIMIT_S)
        if not self._server.answers():
            msg = f"the temporary {self._server.name} did not start: {self._server.log_tail()}"
            raise DatabaseUnavailable(msg)

    def stop(self) -> None:
        """Shut the server down cleanly; its data and its address stay."""
        self._server.stop()

    def kill9(self) -> None:
        """End the server's main process with SIGKILL and wait until it has ended; its data and its address stay."""
        self._server.kill()

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same data and address."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The process id of the server, or 0 when it does not run."""
        return self._server.pid

    def close(self) -> None:
        """Shut the server down and remove its folder; may be repeated."""
        if self._folder.exists():
            self.stop()
            self._server.sweep()
            shutil.rmtree(self._folder)
            os.close(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TemporaryPostgres(_TemporaryServer):
    """A running PostgreSQL of any version from 13, with an empty database, closed by `close` or its `with` block.

    `bin_folder` holds `postgres` and `initdb` (None: those of the wheel). Without `is_durable` it does not wait for
    the disk, and lives in memory where there is room: as safe when a process is killed, not when the machine stops.
    """

    def __init__(self, bin_folder: Path | None = None, *, is_durable: bool = True) -> None:
        super().__init__(is_durable=is_durable)
        self._bin_folder = bin_folder or reachable_binaries().postgres_bin
        self.data = self._folder / "data"
        self._server = Cluster(
            bin_folder=self._bin_folder,
            data=self.data,
            socket_folder=self._socket_folder,
            account=self._account,
            lock_file=self._folder / "postgres.lock",
            log_file=self._folder / "postgres.log",
            is_durable=is_durable,
        ).server()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @cached_property
    def major(self) -> int:
        """The major version."""
        return postgres_major(self._bin_folder)

    @property
    def database_url(self) -> str:
        """The address of the database, as its owner and superuser; the same after every restart."""
        return database_url(self._socket_folder)


class TemporaryValkey(_TemporaryServer):
    """A running, empty Valkey, closed by `close` or its `with` block."""

    def __init__(self, program: Path | None = None) -> None:
        super().__init__()
        data = self._folder / "data"
        make_folder(data, self._account.uid, 0o700)
        self._server = valkey_server(
            program=program or reachable_binaries().valkey_server,
            folder=data,
            socket_folder=self._socket_folder,
            account=self._account,
            lock_file=self._folder / "valkey.lock",
            log_file=self._folder / "valkey.log",
        )
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def redis_url(self) -> str:
        """The address of the server; the same after every restart."""
        return redis_url(self._socket_folder)
