"""Fills of the same time: a sell that was refused before must not be let in by a buy that was recorded since.

The domain judges a sell by what was held at its time, by all that is known. Among fills of exactly the same time it
takes them in the order of arrival, and many exports tell time in seconds. So when a sell comes again, or comes from
another export, the ledger may hold a buy of the same second that the venue executed after it. The file knows which of
its rows were before the sell; whatever else the position has of that time may have come later, and does not count.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from position_ledger.domain.book import BookKey
from position_ledger.domain.fills import positions_then
from position_ledger.domain.legs import held_then
from position_ledger.domain.numbers import ZERO, minus, plus
from position_ledger.domain.position import Position
from position_ledger.domain.vocabulary import OnExcess, Side
from position_ledger.importing.refusals import RowReason, RowRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal
    from uuid import UUID

    from position_ledger.domain.commands import RecordFill
    from position_ledger.execution.streams import WorkingStreams
    from position_ledger.importing.rows import Candidate

__all__ = ["require_known_order"]


def require_known_order(candidate: Candidate, states: WorkingStreams) -> None:
    """Refuse an exit that only entries of unknown order could cover. Raises `RowRefused` (order_unknown)."""
    command = candidate.command
    key, side = _addressed(command)
    if command.action is side.entry_action or command.on_excess is not OnExcess.REFUSE:
        return
    at = command.effective_at
    if at is None:
        return
    positions = positions_then(key, side, states, at, is_entry=False)
    doubtful = [quantity for located in positions for quantity in _doubtful(candidate, side, located.stream, states)]
    if not doubtful:
        return
    held = reduce(plus, (held_then(located, states, at) for located in positions), ZERO)
    certain = minus(held, reduce(plus, doubtful, ZERO))
    if minus(command.quantity, certain) > command.dust:
        raise RowRefused(RowReason.ORDER_UNKNOWN, value=at, held=certain)


def _addressed(command: RecordFill) -> tuple[BookKey, Side]:
    environment, account, market, side = command.environment, command.account, command.market, command.side
    if environment is None or account is None or market is None or side is None:
        raise TypeError("a fill that was read from a row has a key")
    return BookKey(environment, account, market, command.strategy), side


def _doubtful(candidate: Candidate, side: Side, stream: UUID, states: WorkingStreams) -> Iterator[Decimal]:
    """Quantities of entries of the same time that the log has and the file does not have before this row."""
    at = candidate.command.effective_at
    logged = states.loaded(stream).state
    if at is None or not isinstance(logged, Position) or logged.last_fill_at < at:
        return
    for fill in states.fills_at(stream, at):
        if fill.action is side.entry_action and not candidate.is_before(fill.venue, fill.venue_fill_id):
            yield fill.quantity
