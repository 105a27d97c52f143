"""What can happen to a market. Each verdict that is paid (settled, amended, voided) carries a revision, counted from 1."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from position_ledger.domain.event import Event
from position_ledger.domain.markets.vocabulary import MarketKind, MarketStatus, Netting
from position_ledger.domain.numbers import ONE, ZERO, Figure
from position_ledger.domain.parts import UtcTime
from position_ledger.domain.vocabulary import Environment

__all__ = [
    "MARKET_EVENTS",
    "MarketAmended",
    "MarketChanged",
    "MarketDetermined",
    "MarketDisputed",
    "MarketQuoted",
    "MarketRegistered",
    "MarketSettled",
    "MarketStatusSet",
    "MarketVoided",
]


class MarketRegistered(Event):
    """The first event of a market stream: what is traded, on which terms."""

    TOPIC = "market.registered"

    environment: Environment
    market: str
    title: str | None = None
    kind: MarketKind
    platform: str | None = None
    market_event: str | None = None
    currency: str
    base_asset: str | None = None
    multiplier: Figure = ONE
    tick_size: Figure | None = None
    price_min: Figure | None = None
    price_max: Figure | None = None
    margin_rate: Figure = ZERO
    netting: Netting = Netting.SIDE
    close_time: UtcTime | None = None
    status: MarketStatus = MarketStatus.OPEN
    metadata: dict[str, JsonValue] | None = None


class MarketChanged(Event):
    """What is given is so from now on; what is None stays as it was."""

    TOPIC = "market.changed"

    title: str | None = None
    platform: str | None = None
    market_event: str | None = None
    tick_size: Figure | None = None
    price_min: Figure | None = None
    price_max: Figure | None = None
    close_time: UtcTime | None = None
    metadata: dict[str, JsonValue] | None = None


class MarketQuoted(Event):
    """The quotes that have changed; what is None stays as it was. Quoted at the effective time of the event."""

    TOPIC = "market.quoted"

    yes_price: Figure | None = None
    no_price: Figure | None = None
    yes_bid: Figure | None = None
    yes_ask: Figure | None = None
    no_bid: Figure | None = None
    no_ask: Figure | None = None
    last_price: Figure | None = None


class MarketStatusSet(Event):
    """The market was opened, halted or closed."""

    TOPIC = "market.status_set"

    status: MarketStatus


class MarketDetermined(Event):
    """The outcome is known; nobody is paid yet."""

    TOPIC = "market.determined"

    value: Figure


class MarketDisputed(Event):
    """The outcome is contested."""

    TOPIC = "market.disputed"

    reason: str | None = None


class MarketAmended(Event):
    """The outcome is another one."""

    TOPIC = "market.amended"

    value: Figure
    revision: int | None = None
    """Of the verdict, when the market was settled or voided: the difference is paid. None: nobody had been paid."""


class MarketSettled(Event):
    """The positions of the market are to be paid at a value."""

    TOPIC = "market.settled"

    value: Figure
    fee: Figure = ZERO
    """Charged to each position."""
    revision: int


class MarketVoided(Event):
    """The cost of what is open is to be given back."""

    TOPIC = "market.voided"

    refund_fees: bool = False
    unwind: bool = False
    revision: int


MARKET_EVENTS: Final = (
    MarketRegistered,
    MarketChanged,
    MarketQuoted,
    MarketStatusSet,
    MarketDetermined,
    MarketDisputed,
    MarketAmended,
    MarketSettled,
    MarketVoided,
)
