"""Definitions whose positions have a field that no event of an opening fills: a plan has to find it."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import astuple

from position_ledger import Projection, Recorded, replace
from position_ledger.events import PositionMarked, PositionOpened
from position_ledger.reference.projections import positions as before
from position_ledger.reference.projections.account_balance import ACCOUNT_BALANCE
from position_ledger.reference.projections.edges import EDGES
from position_ledger.reference.projections.game_states import GAME_STATES
from position_ledger.reference.projections.markets import MARKETS
from position_ledger.reference.projections.trades import TRADES

__all__ = ["ACCOUNT_BALANCE", "EDGES", "GAME_STATES", "MARKETS", "POSITIONS", "TRADES"]

MODULE = "tests.support.fold_gives_none"


class PositionRow(before.PositionRow, frozen=True, gc=False):  # type: ignore[misc,call-arg]
    """The columns as they are, and one that is not known before the first mark."""

    last_mark: Decimal | None


def opened(row: PositionRow | None, event: Recorded[PositionOpened]) -> PositionRow:
    """Nobody has marked it yet."""
    return PositionRow(*astuple(before.opened(row, event)), last_mark=None)


def marked(row: PositionRow, event: Recorded[PositionMarked]) -> PositionRow:
    """The price of the mark."""
    return replace(before.marked(row, event), last_mark=event.body.price)


POSITIONS = Projection(
    table="positions",
    key_column="position_id",
    key=before.position_id,
    row=PositionRow,
    folds={**before.POSITIONS.folds, PositionOpened: opened, PositionMarked: marked},
)
