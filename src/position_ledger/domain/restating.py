"""Folding the facts of a position again, in effective order, with the functions that booked them the first time.

An exit beyond what is held in its place applies to what is held; the rest is shortfall. The settlement or void is
folded last. `_STEPS` is the table from a kind of fact to what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from position_ledger.domain.figures import (
    FIGURE_NAMES,
    Booking,
    charged,
    entered,
    exited,
    figures_of,
    refunded,
    short,
    valued,
)
from position_ledger.domain.journal import FillFact
from position_ledger.domain.numbers import ONE, ZERO, amount_of, minus, plus, pro_rata
from position_ledger.domain.parts import Figures, Restated
from position_ledger.domain.vocabulary import Side, Status

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.journal import Fact, Journal, Verdict
    from position_ledger.domain.position import Position

__all__ = ["Folding", "begin", "first_entry", "folded", "held_at", "payout", "restate", "settle", "step"]

BUSTED = "busted"
"""Exit reason of a position without any fill left."""
SETTLEMENT = "settlement"
VOID = "void"

_OPTIONAL: Final = {"average_entry_price", "exit_price", "unrealized_pnl", "unrealized_pnl_pct"}
_NOTHING: Final = {name: None if name in _OPTIONAL else ZERO for name in FIGURE_NAMES}


@dataclass(slots=True)
class Folding:
    """A position on its way through its facts."""

    position: Position
    quote: Decimal
    """What it is valued at while open: the last mark, else its first entry."""
    entry_time: datetime | None = None
    last: Fact | None = None
    """The last fact that counts."""
    gains: dict[int, Decimal] = field(default_factory=dict)
    """What each exit alone realized, before fees, by the version of its event."""
    paid: Booking | None = None
    """What the settlement or void paid, if anything was held."""

    def take(self, figures: Figures) -> None:
        """Move on to these figures."""
        self.position = msgspec.structs.replace(self.position, **figures.__dict__)


def begin(position: Position, journal: Journal, quote: Decimal) -> Folding:
    """Start before the first fact, with nothing held or with what the base left."""
    if journal.base is not None:
        there = msgspec.structs.replace(position, **journal.base.figures.__dict__)
        folding = Folding(there, quote, entry_time=position.entry_time)
        folding.take(valued(there, quote))
        return folding
    price = journal.opened.fill.price if journal.opened else ZERO
    nothing = _NOTHING | {"entry_price": price, "current_price": quote}
    return Folding(msgspec.structs.replace(position, **nothing), quote)


def step(folding: Folding, fact: Fact) -> None:
    """Fold one fact."""
    _STEPS[type(fact)](folding, fact)
    if fact.counts:
        folding.last = fact


def folded(position: Position, journal: Journal) -> Folding:
    """Fold all facts and, last, what the market did."""
    folding = begin(position, journal, _quote(position, journal))
    for fact in journal.facts:
        step(folding, fact)
    if journal.verdict is not None:
        settle(folding, journal.verdict)
    return folding


def held_at(position: Position, journal: Journal, at: datetime) -> Decimal:
    """Say what was held at a time, by all that is known now; a settlement does not count."""
    folding = begin(position, journal, ZERO)
    for fact in journal.facts:
        if fact.at <= at:
            step(folding, fact)
    return folding.position.quantity


def restate(position: Position, journal: Journal) -> tuple[Restated, Folding]:
    """Fold the journal again and tell all that may differ from the present position."""
    folding = folded(position, journal)
    after = folding.position
    entry_time = folding.entry_time or _opened_at(journal)
    is_marked = _is_marked(position, folding.entry_time)
    changed = minus(after.realized_pnl, position.realized_pnl)
    restated = Restated(
        figures=figures_of(after),
        entry_time=entry_time,
        mark_time=position.mark_time if is_marked else None,
        mark_source=position.mark_source if is_marked else None,
        last_fill_at=_last_fill_at(journal),
        is_dust=_is_dust(folding),
        restated_realized=changed,
        restated_realized_sum=plus(position.restated_realized, changed),
        **_outcome(folding, journal),
    )
    return restated, folding


def _outcome(folding: Folding, journal: Journal) -> dict[str, Any]:
    """Say how the position stands: open, ended by the market, by its last exit, or never there at all."""
    verdict, last = journal.verdict, folding.last
    if verdict is not None and folding.paid is not None:
        is_void = verdict.value is None
        return {
            "status": Status.VOIDED if is_void else Status.SETTLED,
            "exit_time": verdict.at,
            "exit_reason": VOID if is_void else SETTLEMENT,
            "settlement_value": verdict.value,
        }
    if folding.position.quantity:
        return {"status": Status.OPEN}
    if last is None:
        return {"status": Status.VOIDED, "exit_time": journal.facts[-1].at, "exit_reason": BUSTED}
    return {"status": Status.CLOSED, "exit_time": last.at, "exit_reason": getattr(last, "exit_reason", "fill")}


def _opened_at(journal: Journal) -> datetime:
    """When the fill that opened the position was; where the journal begins, if no fill did."""
    first = journal.base or min(journal.facts, key=attrgetter("version"))
    return first.at


def _last_fill_at(journal: Journal) -> datetime:
    """Latest time of what counts; of all that was recorded, if nothing counts any more."""
    times = [one.at for one in (journal.base, journal.verdict) if one is not None]
    times += [fact.at for fact in journal.facts if fact.counts]
    return max(times or [fact.at for fact in journal.facts])


def _is_dust(folding: Folding) -> bool:
    last = folding.last
    if not isinstance(last, FillFact) or not last.fill.is_dust_left:
        return False
    return ZERO < folding.position.quantity <= last.left


def _quote(position: Position, journal: Journal) -> Decimal:
    """Take the last mark, unless it is before the first entry that counts; then that entry's price."""
    if journal.base is not None:
        return journal.base.figures.current_price if position.mark_price is None else position.mark_price
    first = first_entry(journal)
    if position.mark_price is not None and _is_marked(position, first.at if first else None):
        return position.mark_price
    return first.fill.price if first else journal.opened.fill.price if journal.opened else ZERO


