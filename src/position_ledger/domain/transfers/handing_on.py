"""Restating a position and all that came of it: what changes before a transfer changes what was handed on.

A transfer is a fact about contracts: it moves as many as were stated, at most what was held, at the average cost of its
time. So when facts before it change, the giver keeps what is more, the receiver has the rest at the new cost, and the
money follows. The receiver hears `TransferRestated` in the same append, is folded again itself, and so on: a tree, as
every receiver is a new position, of at most `RESTATED_MAX` positions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from position_ledger.domain.journal import TransferredFact, read_journal
from position_ledger.domain.numbers import minus
from position_ledger.domain.parts import HandedOn, StreamRef
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import TransferRestated
from position_ledger.domain.restating import Moved, folded, restate
from position_ledger.domain.transfers.arithmetic import brought_with

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from position_ledger.domain.draft import Draft
    from position_ledger.domain.journal import Journal, ReceivedFact
    from position_ledger.domain.parts import Restated
    from position_ledger.domain.position import Position
    from position_ledger.domain.restating import Folding
    from position_ledger.domain.vocabulary import Side

__all__ = ["RESTATED_MAX", "Restating", "restating"]

RESTATED_MAX: Final = 500
"""Positions that one command restates beside the one it is about: they are one transaction."""


@dataclass(frozen=True, slots=True)
class Restating:
    """One position folded again, and what it has handed on otherwise than was told."""

    position: Position
    """Before."""
    restated: Restated
    folding: Folding
    changed: tuple[tuple[TransferredFact, Moved], ...]

    def book(self, draft: Draft, stream: UUID, event: Any, at: datetime | None = None) -> None:
        """Append the event that carries ``restated``, what it means for the book, and what receivers hear of it.

        Raises `CommandRejected` (`handed_on`) when more positions than `RESTATED_MAX` hold what came of this one.
        """
        _append(draft, stream, self, event, at)
        due = deque(_due(draft, stream, self))
        told = 0
        while due:
            _require_bounded(told + len(due))
            told += 1
            due.extend(_tell(draft, due.popleft()))


@dataclass(frozen=True, slots=True)
class _Due:
    """A receiver that is to hear what it received."""

    receiver: UUID
    moved: Moved
    because: StreamRef


def restating(position: Position, before: Journal, after: Journal) -> Restating:
    """Fold ``after``, and find the transfers that moved something else by ``before``."""
    restated, folding = restate(position, after)
    transfers = [fact for fact in after.facts if isinstance(fact, TransferredFact)]
    if not transfers:
        return Restating(position, restated, folding, ())
    old = folded(position, before).moved
    changed = tuple((fact, folding.moved[fact.version]) for fact in transfers)
    changed = tuple((fact, now) for fact, now in changed if now != old[fact.version])
    handed_on = tuple(_handed_on(position.side, fact, old[fact.version], now) for fact, now in changed)
    return Restating(position, restated.model_copy(update={"handed_on": handed_on}), folding, changed)


def _handed_on(side: Side, fact: TransferredFact, old: Moved, now: Moved) -> HandedOn:
    return HandedOn(
        version=fact.version,
        at=fact.at,
        quantity=now.quantity,
        cost=now.cost,
        fees=now.fees,
        brought=minus(brought_with(side, old.cost, old.fees), brought_with(side, now.cost, now.fees)),
    )


def _append(draft: Draft, stream: UUID, restating_: Restating, event: Any, at: datetime | None) -> None:
    draft.append(stream, restating_.position.version, event, at=at)
    draft.note_restated(stream, restating_.position, restating_.restated)


def _due(draft: Draft, stream: UUID, restating_: Restating) -> Sequence[_Due]:
    version = draft.position(stream).version if restating_.changed else 0
    because = StreamRef(stream=stream, version=version)
    return [_Due(fact.event.receiver.stream, moved, because) for fact, moved in restating_.changed]


def _tell(draft: Draft, due: _Due) -> Sequence[_Due]:
    """Restate one receiver; those that have it from there."""
    stream, (quantity, cost, fees, entry_time) = due.receiver, due.moved
    position, before = draft.position(stream), read_journal(draft.journal(stream))
    fact = cast("ReceivedFact", before.received)
    since = entry_time or fact.entry_time
    after = before.with_fact(replace(fact, quantity=quantity, cost=cost, fees=fees, entry_time=since))
    again = restating(position, before, after)
    side = position.side
    event = TransferRestated(
        because=due.because,
        quantity=quantity,
        cost=cost,
        fees=fees,
        entry_time=since,
        brought=minus(brought_with(side, cost, fees), brought_with(side, fact.cost, fact.fees)),
        restated=again.restated,
    )
    _append(draft, stream, again, event, fact.at)
    draft.receivers.append(stream)
    return _due(draft, stream, again)


def _require_bounded(count: int) -> None:
    if count > RESTATED_MAX:
        raise CommandRejected(Reason.HANDED_ON, value=count, held=RESTATED_MAX)
