"""A column gets another type under statements that are prepared: reading through the ledger goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import MarkPosition
from tests.support import engine
from tests.support.commands import opening

if TYPE_CHECKING:
    from position_ledger import Ledger
    from position_ledger.settings import Settings

READS = 8
"""More than the five after which the driver prepares a statement."""

OTHER_TYPE = "ALTER TABLE positions ALTER peak_quantity TYPE numeric(40,20)"
SHOWN = "SELECT position_id, peak_quantity FROM positions ORDER BY id"


def test_what_is_prepared_meets_a_column_of_another_type(settings: Settings, ledger: Ledger) -> None:
    # Given a position that was read so often that the statements are prepared, by us and by a program of somebody else
    position = str(ledger.execute(opening(quantity="3")).position_id)
    ledger.execute(MarkPosition(position_id=position, price="0.60"))
    engine.project_all(settings)
    now = datetime.now(UTC)

    def read() -> list[Any]:
        return [
            ledger.positions(),
            ledger.position(position),
            ledger.history(position),
            ledger.rows("positions"),
            ledger.versions("positions", position),
            ledger.position(position, known_at=now),
        ]

    before = [read() for _ in range(READS)][-1]
    with engine.connected(settings, as_app=False) as theirs, engine.connected(settings, as_app=False) as owner:
        rows = [theirs.execute(SHOWN).fetchall() for _ in range(READS)][-1]
        # When the column gets another type
        (view,) = owner.execute("SELECT pg_get_viewdef('current_positions'::regclass)").fetchall()[0]
        owner.execute("DROP VIEW current_positions")
        owner.execute(OTHER_TYPE)
        owner.execute(f"CREATE VIEW current_positions AS {view}".encode())
        # Then the program meets one error, as the plan of the migration says, and prepares it again
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan must not change result type"):
            theirs.execute(SHOWN)
        theirs.execute("DEALLOCATE ALL")
        assert [theirs.execute(SHOWN).fetchall() for _ in range(READS)] == [rows] * READS
    # And whoever reads through the ledger notices nothing
    assert [read() for _ in range(READS)] == [before] * READS
