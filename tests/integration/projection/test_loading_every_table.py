"""A load of each shipped table makes, column by column, the rows that projecting made of the same random history."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal

import pytest

from position_ledger import ChangeEdgeStatus, DetectEdge, Ledger, RecordGameState
from position_ledger.projection import chunk_ledger, loading
from position_ledger.projection.carrying.amounts import carried_amounts
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_crew import take_parts
from position_ledger.settings import Settings, load_settings
from position_ledger.store import feed
from tests.support import engine
from tests.support.database_trading import TABLES, DatabaseTrading
from tests.support.engine_fixtures import NO_QUEUE

COMMANDS = 400
PARTS = 3


@pytest.fixture(scope="module")
def world(shared_database: str) -> Settings:
    """Everything there is in one log, projected as it was appended."""
    with (
        Ledger.open(database_url=shared_database, redis_url=NO_QUEUE, wait_timeout_s=100) as ledger,
        closing(DatabaseTrading(ledger, shared_database, 11)) as trading,
    ):
        trading.run(COMMANDS)
        for number in range(1, 6):
            edge = {"environment": "paper", "name": f"edge {number}"}
            ledger.execute(
                DetectEdge(
                    **edge,
                    market="PLAIN",
                    true_win_probability=Decimal(number) / 7,
                    market_price=Decimal("0.50") if number % 2 else None,
                )
            )
            ledger.execute(ChangeEdgeStatus(**edge, status="settled", actual_outcome=1))
            told = ledger.execute(RecordGameState(environment="paper", game_id="G", clock_seconds=Decimal(number) * 10))
        ledger.wait_for(told.token)
    return load_settings(database_url=shared_database, redis_url=NO_QUEUE)


@pytest.mark.parametrize("table", TABLES)
def test_a_load_makes_the_rows_that_projecting_made(world: Settings, table: str) -> None:
    (projection,) = (one for one in load_projections(world.projections) if one.table == table)
    assert any(carried_amounts(projection).values()), "amounts that stay text are what this is about"
    with engine.connected(world, as_app=False) as connection:
        connection.execute(f"CREATE SCHEMA loaded_{table}".encode())
        connection.execute(f"CREATE TABLE loaded_{table}.{table} (LIKE ledger.{table})".encode())
        chunk_ledger.create(connection, f"loaded_{table}", feed.horizon(connection), PARTS)
        with loading.Loader(str(world.database_url), world, projection, f"loaded_{table}") as loader:
            loaded = take_parts(loader)
        rows = engine.table_rows(connection, projection)
        assert engine.table_rows(connection, projection, f"loaded_{table}") == rows
        assert loaded.versions == len(rows) > (0 if table == "markets" else 4)
