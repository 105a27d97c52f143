"""Every event of the ledger: what folds are written for."""

from __future__ import annotations

from position_ledger.domain.accounts.events import CashMoved, PositionBooked, Postings
from position_ledger.domain.event import Event
from position_ledger.domain.events import (
    BookPositionClosed,
    BookPositionOpened,
    BookPositionReopened,
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
from position_ledger.domain.parts import Restated, TradeNow
from position_ledger.domain.restatements import (
    FeeAdjusted,
    LateFillRecorded,
    PositionVoided,
    SettlementAmended,
    TradeBusted,
    TradeCorrected,
)

__all__ = [
    "EVENTS",
    "BookPositionClosed",
    "BookPositionOpened",
    "BookPositionReopened",
    "CashMoved",
    "Event",
    "ExitTriggered",
    "ExitsSet",
    "FeeAdjusted",
    "Figures",
    "Fill",
    "Holder",
    "LateFillRecorded",
    "PositionBooked",
    "PositionClosed",
    "PositionIncreased",
    "PositionMarked",
    "PositionOpened",
    "PositionReduced",
    "PositionSettled",
    "PositionVoided",
    "Postings",
    "Restated",
    "SettlementAmended",
    "StreamRef",
    "TradeBusted",
    "TradeCorrected",
    "TradeNow",
]
