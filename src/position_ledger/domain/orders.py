"""How the commands that address one position are decided: open, increase, reduce, close, settle, mark, set exits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from position_ledger.domain.book import BookKey
from position_ledger.domain.commands import ClosePosition
from position_ledger.domain.draft import Decision, Draft, effective_time, open_position
from position_ledger.domain.events import ExitsSet, ExitTriggered, PositionMarked
from position_ledger.domain.exits import arm, touched, trail
from position_ledger.domain.fees import charge_of
from position_ledger.domain.figures import unrealized
from position_ledger.domain.identity import fill_key_of
from position_ledger.domain.legs import (
    Leg,
    Opening,
    book_legs,
    changing_position,
    described,
    held_then,
    require_in_order,
    require_prices,
    require_same_currency,
)
from position_ledger.domain.markets.terms import (
    currency_in,
    market_of,
    multiplier_of,
    require_entry_price,
    require_market_open,
    require_terms,
    terms_copied,
)
from position_ledger.domain.payouts import has_verdict, pay_at_once, payout_time, settled
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import ExitKind, Side

if TYPE_CHECKING:
    from datetime import datetime

    from position_ledger.domain.commands import (
        IncreasePosition,
        MarkPosition,
        OpenPosition,
        ReducePosition,
        SetExits,
        SettlePosition,
    )
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.markets.market import Market
    from position_ledger.domain.position import Position


def open_new(command: OpenPosition, streams: Streams, now: datetime) -> Decision:
    """Open a new position, whatever else is open in its key."""
    side, price = command.side, command.entry_price
    market = market_of(command.environment, command.market, streams)
    currency = currency_in(market, command.currency if "currency" in command.model_fields_set else None)
    require_market_open(command, market)
    require_terms(command, market, side, currency)
    require_entry_price(command, market, side, price)
    require_exit_prices(command, side)
    key = BookKey(command.environment, command.account, command.market, command.strategy)
    last = streams.book(key).last_exit(side)
    opening = Opening(
        key=key,
        attributes=opening_attributes(command, market) | {"currency": currency, "metadata": command.metadata},
        trailing_stop=command.trailing_stop,
        previous=last.stream if last else None,
    )
    multiplier = multiplier_of(market)
    charge = charge_of(command, market, currency, price=price, multiplier=multiplier, is_entry=True)
    draft = Draft(streams, effective_time(command, now, ()))
    leg = Leg(
        streams.new_stream(),
        side,
        is_entry=True,
        booking=charge.booking(price, multiplier),
        opening=opening,
        fee_charged=charge.charged,
    )
    book_legs(draft, [leg], described(command) | {"metadata": None})
    return _decided(draft, leg, fill_key_of(key.environment, key.account, command.venue, command.venue_fill_id))


def increase(command: IncreasePosition, streams: Streams, now: datetime) -> Decision:
    """Enter more of an open position."""
    return _trade(command, streams, now, is_entry=True)


def reduce(command: ReducePosition, streams: Streams, now: datetime) -> Decision:
    """Leave a part of an open position, or all of it, which closes it."""
    return _trade(command, streams, now)


def close(command: ClosePosition, streams: Streams, now: datetime) -> Decision:
    """Leave all of an open position."""
    return _trade(command, streams, now)


def _trade(
    command: IncreasePosition | ReducePosition | ClosePosition,
    streams: Streams,
    now: datetime,
    *,
    is_entry: bool = False,
) -> Decision:
    ends = isinstance(command, ClosePosition)
    find = open_position if ends else changing_position
    located = find(command, command.position_id, streams)
    position = located.position
    require_prices(command, position.side, price=command.price)
    draft = Draft(streams, effective_time(command, now, (position.last_effective_at,)))
    if ends:
        require_in_order(command, draft.effective_at, position.last_fill_at)
    held = held_then(located, streams, draft.effective_at)
    market = market_of(position.environment, position.market, streams)
    charge = charge_of(
        command,
        market,
        position.currency,
        price=command.price,
        multiplier=position.multiplier,
        is_entry=is_entry,
        leaves=held if ends else None,
    )
    if not is_entry and charge.quantity > held:
        raise CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, command, value=charge.quantity, held=held)
    leg = Leg(
        located.stream,
        position.side,
        is_entry,
        charge.booking(command.price, position.multiplier),
        position,
        fee_charged=charge.charged,
        exit_reason=getattr(command, "reason", "manual"),
    )
    book_legs(draft, [leg], described(command))
    pay_at_once(draft, market, [leg.stream])
    key = fill_key_of(position.environment, position.account, command.venue, command.venue_fill_id)
    return _decided(draft, leg, key)


def settle(command: SettlePosition, streams: Streams, now: datetime) -> Decision:
    """Pay out all of an open position; a verdict of its market that it has already changes nothing."""
    located = streams.position(command.position_id)
    if has_verdict(command, located.position):
        return Decision(positions=(located.stream,))
    position, stream = open_position(command, command.position_id, streams).position, located.stream
    require_same_currency(command, command.fee_currency, position.currency)
    require_prices(command, position.side, value=command.value)
    draft = Draft(streams, payout_time(command, position, now))
    draft.append(stream, position.version, settled(position, command.value, command.fee, command.settlement_revision))
    draft.note_ended(stream, position)
    return Decision(tuple(draft.appends), (stream,))


def mark(command: MarkPosition, streams: Streams, now: datetime) -> Decision:
    """Value an open position, move its trailing stop, and tell which armed exits the mark touches."""
    located = open_position(command, command.position_id, streams)
    position, side, price = located.position, located.position.side, command.price
    require_prices(command, side, price=price)
    at = effective_time(command, now, (position.last_effective_at,))
    if at < max(position.mark_time or position.entry_time, position.entry_time):
        return Decision(positions=(located.stream,))
    trailing = trail(position.trailing_stop, side, price) if position.trailing_stop else None
    profit, fraction = unrealized(side, position.quantity, position.cost, price, position.multiplier)
    event = PositionMarked(
        price=price,
        source=command.source,
        unrealized_pnl=profit,
        unrealized_pnl_pct=fraction,
        trailing_stop=None if trailing is position.trailing_stop else trailing,
    )
    draft = Draft(streams, at)
    draft.append(located.stream, position.version, event)
    kinds = _untold(position, touched(side, price, position.stop_loss_price, trailing, position.target_price))
    if kinds:
        draft.append(located.stream, position.version, ExitTriggered(kind=kinds[0], also=kinds[1:], price=price))
    return Decision(tuple(draft.appends), (located.stream,), triggered=kinds)


def _untold(position: Position, kinds: tuple[ExitKind, ...]) -> tuple[ExitKind, ...]:
    return tuple(kind for kind in kinds if kind not in position.triggered)


def set_exits(command: SetExits, streams: Streams, now: datetime) -> Decision:
    """Replace all exits of an open position; a trailing stop starts from the present price."""
    located = open_position(command, command.position_id, streams)
    position, terms = located.position, command.trailing_stop
    require_exit_prices(command, position.side)
    event = ExitsSet(
        target_price=command.target_price,
        stop_loss_price=command.stop_loss_price,
        trailing_stop=arm(terms, position.side, position.current_price) if terms else None,
    )
    draft = Draft(streams, effective_time(command, now, (position.last_effective_at,)))
    draft.append(located.stream, position.version, event)
    return Decision(tuple(draft.appends), (located.stream,))


def require_exit_prices(command: Any, side: Side) -> None:
    """Refuse exits that no mark of a binary side can touch."""
    terms = command.trailing_stop
    require_prices(
        command,
        side,
        target_price=command.target_price,
        stop_loss_price=command.stop_loss_price,
        activation_price=terms.activation_price if terms else None,
    )


def opening_attributes(command: Any, market: Market | None) -> dict[str, Any]:
    """Take what a command and the market say about a position that it opens, as fields of `PositionOpened`."""
    names = ("platform", "model", "edge", "currency", "target_price", "stop_loss_price")
    stated = {name: getattr(command, name) for name in names}
    stated["platform"] = stated["platform"] or (market.platform if market else None)
    return stated | terms_copied(market)


def _decided(draft: Draft, leg: Leg, fill_key: str | None) -> Decision:
    opened = None if leg.position else leg.stream
    return Decision(tuple(draft.appends), (leg.stream, *draft.receivers), opened=opened, fill_key=fill_key)
