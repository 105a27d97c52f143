"""Throw-away servers, of the wheel and of the system, can be stopped, killed and started again by tests."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis

from position_ledger.embedded.process import wait_until
from position_ledger.embedded.temporary import TemporaryPostgres, TemporaryValkey
from tests.support.embedded import is_gone

SYSTEM_15 = Path("/usr/lib/postgresql/15/bin")

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("bin_folder", "major"),
    [
        pytest.param(None, 18, id="wheel"),
        pytest.param(SYSTEM_15, 15, id="system", marks=pytest.mark.skipif(not SYSTEM_15.exists(), reason="not here")),
    ],
)
def test_a_temporary_postgres_survives_kill_and_restart(bin_folder: Path | None, major: int) -> None:
    """Given a committed row and a busy session, when killed with -9 and restarted, then the row is there."""
    with TemporaryPostgres(bin_folder, is_durable=False) as server:
        assert server.major == major
        folder = Path(parse_qs(urlsplit(server.database_url).query)["host"][0]).parent
        with closing(psycopg.connect(server.database_url, autocommit=True)) as connection:
            assert connection.info.server_version // 10_000 == major
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
            connection.execute("BEGIN; INSERT INTO kept VALUES (2); PREPARE TRANSACTION 'later'")
            connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 20000000000)")
            killed = server.pid
            server.kill9()
        assert is_gone(killed)
        assert server.pid == 0

        server.start()

        with psycopg.connect(server.database_url, autocommit=True) as connection:
            connection.execute("COMMIT PREPARED 'later'")
            assert connection.execute("SELECT sum(number) FROM kept").fetchone() == (3,)
        server.restart()
        with psycopg.connect(server.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)
        with closing(psycopg.connect(server.database_url)) as connection:
            connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 20000000000)")
            busy = connection.info.backend_pid
            last = server.pid
            server.kill9()
        assert not is_gone(busy), "it calculates, and has not noticed"
    assert is_gone(last)
    assert is_gone(busy)
    assert not folder.exists()
    server.close()


def test_a_temporary_valkey_can_be_away_for_a_while() -> None:
    """Given a client, when the server is stopped and started, then the same client goes on, with its keys."""
    with TemporaryValkey() as server, redis.Redis.from_url(server.redis_url, decode_responses=True) as client:
        client.set("key", "1")

        server.stop()

        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert client.get("key") == "1"
        server.kill9()
        server.start()
        assert client.get("key") == "1"
        last = server.pid
    assert wait_until(lambda: is_gone(last), 1)
