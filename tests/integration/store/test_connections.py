"""Connections are lent and come back: after errors, beyond the size of the pool, and at the end (S34)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger.database import KEPT_USES_MAX, LOOKED_AT_AFTER_S, Connection, Connections, open_pool
from position_ledger.migration.session import Limits, migration_session
from position_ledger.sessions import SERVER_LIMITS
from position_ledger.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 2


@pytest.fixture
def connections(ledger_database: str) -> Iterator[Connections]:
    made = Connections(open_pool(ledger_database, Settings(pool_size_max=SIZE, connect_timeout_s=10)))
    yield made
    made.close()


def backend(connections: Connections) -> int:
    with connections.lent() as connection:
        return connection.info.backend_pid


def test_one_after_the_other_gets_the_same_connection(connections: Connections) -> None:
    assert len({backend(connections) for _ in range(20)}) == 1


def test_more_threads_than_connections_all_get_one_in_turn(connections: Connections) -> None:
    together = threading.Barrier(8)

    def work(_: int) -> int:
        together.wait(10)
        for _ in range(50):
            with connections.lent() as connection:
                connection.execute("SELECT pg_sleep(0.001)")
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 8


def test_a_connection_that_failed_in_a_transaction_comes_back_clean(connections: Connections) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), connections.lent() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1/0")
    for _ in range(SIZE + 1):
        with connections.lent() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_that_the_server_ended_is_replaced(connections: Connections, ledger_database: str) -> None:
    with (
        pytest.raises(psycopg.OperationalError),
        connections.lent() as connection,
        psycopg.connect(ledger_database, autocommit=True) as admin,
    ):
        admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")
    with connections.lent() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_pool_has_each_back_now_and_then(connections: Connections) -> None:
    connection, _ = connections.take()
    connections.give_back(connection, KEPT_USES_MAX)

    taken, uses = connections.take()

    assert uses == 0
    assert taken.execute("SELECT 1").fetchone() == (1,)
    connections.give_back(taken, uses)


def test_closing_twice_is_fine_and_leaves_no_connection(ledger_database: str) -> None:
    made = Connections(open_pool(ledger_database, Settings(pool_size_max=SIZE)))
    pid = backend(made)
    made.close()
    made.close()
    with psycopg.connect(ledger_database, autocommit=True) as other:
        for _ in range(100):  # a server process ends a moment after its connection
            row = other.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
            if row == (0,):
                break
            time.sleep(0.1)
    assert row == (0,)


def test_the_server_is_told_to_notice_who_is_gone(connections: Connections) -> None:
    """On a socket of the machine itself it shows no values of TCP, but who set them."""
    with connections.lent() as lent:
        assert told_to_server(lent) == SERVER_LIMITS.keys()
    with migration_session(str(lent.info.dsn), "ledger", Limits()) as session:
        assert told_to_server(session) == SERVER_LIMITS.keys()


def told_to_server(connection: Connection) -> set[str]:
    told = connection.execute("SELECT name FROM pg_settings WHERE source = 'session' AND name ~ '^(tcp|client_conn)'")
    return {str(name) for (name,) in told}


def test_what_the_server_has_ended_while_it_waited_is_lent_to_nobody(ledger_database: str) -> None:
    """As after a restart: nobody who comes later has to meet it."""
    made = Connections(open_pool(ledger_database, Settings(pool_size_max=SIZE, connect_timeout_s=10)))
    with psycopg.connect(ledger_database, autocommit=True) as admin:
        for are_kept in (True, False):
            taken = [made.take() for _ in range(SIZE)]
            ended = {connection.info.backend_pid for connection, _ in taken}
            for connection, uses in taken:
                made.give_back(connection, uses if are_kept else KEPT_USES_MAX)
            # When the server ends all that wait: those that are kept in front of the pool, or those in the pool
            admin.execute("SELECT pg_terminate_backend(p, 10000) FROM unnest(%s) AS p", (list(ended),))
            time.sleep(LOOKED_AT_AFTER_S)
            # Then whoever comes gets another one
            for _ in range(2 * SIZE):
                with made.lent() as connection:
                    assert connection.info.backend_pid not in ended
                    assert connection.execute("SELECT 1").fetchone() == (1,)
    made.close()


def test_what_the_server_says_by_itself_ends_no_connection(connections: Connections, ledger_database: str) -> None:
    with connections.lent() as connection, psycopg.connect(ledger_database, autocommit=True) as other:
        connection.execute("LISTEN somebody")
        other.execute("NOTIFY somebody")
        before = connection.info.backend_pid
        time.sleep(LOOKED_AT_AFTER_S)
    time.sleep(LOOKED_AT_AFTER_S)
    assert backend(connections) == before
