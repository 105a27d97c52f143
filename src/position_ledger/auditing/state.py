"""What the audit has to say: how far it is with each live table, and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.projection.differences import Difference

FINDINGS_SHOWN_MAX = 10

THERE_ARE = "SELECT to_regclass('projection_audits') IS NOT NULL"
AUDITS = """
SELECT g.projection, a.generation_id, a.ended_at, a.ended_events, a.looked_at, a.begun_at, a.events, a.begun_stream,
       a.next_stream,
       (SELECT count(*) FROM audit_findings AS f WHERE f.generation_id = a.generation_id AND f.closed_at IS NULL)
  FROM projection_audits AS a JOIN projection_generations AS g USING (generation_id)
 WHERE g.state = 'active' ORDER BY g.projection
"""
FINDINGS = """
SELECT g.projection, f.key, f.id, f.column_name, f.expected, f.found
  FROM audit_findings AS f JOIN projection_generations AS g USING (generation_id)
 WHERE f.closed_at IS NULL AND g.state = 'active' ORDER BY g.projection, f.id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """How far the workers have compared one live table with the log."""

    table: str
    generation_id: int
    ended_at: datetime | None
    """When the last whole round over all streams ended; None before the first."""
    ended_events: int | None
    looked_at: datetime
    begun_at: datetime
    """When this round began."""
    events: int
    """Events that this round has read."""
    done: float
    """The share of all streams that this round has looked at, 0 to 1."""
    differences: int
    """Rows that differ as far as it knows."""


def is_possible(connection: psycopg.Connection[Any]) -> bool:
    """Whether the schema is not older than audits."""
    return connection.execute(THERE_ARE).fetchone() == (True,)


def audits(connection: psycopg.Connection[Any]) -> list[AuditStatus]:
    """One for each live table that was looked at; none where the schema is older than audits."""
    if not is_possible(connection):
        return []
    rows = connection.execute(AUDITS).fetchall()
    return [AuditStatus(*(*row[:7], share(row[7], row[8]), row[9])) for row in rows]


def share(begun: UUID, at: UUID) -> float:
    """How much of the circle of all streams lies between the two: stream ids are spread evenly."""
    return round(((at.int - begun.int) % 2**128) / 2**128, 4)


def findings(connection: psycopg.Connection[Any]) -> list[Difference]:
    """The first rows of live tables that differ, as far as the audit knows."""
    if not is_possible(connection):
        return []
    return [Difference(*row) for row in connection.execute(FINDINGS, (FINDINGS_SHOWN_MAX,)).fetchall()]
