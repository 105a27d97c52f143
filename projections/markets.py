"""markets: one row for each version of a market. Every value comes from the event; nothing is computed here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import (
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


class MarketRow(Row, frozen=True, gc=False):
    """The columns of markets beside id, market_id and those of SCD Type 2."""

    execution_environment: str
    platform_id: str | None
    market_event_id: str | None
    ticker: str
    title: str | None
    kind: str
    currency: str
    base_asset: str | None
    multiplier: Decimal
    tick_size: Decimal | None
    price_min: Decimal | None
    price_max: Decimal | None
    margin_rate: Decimal
    netting: str
    status: str
    yes_price: Decimal | None
    no_price: Decimal | None
    yes_bid: Decimal | None
    yes_ask: Decimal | None
    no_bid: Decimal | None
    no_ask: Decimal | None
    last_price: Decimal | None
    settlement_value: Decimal | None
    close_time: datetime | None
    settled_at: datetime | None
    quote_time: datetime | None
    outcome_value: Decimal | None
    dispute_reason: str | None
    settlement_fee: Decimal | None
    settlement_revision: int
    is_fee_refunded: bool
    is_unwound: bool
    market_metadata: Any


def registered(row: MarketRow | None, event: Recorded[MarketRegistered]) -> MarketRow:
    """A new market: what is traded, on which terms."""
    if row is not None:
        raise ValueError("a market is registered once")
    body = event.body
    return MarketRow(
        execution_environment=body.environment,
        platform_id=body.platform,
        market_event_id=body.market_event,
        ticker=body.market,
        title=body.title,
        kind=body.kind,
        currency=body.currency,
        base_asset=body.base_asset,
        multiplier=body.multiplier,
        tick_size=body.tick_size,
        price_min=body.price_min,
        price_max=body.price_max,
        margin_rate=body.margin_rate,
        netting=body.netting,
        status=body.status,
        yes_price=None,
        no_price=None,
        yes_bid=None,
        yes_ask=None,
        no_bid=None,
        no_ask=None,
        last_price=None,
        settlement_value=None,
        close_time=body.close_time,
        settled_at=None,
        quote_time=None,
        outcome_value=None,
        dispute_reason=None,
        settlement_fee=None,
        settlement_revision=0,
        is_fee_refunded=False,
        is_unwound=False,
        market_metadata=body.metadata,
    )


def changed(row: MarketRow, event: Recorded[MarketChanged]) -> MarketRow:
    """Terms that no position depends on; what is None stays."""
    body = event.body
    return replace(
        row,
        title=kept(body.title, row.title),
        platform_id=kept(body.platform, row.platform_id),
        market_event_id=kept(body.market_event, row.market_event_id),
        tick_size=kept(body.tick_size, row.tick_size),
        price_min=kept(body.price_min, row.price_min),
        price_max=kept(body.price_max, row.price_max),
        close_time=kept(body.close_time, row.close_time),
        market_metadata=kept(body.metadata, row.market_metadata),
    )


def quoted(row: MarketRow, event: Recorded[MarketQuoted]) -> MarketRow:
    """Quotes that have changed; what is None stays, and 0 is a price."""
    body = event.body
    return replace(
        row,
        yes_price=kept(body.yes_price, row.yes_price),
        no_price=kept(body.no_price, row.no_price),
        yes_bid=kept(body.yes_bid, row.yes_bid),
        yes_ask=kept(body.yes_ask, row.yes_ask),
        no_bid=kept(body.no_bid, row.no_bid),
        no_ask=kept(body.no_ask, row.no_ask),
        last_price=kept(body.last_price, row.last_price),
        quote_time=event.effective_at,
    )


def kept(given: Any, before: Any) -> Any:
    """What is given, else what was there before."""
    return before if given is None else given


def status_set(row: MarketRow, event: Recorded[MarketStatusSet]) -> MarketRow:
    """Opened, halted or closed."""
    return replace(row, status=event.body.status)


def determined(row: MarketRow, event: Recorded[MarketDetermined]) -> MarketRow:
    """The outcome is known."""
    return replace(row, status="determined", outcome_value=event.body.value)


def disputed(row: MarketRow, event: Recorded[MarketDisputed]) -> MarketRow:
    """The outcome is contested."""
    return replace(row, status="disputed", dispute_reason=event.body.reason)


def amended(row: MarketRow, event: Recorded[MarketAmended]) -> MarketRow:
    """The outcome is another one; with a revision, positions are paid anew."""
    body = event.body
    if body.revision is None:
        return replace(row, status="amended", outcome_value=body.value)
    return replace(
        row,
        status="settled",
        outcome_value=body.value,
        settlement_value=body.value,
        settlement_revision=body.revision,
    )


def settled(row: MarketRow, event: Recorded[MarketSettled]) -> MarketRow:
    """The positions are paid."""
    body = event.body
    return replace(
        row,
        status="settled",
        outcome_value=body.value,
        settlement_value=body.value,
        settlement_fee=body.fee,
        settlement_revision=body.revision,
        settled_at=kept(row.settled_at, event.effective_at),
    )


def voided(row: MarketRow, event: Recorded[MarketVoided]) -> MarketRow:
    """What the positions cost is given back."""
    body = event.body
    return replace(
        row,
        status="voided",
        outcome_value=None,
        settlement_value=None,
        settlement_revision=body.revision,
        is_fee_refunded=body.refund_fees,
        is_unwound=body.unwind,
        settled_at=kept(row.settled_at, event.effective_at),
    )


def market_id(event: Recorded[Any]) -> str:
    """MKT- and the number of the event that registered the market."""
    return f"MKT-{event.opened_seq}"


MARKETS = Projection(
    table="markets",
    key_column="market_id",
    key=market_id,
    row=MarketRow,
    folds={
        MarketRegistered: registered,
        MarketChanged: changed,
        MarketQuoted: quoted,
        MarketStatusSet: status_set,
        MarketDetermined: determined,
        MarketDisputed: disputed,
        MarketAmended: amended,
        MarketSettled: settled,
        MarketVoided: voided,
    },
)
