"""What restated positions have realized, on the time of each fact that made it.

The rows of such a position are in the order in which things became known. So its facts, with busts and corrections
applied, are folded again in effective order, with the functions that booked them; what each fact changes realized_pnl
by is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from psycopg.sql import SQL, Identifier

from position_ledger.domain.decisions import Append, fold_append
from position_ledger.domain.journal import Journal, read_journal
from position_ledger.domain.numbers import ZERO, minus, plus
from position_ledger.domain.position import Position
from position_ledger.domain.restating import Folding, begin, settle, step
from position_ledger.errors import VerificationFailed
from position_ledger.reporting.snapshot import Query, TableRow
from position_ledger.store.codec import Codec

__all__ = ["realized_by_fact", "realized_of_restated"]

POSITIONS_AT_ONCE_MAX: Final = 200

# Only what the row has: events that are not projected yet are in neither axis of a report.
EVENTS = """
SELECT w.number, e.originator_id AS stream, e.originator_version AS version, e.topic, e.state, e.effective_at
  FROM unnest(%(numbers)s::bigint[], %(last)s::bigint[]) AS w (number, last)
  JOIN {events} AS o ON o.notification_id = w.number
  JOIN {events} AS e ON e.originator_id = o.originator_id AND e.notification_id <= w.last
 WHERE e.topic <> 'position.marked' ORDER BY w.number, e.originator_version
"""


def realized_of_restated(
    query: Query, schema: str, codec: Codec, positions: Sequence[TableRow]
) -> Iterator[tuple[TableRow, datetime, Decimal]]:
    """What each fact of each position realized: the position, when, and how much.

    ``positions``: their current rows, with id, position_id and realized_pnl.

    Raises:
        VerificationFailed: the events of a position do not add up to its row.
    """
    statement = SQL(EVENTS).format(events=Identifier(schema, "events"))
    for first in range(0, len(positions), POSITIONS_AT_ONCE_MAX):
        rows = {int(row["position_id"].removeprefix("POS-")): row for row in positions[first:][:POSITIONS_AT_ONCE_MAX]}
        found = query(statement, {"numbers": list(rows), "last": [row["id"] for row in rows.values()]})
        for number, events in groupby(found, key=itemgetter("number")):
            changes = _changes([_append(event, codec) for event in events])
            row = rows[number]
            if reduce(plus, (change for _, change in changes), ZERO) != row["realized_pnl"]:
                msg = (
                    f"table positions, {row['position_id']}, realized_pnl is {row['realized_pnl']}, which is not what its "
                    "events add up to: position-ledger verify positions"
                )
                raise VerificationFailed(msg)
            yield from ((row, at, change) for at, change in changes if change)


def _append(event: TableRow, codec: Codec) -> Append:
    body = codec.decode(event["topic"], event["state"])
    return Append(event["stream"], event["version"], body, event["effective_at"])


def _changes(appends: Sequence[Append]) -> list[tuple[datetime, Decimal]]:
    position: Any = None
    for append in appends:
        position = fold_append(position, append)
    return list(realized_by_fact(position, read_journal(appends)))


def realized_by_fact(position: Position, journal: Journal) -> Iterator[tuple[datetime, Decimal]]:
    """When each fact happened and what it changed realized_pnl by, zeros included, in effective order. Pure.

    ``position`` is any state of it: its side and terms count.
    """
    realized = ZERO
    folding = begin(position, journal)
    for at in _folded(folding, journal):
        now = folding.position.realized_pnl
        yield at, minus(now, realized)
        realized = now


def _folded(folding: Folding, journal: Journal) -> Iterator[datetime]:
    """Fold one fact after the other, and stop after each; last what the market did."""
    for fact in journal.facts:
        step(folding, fact)
        yield fact.at
    if journal.verdict is not None:
        settle(folding, journal.verdict)
        yield journal.verdict.at
