"""Whether a connection keeps its session: a pooler in transaction mode gives it to others between two transactions.

The ledger sets the schema, the role and the limits of a session once, prepares its statements there, and holds locks that
last for the session. A pooler that gives sessions away would let one program go on in the role of another, and two rebuilds
run that exclude each other. A server tells a client the number of its process when it connects; who is not told the
number that a query finds speaks with a pooler, which keeps keys of its own.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Final

import psycopg

from position_ledger.errors import ConfigurationError

PROBES: Final = 3
"""Sessions that are taken one after the other to see whether ours is given away."""

ANSWERS_WITHIN_S: Final = 2.0
"""Who has to wait longer for a session while ours is idle does not get ours."""

NOT_KEPT: Final = "connect to the server itself, or to a pool in session mode"
PID: Final = "SELECT pg_backend_pid()"


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
    while select.select([server.socket], [], [], ANSWERS_WITHIN_S)[0]:
        server.consume_input()
        while not server.is_busy():
            result = server.get_result()
            if result is None:
                return found
            value = result.get_value(0, 0) if result.ntuples else None
            found = int(value) if value is not None else found
    return None
