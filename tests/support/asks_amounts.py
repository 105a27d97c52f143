"""Definitions of positions whose fold asks an amount: a mark at a half has a source of its own."""

from __future__ import annotations

from decimal import Decimal

from position_ledger import Projection, Recorded, replace
from position_ledger.events import PositionMarked
from position_ledger.reference.projections import positions as before

MODULE = "tests.support.asks_amounts"
HALF = Decimal("0.5")


def marked(row: before.PositionRow, event: Recorded[PositionMarked]) -> before.PositionRow:
    """As before, but for its source."""
    source = "a half" if event.body.price == HALF else event.body.source
    return replace(before.marked(row, event), mark_source=source)


POSITIONS = Projection(
    table="positions",
    key_column="position_id",
    key=before.position_id,
    row=before.PositionRow,
    folds={**before.POSITIONS.folds, PositionMarked: marked},
)