def first_entry(journal: Journal) -> FillFact | None:
    """Find the first entry that counts."""
    entries = (one for one in journal.facts if isinstance(one, FillFact) and one.is_entry and one.counts)
    return next(entries, None)


def _is_marked(position: Position, entry_time: datetime | None) -> bool:
    return position.mark_time is not None and entry_time is not None and position.mark_time >= entry_time


# Steps


def _fill(folding: Folding, fact: FillFact) -> None:
    if not fact.counts:
        if fact.fill.fee:
            folding.take(charged(folding.position, fact.fill.fee, is_entry=fact.is_entry))
    elif fact.is_entry:
        _entry(folding, fact)
    else:
        _exit(folding, fact)


def _entry(folding: Folding, fact: FillFact) -> None:
    before = folding.position
    if not before.quantity:
        before = msgspec.structs.replace(before, current_price=folding.quote)
    folding.entry_time = folding.entry_time or fact.at
    folding.take(entered(before, Booking(fact.quantity, fact.fill.price, fact.amount, fact.fill.fee)))


def _exit(folding: Folding, fact: FillFact) -> None:
    taken, fee = min(folding.position.quantity, fact.quantity), fact.fill.fee
    amount = ZERO
    if taken:
        amount = pro_rata(fact.amount, taken, fact.quantity)
        figures, gain = exited(folding.position, Booking(taken, fact.fill.price, amount, fee))
        folding.gains[fact.version] = gain
        folding.take(figures)
    else:
        folding.take(charged(folding.position, fee, is_entry=False))
    if taken != fact.quantity:
        folding.take(short(folding.position, minus(fact.quantity, taken), minus(fact.amount, amount)))


_STEPS: Final[dict[type[Any], Callable[[Folding, Any], None]]] = {FillFact: _fill}


# The end


def settle(folding: Folding, verdict: Verdict) -> None:
    """Pay out, or pay back at cost, what is held; nothing happens when nothing is."""
    position = folding.position
    if not position.quantity:
        return
    if verdict.value is not None:
        price, amount = payout(position, verdict.value)
        folding.paid = Booking(position.quantity, price, amount, verdict.fee)
        figures, gain = exited(position, folding.paid)
        folding.gains[verdict.version] = gain
        folding.take(figures)
        return
    price = position.average_entry_price or ZERO
    folding.paid = Booking(position.quantity, price, position.cost, ZERO)
    figures, _ = exited(position, folding.paid)
    folding.take(figures.model_copy(update={"exit_price": price, "current_price": price}))
    if verdict.refund_fees:
        folding.take(refunded(folding.position))


def payout(position: Position, value: Decimal) -> tuple[Decimal, Decimal]:
    """Say what one contract and all of them receive when a market settles at ``value`` per YES (or at that price).

    NO gets what YES leaves, so that a pair receives exactly 1 whatever the rounding.
    """
    quantity, multiplier = position.quantity, position.multiplier
    amount = amount_of(quantity, value, multiplier)
    if position.side is Side.NO:
        return minus(ONE, value), minus(amount_of(quantity, ONE, multiplier), amount)
    return value, amount
