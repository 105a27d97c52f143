"""How a recorded fill finds its positions: one by id, or those of its key, netted, split and flipped.

A fill is planned into legs first (which positions, how much of each), then priced (amounts and fee split so that the
parts sum exactly), then booked like any other execution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from position_ledger.domain.book import BookKey
from position_ledger.domain.draft import Decision, Draft, Located, effective_time, open_position
from position_ledger.domain.figures import Booking
from position_ledger.domain.identity import fill_key_of
from position_ledger.domain.legs import (
    Leg,
    Opening,
    book_legs,
    described,
    require_in_order,
    require_prices,
    require_same_currency,
)
from position_ledger.domain.markets.terms import currency_in, market_of, multiplier_of, require_terms
from position_ledger.domain.markets.vocabulary import Netting
from position_ledger.domain.numbers import ZERO, allocate, amount_of, minus, plus
from position_ledger.domain.orders import opening_attributes, require_exit_prices
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import OnExcess, Side

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.commands import RecordFill
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.markets.market import Market
    from position_ledger.domain.position import Position

__all__ = ["record_fill"]


@dataclass(frozen=True, slots=True)
class _Target:
    """What the fill is for: a key and side, and the open positions it may touch, the oldest entry first."""

    key: BookKey
    side: Side
    held: tuple[Located, ...]
    others: tuple[Located, ...]
    """Open on the other side: where the rest of a flip goes, or what netting closes first. Empty if neither may be."""
    market: Market | None
    """None: nobody registered it."""
    nets: bool = False
    """Whether an entry closes what is open on the other side first."""


@dataclass(frozen=True, slots=True)
class _Share:
    """How much of the fill goes to one position, or to a new one (None)."""

    side: Side
    located: Located | None
    quantity: Decimal
    is_entry: bool = False
    dust_excess: Decimal = ZERO


def record_fill(command: RecordFill, streams: Streams, now: datetime) -> Decision:
    """Book an execution that has happened. Raises `CommandRejected` when it cannot have."""
    target = _target(command, streams)
    for located in target.held:
        _require_position_fits(command, located.position)
    require_terms(command, target.market, target.side, _currency(command, target))
    _require_one_currency(command, target)
    require_prices(command, target.side, price=command.price)
    require_exit_prices(command, target.side)
    shares = _shares(command, target)
    at = _time_in_order(command, target.key, shares, streams, now)
    legs = _legs(command, target, shares, streams)
    draft = Draft(streams, at)
    book_legs(draft, legs, described(command))
    return Decision(
        appends=tuple(draft.appends),
        positions=tuple(leg.stream for leg in legs),
        opened=next((leg.stream for leg in legs if leg.position is None), None),
        fill_key=fill_key_of(target.key.environment, target.key.account, command.venue, command.venue_fill_id),
    )


def _target(command: RecordFill, streams: Streams) -> _Target:
    if command.position_id is not None:
        located = open_position(command, command.position_id, streams)
        key, held_side = BookKey.of(located.position), located.position.side
        others = _open_on(key, held_side.other, streams) if command.on_excess is OnExcess.FLIP else ()
        return _Target(key, held_side, (located,), others, market_of(key.environment, key.market, streams))
    # A command without a position id that lacks one of these cannot be constructed.
    environment, account, market, side = command.environment, command.account, command.market, command.side
    if environment is None or account is None or market is None or side is None:
        raise CommandRejected(Reason.FIELD_MISSING, command, field="position_id")
    key = BookKey(environment, account, market, command.strategy)
    terms = market_of(environment, market, streams)
    nets = terms is not None and terms.netting is Netting.MARKET
    others = _open_on(key, side.other, streams) if nets or command.on_excess is OnExcess.FLIP else ()
    return _Target(key, side, _open_on(key, side, streams), others, terms, nets)


def _open_on(key: BookKey, side: Side, streams: Streams) -> tuple[Located, ...]:
    return tuple(Located(stream, streams.position_stream(stream)) for stream in streams.book(key).open_on(side))


def _require_position_fits(command: RecordFill, position: Position) -> None:
    for field in ("environment", "account", "market", "side", "strategy"):
        stated, held = getattr(command, field), getattr(position, field)
        if stated is not None and stated != held:
            raise CommandRejected(Reason.KEY_MISMATCH, command, field=field, value=stated, held=held)


def _require_one_currency(command: RecordFill, target: _Target) -> None:
    currency = _currency(command, target)
    for located in (*target.held, *target.others):
        if located.position.currency != currency:
            held = located.position.currency
            raise CommandRejected(Reason.KEY_MISMATCH, command, field="currency", value=currency, held=held)
    require_same_currency(command, command.fee_currency, currency)


def _currency(command: RecordFill, target: _Target) -> str:
    known = next(iter((*target.held, *target.others)), None)
    return currency_in(target.market, command.currency or (known.position.currency if known else None))


def _shares(command: RecordFill, target: _Target) -> list[_Share]:
    """Decide which positions the fill touches and how much of it each one takes."""
    side, quantity = target.side, command.quantity
    if command.action is side.entry_action:
        return _entries(command, target)
    shares, rest = _exits(target.held, quantity)
    if rest and shares and rest <= command.dust:
        shares[-1] = replace(shares[-1], dust_excess=rest)
    elif rest and command.on_excess is OnExcess.FLIP:
        shares.append(_Share(side.other, next(iter(target.others), None), rest, is_entry=True))
    elif rest:
        held = minus(quantity, rest)
        raise CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, command, value=quantity, held=held)
    return shares


def _entries(command: RecordFill, target: _Target) -> list[_Share]:
    """What an entry enters; where the market nets, what is open on the other side is closed first."""
    shares, rest = _exits(target.others, command.quantity) if target.nets else ([], command.quantity)
    if shares and rest and rest <= command.dust:
        return [*shares[:-1], replace(shares[-1], dust_excess=rest)]
    if rest:
        shares.append(_Share(target.side, next(iter(target.held), None), rest, is_entry=True))
    return shares


def _exits(held: Sequence[Located], quantity: Decimal) -> tuple[list[_Share], Decimal]:
    """Take from the oldest entry first; the rest is what is not held."""
    shares = []
    for located in held:
        if not quantity:
            break
        taken = min(quantity, located.position.quantity)
        shares.append(_Share(located.position.side, located, taken))
        quantity = minus(quantity, taken)
    return shares, quantity


def _time_in_order(
    command: RecordFill, key: BookKey, shares: Sequence[_Share], streams: Streams, now: datetime
) -> datetime:
    """Effective time of the fill; refused when it is before the last fill of a position or side it touches."""
    touched = [share.located.position for share in shares if share.located]
    exits = [streams.book(key).last_exit(share.side) for share in shares if not share.located]
    ended = [last.effective_at for last in exits if last]
    at = effective_time(command, now, [*(position.last_effective_at for position in touched), *ended])
    lasts = [*(position.last_fill_at for position in touched), *ended]
    require_in_order(command, at, max(lasts, default=None))
    return at


def _legs(command: RecordFill, target: _Target, shares: Sequence[_Share], streams: Streams) -> list[Leg]:
    fees = allocate(command.fee, [share.quantity for share in shares])
    prices = [_price(command, target, share) for share in shares]
    amounts = _amounts(shares, prices, multiplier_of(target.market))
    flips = len({share.side for share in shares}) > 1
    nets = command.action is target.side.entry_action
    reason = "netting" if nets else "flip" if flips else command.reason
    legs = []
    for share, price, amount, fee in zip(shares, prices, amounts, fees, strict=True):
        position = share.located.position if share.located else None
        leg = Leg(
            stream=share.located.stream if share.located else streams.new_stream(),
            side=share.side,
            is_entry=share.is_entry,
            booking=Booking(share.quantity, price, amount, fee),
            position=position,
            opening=None if position else _opening(command, target, share.side, streams),
            dust_excess=share.dust_excess,
            is_dust_left=not share.is_entry and _is_dust_left(share, command.dust),
            exit_reason=reason,
        )
        legs.append(leg)
    return legs


def _price(command: RecordFill, target: _Target, share: _Share) -> Decimal:
    return command.price if share.side is target.side else share.side.price_on_other(command.price)


def _amounts(shares: Sequence[_Share], prices: Sequence[Decimal], of_new: Decimal) -> list[Decimal]:
    """Amount of each leg: legs at one price are parts of one amount and sum to it exactly."""
    multipliers = [share.located.position.multiplier if share.located else of_new for share in shares]
    rates = list(zip(prices, multipliers, strict=True))
    amounts: list[Decimal] = []
    for price, multiplier in dict.fromkeys(rates):
        quantities = [share.quantity for share, rate in zip(shares, rates, strict=True) if rate == (price, multiplier)]
        amounts += allocate(amount_of(reduce(plus, quantities), price, multiplier), quantities)
    return amounts


def _is_dust_left(share: _Share, dust: Decimal) -> bool:
    left = minus(share.located.position.quantity, share.quantity) if share.located else ZERO
    return ZERO < left <= dust


def _opening(command: RecordFill, target: _Target, side: Side, streams: Streams) -> Opening:
    """Describe the position that the fill opens; a flip hands on what the market and the model are."""
    attributes: dict[str, Any] = opening_attributes(command, target.market)
    attributes["currency"] = _currency(command, target)
    flipped = _flipped(target, side)
    if flipped:
        for name in ("platform", "model"):
            attributes[name] = attributes[name] or getattr(flipped.position, name)
    last = streams.book(target.key).last_exit(side)
    previous = flipped or last
    return Opening(target.key, attributes, command.trailing_stop, previous.stream if previous else None)


def _flipped(target: _Target, side: Side) -> Located | None:
    """The position whose closing opens one on ``side``: the last that a flip closes, or that netting closes."""
    closed = target.held if side is not target.side else target.others if target.nets else ()
    return closed[-1] if closed else None
