"""Every event of the ledger: what folds are written for."""

from __future__ import annotations

from position_ledger.domain.edges.events import EdgeDetected, EdgeRevised, EdgeStatusChanged
from position_ledger.domain.event import Event
from position_ledger.domain.events import (
    BookPositionClosed,
    BookPositionOpened,
    ExitsSet,
    ExitTriggered,
    Figures,
    Fill,
    Holder,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReduced,
    PositionSettled,
    StreamRef,
)
from position_ledger.domain.families import EVENTS
from position_ledger.domain.games.events import GameStateRecorded

__all__ = [
    "EVENTS",
    "BookPositionClosed",
    "BookPositionOpened",
    "EdgeDetected",
    "EdgeRevised",
    "EdgeStatusChanged",
    "Event",
    "ExitTriggered",
    "ExitsSet",
    "Figures",
    "Fill",
    "GameStateRecorded",
    "Holder",
    "PositionClosed",
    "PositionIncreased",
    "PositionMarked",
    "PositionOpened",
    "PositionReduced",
    "PositionSettled",
    "StreamRef",
]
