"""How commands about markets are decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.draft import Append, Decision, Subject, effective_time
from position_ledger.domain.families import MARKET
from position_ledger.domain.markets.commands import (
    QUOTES,
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
from position_ledger.domain.markets.market import Market, MarketKey, market_stream
from position_ledger.domain.markets.vocabulary import MarketKind, MarketStatus
from position_ledger.domain.numbers import ONE, ZERO, minus
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Side

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.command import Command
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.event import Event
    from position_ledger.domain.markets.commands import MarketCommand

__all__ = ["MARKET_DECIDERS"]

_OUTCOME_KNOWN: Final = frozenset({MarketStatus.DETERMINED, MarketStatus.DISPUTED, MarketStatus.AMENDED})


def register(command: RegisterMarket, streams: Streams, now: datetime) -> Decision:
    """Make a market known; again with the same terms changes nothing, with others it is refused."""
    terms = {name: getattr(command, name) for name in MarketRegistered.model_fields}
    _require_outcomes(command, command.kind, price_min=command.price_min, price_max=command.price_max)
    market = streams.state(market_stream(MarketKey(command.environment, command.market)))
    if market is None:
        return _decided(command, None, MarketRegistered(**terms), now)
    for name, value in terms.items():
        known = market.registered_status if name == "status" else getattr(market, name)
        if value != known and name not in market.changed:
            raise CommandRejected(Reason.MARKET_EXISTS, command, field=name, value=command.market, held=known)
    return _nothing(command)


def change(command: ChangeMarket, streams: Streams, now: datetime) -> Decision:
    """Change what is given; nothing new changes nothing."""
    market = _market(command, streams)
    _require_outcomes(command, market.kind, price_min=command.price_min, price_max=command.price_max)
    given = _new(market, {name: getattr(command, name) for name in MarketChanged.model_fields})
    low, high = (given.get(name, getattr(market, name)) for name in ("price_min", "price_max"))
    if low is not None and high is not None and low > high:
        problem = f"the lowest entry price would be {low}"
        raise CommandRejected(Reason.FIELD_INVALID, command, field="price_max", value=high, problem=problem)
    return _decided(command, market, MarketChanged(**given), now) if given else _nothing(command)


def quote(command: QuoteMarket, streams: Streams, now: datetime) -> Decision:
    """Record what has changed; an older quote, or one that changes nothing that matters, makes no event."""
    market = _market(command, streams)
    quoted = {name: getattr(command, name) for name in QUOTES}
    _require_quotes(command, market, quoted)
    at = effective_time(command, now, (market.last_effective_at,))
    given = _new(market, quoted)
    is_old = market.quoted_at is not None and at < market.quoted_at
    if is_old or not given or not _matters(market, given, command.min_change):
        return _nothing(command)
    if market.status.is_final:
        raise _wrong_status(command, market)
    return _decided(command, market, MarketQuoted(**given), now)


def _matters(market: Market, given: dict[str, Any], min_change: Decimal | None) -> bool:
    """Whether any quote is new, or differs from the last recorded one by as much as was asked for."""
    before = {name: getattr(market, name) for name in given}
    return any(
        before[name] is None or abs(minus(value, before[name])) >= (min_change or ZERO) for name, value in given.items()
    )


def set_status(command: SetMarketStatus, streams: Streams, now: datetime) -> Decision:
    """Open, halt or close; an older word than the last about the status changes nothing."""
    market = _market(command, streams)
    is_old = command.effective_at is not None and command.effective_at < market.status_at
    if is_old or market.status is command.status:
        return _nothing(command)
    _require_next(command, market, command.status)
    return _decided(command, market, MarketStatusSet(status=command.status), now)


def determine(command: DetermineMarket, streams: Streams, now: datetime) -> Decision:
    """Say the outcome; that of a disputed market is upheld so, and changed by AmendMarket only."""
    market = _market(command, streams)
    _require_outcomes(command, market.kind, value=command.value)
    if market.status is MarketStatus.DETERMINED and market.value == command.value:
        return _nothing(command)
    if market.status is not MarketStatus.DETERMINED:
        _require_next(command, market, MarketStatus.DETERMINED)
    _require_outcome(command, market, command.value)
    return _decided(command, market, MarketDetermined(value=command.value), now)


def dispute(command: DisputeMarket, streams: Streams, now: datetime) -> Decision:
    """Contest the outcome that was said."""
    market = _market(command, streams)
    if market.status is MarketStatus.DISPUTED:
        return _nothing(command)
    _require_next(command, market, MarketStatus.DISPUTED)
    return _decided(command, market, MarketDisputed(reason=command.reason), now)


def amend(command: AmendMarket, streams: Streams, now: datetime) -> Decision:
    """Change the outcome; what was paid already is paid anew under the next revision."""
    market = _market(command, streams)
    _require_outcomes(command, market.kind, value=command.value)
    if market.value == command.value and market.status in {MarketStatus.SETTLED, MarketStatus.AMENDED}:
        return _nothing(command)
    is_paid = market.status.is_final
    _require_next(command, market, MarketStatus.SETTLED if is_paid else MarketStatus.AMENDED)
    if is_paid and market.unwind:
        raise _wrong_status(command, market)  # trades that were busted do not come back
    return _decided(
        command, market, MarketAmended(value=command.value, revision=market.revision + 1 if is_paid else None), now
    )


def settle(command: SettleMarket, streams: Streams, now: datetime) -> Decision:
    """Have the positions paid; once, another outcome afterwards is AmendMarket."""
    market = _market(command, streams)
    _require_outcomes(command, market.kind, value=command.value)
    if market.status is MarketStatus.SETTLED and (market.value, market.fee) == (command.value, command.fee):
        return _nothing(command)
    if market.status.is_final:
        raise _wrong_status(command, market)
    _require_next(command, market, MarketStatus.SETTLED)
    _require_outcome(command, market, command.value)
    event = MarketSettled(value=command.value, fee=command.fee, revision=market.revision + 1)
    return _decided(command, market, event, now)


def void(command: VoidMarket, streams: Streams, now: datetime) -> Decision:
    """Have the cost of what is open given back, also after a settlement."""
    market = _market(command, streams)
    asked = (command.refund_fees, command.unwind)
    if market.status is MarketStatus.VOIDED and (market.refund_fees, market.unwind) == asked:
        return _nothing(command)
    _require_next(command, market, MarketStatus.VOIDED)
    event = MarketVoided(refund_fees=command.refund_fees, unwind=command.unwind, revision=market.revision + 1)
    return _decided(command, market, event, now)


MARKET_DECIDERS: Final[dict[type[Command], Any]] = {
    RegisterMarket: register,
    ChangeMarket: change,
    QuoteMarket: quote,
    SetMarketStatus: set_status,
    DetermineMarket: determine,
    DisputeMarket: dispute,
    AmendMarket: amend,
    SettleMarket: settle,
    VoidMarket: void,
}


def _market(command: MarketCommand, streams: Streams) -> Market:
    market = streams.state(market_stream(MarketKey(command.environment, command.market)))
    if market is None:
        where = command.environment.value
        raise CommandRejected(Reason.MARKET_UNKNOWN, command, value=command.market, environment=where)
    return market  # type: ignore[no-any-return]  # the state of a market stream


def _decided(command: MarketCommand, market: Market | None, event: Event, now: datetime) -> Decision:
    stream = market_stream(MarketKey(command.environment, command.market))
    at = effective_time(command, now, (market.last_effective_at,) if market else ())
    version = market.version + 1 if market else 1
    return Decision((Append(stream, version, event, at),), subject=Subject(MARKET, stream))


def _nothing(command: MarketCommand) -> Decision:
    return Decision(subject=Subject(MARKET, market_stream(MarketKey(command.environment, command.market))))


def _new(market: Market, given: dict[str, Any]) -> dict[str, Any]:
    """What is given and not so already."""
    return {name: value for name, value in given.items() if value is not None and value != getattr(market, name)}


def _wrong_status(command: Command, market: Market) -> CommandRejected:
    return CommandRejected(Reason.MARKET_STATUS_WRONG, command, value=market.market, status=market.status.value)


def _require_next(command: Command, market: Market, after: MarketStatus) -> None:
    if not market.status.may_become(after):
        raise _wrong_status(command, market)


def _require_outcome(command: Command, market: Market, value: Decimal) -> None:
    """Refuse another outcome than the one that was determined: a typing error must not pay 10,000 positions."""
    if market.status in _OUTCOME_KNOWN and market.value != value:
        raise CommandRejected(Reason.OUTCOME_DIFFERS, command, value=value, held=market.value)


def _require_outcomes(command: Command, kind: MarketKind, **prices: Decimal | None) -> None:
    """Refuse what no YES can be worth."""
    for field, price in prices.items():
        if kind.is_binary and price is not None and price > ONE:
            raise CommandRejected(Reason.PRICE_OUT_OF_RANGE, command, field=field, value=price, side=Side.YES.value)


def _require_quotes(command: QuoteMarket, market: Market, quoted: dict[str, Any]) -> None:
    for name in QUOTES:
        of_no = name.startswith("no_")
        if quoted[name] is not None and of_no and not market.kind.is_binary:
            raise CommandRejected(
                Reason.SIDE_NOT_IN_MARKET, command, field=name, value=Side.NO.value, market=market.market,
                kind=market.kind.value,
            )  # fmt: skip
    _require_outcomes(command, market.kind, **quoted)
