"""Which version of each business key answers for an effective time, and whether its events must be folded again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from position_ledger.projection.definition import Projection
from position_ledger.reading import ROWS_MAX

HEADS: Final = """
WITH known AS (
    SELECT p.{key} AS key, p.id, p.version, p.effective_at, {restated} AS is_restated FROM {table} AS p WHERE {where}
), heads AS (
    SELECT k.key, min(k.id) AS opened, max(k.id) AS upto, bool_or(k.is_restated) AS is_restated,
           max(k.version) FILTER (WHERE k.effective_at <= %(as_of)s) AS head,
           min(k.version) FILTER (WHERE k.effective_at > %(as_of)s) AS beyond,
           bool_or(k.version = 1 AND k.effective_at <= %(as_of)s) AS has_begun
      FROM known AS k GROUP BY k.key
)
SELECT h.opened, h.upto, k.id, h.is_restated OR coalesce(h.beyond < h.head, false) OR {disordered}
  FROM heads AS h JOIN known AS k ON k.key = h.key AND k.version = coalesce(h.head, 1)
 WHERE h.has_begun OR h.is_restated ORDER BY k.id DESC LIMIT {limit}
"""
DISORDERED: Final = SQL("""EXISTS (
           SELECT FROM known AS l JOIN known AS m ON m.key = l.key AND m.version = l.version + 1
            WHERE l.key = h.key AND m.version <= h.head AND m.effective_at < l.effective_at)""")
"""Whether of the versions up to the head one is effective before its predecessor."""
RESTATED: Final = SQL("p.restatements > 0")
"""Whether a version of a position says that it was restated: its versions are no prefix of its life then."""


class Head(NamedTuple):
    """What answers for a business key."""

    opened: int
    """First event that the table knows of it."""
    upto: int
    """The last."""
    id: int
    """Of the version that answers, or that the answer is laid over."""
    is_refolded: bool


def heads_of(
    connection: psycopg.Connection[Any],
    schema: str,
    projection: Projection[Any],
    where: Composable,
    parameters: Mapping[str, Any],
) -> list[Head]:
    """Find the head of every key that had begun by ``parameters['as_of']``, or may have by what is known now.

    The rows of positions say themselves whether they were restated, and folding marks in another order changes nothing;
    other tables are asked for versions that are out of order.
    """
    is_positions = projection.table == "positions"
    statement = SQL(HEADS).format(
        key=Identifier(projection.key_column),
        restated=RESTATED if is_positions else SQL("false"),
        disordered=SQL("false") if is_positions else DISORDERED,
        table=Identifier(schema, projection.table),
        where=where,
        limit=Literal(ROWS_MAX),
    )
    return [Head(*row) for row in connection.execute(statement, parameters, prepare=False)]
