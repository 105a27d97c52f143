"""positions with one more column: the worst mark of the cycle so far. No row of the old table knows it; the log does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.structs import astuple

from position_ledger import Projection, Recorded, replace
from position_ledger.events import PositionMarked, PositionOpened, PositionReceived
from position_ledger.reference.projections import positions as before


class PositionRow(before.PositionRow, frozen=True, gc=False):
    """The columns as they were, and the one that was added."""

    worst_mark: Decimal


def opened(row: PositionRow | None, event: Recorded[PositionOpened]) -> PositionRow:
    """The entry is the first price at which the position is valued."""
    return begun(before.opened(row, event))


def received(row: PositionRow | None, event: Recorded[PositionReceived]) -> PositionRow:
    """So is the price at which it came from elsewhere."""
    return begun(before.received(row, event))


def begun(first: before.PositionRow) -> PositionRow:
    """The first version, with the column that was added."""
    return PositionRow(*astuple(first), worst_mark=first.current_price)


def marked(row: PositionRow, event: Recorded[PositionMarked]) -> PositionRow:
    """Own-side prices: the lower, the worse; for SHORT the higher."""
    worse: Any = max if row.side == "SHORT" else min
    return replace(before.marked(row, event), worst_mark=worse(row.worst_mark, event.body.price))


POSITIONS = Projection(
    table="positions",
    key_column="position_id",
    key=before.position_id,
    row=PositionRow,
    folds={
        **before.POSITIONS.folds,
        PositionOpened: opened,
        PositionReceived: received,
        PositionMarked: marked,
    },
)
