"""How busts, corrections, fee adjustments, late fills and the market's second thoughts are decided.

Each is one event on the stream of its position: what was wrong, and the position folded again with what is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.draft import Decision, Draft
from position_ledger.domain.journal import FillFact, Verdict, read_journal
from position_ledger.domain.legs import require_prices, require_same_currency
from position_ledger.domain.numbers import ZERO, amount_of, minus, plus, pro_rata
from position_ledger.domain.parts import StreamRef, TradeNow
from position_ledger.domain.payouts import has_verdict, payout_time, voided
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import (
    FeeAdjusted,
    SettlementAmended,
    TradeBusted,
    TradeCorrected,
)
from position_ledger.domain.restating import restate
from position_ledger.domain.transfers.handing_on import restating

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from position_ledger.domain.command import Command
    from position_ledger.domain.corrections import (
        AdjustFee,
        AmendSettlement,
        BustTrade,
        CorrectTrade,
        VoidPosition,
    )
    from position_ledger.domain.draft import Streams

__all__ = ["adjust_fee", "amend_settlement", "bust_trade", "correct_trade", "correction_key", "void_position"]

_DIGITS_MAX: Final = 18
"""Of a number that surely fits a bigint."""
_NAMES: Final = {"BustTrade": ("bust", "bust_id"), "CorrectTrade": ("correct", "correction_id")}
_NAMES_OF_FEES: Final = ("fee", "adjustment_id")


@dataclass(frozen=True, slots=True)
class _Trade:
    """One trade, where it stands, and the position that it belongs to."""

    ref: str
    stream: UUID
    position: Position
    fact: FillFact

    @property
    def place(self) -> StreamRef:
        return StreamRef(stream=self.stream, version=self.fact.version)


# Busts


def bust_trade(command: BustTrade, streams: Streams, now: datetime) -> Decision:
    """Take an execution, or a part of it, out of its position; of a flip, out of all positions that it touched."""
    trade = _trade(command, streams)
    rest = trade.fact.quantity
    quantity = command.quantity or rest
    if not rest or quantity > rest:
        raise CommandRejected(Reason.BUST_EXCEEDS_REST, command, value=quantity or command.trade, held=rest)
    legs = _legs_of_flip(command, trade, streams)
    if len(legs) > 1 and (quantity != rest or command.fee is not None):
        raise CommandRejected(Reason.FLIP_IS_ONE_TRADE, command, value=command.trade)
    draft = Draft(streams, now)
    for leg in legs:
        if leg.fact.counts:
            _bust(draft, command, leg, quantity if leg is trade else leg.fact.quantity)
    return _decided(command, draft, legs)


def _bust(draft: Draft, command: BustTrade, trade: _Trade, quantity: Decimal) -> None:
    fact, fill = trade.fact, trade.fact.fill
    amount = pro_rata(fact.amount, quantity, fact.quantity)
    fee = command.fee if command.fee is not None else pro_rata(fill.fee, quantity, fact.quantity)
    corrected = replace(
        fact,
        fill=fill.model_copy(update={"fee": minus(fill.fee, fee)}),
        busted_quantity=plus(fact.busted_quantity, quantity),
        busted_amount=plus(fact.busted_amount, amount),
    )
    says = {"bust_id": command.bust_id, "quantity": quantity, "amount": amount, "fee": fee}
    _book(draft, TradeBusted, command, trade, corrected, says)


def _legs_of_flip(command: Any, trade: _Trade, streams: Streams) -> list[_Trade]:
    """All legs of an execution that touched both sides (a flip, netting, a pair), the given one first; else just it."""
    legs, link = [trade], trade.fact.fill.linked
    while link is not None and (link.stream, link.version) != (trade.stream, trade.fact.version):
        leg = _trade_at(command, link.stream, link.version, streams)
        if leg is None:
            raise TypeError(f"a leg of trade {trade.ref} is not in the log; the log is damaged")
        legs.append(leg)
        link = leg.fact.fill.linked
    return legs if len({leg.position.side for leg in legs}) > 1 else [trade]


# Corrections


def correct_trade(command: CorrectTrade, streams: Streams, now: datetime) -> Decision:
    """Put what the venue says now in the place of what an execution was recorded as."""
    trade = _trade(command, streams)
    fact, fill = trade.fact, trade.fact.fill
    require_prices(command, trade.position.side, price=command.price)
    if fill.linked is not None and len(_legs_of_flip(command, trade, streams)) > 1 and _is_more_than_a_fee(command):
        raise CommandRejected(Reason.FLIP_IS_ONE_TRADE, command, value=command.trade)
    quantity = command.quantity or fill.quantity
    if quantity <= fact.busted_quantity:
        raise CommandRejected(Reason.TRADE_BUSTED, command, value=command.trade, held=fact.busted_quantity)
    price = fill.price if command.price is None else command.price
    amount = fill.amount
    if (quantity, price) != (fill.quantity, fill.price):
        amount = amount_of(quantity, price, trade.position.multiplier)
    fee = fill.fee if command.fee is None else command.fee
    corrected = replace(
        fact,
        at=command.execution_time or fact.at,
        fill=fill.model_copy(update={"quantity": quantity, "price": price, "amount": amount, "fee": fee}),
        busted_amount=pro_rata(amount, fact.busted_quantity, quantity),
    )
    names = ("correction_id", "quantity", "price", "fee", "execution_time")
    draft = Draft(streams, now)
    _book(draft, TradeCorrected, command, trade, corrected, {name: getattr(command, name) for name in names})
    return _decided(command, draft, [trade])


def _is_more_than_a_fee(command: CorrectTrade) -> bool:
    return (command.price, command.quantity, command.execution_time) != (None, None, None)


def adjust_fee(command: AdjustFee, streams: Streams, now: datetime) -> Decision:
    """Charge another fee for an execution."""
    trade = _trade(command, streams)
    corrected = replace(trade.fact, fill=trade.fact.fill.model_copy(update={"fee": command.fee}))
    draft = Draft(streams, now)
    says = {"adjustment_id": command.adjustment_id, "fee": command.fee}
    _book(draft, FeeAdjusted, command, trade, corrected, says)
    return _decided(command, draft, [trade])


# The market's second thoughts


def amend_settlement(command: AmendSettlement, streams: Streams, now: datetime) -> Decision:  # noqa: ARG001 - one shape
    """Pay what the market settles at now instead of what it paid before."""
    located = streams.position(command.position_id)
    position, stream = located.position, located.stream
    require_same_currency(command, command.fee_currency, position.currency)
    require_prices(command, position.side, value=command.value)
    if has_verdict(command, position):
        return Decision(positions=(stream,))
    journal = read_journal(streams.journal(stream))
    before = journal.verdict
    if before is None:
        raise _refused(Reason.POSITION_NOT_SETTLED, command, position)
    fee = before.fee if command.fee is None else command.fee
    verdict = replace(before, value=command.value, fee=fee, refund_fees=False, revision=command.settlement_revision)
    if verdict == before:
        return Decision(positions=(stream,))
    restated, folding = restate(position, replace(journal, verdict=verdict))
    quantity, price, amount, _ = folding.paid or (ZERO, command.value, ZERO, ZERO)
    event = SettlementAmended(
        settlement_value=command.value,
        settlement_revision=command.settlement_revision,
        quantity=quantity,
        price=price,
        amount=amount,
        fee=fee,
        realized_gross=folding.gains.get(verdict.version, ZERO),
        restated=restated,
    )
    draft = Draft(streams, before.at)
    draft.append(stream, position.version, event)
    draft.note_restated(stream, position, restated)
    return Decision(tuple(draft.appends), (stream,))


def void_position(command: VoidPosition, streams: Streams, now: datetime) -> Decision:
    """Pay back at cost what is held, or what was held when the market settled."""
    located = streams.position(command.position_id)
    position, stream = located.position, located.stream
    if has_verdict(command, position):
        return Decision(positions=(stream,))
    journal = read_journal(streams.journal(stream))
    before = journal.verdict
    if before is None:
        if not position.is_open:
            raise _refused(Reason.POSITION_NOT_OPEN, command, position)
        verdict = Verdict(position.version + 1, payout_time(command, position, now), None)
    else:
        verdict = replace(before, value=None, fee=ZERO)
    verdict = replace(verdict, refund_fees=command.refund_fees, revision=command.settlement_revision)
    if verdict == before:
        return Decision(positions=(stream,))
    event = voided(position, journal, verdict)
    draft = Draft(streams, verdict.at)
    draft.append(stream, position.version, event)
    draft.note_restated(stream, position, event.restated)
    return Decision(tuple(draft.appends), (stream,))


def _refused(reason: Reason, command: Any, position: Position) -> CommandRejected:
    ref = getattr(command.position_id, "name", command.position_id)
    return CommandRejected(reason, command, value=ref, status=position.status.value)


# Booking


def _book(
    draft: Draft, kind: type[Any], command: Any, trade: _Trade, corrected: FillFact, says: dict[str, Any]
) -> None:
    """Append a correction: what it says, the trade as it is now, and the position folded again."""
    before = read_journal(draft.journal(trade.stream))
    again = restating(draft.position(trade.stream), before, before.with_fact(corrected))
    fill = corrected.fill
    event = kind(
        trade=trade.place,
        reason=command.reason,
        actor=command.actor,
        announced_at=command.effective_at,
        now=TradeNow(
            quantity=fill.quantity,
            price=fill.price,
            amount=fill.amount,
            fee=fill.fee,
            busted_quantity=corrected.busted_quantity,
            busted_amount=corrected.busted_amount,
            realized_gross=again.folding.gains.get(corrected.version, ZERO),
            execution_time=corrected.at,
        ),
        restated=again.restated,
        **says,
    )
    again.book(draft, trade.stream, event, trade.fact.at)


def _decided(command: Command, draft: Draft, trades: Sequence[_Trade]) -> Decision:
    return Decision(
        appends=tuple(draft.appends),
        positions=tuple(dict.fromkeys([*(trade.stream for trade in trades), *draft.receivers])),
        correction_keys=tuple(_key(command, trade.stream, trade.fact.version) for trade in trades),
    )


def correction_key(command: Command, streams: Streams) -> str | None:
    """Name under which a correction of a trade is unique; None for other commands, and for a trade that is not known.

    Can be asked before deciding: a bust that is sent again must be recognised, not refused.
    """
    ref = getattr(command, "trade", None)
    if ref is None:
        return None
    place = streams.event_place(_number_of(ref))
    return _key(command, *place) if place else None


def _key(command: Any, stream: UUID, version: int) -> str:
    word, field = _NAMES.get(type(command).__name__, _NAMES_OF_FEES)
    return f"{word}:{stream}:{version}:{getattr(command, field)}"


# Finding trades


def _trade(command: Any, streams: Streams) -> _Trade:
    """Find the trade that a command is about. Raises `CommandRejected` (trade_unknown)."""
    place = streams.event_place(_number_of(command.trade))
    trade = _trade_at(command, *place, streams) if place else None
    if trade is None:
        raise CommandRejected(Reason.TRADE_UNKNOWN, command, value=command.trade)
    return trade


def _trade_at(command: Any, stream: UUID, version: int, streams: Streams) -> _Trade | None:
    position = streams.state(stream)
    if not isinstance(position, Position):
        return None
    fact = read_journal(streams.journal(stream)).fill(version)
    return None if fact is None else _Trade(command.trade, stream, position, fact)


def _number_of(ref: str) -> int:
    digits = ref.removeprefix("TRD-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX else 0
