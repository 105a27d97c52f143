"""One look of the audit: a step of the walk, compared with the rows in one short snapshot, and what came of it written down."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.auditing import records
from position_ledger.auditing.walk import Audited, Cursor, Step, step
from position_ledger.projection import statements
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import Difference, comparison, differing, folded
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation, kept
from position_ledger.projection.lag import lag_of_table
from position_ledger.projection.references import Resolver
from position_ledger.projection.scd2 import Version
from position_ledger.projection.snapshots import pinned, reach, snapshot
from position_ledger.store.codec import Codec
from position_ledger.store.feed import LOWEST_STREAM

LAG_MAX_S: Final = 1.0
"""While a table is further behind than this, nothing is audited: projecting comes first."""

DIFFERENCES_MAX: Final = 1_000
"""Rows of one look and table that are told apart; more of them would say the same."""

LAST_VERSION: Final = 2**31 - 1
NOT_FOLDED: Final = "the rows of its stream"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to."""

    events: int
    is_round: bool = False
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class _Live:
    """An active generation of our code."""

    projection: Projection[Any]
    generation: Generation


class Auditor:
    """Walks over one connection, round after round. It is alone: whoever makes it holds the lock."""

    def __init__(
        self, connection: psycopg.Connection[Any], projections: Sequence[Projection[Any]], codec: Codec, *, limit: int
    ) -> None:
        """``limit``: events that one look reads at most."""
        self._connection = connection
        self._projections = projections
        self._resolver = Resolver(codec, {event for one in projections for event in one.folds})
        self._limit = limit
        self._cursor = Cursor()
        self._walking: list[int] = []

    def look(self) -> Looked:
        """One step; nothing while there is no table of our code, or one that is behind."""
        live = self._live()
        if not live or any(lag_of_table(self._connection, one.projection.table).age_s > LAG_MAX_S for one in live):
            return Looked(0)
        self._join([one.generation.generation_id for one in live])
        with snapshot(self._connection):
            tables = []
            for one in live:
                if pinned(self._connection, one.generation).generation_id != one.generation.generation_id:
                    return Looked(0)  # swapped meanwhile
                tables.append(Audited(one.projection, reach(self._connection, one.generation)))
            done = step(self._connection, tables, self._resolver, self._cursor, self._limit)
            found = {one.generation.generation_id: list(_found(self._connection, one, done)) for one in live}
        self._resolver.forget()
        news = self._record(live, done, found)
        self._cursor = done.cursor
        return Looked(done.events, done.is_round, tuple(news))

    def _live(self) -> list[_Live]:
        ours = {fingerprint_of(one): one for one in self._projections}
        return [
            _Live(ours[one.fingerprint], one)
            for one in kept(self._connection)
            if one.state == "active" and one.fingerprint in ours
        ]

    def _join(self, generations: list[int]) -> None:
        """All walk together: who was not with them begins a round where the others are."""
        places = records.places(self._connection, generations)
        at = next(iter(places.values()), LOWEST_STREAM)
        records.begin(self._connection, [one for one in generations if places.get(one) != at], at)
        if generations != self._walking or at != self._cursor.stream:
            self._cursor, self._walking = Cursor(at), generations

    def _record(self, live: Sequence[_Live], done: Step, found: dict[int, list[Difference]]) -> list[Difference]:
        """In one transaction: the place, what was found, and what is right again."""
        news: list[Difference] = []
        with self._connection.transaction():
            for one in live:
                generation, table = one.generation, one.projection.table
                differences = found[generation.generation_id]
                wrong = {difference.id for difference in differences}
                compared = {version.id for version in done.versions[table]} | set(done.unversioned.get(table, ()))
                right = compared - wrong
                news += records.find(self._connection, generation.generation_id, differences)
                records.close(self._connection, generation.generation_id, generation.schema, table, right)
            records.close_replaced(self._connection)
            to = done.cursor.stream
            records.move(self._connection, self._walking, to, done.events, is_round=done.is_round)
        for difference in news:
            log.error(
                "a table is not what the log says: %s; position-ledger verify, then rebuild-projection", difference
            )
        return news


def _found(connection: psycopg.Connection[Any], live: _Live, done: Step) -> Iterator[Difference]:
    """What differs in the rows of a step, and the events that give none."""
    projection, versions = live.projection, done.versions[live.projection.table]
    for one in done.unfit:
        if one.table == projection.table:
            yield Difference(one.table, "?", one.seq, NOT_FOLDED, one.why, "not what could be compared")
    if versions:
        statement = rows_of_step(live.generation.schema, projection)
        yield from differing(connection, statement, _asked(projection, versions), projection.table, projection.columns)


def rows_of_step(schema: str, projection: Projection[Any]) -> Composed:
    """Compare what was folded with the rows of these ids, and with any other of these keys and versions.

    Parameters: rows (as `encode_rows` gives them), ids; keys with their first and last versions.
    """
    table, key = Identifier(schema, projection.table), Identifier(projection.key_column)
    stored = SQL(
        "{table} AS t WHERE t.id = ANY(ARRAY(SELECT i.id FROM unnest(%(ids)s::bigint[]) AS i (id) UNION SELECT s.id"
        " FROM unnest(%(keys)s::text[], %(firsts)s::int[], %(lasts)s::int[]) AS r (key, first, last)"
        " JOIN {table} AS s ON s.{key} = r.key AND s.version BETWEEN r.first AND r.last))"
    ).format(table=table, key=key)
    return comparison(folded(table), stored, projection.key_column, projection.columns, DIFFERENCES_MAX)


def _asked(projection: Projection[Any], versions: Sequence[Version]) -> dict[str, Any]:
    spans: dict[str, tuple[int, int]] = {}
    for version in versions:
        first = min(version.version, spans.get(version.key, (LAST_VERSION, 0))[0])
        spans[version.key] = first, LAST_VERSION if version.expires is None else version.version
    return {
        "rows": statements.encode_rows(projection, versions),
        "ids": [version.id for version in versions],
        "keys": list(spans),
        "firsts": [first for first, _ in spans.values()],
        "lasts": [last for _, last in spans.values()],
    }
