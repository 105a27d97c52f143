"""The journal of a position: its facts as they count now, with busts, corrections and fee adjustments applied.

A fact counts at its own time, whenever it became known: facts are ordered by (effective time, version of the event that
recorded them). A settlement or void is none of them: it comes last, whatever its time. `_READERS` is the table from
event to fact; a kind of event that brings facts of its own adds a reader here and a step in `restating`.

A position that was received, transferred in part or split begins anew there: what other accounts took over, or count
otherwise since, is not restated. So its life is a row of journals, and only the last one can still change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.draft import Append
    from position_ledger.domain.event import Event
    from position_ledger.domain.parts import Figures, Fill, TradeNow
    from position_ledger.domain.vocabulary import Side

__all__ = ["Base", "Fact", "FillFact", "Journal", "Verdict", "in_order", "read_journal", "read_journals"]


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
class Base:
    """Where a journal begins, when that is not an opening fill: figures that are not restated."""

    version: int
    at: datetime
    event: PositionReceived | PositionTransferred | SharesSplit

    @property
    def figures(self) -> Figures:
        """Of the position there."""
        return self.event.figures


@dataclass(frozen=True, slots=True)
class Journal:
    """The facts in effective order since the opening or the base, and what the market did last."""

    opened: PositionOpened | None
    """The opening with its fill; None: the journal begins with its base."""
    base: Base | None
    facts: tuple[Fact, ...] = ()
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


def read_journal(appends: Iterable[Append]) -> Journal:
    """Read the events of one position, by version, into the journal that can still change."""
    return read_journals(appends)[-1]


def read_journals(appends: Iterable[Append]) -> list[Journal]:
    """Read the whole life of a position. Events that bring no facts are passed over."""
    journals: list[_Pages] = []
    for append in appends:
        event = append.event
        if isinstance(event, PositionOpened):
            journals.append(_Pages(event.side, opened=event))
            journals[-1].facts[append.version] = FillFact(append.version, append.effective_at, True, event.fill)  # noqa: FBT003
        elif isinstance(event, PositionReceived):
            journals.append(_Pages(event.side, base=Base(append.version, append.effective_at, event)))
        elif isinstance(event, PositionTransferred | SharesSplit):
            journals.append(_Pages(journals[-1].side, base=Base(append.version, append.effective_at, event)))
        elif reader := _READERS.get(type(event)):
            reader(journals[-1], append)
    return [pages.journal() for pages in journals]


class _Pages:
    def __init__(self, side: Side, opened: PositionOpened | None = None, base: Base | None = None) -> None:
        self.side = side
        self.opened = opened
        self.base = base
        self.facts: dict[int, Fact] = {}
        self.verdict: Verdict | None = None

    def journal(self) -> Journal:
        return Journal(self.opened, self.base, in_order(self.facts.values()), self.verdict)


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
