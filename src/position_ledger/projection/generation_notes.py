"""What is written down beside a generation: what its fingerprint is made of, and until when a retired one is kept.

A database in which a release that skipped some has only begun to migrate lacks the columns; then nothing is written.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import parts_of

HAS_NOTES = """
SELECT count(*) = 2 FROM pg_attribute AS a WHERE a.attrelid = to_regclass('projection_generations')
   AND a.attname IN ('fingerprint_parts', 'kept_until') AND NOT a.attisdropped
"""
NOTE_PARTS = "UPDATE projection_generations SET fingerprint_parts = %s WHERE generation_id = %s"
KEEP_FOR = """
UPDATE projection_generations SET kept_until = clock_timestamp() + make_interval(secs => %s) WHERE generation_id = %s
"""
KEEP = "UPDATE projection_generations SET kept_until = NULL WHERE generation_id = %s"

HAS_FUNCTION = "SELECT to_regprocedure('drop_expired_generations()') IS NOT NULL"
DROP_EXPIRED = "SELECT drop_expired_generations()"


def has_notes(connection: psycopg.Connection[Any]) -> bool:
    """Whether the migrations of this database have come so far."""
    return connection.execute(HAS_NOTES).fetchone() == (True,)


def note_parts(connection: psycopg.Connection[Any], generation_id: int, projection: Projection[Any]) -> None:
    """Write down what the fingerprint of a generation is made of."""
    if has_notes(connection):
        connection.execute(NOTE_PARTS, (Jsonb(dict(parts_of(projection))), generation_id))


def keep_for(connection: psycopg.Connection[Any], generation_id: int, hours: float) -> None:
    """Have a generation that retires now dropped so many hours later, by the clock of the database."""
    if has_notes(connection):
        connection.execute(KEEP_FOR, (hours * 3600, generation_id))


def keep(connection: psycopg.Connection[Any], generation_id: int) -> None:
    """Have a generation kept that has become the live one again."""
    if has_notes(connection):
        connection.execute(KEEP, (generation_id,))


def drop_expired(connection: psycopg.Connection[Any]) -> list[int]:
    """What a worker does now and then: drop retired generations whose time is over; answers their ids.

    Never waits: what somebody reads, projects or swaps is left to the next call.
    """
    if connection.execute(HAS_FUNCTION).fetchone() != (True,):
        return []
    row = connection.execute(DROP_EXPIRED).fetchone()
    return list(row[0]) if row else []
