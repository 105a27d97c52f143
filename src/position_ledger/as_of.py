"""Positions and trades as of an effective time, by what is known now or was known at a recorded time.

The version of a position that was recorded last, of those effective by then, is the answer when all versions before it
are effective by then too and nothing was ever restated: the usual case, one query. Else the events of the position are
folded in effective order, through the same projection, so a team's own columns are right as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from position_ledger.as_of_heads import Head, heads_of
from position_ledger.domain.draft import Append
from position_ledger.domain.effective_order import in_effective_order
from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection
from position_ledger.projection.known_at import KnownAt
from position_ledger.projection.references import Resolver
from position_ledger.reading import FILTERS, TableReader, TableRow, plain_columns
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

BIGGEST = 2**63 - 1
POSITIONS_AT_ONCE = 200
"""Positions whose events are read and folded together; bounds the memory of a listing."""

EVENTS = """
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at, e.effective_at
  FROM unnest(%s::bigint[], %s::bigint[]) AS w (opened, upto)
  JOIN events AS o ON o.notification_id = w.opened
  JOIN events AS e ON e.originator_id = o.originator_id AND e.notification_id <= w.upto
 ORDER BY e.originator_id, e.originator_version
"""

COUNTS_RECORDING = ("restatements", "restated_realized", "settlement_revision")
"""Columns that tell what the ledger learned since; a fold in effective order knows nothing of it."""


class AsOfReader:
    """Reads positions and trades as of an effective time. Does not wait for what was known: see `known_at.Settling`."""

    def __init__(
        self,
        connect: Connect,
        schema: str,
        readers: Mapping[str, TableReader],
        positions: Projection[Any],
        codec: Codec,
    ) -> None:
        self._connect = connect
        self._schema = schema
        self._readers = readers
        self._projection = positions
        self._codec = codec

    def position(self, key: str, as_of: datetime, known_at: KnownAt | None = None) -> TableRow | None:
        """One position as of a time, by its POS-n; None: it had not begun, or was not known yet."""
        return next(iter(self._as_of({"position_id": key}, as_of, known_at)), None)

    def positions(self, as_of: datetime, known_at: KnownAt | None, filters: Mapping[str, Any]) -> list[TableRow]:
        """Positions as of a time that pass every filter that is not None, the newest entry first.

        ``status`` is that of the time; the other filters speak of what never changes.
        """
        given = {FILTERS[name]: value for name, value in filters.items() if value is not None}
        status = given.pop("status", None)
        rows = [row for row in self._as_of(given, as_of, known_at) if status in (None, row["status"])]
        return sorted(rows, key=lambda row: (row["entry_time"], row["id"]), reverse=True)

    def trades(self, as_of: datetime | None, known_at: KnownAt | None, columns: Mapping[str, Any]) -> list[TableRow]:
        """Trades executed by a time, corrections that are known included; the last execution first."""
        if as_of is not None:
            require_zone(as_of)
        rows = self._readers["trades"].rows(columns, known_at=known_at, order=SQL("p.execution_time DESC, p.id DESC"))
        return [row for row in rows if as_of is None or row["execution_time"] <= as_of]

    def events(self, opened: int) -> list[Append]:
        """The events of a position by version, given the number that opened it."""
        with self._connect() as connection:
            rows = connection.execute(EVENTS, ([opened], [BIGGEST]), binary=True).fetchall()
        return [self._append(StoredRow(*row)) for row in rows]

    def _append(self, row: StoredRow) -> Append:
        return Append(row.stream, row.version, self._codec.decode(row.topic, row.state), row.effective_at)

    def _as_of(self, columns: Mapping[str, Any], as_of: datetime, known_at: KnownAt | None) -> list[TableRow]:
        require_zone(as_of)
        heads = self._heads(columns, as_of, known_at)
        rows = self._readers[self._projection.table].select(
            SQL("p.id = ANY(%(ids)s)"), {"ids": [head.id for head in heads]}, SQL("p.id")
        )
        by_id = {row["id"]: row for row in rows}
        answer = [by_id[head.id] for head in heads if not head.is_refolded]
        again = [(by_id[head.id], head.upto) for head in heads if head.is_refolded]
        for begin in range(0, len(again), POSITIONS_AT_ONCE):
            answer.extend(self._refolded(again[begin : begin + POSITIONS_AT_ONCE], as_of))
        return answer

    def _heads(self, columns: Mapping[str, Any], as_of: datetime, known_at: KnownAt | None) -> list[Head]:
        conditions: list[Composable] = [
            SQL("p.{} = {}").format(Identifier(name), Placeholder(f"of_{name}")) for name in columns
        ]
        if known_at is not None:
            known = "p.row_effective_date <= %(at)s" if isinstance(known_at, datetime) else "p.id <= %(at)s"
            conditions.append(SQL(known))
        where = SQL(" AND ").join(conditions) if conditions else SQL("true")
        parameters = {"as_of": as_of, "at": known_at, **{f"of_{name}": value for name, value in columns.items()}}
        with self._connect() as connection:
            return heads_of(connection, self._schema, self._projection, where, parameters)

    def _refolded(self, heads: Sequence[tuple[TableRow, int]], as_of: datetime) -> Iterator[TableRow]:
        """The rows of some positions by folding their events in effective order; without those that had not begun."""
        by_key = {row["position_id"]: row for row, _ in heads}
        numbers = [int(row["position_id"].removeprefix("POS-")) for row, _ in heads]
        with self._connect() as connection:
            stored = [
                StoredRow(*row)
                for row in connection.execute(EVENTS, (numbers, [upto for _, upto in heads]), binary=True).fetchall()
            ]
            resolver = Resolver(self._codec, self._projection.folds)
            for _, rows in groupby(stored, key=attrgetter("stream")):
                mine = list(rows)
                folded = self._fold(mine, resolver.resolve(connection, self._projected(mine)), as_of)
                if folded is not None:
                    key, effective_at, columns = folded
                    yield _overlaid(by_key[key], effective_at, columns)

    def _projected(self, rows: Iterable[StoredRow]) -> list[StoredRow]:
        return [row for row in rows if row.topic in self._projection.folds_by_topic]

    def _fold(
        self, stored: Sequence[StoredRow], recorded: Sequence[Recorded[Any]], as_of: datetime
    ) -> tuple[str, datetime, TableRow] | None:
        """Key, last effective time and columns of one position; None if it had not begun."""
        by_version = {row.version: row for row in stored}
        refs = {pair: number for event in recorded for pair, number in event.refs.items()}
        row: Any = None
        key, effective_at = "", as_of
        for append in in_effective_order([self._append(one) for one in stored], as_of):
            fold = self._projection.folds_by_topic.get(append.event.TOPIC)
            if fold is None:
                continue
            source, topic = by_version[append.version], append.event.TOPIC
            event = Recorded(
                source.seq,
                append.stream,
                append.version,
                topic,
                self._codec.decode_struct(topic, self._codec.encode(append.event)),
                source.recorded_at,
                append.effective_at,
                recorded[0].opened_seq,
                refs,
            )
            row, key = fold(row, event), self._projection.key(event)
            effective_at = append.effective_at
        return None if row is None else (key, effective_at, plain_columns(row))


def require_zone(as_of: datetime) -> None:
    """Refuse a time without a zone: it names no moment."""
    if as_of.utcoffset() is None:
        msg = f"as_of {as_of.isoformat()} has no time zone, so it names no moment: give an aware time"
        raise ConfigurationError(msg)


def _overlaid(head: TableRow, effective_at: datetime, columns: TableRow) -> TableRow:
    kept = {name: head[name] for name in COUNTS_RECORDING if name in head}
    return {**head, **columns, **kept, "effective_at": effective_at}
