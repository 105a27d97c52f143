"""A pooler as PgBouncer is one: clients share a few sessions of the server, each for a transaction or for as long as it stays.

It speaks as much of the protocol as that takes: it logs in by itself, tells each client a key of its own, hands bytes through,
and takes a session back when the server says that no transaction is open in it. Sessions are lent last in, first out.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

Mode = Literal["transaction", "session"]
PORT = "6432"
LOGGED_IN = b"R" + struct.pack("!II", 8, 0)
KEY = b"K" + struct.pack("!III", 12, 4_000_000, 7)
"""No process of a server has such a number."""

IDLE = b"Z" + struct.pack("!I", 5) + b"I"
QUESTIONS = (b"Q", b"S")
"""What the server answers, last of all, with whether a transaction is open."""


class Gone(Exception):
    """The other side has closed its socket, or refuses: a client that comes late may find its database dropped."""


@dataclass
class Wire:
    """One side of a connection: whole messages in, bytes out."""

    socket: socket.socket
    _came: bytes = b""

    def first(self) -> bytes:
        """The first message of a client, which has no kind."""
        while len(self._came) < 4 or len(self._came) < struct.unpack("!I", self._came[:4])[0]:
            self._receive()
        message, self._came = self._came, b""
        return message

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Kind and bytes of each message that has come whole, after one look at the socket."""
        self._receive()
        while len(self._came) >= 5:
            length = 1 + struct.unpack("!I", self._came[1:5])[0]
            if len(self._came) < length:
                return
            message, self._came = self._came[:length], self._came[length:]
            yield message[:1], message

    def send(self, message: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(message)

    def _receive(self) -> None:
        came = self.socket.recv(65536)
        if not came:
            raise Gone
        self._came += came


@dataclass
class Pool:
    """The sessions of one database."""

    conninfo: str
    sessions_max: int
    free: list[Wire] = field(default_factory=list)
    opened: int = 0
    told: bytes = b""
    """What the server says of itself when a session begins."""
    came_back: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> Wire:
        """A session: the one that came back last, a new one, or the next that comes back."""
        with self.came_back:
            while not self.free and self.opened == self.sessions_max:
                self.came_back.wait()
            if self.free:
                return self.free.pop()
            session = self._log_in()
            self.opened += 1
            return session

    def give_back(self, session: Wire) -> None:
        """For the next client."""
        with self.came_back:
            self.free.append(session)
            self.came_back.notify()

    def end(self, session: Wire) -> None:
        """Nobody can go on with it."""
        session.socket.close()
        with self.came_back:
            self.opened -= 1
            self.came_back.notify()

    def _log_in(self) -> Wire:
        at = conninfo_to_dict(self.conninfo)
        session = Wire(socket.socket(socket.AF_UNIX))
        try:
            session.socket.connect(f"{at['host']}/.s.PGSQL.{at['port']}")
            names = f"user\0{at['user']}\0database\0{at['dbname']}\0\0".encode()
            session.send(struct.pack("!II", 8 + len(names), 196608) + names)
            self.told = self._begun(session)
        except BaseException:
            session.socket.close()
            raise
        return session

    def _begun(self, session: Wire) -> bytes:
        """What the server says until it is ready."""
        told = b""
        while True:
            for kind, message in session.messages():
                if kind == b"E":
                    raise Gone(message)
                told += message if kind == b"S" else b""
                if kind == b"Z":
                    return told


@dataclass
class Client:
    """One client, and the session that it has while it has one."""

    wire: Wire
    pooler: Pooler
    session: Wire | None = None
    asked: int = 0
    """Questions without an answer."""
    is_idle: bool = True
    """The server said last that no transaction is open."""

    def serve(self) -> None:
        """From its first message until it leaves."""
        with suppress(Gone, OSError), closing(self.wire.socket):
            self.wire.first()
            self.wire.send(LOGGED_IN + self.pooler.pool.told + KEY + IDLE)
            while self._goes_on():
                pass
        if self.session is not None:
            self.pooler.pool.end(self.session)

    def _goes_on(self) -> bool:
        sides = [self.wire] if self.session is None else [self.wire, self.session]
        ready = select([side.socket for side in sides], [], [])[0]
        if self.session is not None and self.session.socket in ready:
            self._answer(self.session)
        return self.wire.socket not in ready or self._ask()

    def _ask(self) -> bool:
        """Hand what it says to a session; false: it leaves."""
        for kind, message in self.wire.messages():
            if kind == b"X":
                return False
            self.session = self.session or self.pooler.pool.take()
            self.asked += kind in QUESTIONS
            self.session.send(message)
        return True

    def _answer(self, session: Wire) -> None:
        for kind, message in session.messages():
            self.wire.send(message)
            if kind == b"Z":
                self.asked, self.is_idle = self.asked - 1, message.endswith(b"I")
        if self.pooler.mode == "transaction" and self.is_idle and not self.asked:
            self.session = None
            self.pooler.pool.give_back(session)


@dataclass
class Pooler:
    """Where it answers, and what it does."""

    url: str
    pool: Pool
    mode: Mode


@contextmanager
def pooled(database_url: str, mode: Mode, *, sessions_max: int = 20) -> Iterator[Pooler]:
    """A pooler in front of a database, until the end of the block. Its mode may be changed meanwhile."""
    pool = Pool(database_url, sessions_max)
    pool.give_back(pool.take())
    with tempfile.TemporaryDirectory(prefix="pooler-") as folder, closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(Path(folder, f".s.PGSQL.{PORT}")))
        listening.listen(64)
        pooler = Pooler(make_conninfo(database_url, host=folder, port=PORT), pool, mode)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = Client(Wire(listening.accept()[0]), pooler)
                    threading.Thread(target=client.serve, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield pooler
        listening.shutdown(socket.SHUT_RDWR)
    for session in pool.free:
        session.socket.close()
