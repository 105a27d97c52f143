"""The journal of a position: its facts as they count now, with busts, corrections and fee adjustments applied.

A fact counts at its own time, whenever it became known: facts are ordered by (effective time, version of the event that
recorded them). A settlement or void is none of them: it comes last, whatever its time. `_READERS` is the table from
event to fact; a kind of event that brings facts of its own adds a reader here and a step in `restating`.
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
from position_ledger.domain.numbers import ZERO, minus
from position_ledger.domain.restatements import (
    FeeAdjusted,
    LateFillRecorded,
    PositionVoided,
    SettlementAmended,
    TradeBusted,
    TradeCorrected,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.draft import Append
    from position_ledger.domain.event import Event
    from position_ledger.domain.parts import Fill, TradeNow
    from position_ledger.domain.vocabulary import Side

__all__ = ["Fact", "FillFact", "Journal", "Verdict", "in_order", "read_journal"]


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
    """What was held after it when it was recorded: what ``fill.is_dust_left`` speaks of."""
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
    """The opening, the facts in effective order, and what the market did last."""

    opened: PositionOpened
    opened_at: datetime
    facts: tuple[Fact, ...]
    verdict: Verdict | None = None

    def fill(self, version: int) -> FillFact | None:
        """Find the fill that the event of a version recorded."""
        return next((one for one in self.facts if one.version == version and isinstance(one, FillFact)), None)

    def with_fact(self, fact: Fact) -> Journal:
        """Add a fact, or put it in the place of the one of its version."""
        others = (one for one in self.facts if one.version != fact.version)
        return replace(self, facts=in_order((*others, fact)))


def in_order(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Order facts by effective time; ties follow the order of arrival."""
    return tuple(sorted(facts, key=attrgetter("at", "version")))


@dataclass(slots=True)
class _Pages:
    side: Side
    facts: dict[int, Fact] = field(default_factory=dict)
    verdict: Verdict | None = None


def read_journal(appends: Iterable[Append]) -> Journal:
    """Read the events of one position, by version. Events that bring no facts are passed over."""
    stream = iter(appends)
    first = next(stream)
    opened = first.event
    if not isinstance(opened, PositionOpened):
        raise TypeError(f"a position begins with {type(opened).__name__}; the log is damaged")
    pages = _Pages(opened.side)
    pages.facts[first.version] = FillFact(first.version, first.effective_at, is_entry=True, fill=opened.fill)
    for append in stream:
        reader = _READERS.get(type(append.event))
        if reader is not None:
            reader(pages, append)
    return Journal(opened, first.effective_at, in_order(pages.facts.values()), pages.verdict)


def _traded(pages: _Pages, append: Append) -> None:
    event = cast("PositionIncreased | PositionReduced | PositionClosed", append.event)
    _add(pages, append, event.fill, getattr(event, "exit_reason", "fill"), event.figures.quantity)


def _late(pages: _Pages, append: Append) -> None:
    event = cast("LateFillRecorded", append.event)
    _add(pages, append, event.fill, event.exit_reason, event.restated.figures.quantity)


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
    PositionSettled: _settled,
    SettlementAmended: _settled,
    PositionVoided: _voided,
}
