"""A foreign key of a projected table and its parent, which come and go by migrations one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import operations
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.migration_files import migration_text
from tests.support.rebuilding import execute, last_number, left_over, shipped_migrations

if TYPE_CHECKING:
    from pathlib import Path

    from position_ledger import Ledger
    from position_ledger.settings import Settings

PARENT = "CREATE TABLE sides (side text PRIMARY KEY); INSERT INTO sides VALUES ('YES'), ('NO'), ('LONG'), ('SHORT');"
KEY = "ALTER TABLE positions ADD CONSTRAINT positions_of_side FOREIGN KEY (side) REFERENCES sides (side);"
NO_KEY = "ALTER TABLE positions DROP CONSTRAINT positions_of_side;"
KEYS = """
SELECT c.relnamespace::regnamespace::text, k.convalidated FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
 WHERE k.conname = 'positions_of_side' ORDER BY 1
"""


def keys(settings: Settings) -> list[tuple[Any, ...]]:
    with engine.connected(settings, as_app=False) as owner:
        return owner.execute(KEYS).fetchall()


def test_a_parent_goes_after_the_key_and_both_come_back(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    Traffic(ledger, 8).run(15)
    folder, first = shipped_migrations(settings, tmp_path), last_number(settings) + 1
    steps = [(PARENT, "DROP TABLE sides;"), (KEY, NO_KEY), (NO_KEY, KEY), ("DROP TABLE sides;", PARENT)]
    for number, (forward, rollback) in enumerate(steps, first):
        (folder / f"{number:03}_step.sql").write_text(migration_text(number, forward, "SELECT true;", rollback))
    where = settings.model_copy(update={"migrations": str(folder)}), engine.reached(settings)
    # Given a projected table that refers to a parent
    operations.migrate_up(*where, first + 1, engine.quiet)
    assert keys(settings) == [("ledger", True)]
    # When the key goes by one migration and the parent by the next, then no retired table holds the parent
    operations.migrate_up(*where, None, engine.quiet)
    assert keys(settings) == []
    # When both are rolled back, then the key is there again and holds for every row
    operations.migrate_down(*where, first + 2, engine.quiet)
    assert keys(settings) == [("ledger", True)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        execute(settings, "DELETE FROM sides")
    assert left_over(settings) == []
    engine.proven(settings)
