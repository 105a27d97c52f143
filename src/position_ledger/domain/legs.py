"""Legs: the parts of one execution, each on one position. Booking them is the same for every command that trades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from position_ledger.domain.draft import Located, open_position
from position_ledger.domain.events import (
    Fill,
    Holder,
    PositionClosed,
    PositionIncreased,
    PositionOpened,
    PositionReduced,
    StreamRef,
)
from position_ledger.domain.exits import TrailingTerms, arm
from position_ledger.domain.figures import Booking, entered, exited, opened
from position_ledger.domain.journal import FillFact, read_journal
from position_ledger.domain.numbers import ONE, ZERO
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import LateFillRecorded
from position_ledger.domain.restating import BUSTED, held_at
from position_ledger.domain.transfers.handing_on import restating
from position_ledger.domain.vocabulary import PositionEffect, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from position_ledger.domain.book import BookKey
    from position_ledger.domain.commands import Command
    from position_ledger.domain.draft import Draft, Streams
    from position_ledger.domain.position import Position
    from position_ledger.domain.vocabulary import Side

__all__ = [
    "Leg",
    "Opening",
    "book_legs",
    "changing_position",
    "described",
    "held_then",
    "holder_of",
    "is_late",
    "may_still_change",
    "require_in_order",
    "require_prices",
    "require_same_currency",
]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a new position is, beside its figures."""

    key: BookKey
    attributes: dict[str, Any]
    """platform, model, edge, currency, multiplier, margin_rate, target_price, stop_loss_price, metadata: as in
    `PositionOpened`."""
    trailing_stop: TrailingTerms | None
    previous: UUID | None


@dataclass(frozen=True, slots=True)
class Leg:
    """One part of an execution: an entry or an exit of ``position``, or the entry that opens a new one."""

    stream: UUID
    side: Side
    is_entry: bool
    booking: Booking
    position: Position | None = None
    opening: Opening | None = None
    """Given exactly when there is no position yet."""
    fee_charged: Decimal | None = None
    """What the venue charged in another currency than the position's."""
    dust_excess: Decimal = ZERO
    is_dust_left: bool = False
    exit_reason: str = "fill"
    """Why, if this leg closes its position."""

    @property
    def ref(self) -> StreamRef:
        """Where this leg's event will be."""
        return StreamRef(stream=self.stream, version=self.position.version + 1 if self.position else 1)


def holder_of(position: Position) -> Holder:
    """Say whose executions those of a position are."""
    return Holder(
        environment=position.environment,
        account=position.account,
        market=position.market,
        platform=position.platform,
        strategy=position.strategy,
        currency=position.currency,
        side=position.side,
    )


def described(command: Command) -> dict[str, Any]:
    """Take what a command says about its execution beside the numbers, as fields of a `Fill`."""
    return {name: value for name in _DESCRIPTION if (value := getattr(command, name, None)) is not None}


_DESCRIPTION = ("fee_currency", "venue", "venue_fill_id", "order_id", "liquidity", "source", "metadata")


def book_legs(draft: Draft, legs: Sequence[Leg], description: dict[str, Any]) -> None:
    """Append the events of all legs, linked in a ring, and what they mean for their books."""
    refs = [leg.ref for leg in legs] if len(legs) > 1 else []
    for index, leg in enumerate(legs):
        linked = {"leg": index + 1, "linked": refs[(index + 1) % len(refs)]} if refs else {}
        shared = description | linked
        if leg.position is None:
            _book_opening(draft, leg, shared)
        elif is_late(leg.position, draft.effective_at):
            _book_late(draft, leg, shared)
        elif leg.is_entry:
            figures = entered(leg.position, leg.booking)
            holder = holder_of(leg.position)
            event = PositionIncreased(holder=holder, fill=_fill(leg, shared), figures=figures)
            draft.append(leg.stream, leg.position.version, event)
        else:
            _book_exit(draft, leg, leg.position, shared)


def _fill(leg: Leg, shared: dict[str, Any], realized_gross: Decimal = ZERO) -> Fill:
    quantity, price, amount, fee = leg.booking
    return Fill(
        action=leg.side.entry_action if leg.is_entry else leg.side.exit_action,
        quantity=quantity,
        price=price,
        amount=amount,
        fee=fee,
        fee_charged=leg.fee_charged,
        realized_gross=realized_gross,
        dust_excess=leg.dust_excess,
        is_dust_left=leg.is_dust_left,
        **shared,
    )


