"""Valkey as the ledger runs it: only a socket, everything it was told on disk within a second."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from position_ledger.embedded.layout import VALKEY_SOCKET
from position_ledger.embedded.process import ServerProcess, connect

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger.embedded.accounts import Account

_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "loglevel": "warning",
}


def valkey_server(
    *, program: Path, folder: Path, socket_folder: Path, account: Account, lock_file: Path, log_file: Path
) -> ServerProcess:
    """Describe the server of a folder; nothing runs yet."""
    socket_path = socket_folder / VALKEY_SOCKET
    settings = {**_SETTINGS, "dir": str(folder), "unixsocket": str(socket_path)}
    options = [text for name, value in settings.items() for text in (f"--{name}", value)]
    return ServerProcess(
        name="Valkey",
        command=[program, *options],
        account=account,
        lock_file=lock_file,
        log_file=log_file,
        asks=lambda: valkey_answers(socket_folder),
        gentle=signal.SIGTERM,
        hard=signal.SIGKILL,
    )


def valkey_answers(socket_folder: Path) -> bool:
    """Whether Valkey answers a ping; not while it still loads its data."""
    try:
        with connect(socket_folder / VALKEY_SOCKET) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
