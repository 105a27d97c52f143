"""The last few events of a generation, projected under an exclusive lock by whoever is about to change its place."""

from __future__ import annotations

from typing import Any

import psycopg

from position_ledger.domain.errors import LedgerError
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.projector import apply_events
from position_ledger.projection.references import Resolver
from position_ledger.store import feed
from position_ledger.store.codec import Codec

TAIL_EVENTS_MAX = 500
"""Events that are projected while everybody waits; with more left the followers must go on first."""

TAKE_OVER = """
UPDATE projection_checkpoints AS c SET token = c.token + 1, holder = NULL, lease_until = '-infinity'
 WHERE c.generation_id = %s
RETURNING c.stream_from, c.stream_to, c.position
"""
REACHED = """
UPDATE projection_checkpoints AS c SET position = %(upto)s
 WHERE c.generation_id = %(generation)s AND c.position < %(upto)s
"""


class TailTooLong(LedgerError):
    """More events are left than may be projected under a lock; let the followers go on and try again."""


def project_tail(
    connection: psycopg.Connection[Any],
    generation: Generation,
    projection: Projection[Any],
    codec: Codec,
    upto: int,
) -> int:
    """Bring every shard of a generation to ``upto``, inside the caller's transaction; answers how many events that took.

    The caller holds the generation's lock exclusively, and ``upto`` is a horizon. Every lease is taken away: who held
    one acquires it again, with rows read afresh.

    Raises:
        TailTooLong: more than `TAIL_EVENTS_MAX` events are left; the caller must roll back.
    """
    positions = connection.execute(TAKE_OVER, (generation.generation_id,)).fetchall()
    events = 0
    resolver = Resolver(codec, projection.folds)
    for position in sorted({row[2] for row in positions if row[2] < upto}):
        ranges = [(low, high) for low, high, at in positions if at == position]
        rows = feed.page(
            connection,
            after=position,
            upto=upto,
            topics=projection.topics,
            ranges=ranges,
            limit=TAIL_EVENTS_MAX + 1,
        )
        events += len(rows)
        if events > TAIL_EVENTS_MAX:
            msg = f"more than {TAIL_EVENTS_MAX} events of {projection.table} are not projected yet"
            raise TailTooLong(msg)
        apply_events(connection, generation.schema, projection, resolver.resolve(connection, rows), {})
    connection.execute(REACHED, {"upto": upto, "generation": generation.generation_id})
    return events
