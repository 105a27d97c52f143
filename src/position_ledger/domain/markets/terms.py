"""What a registered market asks of the commands that trade in it. A market that nobody registered asks nothing."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from position_ledger.domain.families import MARKET
from position_ledger.domain.markets.commands import is_market_number
from position_ledger.domain.markets.market import Market, MarketKey, market_stream
from position_ledger.domain.markets.vocabulary import MarketStatus
from position_ledger.domain.numbers import CONTEXT, ONE, ZERO
from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from position_ledger.domain.command import Command
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.vocabulary import Environment, Side

__all__ = [
    "currency_in",
    "market_of",
    "multiplier_of",
    "named",
    "require_entry_price",
    "require_market_open",
    "require_terms",
    "terms_copied",
]

ENTRY_PRICE_MIN: Final = Decimal("0.01")
ENTRY_PRICE_MAX: Final = Decimal("0.99")
"""What OpenPosition takes on a binary side unless the market says otherwise; facts are not bound by it."""

CommandT = TypeVar("CommandT", bound="Command")


def named(command: CommandT, streams: Streams) -> CommandT:
    """Give the command with the text of its market where it said MKT-n. Raises `CommandRejected` (`market_unknown`)."""
    if not _names_a_market(type(command)):
        return command
    market, environment = getattr(command, "market", None), getattr(command, "environment", None)
    if market is None or not is_market_number(market):
        return command
    try:
        found = streams.located(market, MARKET)[1]
    except LookupError:
        found = None
    if found is None or (environment is not None and found.environment != environment):
        raise CommandRejected(
            Reason.MARKET_UNKNOWN, command, value=market, environment=environment or "any environment"
        )
    return command.model_copy(update={"market": found.market})


@cache  # one entry for each type of command
def _names_a_market(kind: type[Command]) -> bool:
    return "market" in kind.model_fields


def market_of(environment: Environment, market: str, streams: Streams) -> Market | None:
    """Return a market as it is now, guarded; None: nobody registered it."""
    return streams.state(market_stream(MarketKey(environment, market)))


def require_market_open(command: Command, market: Market | None) -> None:
    """Refuse an intention in a market that does not trade."""
    if market is not None and market.status is not MarketStatus.OPEN:
        raise CommandRejected(Reason.MARKET_NOT_OPEN, command, value=market.market, status=market.status.value)


def require_terms(command: Command, market: Market | None, side: Side, currency: str) -> None:
    """Refuse a side that the kind of market does not have, and another currency than it is traded in."""
    if market is None:
        return
    if side.is_binary is not market.kind.is_binary:
        raise CommandRejected(
            Reason.SIDE_NOT_IN_MARKET, command, field="side", value=side.value, market=market.market,
            kind=market.kind.value,
        )  # fmt: skip
    if currency != market.currency:
        held = market.currency
        raise CommandRejected(Reason.MARKET_CURRENCY, command, value=currency, held=held, market=market.market)


def require_entry_price(command: Command, market: Market | None, side: Side, price: Decimal) -> None:
    """Refuse an entry price out of the bounds of the market, or between its ticks."""
    low, high = _bounds(market, side)
    if not low <= price or (high is not None and price > high):
        bounds = f"[{low}, {high}]" if high is not None else f"of at least {low}"
        raise CommandRejected(Reason.ENTRY_PRICE_OUT_OF_RANGE, command, field="entry_price", value=price, bounds=bounds)
    tick = market.tick_size if market else None
    if tick is not None and CONTEXT.remainder(price, tick):
        raise CommandRejected(Reason.PRICE_NOT_ON_TICK, command, field="entry_price", value=price, held=tick)


def _bounds(market: Market | None, side: Side) -> tuple[Decimal, Decimal | None]:
    low, high = (ENTRY_PRICE_MIN, ENTRY_PRICE_MAX) if side.is_binary else (ZERO, None)
    if market is None:
        return low, high
    return (
        low if market.price_min is None else market.price_min,
        high if market.price_max is None else market.price_max,
    )


def currency_in(market: Market | None, stated: str | None) -> str:
    """Say the currency of a new position: as stated, else that of the market, else USD."""
    return stated or (market.currency if market else "USD")


def multiplier_of(market: Market | None) -> Decimal:
    """Say what one contract moves when its price moves by 1."""
    return market.multiplier if market else ONE


def terms_copied(market: Market | None) -> dict[str, Any]:
    """Say what a position takes over from its market when it is opened, and keeps whatever the market does later."""
    return {"multiplier": market.multiplier, "margin_rate": market.margin_rate} if market else {}
