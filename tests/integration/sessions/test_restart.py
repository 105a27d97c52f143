"""A server that was restarted: whoever calls after it is back meets no error, however many connections the ledger had."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from position_ledger import Ledger
from position_ledger.embedded.temporary import TemporaryPostgres
from tests.support import engine
from tests.support.commands import marking, opening
from tests.support.standby import settings_of

CONNECTIONS = 8


def test_after_a_restart_of_the_server_nobody_meets_an_error() -> None:
    with TemporaryPostgres(is_durable=False) as server:
        settings = settings_of(server).model_copy(update={"pool_size_max": CONNECTIONS})
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            position = ledger.execute(opening()).position_id
            ledger.catch_up()
            for read_first in (True, False):
                # Given a ledger that has used all of its connections at once
                together = threading.Barrier(CONNECTIONS)

                def hold(_number: int, together: threading.Barrier = together) -> None:
                    with ledger._connection() as connection:
                        together.wait(10)
                        connection.execute("SELECT 1")

                with ThreadPoolExecutor(CONNECTIONS) as pool:
                    list(pool.map(hold, range(CONNECTIONS)))
                # When the server is restarted, then all that comes after it is answered
                server.stop()
                server.start()
                for price in ("0.51", "0.52", "0.53"):
                    if read_first:
                        assert ledger.position(position)["status"] == "open"
                    ledger.wait_for(ledger.execute(marking(position, price)).token)
                    assert f"{ledger.position(position)['current_price']:.2f}" == price
        engine.proven(settings)
