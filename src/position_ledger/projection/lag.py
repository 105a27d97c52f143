"""How far a table is behind the log, in events and in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

LAG_COUNTED_MAX = 10_000
"""A lag of more events than this is told as «more than»."""

# Events beyond the checkpoint of their shard, the oldest first; the lowest checkpoint lets the index skip the others.
LAG = """
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(b.recorded_at))::float8, 0)
  FROM (SELECT e.recorded_at FROM events AS e JOIN projection_checkpoints AS c
            ON c.generation_id = %(generation)s AND e.originator_id BETWEEN c.stream_from AND c.stream_to
         WHERE e.notification_id > %(lowest)s AND e.notification_id > c.position
         ORDER BY e.notification_id LIMIT %(limit)s) AS b
"""

ACTIVE = """
SELECT g.generation_id, min(c.position) FROM projection_generations AS g JOIN projection_checkpoints AS c
       USING (generation_id)
 WHERE g.state = 'active' AND g.mode = 'worker' AND g.projection = %s GROUP BY g.generation_id
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a table is behind the log: events not yet in it, and the age of the oldest of them."""

    events: int
    age_s: float
    is_more: bool = False
    """There are more events than were counted."""


def lag_of(connection: psycopg.Connection[Any], generation_id: int, lowest: int) -> Lag:
    """How far a generation is behind the log; ``lowest`` is the lowest checkpoint of its shards."""
    row = connection.execute(
        LAG, {"generation": generation_id, "lowest": lowest, "limit": LAG_COUNTED_MAX + 1}
    ).fetchone()
    count, age_s = row if row is not None else (0, 0.0)
    return Lag(min(count, LAG_COUNTED_MAX), round(max(0.0, age_s), 3), count > LAG_COUNTED_MAX)


def lag_of_table(connection: psycopg.Connection[Any], table: str) -> Lag:
    """How far the generation that readers see is behind; one that commands project themselves never is."""
    row = connection.execute(ACTIVE, (table,)).fetchone()
    return Lag(0, 0.0) if row is None else lag_of(connection, row[0], row[1])
