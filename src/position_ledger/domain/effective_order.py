"""What would have been recorded had everything been known in time: a position's events in effective order.

Busts, corrections, late fills and amendments are applied to what they are about and vanish as events of their own;
figures are computed again. Folding the result, in any projection, gives the position as of a time, by all that is
known. Folding all of it gives the current row (a law that tests check), except for what counts the restatements.

Exits (stops, targets, trailing stops and what was triggered) keep the order of arrival: they are what was in force and
told. A mark of a time at which nothing was held is the last one before the position became flat.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from position_ledger.domain.draft import Append
from position_ledger.domain.events import (
    ExitsSet,
    ExitTriggered,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReduced,
    PositionSettled,
)
from position_ledger.domain.figures import figures_of, valued
from position_ledger.domain.journal import FillFact, read_journals
from position_ledger.domain.legs import holder_of
from position_ledger.domain.numbers import ZERO
from position_ledger.domain.parts import Restated
from position_ledger.domain.position import evolve
from position_ledger.domain.restatements import PositionVoided, TradeBusted
from position_ledger.domain.restating import Folding, begin, first_entry, restate, settle, step
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit
from position_ledger.domain.vocabulary import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger.domain.figures import Booking
    from position_ledger.domain.journal import Fact, Journal, Verdict
    from position_ledger.domain.position import Position

__all__ = ["in_effective_order"]

_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
_BASES: Final = (PositionReceived, PositionTransferred, SharesSplit)
_AS_ARRIVED: Final = (PositionMarked, ExitsSet, ExitTriggered)


def in_effective_order(appends: Sequence[Append], as_of: datetime | None = None) -> list[Append]:
    """Rewrite all events of one position, marks included, by version; those effective after ``as_of`` are left out.

    Versions stay those of the events that recorded the facts, so they need not rise. Empty: there was no position yet.
    """
    until = as_of or _END_OF_TIME
    journals, chapters = read_journals(appends), _chapters(appends)
    rewritten: list[Append] = []
    position: Position | None = None
    for chapter, journal in zip(chapters, journals, strict=True):
        if journal.base is not None:
            if journal.base.at > until:
                break
            rewritten.append(chapter[0])
        began = evolve(position, chapter[0].event, chapter[0].effective_at)
        part = _Rewriting(began, journal, chapter, until).events()
        if not rewritten and not part:
            return []
        rewritten += part
        position = _folded(rewritten)
    return rewritten


def _chapters(appends: Sequence[Append]) -> list[list[Append]]:
    """Split the events where the position began anew; each chapter begins with the opening or its base."""
    chapters: list[list[Append]] = []
    for append in appends:
        if not chapters or isinstance(append.event, _BASES):
            chapters.append([])
        chapters[-1].append(append)
    return chapters


def _folded(appends: Sequence[Append]) -> Position:
    position: Position | None = None
    for append in appends:
        position = evolve(position, append.event, append.effective_at)
    return cast("Position", position)


@dataclass(frozen=True, slots=True)
class _Item:
    """What arrived beside facts, at a time that is never before that of the one which arrived before it."""

    version: int
    at: datetime
    append: Append


def _items(chapter: Sequence[Append]) -> list[_Item]:
    items: list[_Item] = []
    for append in chapter:
        if isinstance(append.event, _AS_ARRIVED):
            at = max(append.effective_at, items[-1].at) if items else append.effective_at
            items.append(_Item(append.version, at, append))
    return items


@dataclass(slots=True)
class _Rewriting:
    """One chapter of a position's life on its way into effective order."""

    position: Position
    journal: Journal
    chapter: Sequence[Append]
    until: datetime
    out: list[Append] = field(default_factory=list)
    folding: Folding = field(init=False)
    before_flat: Position | None = None
    """The position before the exit that made it flat, while it is."""
    flat_at: int = 0
    """Where in ``out`` that exit is."""
    last_fact: tuple[int, Fact] | None = None
    """Where in ``out`` the last fact that counts is."""
    last_mark: Append | None = None
    exits: dict[str, Any] = field(default_factory=dict)
    """Exits before the first entry that counts, as fields of the opening."""
    triggered: list[ExitTriggered] = field(default_factory=list)

    def events(self) -> list[Append]:
        """The chapter in effective order, without the base that it may begin with."""
        opened, facts = self.journal.opened, [one for one in self.journal.facts if one.at <= self.until]
        items = [one for one in _items(self.chapter) if one.at <= self.until]
        first = first_entry(self.journal)
        if opened is not None and first is None:
            return self._never_held(opened, facts, items)
        if opened is not None and (first is None or first.at > self.until):
            return []
        base = self.journal.base
        quote = base.figures.current_price if base else first.fill.price if first else ZERO
        self.folding = begin(self.position, self.journal, quote)
        everything: list[Fact | _Item] = [*facts, *items]
        for one in sorted(everything, key=attrgetter("at", "version")):
            if isinstance(one, _Item):
                self._arrived(one.append)
            else:
                self._fact(one)
        self._end()
        return self.out

    @property
    def _has_begun(self) -> bool:
        return self.journal.base is not None or bool(self.out)

    # Facts

    def _fact(self, fact: Fact) -> None:
        before = self.folding.position
        step(self.folding, fact)
        if not isinstance(fact, FillFact):
            raise TypeError(f"{type(fact).__name__} cannot be told in effective order yet")
        if not self._has_begun:
            if fact.is_entry and fact.counts:
                self._open(fact)
            return
        if not fact.counts and not fact.fill.fee:
            return
        if before.quantity and not self.folding.position.quantity:
            self.before_flat, self.flat_at = before, len(self.out)
        elif self.folding.position.quantity:
            self.before_flat = None
        if fact.counts:
            self.last_fact = len(self.out), fact
        kind = PositionIncreased if fact.is_entry else PositionReduced
        self._tell(fact, kind(**self._told(fact)))

    def _told(self, fact: FillFact) -> dict[str, Any]:
        position = self.folding.position
        return {"holder": holder_of(position), "fill": self._fill(fact), "figures": figures_of(position)}

    def _fill(self, fact: FillFact) -> Any:
        quantity = self.folding.position.quantity
        return fact.fill.model_copy(
            update={
                "quantity": fact.quantity,
                "amount": fact.amount,
                "realized_gross": self.folding.gains.get(fact.version, ZERO),
                "is_dust_left": fact.fill.is_dust_left and ZERO < quantity <= fact.left,
            }
        )

    def _tell(self, fact: Fact, event: Any) -> None:
        self.out.append(Append(self.chapter[0].stream, fact.version, event, fact.at))

    def _open(self, fact: FillFact) -> None:
        opened = cast("PositionOpened", self.journal.opened)
        position = self.folding.position
        told = {"entry_time": fact.at, "fill": self._fill(fact), "figures": figures_of(position)}
        self.last_fact = 0, fact
        self._tell(fact, opened.model_copy(update=self.exits | told))
        self.out += [replace(self.out[0], event=event) for event in self.triggered]

    # What arrived beside them

    def _arrived(self, append: Append) -> None:
        event = append.event
        if not self._has_begun:
            self._before_the_opening(event)
        elif not isinstance(event, PositionMarked):
            self.out.append(append)
        elif self.before_flat is not None:
            self.folding.quote = event.price
            self.out.insert(self.flat_at, self._marked(append, self.before_flat))
            self.flat_at += 1
            if self.last_fact and self.last_fact[0] >= self.flat_at - 1:
                self.last_fact = self.last_fact[0] + 1, self.last_fact[1]
        else:
            self.folding.quote = event.price
            self.folding.take(valued(self.folding.position, event.price))
            self.out.append(self._marked(append, self.folding.position))

    def _marked(self, append: Append, position: Position) -> Append:
        event = cast("PositionMarked", append.event)
        figures = valued(position, event.price)
        told = {"unrealized_pnl": figures.unrealized_pnl, "unrealized_pnl_pct": figures.unrealized_pnl_pct}
        self.last_mark = append
        return replace(append, event=event.model_copy(update=told))

    def _before_the_opening(self, event: Any) -> None:
        """Keep what exits became before the first entry that counts; a mark then was of nothing held."""
        if isinstance(event, ExitsSet):
            self.exits, self.triggered = dict(event.__dict__), []
        elif isinstance(event, ExitTriggered):
            self.triggered.append(event)
        elif event.trailing_stop is not None:
            self.exits["trailing_stop"] = event.trailing_stop

    # The end

    def _end(self) -> None:
        verdict, position = self.journal.verdict, self.folding.position
        if verdict is not None and verdict.at <= self.until and position.quantity:
            settle(self.folding, verdict)
            self._ended_by_the_market(verdict, cast("Booking", self.folding.paid))
        elif not position.quantity and self.last_fact is not None:
            place, fact = self.last_fact
            before = cast("PositionReduced", self.out[place].event)
            closed = PositionClosed(
                exit_reason=getattr(fact, "exit_reason", "fill"),
                holder=before.holder,
                fill=before.fill,
                figures=before.figures,
            )
            self.out[place] = replace(self.out[place], event=closed)

    def _ended_by_the_market(self, verdict: Verdict, paid: Booking) -> None:
        figures = figures_of(self.folding.position)
        shared = {"quantity": paid.quantity, "price": paid.price, "amount": paid.amount}
        event: Any
        if verdict.value is None:
            mark = self.last_mark
            restated = Restated(
                figures=figures,
                status=Status.VOIDED,
                entry_time=self.folding.entry_time or self.position.entry_time,
                exit_time=verdict.at,
                exit_reason="void",
                mark_time=mark.effective_at if mark else self.position.mark_time,
                mark_source=cast("Any", mark.event).source if mark else self.position.mark_source,
                last_fill_at=verdict.at,
            )
            event = PositionVoided(
                refund_fees=verdict.refund_fees, settlement_revision=verdict.revision, restated=restated, **shared
            )
        else:
            event = PositionSettled(
                settlement_value=verdict.value,
                settlement_revision=verdict.revision,
                fee=paid.fee,
                realized_gross=self.folding.gains.get(verdict.version, ZERO),
                figures=figures,
                **shared,
            )
        self.out.append(Append(self.chapter[0].stream, verdict.version, event, verdict.at))

    def _never_held(self, opened: PositionOpened, facts: Sequence[Fact], items: Sequence[_Item]) -> list[Append]:
        """Tell of a position whose entries are all busted: it was opened, and the bust of an entry left nothing."""
        busts = [append for append in self.chapter if isinstance(append.event, TradeBusted)]
        if not facts or not busts:
            return []
        for item in items:
            self._before_the_opening(item.append.event)
        restated, _ = restate(self.position, replace(self.journal, facts=tuple(facts), verdict=None))
        last = cast("TradeBusted", busts[-1].event)
        first = replace(self.chapter[0], event=opened.model_copy(update=self.exits))
        told = [replace(first, event=event) for event in self.triggered]
        return [first, *told, replace(busts[-1], event=last.model_copy(update={"restated": restated}))]
