"""What would have been recorded had everything been known in time: a position's events in effective order.

Busts, corrections, late fills and amendments are applied to what they are about and vanish as events of their own;
figures are computed again. Folding the result, in any projection, gives the position as of a time, by all that is
known. Folding all of it gives the current row (a law that tests check), except for what counts the restatements.

Exits (stops, targets, trailing stops and what was triggered) keep the order of arrival: they are what was in force and
told, and each counts in the contracts of its arrival. A mark of a time at which
everything was sold is the last one before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
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
from position_ledger.domain.journal import FillFact, ReceivedFact, SplitFact, TransferredFact, read_journal
from position_ledger.domain.legs import holder_of
from position_ledger.domain.numbers import ZERO, minus
from position_ledger.domain.parts import Restated, StreamRef
from position_ledger.domain.position import evolve
from position_ledger.domain.restatements import PositionVoided, TradeBusted, TransferRestated
from position_ledger.domain.restating import Folding, begin, first_entry, held_since, restate, settle, step
from position_ledger.domain.transfers.arithmetic import brought_with, divided, split_trailing
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit, identity_of
from position_ledger.domain.vocabulary import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from position_ledger.domain.events import Figures
    from position_ledger.domain.figures import Booking
    from position_ledger.domain.journal import Fact, Journal, Verdict
    from position_ledger.domain.position import Position

__all__ = ["in_effective_order"]

_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
_AS_ARRIVED: Final = (PositionMarked, ExitsSet, ExitTriggered)

_CARRY_EXITS: Final = (PositionOpened, PositionReceived, ExitsSet, SharesSplit, PositionMarked)


def in_effective_order(appends: Sequence[Append], as_of: datetime | None = None) -> list[Append]:
    """Rewrite all events of one position, marks included, by version; those effective after ``as_of`` are left out.

    Versions stay those of the events that recorded the facts, so they need not rise. Empty: there was no position yet.
    """
    first = appends[0]
    begun = evolve(None, first.event, first.effective_at)
    return _Rewriting(begun, read_journal(appends), appends, as_of or _END_OF_TIME).events()


@dataclass(frozen=True, slots=True)
class _Item:
    """What arrived beside facts, at a time that is never before that of the one which arrived before it."""

    version: int
    at: datetime
    append: Append


def _items(appends: Sequence[Append], journal: Journal) -> list[_Item]:
    """Keep the order of arrival among items; none is before the first entry, nor before a split that was known.

    What arrived before a split and is of a time after it was told in the old contracts, and is counted in the new ones.
    """
    first = first_entry(journal)
    splits = [fact for fact in journal.facts if isinstance(fact, SplitFact)]
    items: list[_Item] = []
    for append in appends:
        if not isinstance(append.event, _AS_ARRIVED):
            continue
        floors = [first.at] if first else []
        floors += [split.at for split in splits if split.version < append.version]
        floors += [items[-1].at] if items else []
        at, version = max((append.effective_at, *floors)), append.version
        if first is not None and first.at == at:
            version = max(version, first.version)
        later = [one for one in splits if one.version > append.version and (one.at, one.version) < (at, version)]
        event = reduce(_counted_anew, sorted(later, key=attrgetter("version")), append.event)
        items.append(_Item(version, at, replace(append, event=event)))
    return items


def _counted_anew(event: Any, split: SplitFact) -> Any:
    """The same mark or exits in the contracts after a split."""
    ratio = split.event.ratio
    changed: dict[str, Any] = {
        name: divided(price, ratio)
        for name in ("price", "target_price", "stop_loss_price")
        if (price := getattr(event, name, None)) is not None
    }
    trailing = getattr(event, "trailing_stop", None)
    return event.model_copy(
        update=changed | {"trailing_stop": split_trailing(trailing, ratio)} if trailing else changed
    )


@dataclass(slots=True)
class _Rewriting:
    """A position's life on its way into effective order."""

    position: Position
    journal: Journal
    appends: Sequence[Append]
    until: datetime
    out: list[Append] = field(default_factory=list)
    folding: Folding = field(init=False)
    before_flat: Position | None = None
    """The position before the exit or transfer that made it flat, while it is."""
    flat_at: int = 0
    """Where in ``out`` that is."""
    last_fact: tuple[int, Fact] | None = None
    """Where in ``out`` the last fact that counts is, splits apart."""
    is_handed_on: bool = False
    """What made it flat is a transfer: nothing was sold, so it keeps its value, and marks go on to change it."""
    last_mark: Append | None = None
    since: datetime | None = None
    """When the first entry that counts was; a mark before is of nothing held."""
    exits: dict[str, Any] = field(default_factory=dict)
    """Exits before the first entry that counts, as fields of the opening."""
    triggered: list[ExitTriggered] = field(default_factory=list)

    @property
    def _stream(self) -> UUID:
        return self.appends[0].stream

    def events(self) -> list[Append]:
        """All events in effective order."""
        facts = [one for one in self.journal.facts if one.at <= self.until]
        items = [one for one in _items(self.appends, self.journal) if one.at <= self.until]
        first = first_entry(self.journal)
        if first is None:
            return self._never_held(facts)
        if first.at > self.until:
            return []
        self.folding, self.since = begin(self.position, self.journal), held_since(self.journal)
        everything: list[Fact | _Item] = [*facts, *items]
        for one in sorted(everything, key=attrgetter("at", "version")):
            if isinstance(one, _Item):
                self._arrived(one.append)
            else:
                self._fact(one)
        self._end()
        return self.out

    # Facts

    def _fact(self, fact: Fact) -> None:
        before = self.folding.position
        step(self.folding, fact)
        if isinstance(fact, FillFact):
            self._filled(fact, before)
        elif isinstance(fact, ReceivedFact):
            self._received(fact)
        elif isinstance(fact, TransferredFact):
            self._transferred(fact, before)
        elif isinstance(fact, SplitFact):
            self._split(fact)
        else:
            raise TypeError(f"{type(fact).__name__} cannot be told in effective order yet")

    def _filled(self, fact: FillFact, before: Position) -> None:
        if not self.out:
            if fact.is_entry and fact.counts:
                self._open(fact)
            return
        if not fact.counts and not fact.fill.fee:
            return
        if before.quantity and not self.folding.position.quantity:
            self.before_flat, self.flat_at = before, len(self.out)
        if fact.is_entry and fact.counts:
            self._entered()
        if fact.counts:
            self.last_fact = len(self.out), fact
        kind = PositionIncreased if fact.is_entry else PositionReduced
        self._tell(fact, kind(**self._told(fact)))

    def _entered(self) -> None:
        """Something is held again: what was handed on before was not the end."""
        if self.is_handed_on:
            told = self.out[self.flat_at]
            event = cast("PositionTransferred", told.event)
            self.out[self.flat_at] = replace(told, event=self._as_restated(told, event.figures))
        self.before_flat, self.is_handed_on = None, False

    def _received(self, fact: ReceivedFact) -> None:
        if not fact.counts:
            return
        figures = figures_of(self.folding.position)
        self.last_fact = len(self.out), fact
        if self.out:
            self._entered()
            self._tell(fact, self._as_restated(Append(self._stream, fact.version, fact.event, fact.at), figures))
            return
        told = {"entry_time": fact.entry_time, "figures": figures}
        brought = brought_with(self.position.side, fact.cost, fact.fees)
        self._tell(fact, fact.event.model_copy(update=self.exits | told | {"brought": brought}))

    def _as_restated(self, told: Append, figures: Figures) -> TransferRestated:
        """Say that the position is open with these figures, where no event of its own says so."""
        mark, position = self.last_mark, self.folding.position
        restated = Restated(
            figures=figures,
            status=Status.OPEN,
            entry_time=self.folding.entry_time or position.entry_time,
            mark_time=mark.effective_at if mark else None,
            mark_source=cast("PositionMarked", mark.event).source if mark else None,
            last_fill_at=told.effective_at,
        )
        return TransferRestated(
            because=StreamRef(stream=told.stream, version=told.version),
            quantity=figures.quantity,
            cost=figures.cost,
            fees=figures.open_fees,
            entry_time=restated.entry_time,
            restated=restated,
        )

    def _transferred(self, fact: TransferredFact, before: Position) -> None:
        quantity, cost, fees, _ = self.folding.moved[fact.version]
        if not quantity:
            return
        figures = figures_of(self.folding.position)
        if not figures.quantity:
            self.before_flat, self.flat_at = before, len(self.out)
            self.is_handed_on = True
        self.last_fact = len(self.out), fact
        brought = minus(ZERO, brought_with(self.position.side, cost, fees))
        told = {"quantity": quantity, "cost": cost, "fees": fees, "brought": brought, "figures": figures}
        self._tell(fact, fact.event.model_copy(update=told))

    def _split(self, fact: SplitFact) -> None:
        if self.out:
            self._tell(fact, fact.event.model_copy(update={"figures": figures_of(self.folding.position)}))
        else:
            self._before_the_opening(fact.event)

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
        self.out.append(Append(self._stream, fact.version, event, fact.at))

    def _open(self, fact: FillFact) -> None:
        begun, position = self.journal.begun, self.folding.position
        identity = begun.__dict__ if isinstance(begun, PositionOpened) else identity_of(begun)
        told = {"entry_time": fact.at, "fill": self._fill(fact), "figures": figures_of(position)}
        self.last_fact = 0, fact
        self._tell(fact, PositionOpened(**identity | self.exits | told))

    # What arrived beside them

    def _arrived(self, append: Append) -> None:
        event = append.event
        if not isinstance(event, PositionMarked):
            self.out.append(append)
        elif self.since is not None and append.effective_at < self.since:
            self._keep_trailing(event)
        elif self.before_flat is not None:
            self.folding.quote = event.price
            self._insert(self._marked(append, self.before_flat))
        else:
            self.folding.quote = event.price
            self.folding.take(valued(self.folding.position, event.price))
            self.out.append(self._marked(append, self.folding.position))

    def _keep_trailing(self, mark: PositionMarked) -> None:
        """Keep of a mark of nothing held what it made of the trailing stop: that was in force."""
        if mark.trailing_stop is None:
            return
        for index in reversed(range(len(self.out))):
            event = self.out[index].event
            if isinstance(event, _CARRY_EXITS):
                changed = event.model_copy(update={"trailing_stop": mark.trailing_stop})
                self.out[index] = replace(self.out[index], event=changed)
                return

    def _insert(self, mark: Append) -> None:
        """Put a mark before what made the position flat; what follows keeps what it changed."""
        self.out.insert(self.flat_at, mark)
        self.flat_at += 1
        if self.last_fact and self.last_fact[0] >= self.flat_at - 1:
            self.last_fact = self.last_fact[0] + 1, self.last_fact[1]
        marked = cast("PositionMarked", mark.event)
        for index in range(self.flat_at, len(self.out)):
            event: Any = self.out[index].event
            changed: dict[str, Any] = {}
            if isinstance(event, SharesSplit | ExitsSet) and marked.trailing_stop is not None:
                changed["trailing_stop"] = marked.trailing_stop
            if self.is_handed_on and "figures" in type(event).model_fields:
                changed["figures"] = event.figures.model_copy(update={"current_price": marked.price})
            self.out[index] = replace(self.out[index], event=event.model_copy(update=changed))
        if self.is_handed_on:
            self.folding.take(valued(self.folding.position, marked.price))

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
        elif isinstance(event, SharesSplit):
            self.exits = {name: getattr(event, name) for name in ExitsSet.model_fields}
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
        elif not position.quantity and self.last_fact is not None and isinstance(self.last_fact[1], FillFact):
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
        self.out.append(Append(self._stream, verdict.version, event, verdict.at))

    def _never_held(self, facts: Sequence[Fact]) -> list[Append]:
        """Tell of a position without an entry left: it began, and the last bust, here or of the giver, left nothing."""
        ends = [append for append in self.appends if isinstance(append.event, TradeBusted | TransferRestated)]
        if not facts or not ends:
            return []
        for append in self.appends:
            if isinstance(append.event, (*_AS_ARRIVED, SharesSplit)) and append.effective_at <= self.until:
                self._before_the_opening(append.event)
        restated, _ = restate(self.position, replace(self.journal, facts=tuple(facts), verdict=None))
        end: Any = ends[-1].event
        first = replace(self.appends[0], event=self.journal.begun.model_copy(update=self.exits))
        told = [replace(first, event=event) for event in self.triggered]
        return [first, *told, replace(ends[-1], event=end.model_copy(update={"restated": restated}))]
