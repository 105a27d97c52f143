"""What every session of the ledger is set to, and that nobody else gets it.

A role or a database may have settings of its own, on which depends how values are written, which rows a transaction sees and
whether a commit is on disk: each session sets what the ledger relies on. It does so once, and prepares statements, takes a
role and holds locks that last as long. A pooler that gives sessions to others between two transactions would let one program
go on in the role of another, and two rebuilds run that exclude each other. A server tells a client the number of its process
when it connects; who is not told the number that a query finds speaks with a pooler, which keeps keys of its own.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Final

import psycopg

from position_ledger.errors import ConfigurationError

KEEPALIVES: Final[Mapping[str, Any]] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds without a word, seconds between two questions, unanswered ones."""

UNANSWERED_MS: Final = {"tcp_user_timeout": 20_000}
"""For how long something sent may go unanswered; without it a lost answer is sent again for a quarter of an hour."""

LOOKS_FOR_CLIENT_MS: Final = {"client_connection_check_interval": 2_000}
"""In a statement, how often the server looks whether its client is still there. By default it does when the statement ends:
an index or a proof of a killed rebuild would go on for minutes, and keep its locks."""

CLIENT_LIMITS: Final[Mapping[str, Any]] = {**KEEPALIVES, **UNANSWERED_MS}
SERVER_LIMITS: Final[Mapping[str, Any]] = {
    **{f"tcp_{name}": value for name, value in KEEPALIVES.items()},
    **UNANSWERED_MS,
    **LOOKS_FOR_CLIENT_MS,
}
"""Both sides ask alike, so that who is gone without a word is noticed within half a minute: a server by its client, and
a machine by the server, which then lets go of what it held. By default a server asks after two hours."""

RELIED_ON: Final[Mapping[str, str]] = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "synchronous_commit": "on",
}
"""What values look like, what a statement means, what a transaction sees, which limits end it, and that what was answered is
on disk."""

# What the server does not know (transaction_timeout, before 17) is left out, and what it refuses: on Windows it cannot see
# that a client has gone, and takes nothing but 0 there. A commit that waits for more than the own disk, for a standby, goes
# on doing so.
PIN: Final = """
SELECT set_config(w.name, w.value, false) FROM unnest(%s::text[], %s::text[]) AS w (name, value)
 WHERE CASE w.name WHEN 'synchronous_commit' THEN current_setting(w.name) = 'off'
                   WHEN 'client_connection_check_interval' THEN current_setting('dynamic_shared_memory_type') <> 'windows'
                   ELSE current_setting(w.name, true) IS NOT NULL END
"""

PROBES: Final = 3
"""Sessions that are taken one after the other to see whether ours is given away."""

ANSWERS_WITHIN_S: Final = 2.0
"""Who has to wait longer for a session while ours is idle does not get ours."""

NOT_KEPT: Final = "connect to the server itself, or to a pool in session mode"
PID: Final = "SELECT pg_backend_pid()"


def pin(connection: psycopg.Connection[Any], **more: str) -> None:
    """Set what the ledger relies on, its limits, and more, until the session ends."""
    values = {**RELIED_ON, **{name: str(value) for name, value in SERVER_LIMITS.items()}, **more}
    connection.execute(PIN, (list(values), list(values.values())))


def is_alive(connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection that nobody uses is one still. Asks the server nothing unless it has said something by itself.

    A server that ends, or ends a session, says so and closes the socket, long before anybody wants to use it again.
    """
    if not _has_come(connection.pgconn.socket, 0.0):
        return True
    try:
        connection.execute("")
    except psycopg.Error:
        return False
    return True


def require_alive(connection: psycopg.Connection[Any]) -> None:
    """Refuse a connection whose session the server has ended, as a pool wants to be told. Raises `psycopg.OperationalError`."""
    if not is_alive(connection):
        msg = "the server has ended the session"
        raise psycopg.OperationalError(msg)


def _has_come(socket: int, within_s: float) -> bool:
    waiting = select.poll()  # not select.select, which knows no number above 1,023
    waiting.register(socket, select.POLLIN)
    return bool(waiting.poll(within_s * 1000))


def require_session(connection: psycopg.Connection[Any], conninfo: str, limits: Mapping[str, Any]) -> None:
    """Refuse a connection in autocommit behind which the session changes. ``limits`` are arguments of further connections.

    Raises:
        ConfigurationError: a pooler gives the session to others.
        psycopg.Error: what the server or the pooler refuses.
    """
    mine = _pid(connection)
    if mine == connection.info.backend_pid:
        return
    with ExitStack() as taken:
        for _ in range(PROBES):
            other = taken.enter_context(closing(psycopg.connect(conninfo, autocommit=True, **limits)))
            theirs = _pid_of_transaction(other)
            if theirs is None:
                return
            if theirs == mine or _pid(connection) != mine:
                msg = (
                    "a pooler between the ledger and PostgreSQL gives the session to others after each transaction, and with "
                    f"it roles, settings, locks and prepared statements: {NOT_KEPT}"
                )
                raise ConfigurationError(msg)


def _pid(connection: psycopg.Connection[Any]) -> int:
    cursor = psycopg.ClientCursor(connection)
    return int(cursor.execute(PID).fetchall()[0][0])


def _pid_of_transaction(connection: psycopg.Connection[Any]) -> int | None:
    """The server process of a transaction that is begun and kept open; None: nobody has answered in time."""
    server = connection.pgconn
    server.send_query(f"BEGIN; {PID}".encode())
    found: int | None = None
    while _has_come(server.socket, ANSWERS_WITHIN_S):
        server.consume_input()
        while not server.is_busy():
            result = server.get_result()
            if result is None:
                return found
            value = result.get_value(0, 0) if result.ntuples else None
            found = int(value) if value is not None else found
    return None
