"""A small table of marks, for tests of what folds do with the amounts of events."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row
from position_ledger.events import ExitsSet, PositionMarked
from position_ledger.projection.carrying.amounts import carried_amounts


class MarkRow(Row, frozen=True, gc=False):
    """Two amounts, and something that may hold anything."""

    price: Decimal
    pnl: Decimal | None
    note: Any = None


LIMIT = Decimal("0.10")
EMPTY = MarkRow(price=LIMIT, pnl=None)


def key(event: Recorded[Any]) -> str:
    return f"POS-{event.opened_seq}"


def projection(marked: Any, exits: Any = None, *, key: Any = key, row: type[Row] = MarkRow) -> Projection[Any]:
    folds = {PositionMarked: marked} | ({ExitsSet: exits} if exits else {})
    return Projection(table="marks", key_column="mark_id", key=key, row=row, folds=folds)


def carried(*folds: Any, **given: Any) -> set[str]:
    """The amounts of the mark itself that are carried."""
    found = carried_amounts(projection(*folds, **given)).get("position.marked", frozenset())
    return {".".join(path) for path in found} & {"price", "unrealized_pnl"}
