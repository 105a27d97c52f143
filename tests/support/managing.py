"""What tests of the position manager begin with."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from position_ledger.testing.databases import OwnerCursor

FLOAT = 0.5
"""What no figure may be."""


def params(**changes: Any) -> dict[str, Any]:
    """10 YES at .4975 with margin to spare, or whatever a test wants otherwise."""
    fields: dict[str, Any] = {
        "market_id": "KXNBA-CLE",
        "strategy_id": 1,
        "model_id": 2,
        "side": "YES",
        "quantity": 10,
        "entry_price": Decimal("0.4975"),
        "available_margin": Decimal(1000),
    }
    return {**fields, **changes}


def versions(cursor: OwnerCursor, position_id: str) -> list[dict[str, Any]]:
    return cursor.execute(
        "SELECT id, row_current_ind, row_effective_date, row_expiration_date, current_price, version FROM positions "
        "WHERE position_id = %s ORDER BY version",
        (position_id,),
    ).fetchall()  # type: ignore[return-value]


def count_of_events(cursor: OwnerCursor) -> int:
    row = cursor.execute("SELECT count(*) AS n FROM events").fetchone()
    assert row is not None
    return int(row["n"])
