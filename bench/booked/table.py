"""booked: one row for each fill of a position, with the whole state after it. Every column comes from each event."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row
from position_ledger.events import PositionIncreased, PositionOpened, PositionReduced


class BookedRow(Row, frozen=True, gc=False):
    """The columns of booked beside id, position_id and those of SCD Type 2."""

    execution_environment: str
    account_id: str
    market_id: str
    currency: str
    side: str
    action: str
    fill_quantity: Decimal
    fill_price: Decimal
    fill_amount: Decimal
    fill_fee: Decimal
    liquidity: str
    quantity: Decimal
    entry_quantity: Decimal
    peak_quantity: Decimal
    entry_amount: Decimal
    cost: Decimal
    open_fees: Decimal
    entry_price: Decimal
    average_entry_price: Decimal
    current_price: Decimal
    realized_pnl: Decimal
    unrealized_pnl: Decimal
    unrealized_pnl_pct: Decimal


def opened(_: BookedRow | None, event: Recorded[PositionOpened]) -> BookedRow:
    """The first fill: the holder is the body itself."""
    return booked(event.body, event.body)


def traded(_: BookedRow | None, event: Recorded[PositionIncreased | PositionReduced]) -> BookedRow:
    """A later fill repeats its holder."""
    return booked(event.body, event.body.holder)


def booked(body: Any, holder: Any) -> BookedRow:
    """Every column from one event."""
    fill, figures = body.fill, body.figures
    return BookedRow(
        execution_environment=holder.environment,
        account_id=holder.account,
        market_id=holder.market,
        currency=holder.currency,
        side=holder.side,
        action=fill.action,
        fill_quantity=fill.quantity,
        fill_price=fill.price,
        fill_amount=fill.amount,
        fill_fee=fill.fee,
        liquidity=fill.liquidity,
        quantity=figures.quantity,
        entry_quantity=figures.entry_quantity,
        peak_quantity=figures.peak_quantity,
        entry_amount=figures.entry_amount,
        cost=figures.cost,
        open_fees=figures.open_fees,
        entry_price=figures.entry_price,
        average_entry_price=figures.average_entry_price,
        current_price=figures.current_price,
        realized_pnl=figures.realized_pnl,
        unrealized_pnl=figures.unrealized_pnl,
        unrealized_pnl_pct=figures.unrealized_pnl_pct,
    )


def position_id(event: Recorded[Any]) -> str:
    """POS- and the number of the event that opened the stream."""
    return f"POS-{event.opened_seq}"


BOOKED = Projection(
    table="booked",
    key_column="position_id",
    key=position_id,
    row=BookedRow,
    folds={PositionOpened: opened, PositionIncreased: traded, PositionReduced: traded},
)
