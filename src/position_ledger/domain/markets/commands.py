"""What can be asked about markets. A command names its market by environment and text, or by MKT-n."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from position_ledger.domain.command import Command
from position_ledger.domain.fields import Metadata, Moment, Text
from position_ledger.domain.markets.vocabulary import MarketKind, MarketStatus, Netting
from position_ledger.domain.numbers import ONE, ZERO, Money, NotNegative, Price, Quantity
from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason
from position_ledger.domain.vocabulary import Environment

__all__ = [
    "QUOTES",
    "AmendMarket",
    "ChangeMarket",
    "DetermineMarket",
    "DisputeMarket",
    "MarketCommand",
    "QuoteMarket",
    "RegisterMarket",
    "SetMarketStatus",
    "SettleMarket",
    "VoidMarket",
    "is_market_number",
]


QUOTES: Final = ("yes_price", "no_price", "yes_bid", "yes_ask", "no_bid", "no_ask", "last_price")
"""What can be quoted."""


def is_market_number(market: str) -> bool:
    """Whether a market is named by the number that the ledger gave it: MKT-n."""
    prefix, _, number = market.partition("-")
    return prefix == "MKT" and number.isascii() and number.isdigit()


class _OnMarket(Command):
    """What every command about a market carries."""

    environment: Environment
    market: Text
    """Its text, which is its ticker and the ``market`` of positions; or MKT-n."""


class RegisterMarket(_OnMarket):
    """Make a market known, with terms that stay: what positions copy when they are opened can never change."""

    title: Text | None = None
    kind: MarketKind
    platform: Text | None = None
    market_event: Text | None = None
    """Id of the event that the market is about, a row of the reference table market_events."""
    currency: Text = "USD"
    base_asset: Text | None = None
    multiplier: Quantity = ONE
    """Units of the currency that one contract moves when its price moves by 1."""
    tick_size: Quantity | None = None
    price_min: Price | None = None
    """Lowest entry price of OpenPosition; None: 0.01 in a binary market, else 0."""
    price_max: Price | None = None
    """Highest entry price of OpenPosition; None: 0.99 in a binary market, else no bound."""
    margin_rate: NotNegative = ZERO
    """Share of the entry amount that a SHORT locks beside its proceeds."""
    netting: Netting = Netting.SIDE
    close_time: Moment | None = None
    status: Literal[MarketStatus.OPEN, MarketStatus.INITIALIZED] = MarketStatus.OPEN
    metadata: Metadata | None = None

    @field_validator("market")
    @classmethod
    def _no_number(cls, value: str) -> str:
        if is_market_number(value):
            raise ValueError("MKT-n is what the ledger gives; name the market as its venue does")
        return value

    @field_validator("price_max")
    @classmethod
    def _above_min(cls, value: Decimal | None, info: ValidationInfo) -> Decimal | None:
        low = info.data.get("price_min")
        if value is not None and low is not None and low > value:
            raise ValueError(f"it is below price_min {low}")
        return value


class ChangeMarket(_OnMarket):
    """Change what no position depends on; what is not given stays. Kind, currency, multiplier … never change."""

    title: Text | None = None
    platform: Text | None = None
    market_event: Text | None = None
    tick_size: Quantity | None = None
    price_min: Price | None = None
    price_max: Price | None = None
    close_time: Moment | None = None
    metadata: Metadata | None = None


class QuoteMarket(_OnMarket):
    """Say what a market trades at; what is not given stays. A quote older than the last changes nothing.

    YES and NO are both quoted and neither is derived from the other. In other than binary markets the contract's own
    quotes are those called yes.
    """

    yes_price: Price | None = None
    no_price: Price | None = None
    yes_bid: Price | None = None
    yes_ask: Price | None = None
    no_bid: Price | None = None
    no_ask: Price | None = None
    last_price: Price | None = None
    """Of the last execution, on YES in a binary market."""
    min_change: NotNegative | None = None
    """Quotes that all differ by less change nothing; None: the setting quote_min_change, which is 0 at first."""

    @model_validator(mode="after")
    def _something_quoted(self) -> Self:
        if all(getattr(self, name) is None for name in QUOTES):
            raise refusal(Reason.FIELD_MISSING, "yes_price")
        return self


class SetMarketStatus(_OnMarket):
    """Open, halt or close a market for trading."""

    status: Literal[MarketStatus.OPEN, MarketStatus.HALTED, MarketStatus.CLOSED]


class DetermineMarket(_OnMarket):
    """Say the outcome: what one YES is worth, or the final price elsewhere. Nobody is paid yet."""

    value: Price


class DisputeMarket(_OnMarket):
    """Contest the outcome. Nobody is paid meanwhile."""

    reason: Text | None = None


class AmendMarket(_OnMarket):
    """Give another outcome. After a settlement its positions come to stand as if settled at it."""

    value: Price


class SettleMarket(_OnMarket):
    """Have all positions of the market paid: ``value`` per YES and ``1 - value`` per NO, elsewhere that price."""

    value: Price
    fee: Money = ZERO
    """Charged to each position that is paid."""


class VoidMarket(_OnMarket):
    """Have the cost of all open positions given back."""

    refund_fees: bool = False
    """Give back all fees of the positions too."""
    unwind: bool = False
    """Bust every trade of the market, so that earlier exits are undone as well."""


MarketCommand = (
    RegisterMarket
    | ChangeMarket
    | QuoteMarket
    | SetMarketStatus
    | DetermineMarket
    | DisputeMarket
    | AmendMarket
    | SettleMarket
    | VoidMarket
)
"""Any command about a market."""
