"""How a recorded fill finds its positions: one by id, or those of its key, netted, split and flipped.

A fill is planned into legs first (which positions, how much of each), then priced (amounts and fee split so that the
parts sum exactly), then booked like any other execution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from position_ledger.domain.book import BookKey
from position_ledger.domain.draft import Decision, Draft, Located, effective_time
from position_ledger.domain.fees import Charge, charge_of
from position_ledger.domain.figures import Booking
from position_ledger.domain.identity import fill_key_of
from position_ledger.domain.legs import (
    Leg,
    Opening,
    book_legs,
    changing_position,
    described,
    held_then,
    may_still_change,
    require_prices,
)
from position_ledger.domain.markets.terms import currency_in, market_of, multiplier_of, require_terms
from position_ledger.domain.markets.vocabulary import Netting
from position_ledger.domain.numbers import ZERO, allocate, amount_of, minus, plus
from position_ledger.domain.orders import opening_attributes, require_exit_prices
from position_ledger.domain.payouts import pay_at_once
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import OnExcess, Side

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.commands import RecordFill
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.markets.market import Market

__all__ = ["positions_then", "record_fill"]


@dataclass(frozen=True, slots=True)
class _Target:
    """What the fill is for: a key and side, and the positions it may touch at its time, the oldest entry first."""

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
    held: Decimal = ZERO
    """What the position held at the time of the fill, for an exit."""
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
    at = _time(command, target, streams, now)
    charge = _charge(command, target)
    shares = _shares(command, target, charge.quantity, streams, at)
    legs = _legs(command, target, charge, shares, streams, at)
    draft = Draft(streams, at)
    book_legs(draft, legs, described(command))
    pay_at_once(draft, target.market, (leg.stream for leg in legs))
    return Decision(
        appends=tuple(draft.appends),
        positions=tuple(dict.fromkeys([*(leg.stream for leg in legs), *draft.receivers])),
        opened=next((leg.stream for leg in legs if leg.position is None), None),
        fill_key=fill_key_of(target.key.environment, target.key.account, command.venue, command.venue_fill_id),
    )


def _target(command: RecordFill, streams: Streams) -> _Target:
    if command.position_id is not None:
        located = changing_position(command, command.position_id, streams)
        key, held_side = BookKey.of(located.position), located.position.side
        flips = command.on_excess is OnExcess.FLIP
        others = _others(command, key, held_side, streams, is_entry=True) if flips else ()
        return _Target(key, held_side, (located,), others, market_of(key.environment, key.market, streams))
    # A command without a position id that lacks one of these cannot be constructed.
    environment, account, market, side = command.environment, command.account, command.market, command.side
    if environment is None or account is None or market is None or side is None:
        raise CommandRejected(Reason.FIELD_MISSING, command, field="position_id")
    key = BookKey(environment, account, market, command.strategy)
    terms = market_of(environment, market, streams)
    nets = terms is not None and terms.netting is Netting.MARKET
    _require_after_statement(command, key, side, streams)
    is_entry = command.action is side.entry_action
    held = positions_then(key, side, streams, command.effective_at, is_entry=is_entry)
    touches_others = nets if is_entry else command.on_excess is OnExcess.FLIP
    others = _others(command, key, side, streams, is_entry=not is_entry) if touches_others else ()
    return _Target(key, side, held, others, terms, nets)


def _others(command: RecordFill, key: BookKey, side: Side, streams: Streams, *, is_entry: bool) -> tuple[Located, ...]:
    return positions_then(key, side.other, streams, command.effective_at, is_entry=is_entry)


def positions_then(
    key: BookKey, side: Side, streams: Streams, at: datetime | None, *, is_entry: bool
) -> tuple[Located, ...]:
    """Positions of a side that a fill at a time touches, the oldest entry first; None: now.

    Those that are open and had begun, and the last one that has ended, if that was later. An entry before all of them
    joins the oldest that is open, unless another cycle has ended in between: then it opens one of its own. What came
    from another account was not here before it came, and is joined by nothing from before.
    """
    now_open = tuple(Located(stream, streams.position_stream(stream)) for stream in streams.book(key).open_on(side))
    if at is None:
        return now_open
    then = [located for located in now_open if _was_here(located.position, at)]
    last = streams.book(key).last_exit(side)
    if last is None or at >= last.effective_at:
        joined = tuple(located for located in now_open if located.position.received_at is None)
        return tuple(then) or (joined if is_entry else ())
    ended = streams.state(last.stream)
    if isinstance(ended, Position) and _was_here(ended, at) and may_still_change(ended, at):
        then.append(Located(last.stream, ended))
    return tuple(sorted(then, key=lambda located: located.position.entry_time))


def _require_after_statement(command: RecordFill, key: BookKey, side: Side, streams: Streams) -> None:
    """What was stated as held contains what was traded before: it would count twice. Naming the position says it does not."""
    at, book = command.effective_at, streams.book(key)
    if at is None:
        return
    last = book.last_exit(side)
    ended = streams.state(last.stream) if last is not None and at < last.effective_at else None
    for position in (*map(streams.position_stream, book.open_on(side)), ended):
        if isinstance(position, Position) and position.stated_at is not None and at < position.stated_at:
            raise CommandRejected(
                Reason.BEFORE_STATEMENT, command, value=at.isoformat(), held=position.stated_at.isoformat()
            )


def _was_here(position: Position, at: datetime) -> bool:
    return max(position.entry_time, position.received_at or position.entry_time) <= at


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


def _currency(command: RecordFill, target: _Target) -> str:
    known = next(iter((*target.held, *target.others)), None)
    return currency_in(target.market, command.currency or (known.position.currency if known else None))


def _charge(command: RecordFill, target: _Target) -> Charge:
    held = next(iter(target.held), None)
    return charge_of(
        command,
        target.market,
        _currency(command, target),
        price=command.price,
        multiplier=held.position.multiplier if held else multiplier_of(target.market),
        is_entry=command.action is target.side.entry_action,
    )


def _shares(command: RecordFill, target: _Target, quantity: Decimal, streams: Streams, at: datetime) -> list[_Share]:
    """Decide which positions the fill touches and how much of it each one takes."""
    side = target.side
    if command.action is side.entry_action:
        return _entries(command, target, quantity, streams, at)
    shares, rest = _exits(target.held, quantity, streams, at)
    if rest and shares and rest <= command.dust:
        shares[-1] = replace(shares[-1], dust_excess=rest)
    elif rest and command.on_excess is OnExcess.FLIP:
        shares.append(_Share(side.other, next(iter(target.others), None), rest, is_entry=True))
    elif rest:
        held = minus(quantity, rest)
        raise CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, command, value=quantity, held=held)
    return shares


def _entries(command: RecordFill, target: _Target, quantity: Decimal, streams: Streams, at: datetime) -> list[_Share]:
    """What an entry enters; where the market nets, what is open on the other side is closed first."""
    shares, rest = _exits(target.others, quantity, streams, at) if target.nets else ([], quantity)
    if shares and rest and rest <= command.dust:
        return [*shares[:-1], replace(shares[-1], dust_excess=rest)]
    if rest:
        shares.append(_Share(target.side, next(iter(target.held), None), rest, is_entry=True))
    return shares


def _exits(
    positions: Sequence[Located], quantity: Decimal, streams: Streams, at: datetime
) -> tuple[list[_Share], Decimal]:
    """Take from the oldest entry first what each held at the time; the rest is what was not held."""
    shares = []
    for located in positions:
        if not quantity:
            break
        held = held_then(located, streams, at)
        taken = min(quantity, held)
        if taken:
            shares.append(_Share(located.position.side, located, taken, held=held))
            quantity = minus(quantity, taken)
    return shares, quantity


def _time(command: RecordFill, target: _Target, streams: Streams, now: datetime) -> datetime:
    """Effective time of the fill: as stated, else now and never before what its positions and sides have seen."""
    if command.effective_at is not None:
        return command.effective_at
    exits = [streams.book(target.key).last_exit(side) for side in (target.side, target.side.other)]
    seen = [located.position.last_effective_at for located in (*target.held, *target.others)]
    return effective_time(command, now, [*seen, *(last.effective_at for last in exits if last)])


def _legs(
    command: RecordFill,
    target: _Target,
    charge: Charge,
    shares: Sequence[_Share],
    streams: Streams,
    at: datetime,
) -> list[Leg]:
    quantities = [share.quantity for share in shares]
    fees = allocate(charge.fee, quantities)
    charged = [None] * len(shares) if charge.charged is None else allocate(charge.charged, quantities)
    prices = [_price(command, target, share) for share in shares]
    amounts = _amounts(shares, prices, multiplier_of(target.market))
    flips = len({share.side for share in shares}) > 1
    nets = command.action is target.side.entry_action
    reason = "netting" if nets else "flip" if flips else command.reason
    legs = []
    for share, price, amount, fee, of_it in zip(shares, prices, amounts, fees, charged, strict=True):
        position = share.located.position if share.located else None
        leg = Leg(
            stream=share.located.stream if share.located else streams.new_stream(),
            side=share.side,
            is_entry=share.is_entry,
            booking=Booking(share.quantity, price, amount, fee),
            position=position,
            opening=None if position else _opening(command, target, share.side, streams, at),
            fee_charged=of_it,
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
    return ZERO < minus(share.held, share.quantity) <= dust


def _opening(command: RecordFill, target: _Target, side: Side, streams: Streams, at: datetime) -> Opening:
    """Describe the position that the fill opens; a flip hands on what the market and the model are."""
    attributes: dict[str, Any] = opening_attributes(command, target.market)
    attributes["currency"] = _currency(command, target)
    flipped = _flipped(target, side)
    if flipped:
        for name in ("platform", "model"):
            attributes[name] = attributes[name] or getattr(flipped.position, name)
    last = streams.book(target.key).last_exit(side)
    previous = flipped or (last if last and last.effective_at <= at else None)
    return Opening(target.key, attributes, command.trailing_stop, previous.stream if previous else None)


def _flipped(target: _Target, side: Side) -> Located | None:
    """The position whose closing opens one on ``side``: the last that a flip closes, or that netting closes."""
    closed = target.held if side is not target.side else target.others if target.nets else ()
    return closed[-1] if closed else None
