"""What a market does with a position in the end: what it pays, when that counts, and that it is done once.

A verdict of a market carries a revision. A position keeps the revision that it was paid under, so a verdict that it has
already, or an older one that comes late, changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from position_ledger.domain.draft import effective_time
from position_ledger.domain.events import PositionSettled
from position_ledger.domain.figures import Booking, exited
from position_ledger.domain.journal import Verdict, read_journal
from position_ledger.domain.legs import require_in_order
from position_ledger.domain.numbers import ZERO
from position_ledger.domain.restatements import PositionVoided
from position_ledger.domain.restating import payout, restate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from position_ledger.domain.draft import Draft
    from position_ledger.domain.journal import Journal
    from position_ledger.domain.markets.market import Market
    from position_ledger.domain.position import Position

__all__ = ["has_verdict", "pay_at_once", "payout_time", "settled", "voided"]


def settled(position: Position, value: Decimal, fee: Decimal, revision: int | None) -> PositionSettled:
    """Pay out all that an open position holds."""
    price, amount = payout(position, value)
    figures, gain = exited(position, Booking(position.quantity, price, amount, fee))
    return PositionSettled(
        settlement_value=value,
        quantity=position.quantity,
        price=price,
        amount=amount,
        fee=fee,
        realized_gross=gain,
        settlement_revision=revision,
        figures=figures,
    )


def voided(position: Position, journal: Journal, verdict: Verdict) -> PositionVoided:
    """Pay back at cost what is held, or was held when the market settled before."""
    restated, folding = restate(position, replace(journal, verdict=verdict))
    is_first = journal.verdict is None
    if is_first:
        so_far = {"restated_realized": ZERO, "restated_realized_sum": position.restated_realized}
        restated = restated.model_copy(update=so_far)
    quantity, price, amount, _ = folding.paid or (ZERO, ZERO, ZERO, ZERO)
    return PositionVoided(
        quantity=quantity,
        price=price,
        amount=amount,
        refund_fees=verdict.refund_fees,
        replaces_settlement=not is_first,
        settlement_revision=verdict.revision,
        restated=restated,
    )


def payout_time(command: Any, position: Position, now: datetime) -> datetime:
    """Say when the payout of an open position counts: as stated, else now.

    One that follows the verdict of a market is never before what it pays for; one by hand is refused then (`too_late`).
    """
    at = effective_time(command, now, (position.last_effective_at,))
    if command.settlement_revision is not None:
        return max(at, position.last_fill_at)
    require_in_order(command, at, position.last_fill_at)
    return at


def has_verdict(command: Any, position: Position) -> bool:
    """Whether a position has been told this verdict of its market, or a later one."""
    asked, known = command.settlement_revision, position.settlement_revision
    return asked is not None and known is not None and known >= asked


def pay_at_once(draft: Draft, market: Market | None, streams: Iterable[UUID]) -> None:
    """Pay positions that a fill has left open in a market whose verdict is there already."""
    if market is None or not market.revision or market.settled_at is None:
        return
    for stream in dict.fromkeys((*streams, *draft.receivers)):
        position = draft.position(stream)
        if position.is_open:
            at = max(draft.effective_at, market.settled_at, position.last_fill_at)
            _pay(draft, market, stream, position, at)


def _pay(draft: Draft, market: Market, stream: UUID, position: Position, at: datetime) -> None:
    if market.value is not None:
        draft.append(stream, position.version, settled(position, market.value, market.fee, market.revision), at=at)
        draft.note_ended(stream, position, at)
        return
    journal = read_journal(draft.journal(stream))
    verdict = Verdict(position.version + 1, at, None, refund_fees=market.refund_fees, revision=market.revision)
    event = voided(position, journal, verdict)
    draft.append(stream, position.version, event, at=at)
    draft.note_restated(stream, position, event.restated)
