"""Where the audit is and what it has found, as the database keeps it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.projection.differences import NO_ROW, Difference

FINDINGS_MAX: Final = 100
"""Open findings that are kept for each generation: a table that is wrong all over needs a rebuild, not a list."""

PLACES = """
SELECT a.generation_id, a.next_stream FROM projection_audits AS a WHERE a.generation_id = ANY(%s)
 ORDER BY a.looked_at DESC, a.generation_id
"""
BEGIN = """
INSERT INTO projection_audits (generation_id, begun_stream, next_stream)
SELECT g.id, %(at)s, %(at)s FROM unnest(%(generations)s::int[]) AS g (id)
    ON CONFLICT (generation_id) DO UPDATE SET begun_stream = excluded.begun_stream, next_stream = excluded.next_stream,
       begun_at = clock_timestamp(), events = 0
"""

# A round ends when it comes to the stream where it began. After the last stream the first one follows.
MOVE = """
UPDATE projection_audits AS a
   SET next_stream = %(to)s, looked_at = clock_timestamp(),
       begun_stream = CASE WHEN p.has_ended THEN %(to)s ELSE a.begun_stream END,
       events = CASE WHEN p.has_ended THEN 0 ELSE a.events + %(events)s END,
       begun_at = CASE WHEN p.has_ended THEN clock_timestamp() ELSE a.begun_at END,
       ended_at = CASE WHEN p.has_ended THEN clock_timestamp() ELSE a.ended_at END,
       ended_events = CASE WHEN p.has_ended THEN a.events + %(events)s ELSE a.ended_events END
  FROM (SELECT b.generation_id, (b.begun_stream > b.next_stream OR %(is_round)s AND b.begun_stream = %(to)s)
                                AND (%(is_round)s OR b.begun_stream <= %(to)s) AS has_ended
          FROM projection_audits AS b WHERE b.generation_id = ANY(%(generations)s)) AS p
 WHERE p.generation_id = a.generation_id
"""
FIND = """
INSERT INTO audit_findings AS f (generation_id, id, key, column_name, expected, found, found_at, seen_at)
SELECT %(generation)s, d.id, d.key, d.column_name, d.expected, d.found, now(), now()
  FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(columns)s::text[], %(expected)s::text[], %(found)s::text[])
       AS d (id, key, column_name, expected, found)
 WHERE EXISTS (SELECT FROM audit_findings AS k WHERE k.generation_id = %(generation)s AND k.id = d.id)
    OR (SELECT count(*) FROM audit_findings AS o WHERE o.generation_id = %(generation)s AND o.closed_at IS NULL) < %(most)s
    ON CONFLICT (generation_id, id) DO UPDATE SET key = excluded.key, column_name = excluded.column_name,
       expected = excluded.expected, found = excluded.found, seen_at = now(), closed_at = NULL,
       found_at = CASE WHEN f.closed_at IS NULL THEN f.found_at ELSE now() END
RETURNING f.id, f.found_at = now()
"""
CLOSE = """
UPDATE audit_findings AS f SET closed_at = now()
 WHERE f.closed_at IS NULL AND f.generation_id = %(generation)s AND f.id = ANY(%(right)s)
RETURNING f.id
"""
CLOSE_REPLACED = """
UPDATE audit_findings AS f SET closed_at = now()
 WHERE f.closed_at IS NULL
   AND EXISTS (SELECT FROM projection_generations AS g WHERE g.generation_id = f.generation_id AND g.state <> 'active')
RETURNING f.id
"""
HAS_SURPLUS = """
SELECT count(*) FROM audit_findings AS f
 WHERE f.closed_at IS NULL AND f.generation_id = %(generation)s AND f.expected = %(no_row)s
"""


def close_surplus(schema: str, table: str) -> Composed:
    """Close the findings of rows that no event made and that are gone (parameters: generation, no_row)."""
    return SQL(
        "UPDATE audit_findings AS f SET closed_at = now() WHERE f.closed_at IS NULL AND f.generation_id = %(generation)s"
        " AND f.expected = %(no_row)s AND NOT EXISTS (SELECT FROM {} AS t WHERE t.id = f.id) RETURNING f.id"
    ).format(Identifier(schema, table))


def places(connection: psycopg.Connection[Any], generations: Collection[int]) -> dict[int, UUID]:
    """The stream with which each generation goes on, the one that was looked at last first."""
    return dict(connection.execute(PLACES, (list(generations),)).fetchall())


def begin(connection: psycopg.Connection[Any], generations: Collection[int], at: UUID) -> None:
    """A new round for generations that were not looked at so far, or not with the others."""
    if generations:
        connection.execute(BEGIN, {"generations": list(generations), "at": at})


def move(
    connection: psycopg.Connection[Any], generations: Collection[int], to: UUID, events: int, *, is_round: bool
) -> None:
    """The walk has come to a stream; with ``is_round`` it has passed the last one and ``to`` is the first."""
    parameters = {"generations": list(generations), "to": to, "events": events, "is_round": is_round}
    connection.execute(MOVE, parameters)


def find(connection: psycopg.Connection[Any], generation: int, found: Sequence[Difference]) -> list[Difference]:
    """Keep the first difference of each row; answers those that are news."""
    first = {one.id: one for one in reversed(found)}
    if not first:
        return []
    rows = connection.execute(
        FIND,
        {
            "generation": generation,
            "ids": list(first),
            "keys": [one.key for one in first.values()],
            "columns": [one.column for one in first.values()],
            "expected": [one.expected for one in first.values()],
            "found": [one.found for one in first.values()],
            "most": FINDINGS_MAX,
        },
    ).fetchall()
    return [first[row_id] for row_id, is_news in rows if is_news]


def close(connection: psycopg.Connection[Any], generation: int, schema: str, table: str, right: Collection[int]) -> int:
    """Close what was found in rows that are right now, or gone as they should be; answers how many."""
    closed = connection.execute(CLOSE, {"generation": generation, "right": list(right)}).rowcount
    parameters = {"generation": generation, "no_row": NO_ROW}
    if connection.execute(HAS_SURPLUS, parameters).fetchone() != (0,):
        closed += connection.execute(close_surplus(schema, table), parameters).rowcount
    return closed


def close_replaced(connection: psycopg.Connection[Any]) -> int:
    """Close what was found in tables that others have replaced; answers how many."""
    return connection.execute(CLOSE_REPLACED).rowcount
