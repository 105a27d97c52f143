"""The disk fills up while a table is rebuilt."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import DatabaseUnavailable, Ledger
from position_ledger.settings import load_settings
from position_ledger.testing.databases import address_of
from tests.support import engine, only_positions
from tests.support.disks import almost_full, small_disk
from tests.support.engine import Traffic
from tests.support.engine_fixtures import NO_QUEUE
from tests.support.rebuilding import execute, left_over, rebuild, row_of

if TYPE_CHECKING:
    from position_ledger.embedded.temporary import TemporaryPostgres


@pytest.mark.uncounted
@pytest.mark.slow
def test_a_rebuild_that_fills_the_disk_says_so_leaves_nothing_and_is_run_again(own_postgres: TemporaryPostgres) -> None:
    with small_disk(own_postgres, megabytes=96) as disk:
        # Given a ledger with a projected history in a database on a small disk
        with closing(psycopg.connect(own_postgres.database_url, autocommit=True)) as owner:
            owner.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            owner.execute("CREATE DATABASE small TABLESPACE small")
        settings = load_settings(
            database_url=address_of(own_postgres.database_url, "small"),
            redis_url=NO_QUEUE,
            projections=only_positions.MODULE,
        )
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            Traffic(ledger, 5).run(200)
        engine.project_all(settings)
        before = engine.positions_rows(settings)
        for processes in (1, 2):
            # a new database is full of holes, and a checkpoint that writes into them would fail instead
            execute(settings, "CHECKPOINT")
            # When there is not enough room for another table of its size, then the rebuild says so
            with almost_full(disk, left_kb=160):
                with pytest.raises(DatabaseUnavailable, match="no disk space left"):
                    rebuild(settings, processes=processes)
                # and nothing of it takes room, and readers go on
                assert left_over(settings) == []
                assert engine.positions_rows(settings) == before
            ended = row_of(settings)
            assert ended is not None
            assert (ended.state, ended.is_kept, ended.is_running) == ("failed", False, False)
        # When there is room again, then it is run again
        assert rebuild(settings).swapped
        assert engine.positions_rows(settings) == before
        engine.proven(settings)
