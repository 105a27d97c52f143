"""PostgreSQL as the ledger runs it: how its data folder is made, how it is started and how it is asked."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from position_ledger.embedded.binaries import postgres_major
from position_ledger.embedded.layout import DATABASE, OWNER, PORT, POSTGRES_SOCKET, make_folder
from position_ledger.embedded.process import ServerProcess, connect, log_tail, open_log, spawn
from position_ledger.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from position_ledger.embedded.accounts import Account

INITDB_LIMIT_S = 120.0
BUILTIN_LOCALE_SINCE = 17
"""The first major version whose own C.UTF-8 sorts the same on every machine, whatever its C library is."""
SYNCFS_SINCE = 17
"""The first major version that can bring a new folder to the disk in one call: 0.15 s against 3 s on a busy disk."""
DEV_SHM_BYTES_MIN = 256 * 1024 * 1024
_PROTOCOL = 196608  # 3.0
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "max_locks_per_transaction": "128",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",  # our log file is cut in place by size
}
_THROW_AWAY = {"fsync": "off", "max_wal_size": "256MB"}
"""Nothing outlives the machine, and its log may be in memory. Whole pages stay in the log: a killed process tears some, too."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One data folder, the programs for it, and the folder of its socket.

    Without `is_durable` the server does not wait for the disk: for throw-away data only.
    """

    bin_folder: Path
    data: Path
    socket_folder: Path
    account: Account
    lock_file: Path
    log_file: Path
    is_durable: bool = True

    def server(self) -> ServerProcess:
        """Describe the server; nothing runs yet. Settings are arguments, so that they are always ours."""
        options = [text for name, value in self._settings().items() for text in ("-c", f"{name}={value}")]
        return ServerProcess(
            name="PostgreSQL",
            command=[self.bin_folder / "postgres", "-D", self.data, *options],
            account=self.account,
            lock_file=self.lock_file,
            log_file=self.log_file,
            asks=lambda: postgres_answers(self.socket_folder),
            gentle=signal.SIGINT,  # fast shutdown: roll back, checkpoint, end
            hard=signal.SIGQUIT,
            prepare=self._prepare,
        )

    def _settings(self) -> dict[str, str]:
        return {
            **_SETTINGS,
            "port": str(PORT),
            "unix_socket_directories": f'"{str(self.socket_folder).replace(chr(34), chr(34) * 2)}"',
            "dynamic_shared_memory_type": _shared_memory_type(),
            **({"fsync": "on"} if self.is_durable else _THROW_AWAY),
        }

    def _prepare(self, lock_fd: int) -> None:
        """Make the data folder if there is none; while `lock_fd` is held, nothing of an earlier run is left."""
        major = postgres_major(self.bin_folder)
        if not self.data.exists():
            self._make_data_folder(major, lock_fd)
        check_version(self.data, major)
        _forget_previous_run(self.data, self.socket_folder)

    def _make_data_folder(self, major: int, lock_fd: int) -> None:
        """Let the data folder with its database appear whole or not at all; leftovers of a killed try go."""
        draft = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        make_folder(draft, self.account.uid, 0o700)
        for command, text in self._creation(major, draft):
            if self._run_to_end(command, text, lock_fd) != 0:
                shutil.rmtree(draft, ignore_errors=True)
                msg = f"the PostgreSQL data folder {self.data} could not be made: {log_tail(self.log_file)}"
                raise DatabaseUnavailable(msg)
        draft.rename(self.data)
        _sync_folder(self.data.parent)

    def _creation(self, major: int, data: Path) -> list[tuple[list[str | os.PathLike[str]], str]]:
        """Return the commands that make a cluster and, in it, the database, with what each reads.

        Nothing waits for the disk before the last one, which brings everything to it once.
        """
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= BUILTIN_LOCALE_SINCE else []
        initdb: list[str | os.PathLike[str]] = [self.bin_folder / "initdb", "-D", data]
        make = [*initdb, "-U", OWNER, "--encoding=UTF8", "--locale=C", *locale, "--data-checksums", "--no-sync"]
        make += ["--auth=trust"]  # whoever can enter the socket folder is the owner
        single: list[str | os.PathLike[str]] = [self.bin_folder / "postgres", "--single", "-D", data]
        single += ["-c", "exit_on_error=on", "-c", "fsync=off", "postgres"]
        method = ["--sync-method=syncfs"] if major >= SYNCFS_SINCE else []
        sync = [([*initdb, "--sync-only", *method], "")] if self.is_durable else []
        return [(make, ""), (single, f"CREATE DATABASE {DATABASE}\n"), *sync]

    def _run_to_end(self, command: Sequence[str | os.PathLike[str]], text: str, lock_fd: int) -> int:
        with open_log(self.log_file) as log_fd:
            process = spawn(
                command,
                self.account,
                log_fd=log_fd,
                death_signal=signal.SIGKILL,
                lock_fd=lock_fd,
                stdin=subprocess.PIPE,
            )
        with suppress(subprocess.TimeoutExpired):
            process.communicate(text.encode(), INITDB_LIMIT_S)
        process.kill()
        return process.wait()


def _shared_memory_type() -> str:
    """Return where parallel queries share memory; containers often have 64 MB of /dev/shm, too little for them."""
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108
    except OSError:
        return "mmap"
    return "posix" if room.f_bavail * room.f_frsize >= DEV_SHM_BYTES_MIN else "mmap"


def _forget_previous_run(data: Path, socket_folder: Path) -> None:
    """Remove what names the process of an earlier run, whose number another process may have by now.

    Only while the server's lock is known to be free: then nothing of the earlier run is left.
    """
    for stale in (data / "postmaster.pid", socket_folder / POSTGRES_SOCKET, socket_folder / f"{POSTGRES_SOCKET}.lock"):
        stale.unlink(missing_ok=True)


def check_version(data: Path, major: int) -> None:
    """Raise ConfigurationError when the data folder was made by another major version, or is not one."""
    try:
        found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        msg = f"{data} is not a whole PostgreSQL data folder (PG_VERSION is missing); restore it or move it away"
        raise ConfigurationError(msg) from None
    if found != str(major):
        msg = (
            f"the data folder {data} was made by PostgreSQL {found} and the installed one is {major}; "
            f"dump it with PostgreSQL {found} and load it into a new POSITION_LEDGER_HOME, or install that one again"
        )
        raise ConfigurationError(msg)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def postgres_answers(socket_folder: Path) -> bool:
    """Whether a session can be opened now. Speaks the start of the protocol itself: 3 ms, and no driver to import."""
    words = b"user\0%b\0database\0%b\0\0" % (OWNER.encode(), DATABASE.encode())
    try:
        with connect(socket_folder / POSTGRES_SOCKET) as connection, connection.makefile("rb") as answers:
            connection.sendall(struct.pack("!ii", len(words) + 8, _PROTOCOL) + words)
            while (kind := answers.read(1)) not in (b"", b"E", b"Z"):
                answers.read(struct.unpack("!i", answers.read(4))[0] - 4)
            connection.sendall(b"X\0\0\0\4")
    except (OSError, struct.error):
        return False
    return kind == b"Z"  # ReadyForQuery