def _book_opening(draft: Draft, leg: Leg, shared: dict[str, Any]) -> None:
    opening = leg.opening
    if opening is None:
        raise TypeError("a leg without a position must say what it opens")
    terms = opening.trailing_stop
    event = PositionOpened(
        environment=opening.key.environment,
        account=opening.key.account,
        market=opening.key.market,
        strategy=opening.key.strategy,
        side=leg.side,
        entry_time=draft.effective_at,
        trailing_stop=arm(terms, leg.side, leg.booking.price) if terms else None,
        previous=StreamRef(stream=opening.previous, version=1) if opening.previous else None,
        fill=_fill(leg, shared),
        figures=opened(leg.side, leg.booking, opening.attributes.get("multiplier", ONE)),
        **opening.attributes,
    )
    draft.append(leg.stream, 0, event)
    draft.note_opened(leg.stream, event)


def _book_exit(draft: Draft, leg: Leg, position: Position, shared: dict[str, Any]) -> None:
    figures, gain = exited(position, leg.booking)
    fill = _fill(leg, shared, gain)
    holder = holder_of(position)
    if figures.quantity:
        reduced = PositionReduced(exit_reason=leg.exit_reason, holder=holder, fill=fill, figures=figures)
        draft.append(leg.stream, position.version, reduced)
        return
    event = PositionClosed(exit_reason=leg.exit_reason, holder=holder, fill=fill, figures=figures)
    draft.append(leg.stream, position.version, event)
    draft.note_ended(leg.stream, position)


def _book_late(draft: Draft, leg: Leg, shared: dict[str, Any]) -> None:
    """Put an execution in its place among those that are known already, and fold all of them again."""
    fill, position = _fill(leg, shared), draft.position(leg.stream)
    fact = FillFact(position.version + 1, draft.effective_at, leg.is_entry, fill, leg.exit_reason)
    journal = read_journal(draft.journal(leg.stream))
    again = restating(position, journal, journal.with_fact(fact))
    event = LateFillRecorded(
        effect=PositionEffect.INCREASE if leg.is_entry else PositionEffect.REDUCE,
        exit_reason=leg.exit_reason,
        holder=holder_of(position),
        fill=fill.model_copy(update={"realized_gross": again.folding.gains.get(fact.version, ZERO)}),
        restated=again.restated,
    )
    again.book(draft, leg.stream, event)


def is_late(position: Position, at: datetime) -> bool:
    """Whether a fill at this time comes before facts that are known; equal times follow the order of arrival."""
    return not position.is_open or at < position.last_fill_at


def may_still_change(position: Position, at: datetime | None) -> bool:
    """Whether a fill at this time, None for now, can still be one of the position's: it is open, or was then."""
    if position.is_open:
        return True
    was_held = position.status in _CAN_CHANGE and position.exit_reason != BUSTED
    return was_held and at is not None and at < position.last_fill_at


def changing_position(command: Any, ref: Any, streams: Streams) -> Located:
    """Find a position that a fill can still be one of. Raises `CommandRejected` if there is none."""
    located = streams.position(ref)
    if not may_still_change(located.position, command.effective_at):
        return open_position(command, ref, streams)
    return located


def held_then(located: Located, streams: Streams, at: datetime) -> Decimal:
    """Say how much of a position could be sold at a time: what it holds, or held by all that is known now."""
    position = located.position
    if not is_late(position, at):
        return position.quantity
    journal = read_journal(streams.journal(located.stream))
    return held_at(position, journal, at)


_CAN_CHANGE = (Status.CLOSED, Status.SETTLED, Status.VOIDED, Status.TRANSFERRED)


def require_prices(command: object, side: Side, **prices: Decimal | None) -> None:
    """Refuse own-side prices above 1 on a binary side; 0 and 1 are legal."""
    for field, price in prices.items():
        if side.is_binary and price is not None and price > ONE:
            raise CommandRejected(Reason.PRICE_OUT_OF_RANGE, command, field=field, value=price, side=side.value)


def require_same_currency(command: object, fee_currency: str | None, currency: str) -> None:
    """Refuse a fee in another currency than the position's; sums never add currencies."""
    if fee_currency is not None and fee_currency != currency:
        raise CommandRejected(Reason.FEE_CURRENCY_UNSUPPORTED, command, value=fee_currency, held=currency)


def require_in_order(command: Command, effective_at: datetime, last: datetime | None) -> None:
    """Refuse what ends a position before its last fill; equal times follow the order of arrival."""
    if last is not None and effective_at < last:
        raise CommandRejected(Reason.TOO_LATE, command, value=effective_at.isoformat(), held=last.isoformat())
