"""What can be asked of the ledger. Validated once, when constructed: a command that exists is well-formed.

Constructing a command that is not raises `CommandRejected` with the first reason in the order of precedence, the
same error that deciding raises, so that a caller has one thing to catch.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, model_validator

from position_ledger.domain.accounts.commands import AdjustCash, Deposit, RecordCash, SetOpeningBalance, Withdraw
from position_ledger.domain.command import Command
from position_ledger.domain.corrections import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    CorrectTrade,
    SettlePosition,
    VoidPosition,
)
from position_ledger.domain.exits import TrailingStop, TrailingTerms
from position_ledger.domain.fields import Handle, Metadata, PositionRef, RowId, Text
from position_ledger.domain.markets.commands import (
    AmendMarket,
    ChangeMarket,
    DetermineMarket,
    DisputeMarket,
    QuoteMarket,
    RegisterMarket,
    SetMarketStatus,
    SettleMarket,
    VoidMarket,
)
from position_ledger.domain.numbers import ZERO, Money, NotNegative, Price, Quantity
from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason
from position_ledger.domain.transfers.commands import (
    MergePair,
    RecordOpeningPosition,
    SplitPair,
    SplitShares,
    TransferPosition,
)
from position_ledger.domain.vocabulary import Action, Environment, Liquidity, OnExcess, Side

__all__ = [
    "AdjustCash",
    "AdjustFee",
    "AmendMarket",
    "AmendSettlement",
    "BustTrade",
    "ChangeMarket",
    "ClosePosition",
    "Command",
    "CorrectTrade",
    "Deposit",
    "DetermineMarket",
    "DisputeMarket",
    "Handle",
    "IncreasePosition",
    "MarkPosition",
    "MergePair",
    "OpenPosition",
    "QuoteMarket",
    "RecordCash",
    "RecordFill",
    "RecordOpeningPosition",
    "ReducePosition",
    "RegisterMarket",
    "SetExits",
    "SetMarketStatus",
    "SetOpeningBalance",
    "SettleMarket",
    "SettlePosition",
    "SplitPair",
    "SplitShares",
    "TrailingStop",
    "TransferPosition",
    "VoidMarket",
    "VoidPosition",
    "Withdraw",
]


class _Execution(Command):
    """What the venue says about an execution, beside quantity and price."""

    fee: Money = ZERO
    """What the execution was charged; below zero: a rebate."""
    fee_currency: Text | None = None
    """None: the currency of the position; the base asset of a registered market: paid in contracts."""
    fee_rate: Price | None = None
    """What one unit of a foreign fee currency is worth in the currency of the position."""
    venue: Text | None = None
    venue_fill_id: Text | None = None
    """The venue's id of the execution: recorded once per environment, account and venue."""
    order_id: Text | None = None
    liquidity: Liquidity | None = None
    source: Text | None = None


class _Exits(BaseModel):
    """Exits in own-side prices; None: none of this kind."""

    target_price: Price | None = None
    stop_loss_price: Price | None = None
    trailing_stop: TrailingTerms | None = None


class OpenPosition(_Exits, _Execution):
    """Open a new position, always; entry price in [0.01, 0.99] on a binary side."""

    environment: Environment
    account: Text
    market: Text
    strategy: RowId | None = None
    model: RowId | None = None
    edge: RowId | None = None
    platform: Text | None = None
    currency: Text = "USD"
    side: Side
    quantity: Quantity
    entry_price: Price
    metadata: Metadata | None = None
    """Kept with the position."""
    handle: Text | None = None
    """Name by which later commands of the same batch address the position: ``Handle(name)``."""


class _OnPosition(Command):
    position_id: PositionRef


class IncreasePosition(_OnPosition, _Execution):
    """Buy more of an open position (sell more, for SHORT)."""

    quantity: Quantity
    price: Price
    metadata: Metadata | None = None
    """Kept with the fill."""


class ReducePosition(_OnPosition, _Execution):
    """Sell part of an open position (buy it back, for SHORT), or all of it, which closes it."""

    quantity: Quantity
    price: Price
    reason: Text = "manual"
    """Exit reason, if this closes the position."""
    metadata: Metadata | None = None


class ClosePosition(_OnPosition, _Execution):
    """Leave an open position with all that is held."""

    price: Price
    reason: Text
    """profit_target, stop_loss, trailing_stop, market_close, manual, risk_limit, or any text."""
    metadata: Metadata | None = None


class MarkPosition(_OnPosition):
    """Value an open position at the own-side price of one contract; a mark older than the last changes nothing."""

    price: Price
    source: Text | None = None


class SetExits(_Exits, _OnPosition):
    """Replace all exits of an open position: what is not given is off. Every exit is armed anew."""


class RecordFill(_Exits, _Execution):
    """Record an execution that has happened, on one position or on whatever the key holds.

    Addressed by ``position_id``, or by the key environment, account, market, side and strategy: an entry opens a
    position if none is open and else adds to the oldest; an exit takes from the oldest first, split into linked legs.
    Beside a ``position_id``, fields of the key only confirm what is meant. What describes a position (model, exits …)
    is used if the fill opens one.
    """

    position_id: PositionRef | None = None
    environment: Environment | None = None
    account: Text | None = None
    market: Text | None = None
    side: Side | None = None
    """The contract that ``price`` and ``quantity`` speak of."""
    strategy: RowId | None = None
    action: Action
    """What the venue executed: SHORT is sold to open and bought to cover."""
    quantity: Quantity
    price: Price
    model: RowId | None = None
    edge: RowId | None = None
    platform: Text | None = None
    currency: Text | None = None
    """None: that of the position, USD for a new one."""
    dust: NotNegative = ZERO
    """An exit beyond what is held by at most this closes; a remainder of at most this stays open and is flagged."""
    on_excess: OnExcess = OnExcess.REFUSE
    reason: Text = "fill"
    """Exit reason, if this closes a position."""
    metadata: Metadata | None = None
    handle: Text | None = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if self.position_id is None:
            for name in ("environment", "account", "market", "side"):
                if getattr(self, name) is None:
                    raise refusal(Reason.FIELD_MISSING, name)
        return self
