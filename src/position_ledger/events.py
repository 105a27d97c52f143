"""Every event of the ledger: what folds are written for."""

from __future__ import annotations

from typing import Final

from position_ledger.domain.event import Event
from position_ledger.domain.events import (
    BOOK_EVENTS,
    POSITION_EVENTS,
    BookPositionClosed,
    BookPositionOpened,
    ExitsSet,
    ExitTriggered,
    Figures,
    Fill,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReduced,
    PositionSettled,
    StreamRef,
)

__all__ = [
    "EVENTS",
    "BookPositionClosed",
    "BookPositionOpened",
    "Event",
    "ExitTriggered",
    "ExitsSet",
    "Figures",
    "Fill",
    "PositionClosed",
    "PositionIncreased",
    "PositionMarked",
    "PositionOpened",
    "PositionReduced",
    "PositionSettled",
    "StreamRef",
]

EVENTS: Final[tuple[type[Event], ...]] = (*POSITION_EVENTS, *BOOK_EVENTS)
