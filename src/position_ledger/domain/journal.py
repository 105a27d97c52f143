"""The journal of a position: its facts as they count now, with busts, corrections and fee adjustments applied.

A fact counts at its own time, whenever it became known: facts are ordered by (effective time, version of the event that
recorded them). A settlement or void is none of them: it comes last, whatever its time. `_READERS` is the table from
event to fact; a kind of event that brings facts of its own adds a reader here and a step in `restating`.

Facts are executions, what was received from elsewhere, what went to another account, and splits of the contracts. Before
a split everything is counted in the old contracts. What a transfer moves follows from the facts before it, so it is told
again to the receiver when they change (`domain/transfers/handing_on.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from position_ledger.domain.events import (
    PositionClosed,
    PositionIncreased,
    PositionOpened,
    PositionReduced,
    PositionSettled,
)
from position_ledger.domain.numbers import CONTEXT, ZERO, minus
from position_ledger.domain.restatements import (
    FeeAdjusted,
    LateFillRecorded,
    PositionVoided,
    SettlementAmended,
    TradeBusted,
    TradeCorrected,
    TransferRestated,
)
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.draft import Append
    from position_ledger.domain.event import Event
    from position_ledger.domain.parts import Fill, TradeNow
    from position_ledger.domain.vocabulary import Side

__all__ = [
    "Fact",
    "FillFact",
    "Journal",
    "ReceivedFact",
    "SplitFact",
    "TransferredFact",
    "Verdict",
    "in_order",
    "read_journal",
]


class Fact(Protocol):
    """What counts for a position at its effective time."""

    @property
    def version(self) -> int:
        """Version of the event that recorded it."""

    @property
    def at(self) -> datetime:
        """Effective time, UTC."""

    @property
    def counts(self) -> bool:
        """Whether anything of it is left."""


@dataclass(frozen=True, slots=True)
class FillFact:
    """One fill of the position, as corrected."""

    version: int
    at: datetime
    is_entry: bool
    fill: Fill
    """Quantity and amount with what was busted since."""
    exit_reason: str = "fill"
    left: Decimal = ZERO
    """What was held after it when it was recorded, in contracts of its time: what ``fill.is_dust_left`` speaks of."""
    busted_quantity: Decimal = ZERO
    busted_amount: Decimal = ZERO

    @property
    def quantity(self) -> Decimal:
        """Contracts that are not busted."""
        return minus(self.fill.quantity, self.busted_quantity)

    @property
    def amount(self) -> Decimal:
        """Amount of what is not busted."""
        return minus(self.fill.amount, self.busted_amount)

    @property
    def counts(self) -> bool:
        """Whether any contract of it is left."""
        return self.busted_quantity != self.fill.quantity

    def corrected(self, now: TradeNow, at: datetime) -> FillFact:
        """Make the fact what a correction says that the trade is now."""
        fill = self.fill.model_copy(
            update={"quantity": now.quantity, "price": now.price, "amount": now.amount, "fee": now.fee}
        )
        return replace(self, at=at, fill=fill, busted_quantity=now.busted_quantity, busted_amount=now.busted_amount)


@dataclass(frozen=True, slots=True)
class ReceivedFact:
    """What came from elsewhere with its cost: from another account, or held before the ledger; as it counts now."""

    version: int
    at: datetime
    event: PositionReceived
    quantity: Decimal
    cost: Decimal
    fees: Decimal
    """Open fees that came along."""
    entry_time: datetime

    @property
    def counts(self) -> bool:
        """Whether anything came."""
        return bool(self.quantity)


@dataclass(frozen=True, slots=True)
class TransferredFact:
    """Contracts that went to another account: as many as were stated, or all that was held if that is less."""

    version: int
    at: datetime
    event: PositionTransferred

    @property
    def counts(self) -> bool:
        """A transfer is never taken back."""
        return True


@dataclass(frozen=True, slots=True)
class SplitFact:
    """From here on the position is counted in other contracts."""

    version: int
    at: datetime
    event: SharesSplit

    @property
    def counts(self) -> bool:
        """A split is never taken back."""
        return True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the market did with what was held in the end."""

    version: int
    at: datetime
    value: Decimal | None
    """Settlement value; None: the market was void, and what was held is paid back at cost."""
    fee: Decimal = ZERO
    refund_fees: bool = False
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """The facts of a position in effective order, and what the market did last."""

    begun: PositionOpened | PositionReceived
    """The first event: who holds what, and its fill or what came."""
    facts: tuple[Fact, ...] = ()
    verdict: Verdict | None = None

    def fill(self, version: int) -> FillFact | None:
        """Find the fill that the event of a version recorded."""
        return next((one for one in self.facts if one.version == version and isinstance(one, FillFact)), None)

    @property
    def received(self) -> ReceivedFact | None:
        """What the position began with, if no execution opened it."""
        return next((one for one in self.facts if isinstance(one, ReceivedFact)), None)

    def with_fact(self, fact: Fact) -> Journal:
        """Add a fact, or put it in the place of the one of its version."""
        others = (one for one in self.facts if one.version != fact.version)
        return replace(self, facts=in_order((*others, fact)))


