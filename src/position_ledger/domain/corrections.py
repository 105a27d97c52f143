"""What can be asked about what was recorded before: busts, corrections, fees, and the market's second thoughts."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from position_ledger.domain.command import Command
from position_ledger.domain.fields import Moment, PositionRef, RowId, Text, TradeRef
from position_ledger.domain.numbers import ZERO, Money, Price, Quantity
from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason

__all__ = ["AdjustFee", "AmendSettlement", "BustTrade", "CorrectTrade", "SettlePosition", "VoidPosition"]


class _OnTrade(Command):
    """``effective_at`` is when the venue announced it; the correction itself counts at the time of the trade."""

    trade: TradeRef
    reason: Text
    actor: Text
    """Who answers for it."""


class BustTrade(_OnTrade):
    """The venue cancelled an execution, or ``quantity`` of it. A bust of one half of a flip busts both.

    The same ``bust_id`` for a trade is recorded once; different ids add up to at most the whole trade.
    """

    bust_id: Text
    quantity: Quantity | None = None
    """None: all that is left."""
    fee: Money | None = None
    """What is given back of the fee; None: in proportion."""


class CorrectTrade(_OnTrade):
    """The venue corrected an execution: what is given is right, the rest stays. Another account or side: bust it."""

    correction_id: Text
    price: Price | None = None
    quantity: Quantity | None = None
    """Contracts of the whole execution, those busted since included."""
    fee: Money | None = None
    execution_time: Moment | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.price, self.quantity, self.fee, self.execution_time) == (None, None, None, None):
            raise refusal(Reason.FIELD_MISSING, "price")
        return self


class AdjustFee(_OnTrade):
    """The venue charges ``fee`` in total for an execution, instead of what was recorded."""

    adjustment_id: Text
    fee: Money


class SettlePosition(Command):
    """Pay out an open position: ``value`` per YES and ``1 - value`` per NO; elsewhere the settlement price."""

    position_id: PositionRef
    value: Price
    fee: Money = ZERO
    fee_currency: Text | None = None
    settlement_revision: RowId | None = None
    """Of the market's verdict; None: settled by hand."""


class AmendSettlement(Command):
    """The market settled at another value than a position was paid: all becomes as if it always had."""

    position_id: PositionRef
    value: Price
    fee: Money | None = None
    """None: as it was."""
    fee_currency: Text | None = None
    settlement_revision: RowId | None = None


class VoidPosition(Command):
    """The market is void: what is held, or was when it settled, is paid back at cost. Earlier exits stay."""

    position_id: PositionRef
    refund_fees: bool = False
    """Give all fees of the position back."""
    settlement_revision: RowId | None = None
