"""Folding the facts of a position again, in effective order, with the functions that booked them the first time.

An exit beyond what is held in its place applies to what is held; the rest is shortfall. A transfer takes along what is
held, at most what was stated, at the average cost of then. The settlement or void is folded last. `_STEPS` is the table
from a kind of fact to what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from position_ledger.domain.events import PositionOpened
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
from position_ledger.domain.journal import FillFact, ReceivedFact, SplitFact, TransferredFact
from position_ledger.domain.numbers import CONTEXT, ONE, ZERO, amount_of, mean_of, minus, plus, pro_rata
from position_ledger.domain.parts import Figures, Restated
from position_ledger.domain.transfers import arithmetic
from position_ledger.domain.vocabulary import Side, Status

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.journal import Fact, Journal, Verdict
    from position_ledger.domain.position import Position

__all__ = [
    "Folding",
    "Moved",
    "begin",
    "first_entry",
    "folded",
    "held_at",
    "held_since",
    "is_marked",
    "payout",
    "restate",
    "settle",
    "step",
]

BUSTED = "busted"
"""Exit reason of a position without any fill left."""
SETTLEMENT = "settlement"
VOID = "void"
TRANSFER = "transfer"

_OPTIONAL: Final = {"average_entry_price", "exit_price", "unrealized_pnl", "unrealized_pnl_pct"}
_NOTHING: Final = {name: None if name in _OPTIONAL else ZERO for name in FIGURE_NAMES}


class Moved(NamedTuple):
    """What a transfer took along."""

    quantity: Decimal
    cost: Decimal
    fees: Decimal
    entry_time: datetime | None
    """Of the cycle as it was then; None: nothing had been entered."""


@dataclass(slots=True)
class Folding:
    """A position on its way through its facts."""

    position: Position
    quote: Decimal
    """What it is valued at while open: the last mark, else its first entry; in the contracts of the moment."""
    entry_time: datetime | None = None
    last: FillFact | ReceivedFact | TransferredFact | None = None
    """The last fact that counts, splits apart."""
    dust: Decimal = ZERO
    """What the last fill called dust, in the contracts of the moment."""
    is_handed_on: bool = False
    """A transfer took the last of it: it keeps its value, as nothing was sold."""
    gains: dict[int, Decimal] = field(default_factory=dict)
    """What each exit alone realized, before fees, by the version of its event."""
    moved: dict[int, Moved] = field(default_factory=dict)
    """What each transfer took along, by the version of its event."""
    paid: Booking | None = None
    """What the settlement or void paid, if anything was held."""

    def take(self, figures: Figures) -> None:
        """Move on to these figures."""
        self.position = msgspec.structs.replace(self.position, **figures.__dict__)


def begin(position: Position, journal: Journal) -> Folding:
    """Start before the first fact, with nothing held."""
    price, quote = _begun_at(journal)
    nothing = _NOTHING | {"entry_price": price, "current_price": quote}
    return Folding(msgspec.structs.replace(position, **nothing), quote)


def _begun_at(journal: Journal) -> tuple[Decimal, Decimal]:
    """Entry price and value of one contract as the first event told them."""
    begun = journal.begun
    if isinstance(begun, PositionOpened):
        return begun.fill.price, begun.fill.price
    return begun.figures.entry_price, begun.figures.current_price


def step(folding: Folding, fact: Fact) -> None:
    """Fold one fact."""
    _STEPS[type(fact)](folding, fact)


def folded(position: Position, journal: Journal) -> Folding:
    """Fold all facts, value what is left at the last mark, and do last what the market did."""
    folding = begin(position, journal)
    for fact in journal.facts:
        step(folding, fact)
    is_valued = folding.position.quantity or folding.is_handed_on
    if is_valued and position.mark_price is not None and is_marked(position, journal):
        folding.take(valued(folding.position, position.mark_price))
    if journal.verdict is not None:
        settle(folding, journal.verdict)
    return folding


def held_at(position: Position, journal: Journal, at: datetime) -> Decimal:
    """Say what was held at a time, by all that is known now; a settlement does not count."""
    folding = begin(position, journal)
    for fact in journal.facts:
        if fact.at <= at:
            step(folding, fact)
    return folding.position.quantity


def restate(position: Position, journal: Journal) -> tuple[Restated, Folding]:
    """Fold the journal again and tell all that may differ from the present position."""
    folding = folded(position, journal)
    after = folding.position
    was_marked = is_marked(position, journal)
    changed = minus(after.realized_pnl, position.realized_pnl)
    restated = Restated(
        figures=figures_of(after),
        entry_time=folding.entry_time or _opened_at(journal),
        mark_time=position.mark_time if was_marked else None,
        mark_source=position.mark_source if was_marked else None,
        last_fill_at=_last_fill_at(journal),
        is_dust=ZERO < after.quantity <= folding.dust,
        restated_realized=changed,
        restated_realized_sum=plus(position.restated_realized, changed),
        **_outcome(folding, journal),
    )
    return restated, folding


def _outcome(folding: Folding, journal: Journal) -> dict[str, Any]:
    """Say how the position stands: open, ended by the market, by its last exit or transfer, or never there at all."""
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
    if isinstance(last, TransferredFact):
        return {"status": Status.TRANSFERRED, "exit_time": last.at, "exit_reason": TRANSFER}
    return {"status": Status.CLOSED, "exit_time": last.at, "exit_reason": getattr(last, "exit_reason", "fill")}


def _opened_at(journal: Journal) -> datetime:
    """When the position began by what was told first."""
    first = min(journal.facts, key=attrgetter("version"))
    return first.entry_time if isinstance(first, ReceivedFact) else first.at


def _last_fill_at(journal: Journal) -> datetime:
    """Latest time of what counts, and of fees that are charged; of all that was recorded, if there is none."""
    times = [fact.at for fact in journal.facts if fact.counts or (isinstance(fact, FillFact) and fact.fill.fee)]
    if journal.verdict is not None:
        times.append(journal.verdict.at)
    return max(times or [fact.at for fact in journal.facts])


def first_entry(journal: Journal) -> FillFact | ReceivedFact | None:
    """Find the first entry that counts: an execution, or what was received."""
    for one in journal.facts:
        if one.counts and (isinstance(one, ReceivedFact) or (isinstance(one, FillFact) and one.is_entry)):
            return one
    return None


def held_since(journal: Journal) -> datetime | None:
    """When what counts was entered first, here or where it came from; None: nothing was."""
    times = [
        fact.entry_time if isinstance(fact, ReceivedFact) else fact.at
        for fact in journal.facts
        if fact.counts and (isinstance(fact, ReceivedFact) or (isinstance(fact, FillFact) and fact.is_entry))
    ]
    return min(times, default=None)


def is_marked(position: Position, journal: Journal) -> bool:
    """Whether the last mark is of something held: not before the first entry that counts."""
    since = held_since(journal)
    return position.mark_time is not None and since is not None and position.mark_time >= since


# Steps


def _fill(folding: Folding, fact: FillFact) -> None:
    if not fact.counts:
        if fact.fill.fee:
            folding.take(charged(folding.position, fact.fill.fee, is_entry=fact.is_entry))
        return
    if fact.is_entry:
        booking = Booking(fact.quantity, fact.fill.price, fact.amount, fact.fill.fee)
        _entry(folding, booking, fact.fill.price, fact.at)
    else:
        _exit(folding, fact)
    folding.last = fact
    folding.dust = fact.left if fact.fill.is_dust_left else ZERO


def _entry(folding: Folding, booking: Booking, value: Decimal, since: datetime) -> None:
    """Enter; the first entry that counts says what the position is worth until it is marked."""
    before = folding.position
    if folding.entry_time is None:
        folding.quote = value
    if not before.quantity:
        before = msgspec.structs.replace(before, current_price=folding.quote)
    folding.entry_time = min(folding.entry_time or since, since)
    folding.is_handed_on = False
    folding.take(entered(before, booking))


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


def _received(folding: Folding, fact: ReceivedFact) -> None:
    if not fact.counts:
        return
    price = mean_of(fact.cost, fact.quantity, folding.position.multiplier) or ZERO
    booking = Booking(fact.quantity, price, fact.cost, fact.fees)
    _entry(folding, booking, fact.event.figures.current_price, fact.entry_time)
    folding.last, folding.dust = fact, ZERO


def _transferred(folding: Folding, fact: TransferredFact) -> None:
    before = folding.position
    quantity = min(before.quantity, fact.event.quantity)
    if not quantity:
        folding.moved[fact.version] = Moved(ZERO, ZERO, ZERO, None)
        return
    figures, cost, fees = arithmetic.given(before, quantity)
    folding.take(figures)
    folding.moved[fact.version] = Moved(quantity, cost, fees, folding.entry_time)
    folding.last, folding.is_handed_on = fact, not figures.quantity


def _split(folding: Folding, fact: SplitFact) -> None:
    ratio = fact.event.ratio
    folding.take(arithmetic.split(folding.position, ratio))
    folding.quote = arithmetic.divided(folding.quote, ratio)
    folding.dust = CONTEXT.multiply(folding.dust, ratio)


_STEPS: Final[dict[type[Any], Callable[[Folding, Any], None]]] = {
    FillFact: _fill,
    ReceivedFact: _received,
    TransferredFact: _transferred,
    SplitFact: _split,
}


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
