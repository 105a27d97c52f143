"""The state of a market: the fold of its events, and the stream that it lives in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, cast
from uuid import UUID, uuid5

import msgspec

from position_ledger.domain.event import Event
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
from position_ledger.domain.markets.vocabulary import MarketKind, MarketStatus, Netting
from position_ledger.domain.numbers import ONE, ZERO
from position_ledger.domain.vocabulary import Environment

__all__ = ["Market", "MarketKey", "evolve_market", "given_of", "market_stream"]

_NAMESPACE: Final = UUID("0d3a3a61-6b6b-4a83-9d0a-1b7c64a5f5d2")
"""Of market stream ids; changing it would orphan every market ever registered."""
_KEYS_CACHED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class MarketKey:
    """What makes a market one and the same: its text, in one environment."""

    environment: Environment
    market: str


@lru_cache(maxsize=_KEYS_CACHED_MAX)
def market_stream(key: MarketKey) -> UUID:
    """Stream id of the market: uuid5 of the canonical JSON of its key, the same in every process for ever."""
    return uuid5(_NAMESPACE, json.dumps([key.environment.value, key.market], ensure_ascii=False, separators=(",", ":")))


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """Terms, quotes and fate of a market. Times are UTC."""

    version: int
    environment: Environment
    market: str
    title: str | None = None
    kind: MarketKind
    platform: str | None = None
    market_event: str | None = None
    currency: str
    base_asset: str | None = None
    multiplier: Decimal = ONE
    tick_size: Decimal | None = None
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    margin_rate: Decimal = ZERO
    netting: Netting = Netting.SIDE
    close_time: datetime | None = None
    metadata: dict[str, Any] | None = None
    registered_status: MarketStatus
    changed: tuple[str, ...] = ()
    """Terms that are no longer those of the registration."""
    status: MarketStatus
    yes_price: Decimal | None = None
    no_price: Decimal | None = None
    yes_bid: Decimal | None = None
    yes_ask: Decimal | None = None
    no_bid: Decimal | None = None
    no_ask: Decimal | None = None
    last_price: Decimal | None = None
    quoted_at: datetime | None = None
    """Effective time of the last quote."""
    status_at: datetime
    """Latest effective time of what changed the status."""
    value: Decimal | None = None
    """The outcome as last said; None: unknown, or void."""
    fee: Decimal = ZERO
    revision: int = 0
    """Of the verdict that positions must have; 0: they are not paid."""
    refund_fees: bool = False
    unwind: bool = False
    settled_at: datetime | None = None
    """Effective time of the first verdict that was paid."""
    last_effective_at: datetime

    @property
    def key(self) -> MarketKey:
        """What its stream is named after."""
        return MarketKey(self.environment, self.market)


def evolve_market(market: Market | None, event: Event, effective_at: datetime) -> Market:
    """Fold the next event of a market's stream. Raises ``TypeError`` for an event that does not fit."""
    if isinstance(event, MarketRegistered) and market is None:
        fields = {name: getattr(event, name) for name in MarketRegistered.model_fields}
        fields |= {"registered_status": event.status, "status_at": effective_at, "last_effective_at": effective_at}
        return Market(version=1, **fields)
    handler = _HANDLERS.get(type(event))
    if handler is None or market is None:
        raise TypeError(f"{type(event).__name__} cannot be folded into {type(market).__name__}; the log is damaged")
    changes = handler(market, event, effective_at)
    if "status" in changes:
        changes["status_at"] = max(market.status_at, effective_at)
    return msgspec.structs.replace(
        market,
        version=market.version + 1,
        last_effective_at=max(market.last_effective_at, effective_at),
        **changes,
    )


_Changes = dict[str, Any]


def given_of(event: Event) -> _Changes:
    """What a change or a quote says."""
    return {name: value for name, value in event.__dict__.items() if value is not None}


def _changed(market: Market, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    given = given_of(event)
    return {**given, "changed": tuple(sorted({*market.changed, *given}))}


def _quoted(market: Market, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    return {**given_of(event), "quoted_at": effective_at}


def _status_set(market: Market, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    return {"status": cast("MarketStatusSet", event).status}


def _determined(market: Market, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    return {"status": MarketStatus.DETERMINED, "value": cast("MarketDetermined", event).value}


def _disputed(market: Market, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    return {"status": MarketStatus.DISPUTED}


def _amended(market: Market, event: Event, effective_at: datetime) -> _Changes:
    amended = cast("MarketAmended", event)
    if amended.revision is None:
        return {"status": MarketStatus.AMENDED, "value": amended.value}
    return _verdict(market, MarketStatus.SETTLED, amended.revision, effective_at) | {"value": amended.value}


def _settled(market: Market, event: Event, effective_at: datetime) -> _Changes:
    settled = cast("MarketSettled", event)
    paid = _verdict(market, MarketStatus.SETTLED, settled.revision, effective_at)
    return paid | {"value": settled.value, "fee": settled.fee}


def _voided(market: Market, event: Event, effective_at: datetime) -> _Changes:
    voided = cast("MarketVoided", event)
    back = {"value": None, "refund_fees": voided.refund_fees, "unwind": voided.unwind}
    return _verdict(market, MarketStatus.VOIDED, voided.revision, effective_at) | back


def _verdict(market: Market, status: MarketStatus, revision: int, effective_at: datetime) -> _Changes:
    return {"status": status, "revision": revision, "settled_at": market.settled_at or effective_at}


_HANDLERS: Final[dict[type[Event], Callable[[Market, Event, datetime], _Changes]]] = {
    MarketChanged: _changed,
    MarketQuoted: _quoted,
    MarketStatusSet: _status_set,
    MarketDetermined: _determined,
    MarketDisputed: _disputed,
    MarketAmended: _amended,
    MarketSettled: _settled,
    MarketVoided: _voided,
}
