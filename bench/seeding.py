"""A long log, fast: a few real trades, decided and recorded by the ledger, repeated under new streams.

Bodies and topics are those of the real events; stream ids, versions, event ids and hashes are each stream's own, and all
of it goes through `store.append` as any other event does.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import cycle
from typing import Any

from bench.arena import Arena
from bench.writers import PRICES
from position_ledger import ClosePosition, IncreasePosition, Ledger, MarkPosition, OpenPosition, ReducePosition
from position_ledger.database import connect
from position_ledger.store.append import append
from position_ledger.store.envelope import NO_HASH, NewEvent, chain, new_event_id

LIFE_EVENTS = 50
"""Events of each position."""

APPEND_EVENTS = 1_000
PROCESSES = 2
LIFE = """
SELECT e.topic, e.state, e.effective_at
  FROM events AS o JOIN events AS e ON e.originator_id = o.originator_id
 WHERE o.notification_id = %s ORDER BY e.originator_version
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event of a life."""

    topic: str
    state: bytes
    effective_at: datetime


Life = Sequence[Recorded]


def lives(arena: Arena, ledger: Ledger) -> list[Life]:
    """Trade a few positions through the command API, project them, and read their events."""
    found: list[Life] = []
    with closing(connect(arena.database_url, arena.settings, as_app=True)) as connection:
        for side, closes in (("YES", True), ("NO", False)):
            number, token = _trade(ledger, side, closes=closes)
            ledger.wait_for(token, timeout_s=30)
            rows: list[tuple[Any, ...]] = connection.execute(LIFE, (number,), binary=True).fetchall()
            found.append([Recorded(topic, bytes(state), at) for topic, state, at in rows])
    return found


def _trade(ledger: Ledger, side: str, *, closes: bool) -> tuple[int, int]:
    opened = ledger.execute(
        OpenPosition(
            account="bench",
            market=f"BENCH-{side}",
            side=side,
            quantity=100,
            entry_price=Decimal("0.42"),
            environment="paper",
        )
    )
    position_id = opened.position_id or ""
    ledger.execute(IncreasePosition(position_id=position_id, quantity=50, price=Decimal("0.45")))
    ledger.execute(ReducePosition(position_id=position_id, quantity=30, price=Decimal("0.47")))
    token = opened.token
    for price in (PRICES * LIFE_EVENTS)[: LIFE_EVENTS - 4]:
        token = ledger.execute(MarkPosition(position_id=position_id, price=price)).token
    if closes:
        token = ledger.execute(ClosePosition(position_id=position_id, price=Decimal("0.51"), reason="target")).token
    return int(position_id.removeprefix("POS-")), token


def seed(arena: Arena, models: Sequence[Life], events: int) -> None:
    """Append so many more events, in a few processes."""
    parts = [events // PROCESSES] * PROCESSES
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        list(pool.map(partial(_seed_part, arena, models), parts))


def _seed_part(arena: Arena, models: Sequence[Life], events: int) -> None:
    batch: list[NewEvent] = []
    turns = cycle(models)
    with closing(connect(arena.database_url, arena.settings, as_app=True)) as connection:
        done = 0
        while done < events:
            batch += _again(next(turns))
            if len(batch) >= APPEND_EVENTS or done + len(batch) >= events:
                append(connection, batch[: events - done])
                done += len(batch)
                batch = []


def _again(life: Life) -> list[NewEvent]:
    """The same life of another position."""
    stream, previous, events = new_event_id(), NO_HASH, []
    for version, event in enumerate(life, 1):
        previous = chain(previous, stream, version, event.topic, event.state, {})
        events.append(
            NewEvent(stream, version, event.topic, event.state, new_event_id(), event.effective_at, previous, {})
        )
    return events
