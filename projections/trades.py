"""trades: one row for each version of a trade, which is a fill or a leg of one. Nothing is computed here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import (
    FeeAdjusted,
    LateFillRecorded,
    PositionClosed,
    PositionIncreased,
    PositionOpened,
    PositionReduced,
    TradeBusted,
    TradeCorrected,
)

NOTHING = Decimal(0)


class TradeRow(Row, frozen=True, gc=False):
    """The columns of trades beside id, trade_id and those of SCD Type 2."""

    execution_environment: str
    position_id: str
    leg: int
    linked_trade_id: str | None
    account_id: str
    market_id: str
    platform_id: str | None
    strategy_id: int | None
    currency: str
    side: str
    action: str
    position_effect: str
    quantity: Decimal
    price: Decimal
    amount: Decimal
    fee: Decimal
    fee_currency: str
    fee_charged: Decimal | None
    fee_charged_currency: str | None
    realized_gross: Decimal
    busted_quantity: Decimal
    busted_amount: Decimal
    status: str
    venue: str | None
    venue_fill_id: str | None
    order_id: str | None
    liquidity: str | None
    source: str | None
    reason: str | None
    actor: str | None
    execution_time: datetime
    trade_metadata: Any


def recorded(row: TradeRow | None, event: Recorded[Any], *, holder: Any, effect: str) -> TradeRow:
    """The first version of a trade: what the venue executed, and for whom."""
    if row is not None:
        raise ValueError("a fill is recorded once")
    fill = event.body.fill
    return TradeRow(
        execution_environment=holder.environment,
        position_id=f"POS-{event.opened_seq}",
        leg=fill.leg,
        linked_trade_id=f"TRD-{event.refs[fill.linked.stream, fill.linked.version]}" if fill.linked else None,
        account_id=holder.account,
        market_id=holder.market,
        platform_id=holder.platform,
        strategy_id=holder.strategy,
        currency=holder.currency,
        side=holder.side,
        action=fill.action,
        position_effect=effect,
        quantity=fill.quantity,
        price=fill.price,
        amount=fill.amount,
        fee=fill.fee,
        fee_currency=holder.currency,
        fee_charged=fill.fee_charged,
        fee_charged_currency=None if fill.fee_charged is None else fill.fee_currency,
        realized_gross=fill.realized_gross,
        busted_quantity=NOTHING,
        busted_amount=NOTHING,
        status="active",
        venue=fill.venue,
        venue_fill_id=fill.venue_fill_id,
        order_id=fill.order_id,
        liquidity=fill.liquidity,
        source=fill.source,
        reason=None,
        actor=None,
        execution_time=fill.execution_time or event.effective_at,
        trade_metadata=fill.metadata,
    )


def opened(row: TradeRow | None, event: Recorded[PositionOpened]) -> TradeRow:
    """The fill that opened a position."""
    return recorded(row, event, holder=event.body, effect="open")


def increased(row: TradeRow | None, event: Recorded[PositionIncreased]) -> TradeRow:
    """A fill that entered more."""
    return recorded(row, event, holder=event.body.holder, effect="increase")


def reduced(row: TradeRow | None, event: Recorded[PositionReduced]) -> TradeRow:
    """A fill that left a part."""
    return recorded(row, event, holder=event.body.holder, effect="reduce")


def closed(row: TradeRow | None, event: Recorded[PositionClosed]) -> TradeRow:
    """The fill that left the rest."""
    return recorded(row, event, holder=event.body.holder, effect="close")


def late(row: TradeRow | None, event: Recorded[LateFillRecorded]) -> TradeRow:
    """A fill that became known after later ones."""
    return recorded(row, event, holder=event.body.holder, effect=event.body.effect)


def corrected(row: TradeRow, event: Recorded[TradeBusted | TradeCorrected | FeeAdjusted]) -> TradeRow:
    """The trade as it counts now, and who says so."""
    now = event.body.now
    return replace(
        row,
        quantity=now.quantity,
        price=now.price,
        amount=now.amount,
        fee=now.fee,
        realized_gross=now.realized_gross,
        busted_quantity=now.busted_quantity,
        busted_amount=now.busted_amount,
        status="busted" if now.busted_quantity == now.quantity else "corrected",
        reason=event.body.reason,
        actor=event.body.actor,
        execution_time=now.execution_time,
    )


def trade_id(event: Recorded[Any]) -> str:
    """TRD- and the number of the event that recorded the fill."""
    trade = getattr(event.body, "trade", None)
    return f"TRD-{event.refs[trade.stream, trade.version] if trade else event.seq}"


TRADES = Projection(
    table="trades",
    key_column="trade_id",
    key=trade_id,
    row=TradeRow,
    folds={
        PositionOpened: opened,
        PositionIncreased: increased,
        PositionReduced: reduced,
        PositionClosed: closed,
        LateFillRecorded: late,
        TradeBusted: corrected,
        TradeCorrected: corrected,
        FeeAdjusted: corrected,
    },
)
