"""A proxy before a PostgreSQL socket that cuts the connection at the n-th message of the client, in one of two ways."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"
READY = b"Z\0\0\0\5"
"""How every answer of the server ends, but for one byte: idle, in a transaction, or in a failed one."""


class Cut(Enum):
    """What of the n-th exchange is lost, with the connection."""

    REQUEST = "the server never reads it"
    ANSWER = "the server has done it, and nobody reads its answer"


class CuttingProxy:
    """Forwards one connection after the other; a program sends one message, reads its answer, and sends the next."""

    def __init__(self, folder: Path, conninfo: str) -> None:
        self._target = f"{conninfo_to_dict(conninfo)['host']}/{SOCKET_NAME}"
        self.conninfo = make_conninfo(conninfo, host=str(folder))
        self.messages = 0
        """How many the client has sent since `cut_at`."""
        self._cut: tuple[int, Cut] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen(5)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut_at(self, number: int | None, cut: Cut = Cut.REQUEST) -> None:
        """Cut the next connection at its n-th message; None: at none."""
        self.messages = 0
        self._cut = None if number is None else (number, cut)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.socket(socket.AF_UNIX) as server:
                    server.connect(self._target)
                    with suppress(OSError):
                        self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Message, answer, message, answer …, until one side ends or the cut is reached."""
        while data := client.recv(1 << 20):
            self.messages += 1
            is_cut = self._cut is not None and self.messages == self._cut[0]
            if is_cut and self._cut is not None and self._cut[1] is Cut.REQUEST:
                return
            server.sendall(data)
            answer = b""
            while READY not in answer[-6:]:
                part = server.recv(1 << 20)
                if not part:
                    return
                answer += part
                if not is_cut:
                    client.sendall(part)
            if is_cut:
                return

    def close(self) -> None:
        """Stop listening and wait for the thread."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@contextmanager
def cutting(folder: Path, conninfo: str) -> Iterator[CuttingProxy]:
    """A proxy for the block; ``folder`` is where its socket is made."""
    proxy = CuttingProxy(folder, conninfo)
    try:
        yield proxy
    finally:
        proxy.close()
