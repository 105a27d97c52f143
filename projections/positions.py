"""positions: one row for each version of a position. Every figure comes from the event; nothing is computed here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import (
    ExitsSet,
    ExitTriggered,
    FeeAdjusted,
    Figures,
    LateFillRecorded,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReceived,
    PositionReduced,
    PositionSettled,
    PositionTransferred,
    PositionVoided,
    SettlementAmended,
    SharesSplit,
    TradeBusted,
    TradeCorrected,
    TransferRestated,
)


class PositionRow(Row, frozen=True, gc=False):
    """The columns of positions beside id, position_id and those of SCD Type 2."""

    execution_environment: str
    account_id: str
    market_id: str
    platform_id: str | None
    strategy_id: int | None
    model_id: int | None
    edge_id: int | None
    currency: str
    side: str
    status: str
    quantity: Decimal
    entry_quantity: Decimal
    exit_quantity: Decimal
    peak_quantity: Decimal
    entry_price: Decimal
    average_entry_price: Decimal | None
    current_price: Decimal
    mark_time: datetime | None
    mark_source: str | None
    exit_price: Decimal | None
    settlement_value: Decimal | None
    target_price: Decimal | None
    stop_loss_price: Decimal | None
    trailing_stop_state: Any
    exits_triggered: Any
    cost: Decimal
    realized_gross: Decimal
    open_fees: Decimal
    close_fees: Decimal
    open_fees_released: Decimal
    realized_pnl: Decimal
    realized_pnl_closed: Decimal
    unrealized_pnl: Decimal | None
    unrealized_pnl_pct: Decimal | None
    shortfall_quantity: Decimal
    is_dust: bool
    exit_reason: str | None
    entry_time: datetime
    exit_time: datetime | None
    previous_position_id: str | None
    position_metadata: Any
    multiplier: Decimal
    margin_rate: Decimal
    transferred_quantity: Decimal
    shortfall_amount: Decimal
    settlement_revision: int | None
    restatements: int
    restated_realized: Decimal


def figures(given: Figures) -> dict[str, Any]:
    """The columns that carry the figures after an event that changed them."""
    return {
        "quantity": given.quantity,
        "entry_quantity": given.entry_quantity,
        "exit_quantity": given.exit_quantity,
        "peak_quantity": given.peak_quantity,
        "entry_price": given.entry_price,
        "average_entry_price": given.average_entry_price,
        "current_price": given.current_price,
        "exit_price": given.exit_price,
        "cost": given.cost,
        "realized_gross": given.realized_gross,
        "open_fees": given.open_fees,
        "close_fees": given.close_fees,
        "open_fees_released": given.open_fees_released,
        "realized_pnl": given.realized_pnl,
        "realized_pnl_closed": given.realized_pnl_closed,
        "unrealized_pnl": given.unrealized_pnl,
        "unrealized_pnl_pct": given.unrealized_pnl_pct,
        "shortfall_quantity": given.shortfall_quantity,
        "shortfall_amount": given.shortfall_amount,
        "transferred_quantity": given.transferred_quantity,
    }


def opened(row: PositionRow | None, event: Recorded[PositionOpened]) -> PositionRow:
    """A new position: who holds what, where and why."""
    return begun(row, event, is_dust=event.body.fill.is_dust_left)


def begun(row: PositionRow | None, event: Recorded[Any], *, is_dust: bool) -> PositionRow:
    """The first version of a position, bought or received."""
    if row is not None:
        raise ValueError("a position is opened once")
    body = event.body
    previous = body.previous
    return PositionRow(
        execution_environment=body.environment,
        account_id=body.account,
        market_id=body.market,
        platform_id=body.platform,
        strategy_id=body.strategy,
        model_id=body.model,
        edge_id=body.edge,
        currency=body.currency,
        side=body.side,
        status="open",
        mark_time=None,
        mark_source=None,
        settlement_value=None,
        target_price=body.target_price,
        stop_loss_price=body.stop_loss_price,
        trailing_stop_state=body.trailing_stop,
        exits_triggered=None,
        is_dust=is_dust,
        exit_reason=None,
        entry_time=body.entry_time,
        exit_time=None,
        previous_position_id=f"POS-{event.refs[previous.stream, previous.version]}" if previous else None,
        position_metadata=body.metadata,
        multiplier=body.multiplier,
        margin_rate=body.margin_rate,
        settlement_revision=None,
        restatements=0,
        restated_realized=Decimal(0),
        **figures(body.figures),
    )


def traded(row: PositionRow, event: Recorded[PositionIncreased | PositionReduced]) -> PositionRow:
    """More or less of it is held."""
    return replace(row, is_dust=event.body.fill.is_dust_left, **figures(event.body.figures))


def marked(row: PositionRow, event: Recorded[PositionMarked]) -> PositionRow:
    """It was valued at a price."""
    body = event.body
    return replace(
        row,
        current_price=body.price,
        mark_time=event.effective_at,
        mark_source=body.source,
        unrealized_pnl=body.unrealized_pnl,
        unrealized_pnl_pct=body.unrealized_pnl_pct,
        trailing_stop_state=body.trailing_stop or row.trailing_stop_state,
    )


def exit_triggered(row: PositionRow, event: Recorded[ExitTriggered]) -> PositionRow:
    """A mark touched exits; they are listed in the order in which they were told."""
    return replace(row, exits_triggered=[*(row.exits_triggered or ()), event.body.kind, *event.body.also])


def exits_set(row: PositionRow, event: Recorded[ExitsSet]) -> PositionRow:
    """All exits are as given from now on, and armed anew."""
    body = event.body
    return replace(
        row,
        target_price=body.target_price,
        stop_loss_price=body.stop_loss_price,
        trailing_stop_state=body.trailing_stop,
        exits_triggered=None,
    )


def closed(row: PositionRow, event: Recorded[PositionClosed]) -> PositionRow:
    """The rest was sold."""
    return replace(
        row,
        status="closed",
        is_dust=False,
        exit_reason=event.body.exit_reason,
        exit_time=event.effective_at,
        **figures(event.body.figures),
    )


def settled(row: PositionRow, event: Recorded[PositionSettled]) -> PositionRow:
    """The market paid out."""
    return replace(
        row,
        status="settled",
        is_dust=False,
        settlement_value=event.body.settlement_value,
        settlement_revision=event.body.settlement_revision,
        exit_reason=event.body.exit_reason,
        exit_time=event.effective_at,
        **figures(event.body.figures),
    )


def received(row: PositionRow | None, event: Recorded[PositionReceived]) -> PositionRow:
    """A position that came from elsewhere."""
    return begun(row, event, is_dust=False)


def transferred(row: PositionRow, event: Recorded[PositionTransferred]) -> PositionRow:
    """A part of it, or all of it, went to another account."""
    given = figures(event.body.figures)
    if event.body.figures.quantity:
        return replace(row, **given)
    return replace(
        row, status="transferred", is_dust=False, exit_reason="transfer", exit_time=event.effective_at, **given
    )


def shares_split(row: PositionRow, event: Recorded[SharesSplit]) -> PositionRow:
    """It is counted in other contracts."""
    body = event.body
    return replace(
        row,
        target_price=body.target_price,
        stop_loss_price=body.stop_loss_price,
        trailing_stop_state=body.trailing_stop,
        **figures(body.figures),
    )


def restated(row: PositionRow, event: Recorded[Any]) -> PositionRow:
    """Its facts were folded again in effective order; exits stay as they were."""
    return replace(as_restated(row, event), restatements=row.restatements + 1)


def as_restated(row: PositionRow, event: Recorded[Any]) -> PositionRow:
    """The columns that a restatement carries."""
    now = event.body.restated
    return replace(
        row,
        status=now.status,
        is_dust=now.is_dust,
        mark_time=now.mark_time,
        mark_source=now.mark_source,
        settlement_value=now.settlement_value,
        exit_reason=now.exit_reason,
        entry_time=now.entry_time,
        exit_time=now.exit_time,
        restated_realized=now.restated_realized_sum,
        **figures(now.figures),
    )


def amended(row: PositionRow, event: Recorded[SettlementAmended]) -> PositionRow:
    """The market paid out at another value."""
    return replace(restated(row, event), settlement_revision=event.body.settlement_revision)


def voided(row: PositionRow, event: Recorded[PositionVoided]) -> PositionRow:
    """The market was void; a restatement if it had settled before."""
    fold = restated if event.body.replaces_settlement else as_restated
    return replace(fold(row, event), settlement_revision=event.body.settlement_revision)


def position_id(event: Recorded[Any]) -> str:
    """POS- and the number of the event that opened the stream."""
    return f"POS-{event.opened_seq}"


POSITIONS = Projection(
    table="positions",
    key_column="position_id",
    key=position_id,
    row=PositionRow,
    folds={
        PositionOpened: opened,
        PositionIncreased: traded,
        PositionReduced: traded,
        PositionMarked: marked,
        ExitTriggered: exit_triggered,
        ExitsSet: exits_set,
        PositionClosed: closed,
        PositionSettled: settled,
        LateFillRecorded: restated,
        TradeBusted: restated,
        TradeCorrected: restated,
        FeeAdjusted: restated,
        TransferRestated: restated,
        SettlementAmended: amended,
        PositionVoided: voided,
        PositionReceived: received,
        PositionTransferred: transferred,
        SharesSplit: shares_split,
    },
)
