"""A proxy between the ledger and its database that loses a request or an answer when the test says so."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"
PREPARE, COMPLETE, READY = b"P", b"C", b"Z"


class Loss(Enum):
    """What is lost of the next append, with the connection."""

    REQUEST = "the request never reaches the server"
    ANSWER = "the server has committed, but its answer is never read"


class LossyProxy:
    """Forwards connections to a PostgreSQL socket; cuts those that append, as often as it was told to."""

    def __init__(self, folder: Path, target_url: str) -> None:
        self._target = f"{parse_qs(urlsplit(target_url).query)['host'][0]}/{SOCKET_NAME}"
        parts = urlsplit(target_url)
        user = parse_qs(parts.query)["user"][0]
        self.url = f"postgresql://{parts.path}?host={quote(str(folder), safe='')}&user={user}"
        self._losses: list[Loss] = []
        self.cuts = 0
        """How many connections it has cut so far."""
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen(50)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def lose(self, *losses: Loss) -> None:
        """Cut the connections of the next appends in these ways."""
        with self._lock:
            self._losses = list(losses)

    def _next_loss(self) -> Loss | None:
        with self._lock:
            if not self._losses:
                return None
            self.cuts += 1
            return self._losses.pop(0)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            link = _Link(self, client, server)
            for pump in (link.from_client, link.from_server):
                thread = threading.Thread(target=pump)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """End every connection and wait for the threads."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        for one in self._open:
            _shut(one)
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()


class _Link:
    """One connection. An append is prepared under a name once, and later executed by that name."""

    def __init__(self, proxy: LossyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._appends: set[bytes] = set()
        self._deaf = False

    def from_client(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(1 << 20):
                if self._executes_append(data):
                    match self._proxy._next_loss():
                        case Loss.REQUEST:
                            break
                        case Loss.ANSWER:
                            self._deaf = True
                self._server.sendall(data)
        _shut(self._server)
        _shut(self._client)

    def from_server(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(1 << 20):
                if not self._deaf:
                    self._client.sendall(data)
                elif data.endswith(b"Z\0\0\0\5I"):  # ready for the next query, no transaction open: it is committed
                    break
        _shut(self._client)
        _shut(self._server)

    def _executes_append(self, data: bytes) -> bool:
        """Whether this runs an append; notes the names under which appends are prepared."""
        if data[:1] == PREPARE and b"append_event" in data:
            name, _, rest = data[5:].partition(b"\0")
            if name:
                self._appends.add(b"\0" + name + b"\0")
                return False
            return bool(rest)
        return data[:1] == b"B" and any(name in data[:80] for name in self._appends)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def lossy(folder: Path, target_url: str) -> Iterator[LossyProxy]:
    """A proxy for the block; ``folder`` is where its socket is made."""
    proxy = LossyProxy(folder, target_url)
    try:
        yield proxy
    finally:
        proxy.close()
