"""Every event of the ledger: what folds are written for."""

from __future__ import annotations

from position_ledger.domain.accounts.events import CashMoved, PositionBooked, Postings
from position_ledger.domain.edges.events import EdgeDetected, EdgeRevised, EdgeStatusChanged
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
from position_ledger.domain.games.events import GameStateRecorded
from position_ledger.domain.markets.events import (
    MarketAmended,
    MarketChanged,
    MarketDetermined,
    MarketDisputed,
    MarketQuoted,
    MarketRegistered,
    MarketSettled,
    MarketStatusSet,
    MarketVoided,
)
from position_ledger.domain.parts import HandedOn, Restated, TradeNow
from position_ledger.domain.restatements import (
    FeeAdjusted,
    LateFillRecorded,
    PositionVoided,
    SettlementAmended,
    TradeBusted,
    TradeCorrected,
    TransferRestated,
)
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit

__all__ = [
    "EVENTS",
    "BookPositionClosed",
    "BookPositionOpened",
    "BookPositionReopened",
    "CashMoved",
    "EdgeDetected",
    "EdgeRevised",
    "EdgeStatusChanged",
    "Event",
    "ExitTriggered",
    "ExitsSet",
    "FeeAdjusted",
    "Figures",
    "Fill",
    "GameStateRecorded",
    "HandedOn",
    "Holder",
    "LateFillRecorded",
    "MarketAmended",
    "MarketChanged",
    "MarketDetermined",
    "MarketDisputed",
    "MarketQuoted",
    "MarketRegistered",
    "MarketSettled",
    "MarketStatusSet",
    "MarketVoided",
    "PositionBooked",
    "PositionClosed",
    "PositionIncreased",
    "PositionMarked",
    "PositionOpened",
    "PositionReceived",
    "PositionReduced",
    "PositionSettled",
    "PositionTransferred",
    "PositionVoided",
    "Postings",
    "Restated",
    "SettlementAmended",
    "SharesSplit",
    "StreamRef",
    "TradeBusted",
    "TradeCorrected",
    "TradeNow",
    "TransferRestated",
]
