"""Deciding transfers, share splits, opening positions, and pairs of YES and NO that are made or handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.book import BookKey
from position_ledger.domain.draft import Decision, Draft, Located, effective_time, open_position
from position_ledger.domain.events import StreamRef
from position_ledger.domain.figures import Booking
from position_ledger.domain.legs import Leg, Opening, book_legs, require_in_order, require_prices
from position_ledger.domain.markets.terms import (
    currency_in,
    market_of,
    multiplier_of,
    require_terms,
    terms_copied,
)
from position_ledger.domain.numbers import ONE, ZERO, allocate, amount_of, minus
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.transfers import arithmetic
from position_ledger.domain.transfers.commands import (
    MergePair,
    RecordOpeningPosition,
    SplitPair,
    SplitShares,
    TransferPosition,
)
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit, identity_of
from position_ledger.domain.vocabulary import Origin, Side

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.command import Command
    from position_ledger.domain.draft import Streams
    from position_ledger.domain.markets.market import Market
    from position_ledger.domain.position import Position

__all__ = ["TRANSFER_DECIDERS"]


def transfer(command: TransferPosition, streams: Streams, now: datetime) -> Decision:
    """Move a position or a part of it to another account, or to another strategy of its own."""
    located = open_position(command, command.position_id, streams)
    position, stream = located.position, located.stream
    strategy = position.strategy if command.to_strategy is None else command.to_strategy
    if (command.to_account, strategy) == (position.account, position.strategy):
        raise CommandRejected(Reason.TRANSFER_TO_ITSELF, command, field="to_account", value=command.to_account)
    draft = _draft_in_order(command, position, streams, now)
    quantity = command.quantity or position.quantity
    if quantity > position.quantity:
        raise CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, command, value=quantity, held=position.quantity)
    figures, cost, fees = arithmetic.given(position, quantity)
    brought = arithmetic.brought_with(position.side, cost, fees)
    receiver = streams.new_stream()
    draft.append(
        stream,
        position.version,
        PositionTransferred(
            quantity=quantity,
            cost=cost,
            fees=fees,
            brought=minus(ZERO, brought),
            receiver=StreamRef(stream=receiver, version=1),
            figures=figures,
        ),
    )
    if not figures.quantity:
        draft.note_ended(stream, position)
    identity = identity_of(position) | {"account": command.to_account, "strategy": strategy}
    received = PositionReceived(
        **identity | {"previous": StreamRef(stream=stream, version=1)},
        origin=Origin.TRANSFER,
        brought=brought,
        figures=arithmetic.taken(position.side, quantity, cost, fees, position.current_price, position.multiplier),
    )
    draft.append(receiver, 0, received)
    draft.note_opened(receiver, received)
    return Decision(tuple(draft.appends), (receiver, stream), opened=receiver)


def split_shares(command: SplitShares, streams: Streams, now: datetime) -> Decision:
    """Count a position in other contracts. Only where a contract is no claim on exactly 1."""
    located = open_position(command, command.position_id, streams)
    position, ratio = located.position, command.ratio
    if position.side.is_binary:
        raise CommandRejected(Reason.SIDE_CANNOT_SPLIT, command, field="side", value=position.side.value)
    draft = _draft_in_order(command, position, streams, now)
    trailing = position.trailing_stop
    event = SharesSplit(
        ratio=ratio,
        target_price=None if position.target_price is None else arithmetic.divided(position.target_price, ratio),
        stop_loss_price=(
            None if position.stop_loss_price is None else arithmetic.divided(position.stop_loss_price, ratio)
        ),
        trailing_stop=arithmetic.split_trailing(trailing, ratio) if trailing else None,
        figures=arithmetic.split(position, ratio),
    )
    draft.append(located.stream, position.version, event)
    return Decision(tuple(draft.appends), (located.stream,))


def record_opening(command: RecordOpeningPosition, streams: Streams, now: datetime) -> Decision:
    """State what was held before the ledger."""
    market = market_of(command.environment, command.market, streams)
    currency = currency_in(market, command.currency if "currency" in command.model_fields_set else None)
    require_terms(command, market, command.side, currency)
    require_prices(command, command.side, entry_price=command.entry_price)
    draft = Draft(streams, effective_time(command, now, ()))
    multiplier = multiplier_of(market)
    cost = amount_of(command.quantity, command.entry_price, multiplier)
    stream = streams.new_stream()
    names = (
        "environment",
        "account",
        "market",
        "platform",
        "strategy",
        "model",
        "edge",
        "side",
        "metadata",
    )
    received = PositionReceived(
        **{name: getattr(command, name) for name in names}
        | {"currency": currency, "platform": command.platform or (market.platform if market else None)}
        | terms_copied(market),
        origin=Origin.OPENING,
        entry_time=command.entry_time or draft.effective_at,
        brought=arithmetic.brought_with(command.side, cost, command.open_fees),
        figures=arithmetic.taken(
            command.side, command.quantity, cost, command.open_fees, command.entry_price, multiplier
        ),
    )
    draft.append(stream, 0, received)
    draft.note_opened(stream, received)
    return Decision(tuple(draft.appends), (stream,), opened=stream)


# Pairs: YES and NO of one market


def merge_pair(command: MergePair, streams: Streams, now: datetime) -> Decision:
    """Hand in pairs: both halves are sold, and receive exactly the quantity together."""
    yes = open_position(command, command.yes_position_id, streams)
    no = open_position(command, command.no_position_id, streams)
    _require_pair(command, yes.position, no.position)
    require_prices(command, Side.YES, yes_price=command.yes_price)
    for located in (yes, no):
        if command.quantity > located.position.quantity:
            held = located.position.quantity
            raise CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, command, value=command.quantity, held=held)
    both = (yes.position, no.position)
    at = effective_time(command, now, [position.last_effective_at for position in both])
    require_in_order(command, at, max(position.last_fill_at for position in both))
    draft = Draft(streams, at)
    legs = [
        Leg(located.stream, located.position.side, False, booking, located.position, exit_reason="merge")  # noqa: FBT003
        for located, booking in zip((yes, no), _pair_bookings(command, yes.position.multiplier), strict=True)
    ]
    book_legs(draft, legs, {"source": command.source})
    return Decision(tuple(draft.appends), (yes.stream, no.stream))


def split_pair(command: SplitPair, streams: Streams, now: datetime) -> Decision:
    """Make pairs: both halves are bought, into what is open in the key or into new positions."""
    market = market_of(command.environment, command.market, streams)
    require_prices(command, Side.YES, yes_price=command.yes_price)
    key = BookKey(command.environment, command.account, command.market, command.strategy)
    held = {side: _oldest(key, side, streams) for side in (Side.YES, Side.NO)}
    known = [located.position for located in held.values() if located]
    at = effective_time(command, now, [position.last_effective_at for position in known])
    require_in_order(command, at, max((position.last_fill_at for position in known), default=None))
    currency = currency_in(market, command.currency or next((position.currency for position in known), None))
    require_terms(command, market, Side.YES, currency)
    terms = {"currency": currency, "multiplier": multiplier_of(market)}
    for position in known:
        for name, value in terms.items():
            if getattr(position, name) != value:
                held_ = getattr(position, name)
                raise CommandRejected(Reason.KEY_MISMATCH, command, field=name, value=value, held=held_)
    draft = Draft(streams, at)
    legs = []
    for (side, located), booking in zip(held.items(), _pair_bookings(command, multiplier_of(market)), strict=True):
        opening = None if located else _opening(command, key, side, market, currency, streams)
        stream = located.stream if located else streams.new_stream()
        legs.append(Leg(stream, side, True, booking, located.position if located else None, opening))  # noqa: FBT003
    book_legs(draft, legs, {"source": command.source})
    opened = next((leg.stream for leg in legs if leg.position is None), None)
    return Decision(tuple(draft.appends), tuple(leg.stream for leg in legs), opened=opened)


def _opening(
    command: SplitPair, key: BookKey, side: Side, market: Market | None, currency: str, streams: Streams
) -> Opening:
    platform = command.platform or (market.platform if market else None)
    attributes = {"platform": platform, "model": command.model, "currency": currency} | terms_copied(market)
    last = streams.book(key).last_exit(side)
    return Opening(key, attributes, None, last.stream if last else None)


def _pair_bookings(command: MergePair | SplitPair, multiplier: Decimal) -> tuple[Booking, Booking]:
    """Both halves of a pair: their amounts sum to exactly what the pairs are worth."""
    quantity, price = command.quantity, command.yes_price
    fees = allocate(command.fee, [quantity, quantity])
    amount = amount_of(quantity, price, multiplier)
    rest = minus(amount_of(quantity, ONE, multiplier), amount)
    return Booking(quantity, price, amount, fees[0]), Booking(quantity, minus(ONE, price), rest, fees[1])


def _require_pair(command: MergePair, yes: Position, no: Position) -> None:
    for position, side, field in ((yes, Side.YES, "yes_position_id"), (no, Side.NO, "no_position_id")):
        if position.side is not side:
            raise CommandRejected(Reason.NOT_A_PAIR, command, field=field, value=position.side.value, held=side.value)
    for name in ("environment", "account", "market", "currency", "multiplier"):
        left, right = getattr(yes, name), getattr(no, name)
        if left != right:
            raise CommandRejected(Reason.NOT_A_PAIR, command, field=name, value=right, held=left)


def _oldest(key: BookKey, side: Side, streams: Streams) -> Located | None:
    stream = next(iter(streams.book(key).open_on(side)), None)
    return Located(stream, streams.position_stream(stream)) if stream else None


def _draft_in_order(command: Command, position: Position, streams: Streams, now: datetime) -> Draft:
    at = effective_time(command, now, (position.last_effective_at,))
    require_in_order(command, at, position.last_fill_at)
    return Draft(streams, at)


TRANSFER_DECIDERS: Final[dict[type[Command], Any]] = {
    TransferPosition: transfer,
    SplitShares: split_shares,
    RecordOpeningPosition: record_opening,
    MergePair: merge_pair,
    SplitPair: split_pair,
}