def in_order(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Order facts by effective time; ties follow the order of arrival."""
    return tuple(sorted(facts, key=attrgetter("at", "version")))


def read_journal(appends: Iterable[Append]) -> Journal:
    """Read the events of one position, by version. Events that bring no facts are passed over."""
    pages: _Pages | None = None
    for append in appends:
        event = append.event
        if isinstance(event, PositionOpened | PositionReceived):
            pages = _Pages(event)
            begin = _opened if isinstance(event, PositionOpened) else _received
            begin(pages, append)
        elif reader := _READERS.get(type(event)):
            reader(cast("_Pages", pages), append)
    if pages is None:
        raise TypeError("a position begins with no opening; the log is damaged")
    return Journal(pages.begun, in_order(pages.facts.values()), pages.verdict)


@dataclass(slots=True)
class _Pages:
    begun: PositionOpened | PositionReceived
    facts: dict[int, Fact] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def side(self) -> Side:
        return self.begun.side


def _opened(pages: _Pages, append: Append) -> None:
    event = cast("PositionOpened", append.event)
    pages.facts[append.version] = FillFact(append.version, append.effective_at, is_entry=True, fill=event.fill)


def _received(pages: _Pages, append: Append) -> None:
    event = cast("PositionReceived", append.event)
    figures = event.figures
    pages.facts[append.version] = ReceivedFact(
        append.version,
        append.effective_at,
        event,
        figures.quantity,
        figures.cost,
        figures.open_fees,
        event.entry_time,
    )


def _received_otherwise(pages: _Pages, append: Append) -> None:
    event = cast("TransferRestated", append.event)
    fact = next(one for one in pages.facts.values() if isinstance(one, ReceivedFact))
    pages.facts[fact.version] = replace(
        fact, quantity=event.quantity, cost=event.cost, fees=event.fees, entry_time=event.entry_time
    )


def _transferred(pages: _Pages, append: Append) -> None:
    event = cast("PositionTransferred", append.event)
    pages.facts[append.version] = TransferredFact(append.version, append.effective_at, event)


def _split(pages: _Pages, append: Append) -> None:
    pages.facts[append.version] = SplitFact(append.version, append.effective_at, cast("SharesSplit", append.event))


def _traded(pages: _Pages, append: Append) -> None:
    event = cast("PositionIncreased | PositionReduced | PositionClosed", append.event)
    _add(pages, append, event.fill, getattr(event, "exit_reason", "fill"), event.figures.quantity)


def _late(pages: _Pages, append: Append) -> None:
    event = cast("LateFillRecorded", append.event)
    left = event.restated.figures.quantity
    for fact in pages.facts.values():
        if isinstance(fact, SplitFact) and append.effective_at < fact.at:
            left = CONTEXT.divide(left, fact.event.ratio)
    _add(pages, append, event.fill, event.exit_reason, left)


def _add(pages: _Pages, append: Append, fill: Fill, exit_reason: str, left: Decimal) -> None:
    is_entry = fill.action is pages.side.entry_action
    pages.facts[append.version] = FillFact(append.version, append.effective_at, is_entry, fill, exit_reason, left)


def _corrected(pages: _Pages, append: Append) -> None:
    event = cast("TradeBusted | TradeCorrected | FeeAdjusted", append.event)
    fact = cast("FillFact", pages.facts[event.trade.version])
    at = getattr(event, "execution_time", None) or fact.at
    pages.facts[fact.version] = fact.corrected(event.now, at)


def _settled(pages: _Pages, append: Append) -> None:
    event = cast("PositionSettled | SettlementAmended", append.event)
    pages.verdict = Verdict(
        append.version, append.effective_at, event.settlement_value, event.fee, revision=event.settlement_revision
    )


def _voided(pages: _Pages, append: Append) -> None:
    event = cast("PositionVoided", append.event)
    pages.verdict = Verdict(
        append.version,
        append.effective_at,
        None,
        refund_fees=event.refund_fees,
        revision=event.settlement_revision,
    )


_READERS: Final[dict[type[Event], Callable[[Any, Append], None]]] = {
    PositionIncreased: _traded,
    PositionReduced: _traded,
    PositionClosed: _traded,
    LateFillRecorded: _late,
    TradeBusted: _corrected,
    TradeCorrected: _corrected,
    FeeAdjusted: _corrected,
    TransferRestated: _received_otherwise,
    PositionTransferred: _transferred,
    SharesSplit: _split,
    PositionSettled: _settled,
    SettlementAmended: _settled,
    PositionVoided: _voided,
}
