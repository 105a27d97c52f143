"""Any projected table as of an effective time: markets, edges and games by their events in order, balances by sums.

What these tables hold is told by events that supersede each other, so as of T is the fold of those effective by then, in
effective order. The version recorded last, of those effective by then, is the answer when all before it are effective by
then too; else the events are folded again. A balance is no fold: its cash is what was paid in and out by then, and what
the positions of the account had done to it by then (`position_ledger.domain.accounts.effects`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import reduce
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from position_ledger.as_of import EVENTS, AsOfReader, Connect, require_zone
from position_ledger.as_of_heads import Head, heads_of
from position_ledger.domain.accounts.effects import holding
from position_ledger.domain.numbers import ZERO, minus, plus
from position_ledger.domain.vocabulary import Side
from position_ledger.projection.definition import Projection
from position_ledger.projection.known_at import KnownAt
from position_ledger.projection.references import Resolver
from position_ledger.reading import TableReader, TableRow, plain_columns
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

MOVED = """
SELECT p.balance_id, sum(CASE WHEN p.cause_id IS NULL THEN p.change ELSE -p.posted_external END) AS cash
  FROM {table} AS p WHERE {where} AND p.effective_at <= %(as_of)s AND p.balance_id = ANY(%(keys)s) GROUP BY 1
"""
"""Cash that came from outside by then: payments, and what was brought with positions that were paid for elsewhere."""


class RowsAsOf:
    """Reads any projected table as of an effective time. Does not wait for what was known: see `known_at.Settling`."""

    def __init__(
        self,
        connect: Connect,
        schema: str,
        projections: Sequence[Projection[Any]],
        readers: Mapping[str, TableReader],
        positions: AsOfReader,
        codec: Codec,
    ) -> None:
        self._connect = connect
        self._schema = schema
        self._projections = {one.table: one for one in projections}
        self._readers = readers
        self._positions = positions
        self._codec = codec

    def rows(self, table: str, as_of: datetime, known_at: KnownAt | None, columns: Mapping[str, Any]) -> list[TableRow]:
        """One row of each business key as of a time that has these values, the newest first."""
        require_zone(as_of)
        if table == "positions":
            rows = self._positions.positions(as_of, known_at, {})
        elif table == "trades":
            rows = self._positions.trades(as_of, known_at, {})
        elif table == "account_balance":
            rows = self._balances(as_of, known_at)
        else:
            rows = self._folded_rows(self._projections[table], as_of, known_at)
        return [row for row in rows if all(row[name] == value for name, value in columns.items())]

    def _folded_rows(self, projection: Projection[Any], as_of: datetime, known_at: KnownAt | None) -> list[TableRow]:
        heads = self._heads(projection, as_of, known_at)
        by_id = {row["id"]: row for row in self._versions(projection, [head.id for head in heads])}
        again = [(head.opened, head.upto, by_id[head.id]) for head in heads if head.is_refolded]
        refolded = {row[projection.key_column]: row for row in self._refolded(projection, again, as_of)}
        answer = [by_id[head.id] for head in heads]
        return [refolded.get(row[projection.key_column], row) for row in answer]

    def _heads(self, projection: Projection[Any], as_of: datetime, known_at: KnownAt | None) -> list[Head]:
        with self._connect() as connection:
            asked = {"as_of": as_of, "at": known_at}
            return heads_of(connection, self._schema, projection, _known(known_at), asked)

    def _versions(self, projection: Projection[Any], ids: Sequence[int]) -> list[TableRow]:
        return self._readers[projection.table].select(SQL("p.id = ANY(%(ids)s)"), {"ids": list(ids)}, SQL("p.id"))

    def _refolded(
        self, projection: Projection[Any], heads: Sequence[tuple[int, int, TableRow]], as_of: datetime
    ) -> Iterator[TableRow]:
        """Rows whose events did not arrive in the order in which they count."""
        if not heads:
            return
        head_of = {row[projection.key_column]: row for _, _, row in heads}
        resolver = Resolver(self._codec, projection.folds)
        with self._connect() as connection:
            spans = ([opened for opened, _, _ in heads], [upto for _, upto, _ in heads])
            stored = [StoredRow(*row) for row in connection.execute(EVENTS, spans, binary=True).fetchall()]
            wanted = [one for one in stored if one.topic in projection.folds_by_topic]
            recorded = resolver.resolve(connection, wanted)
        for _, events in groupby(recorded, key=attrgetter("stream")):
            last, row = _fold_in_order(projection, list(events), as_of)
            head = head_of[projection.key(last)]
            yield {**head, **plain_columns(row), "id": last.seq, "effective_at": last.effective_at}

    # Balances

    def _balances(self, as_of: datetime, known_at: KnownAt | None) -> list[TableRow]:
        projection = self._projections["account_balance"]
        heads = self._heads(projection, as_of, known_at)
        rows = self._versions(projection, [head.id for head in heads])
        moved = self._moved(as_of, known_at, [row["balance_id"] for row in rows])
        held = self._held(as_of, known_at)
        return [_balance(row, moved, held) for row in reversed(rows)]

    def _moved(self, as_of: datetime, known_at: KnownAt | None, keys: Sequence[str]) -> dict[str, Decimal]:
        statement = SQL(MOVED).format(table=Identifier(self._schema, "account_balance"), where=_known(known_at))
        asked = {"as_of": as_of, "at": known_at, "keys": list(keys)}
        with self._connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return {row["balance_id"]: row["cash"] for row in cursor.execute(statement, asked, prepare=False)}

    def _held(self, as_of: datetime, known_at: KnownAt | None) -> dict[tuple[str, str, str], tuple[Decimal, Decimal]]:
        """Cash and locked by account, as its positions were then."""
        sums: dict[tuple[str, str, str], tuple[Decimal, Decimal]] = defaultdict(lambda: (ZERO, ZERO))
        for row in self._positions.positions(as_of, known_at, {}):
            key = (row["execution_environment"], row["account_id"], row["currency"])
            cash, locked = sums[key]
            one = holding(_Row.of(row))
            sums[key] = plus(cash, one.cash), plus(locked, one.locked)
        return sums


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of positions, with the names that its money is computed from."""

    side: Side
    cost: Decimal
    realized_gross: Decimal
    realized_pnl: Decimal
    open_fees: Decimal
    close_fees: Decimal
    margin_rate: Decimal

    @classmethod
    def of(cls, row: TableRow) -> Self:
        names = [one.name for one in fields(cls) if one.name != "side"]
        return cls(side=Side(row["side"]), **{name: row[name] for name in names})


def _balance(
    head: TableRow, moved: Mapping[str, Decimal], held: Mapping[tuple[str, str, str], tuple[Decimal, Decimal]]
) -> TableRow:
    key = (head["execution_environment"], head["account_id"], head["currency"])
    in_positions, locked = held.get(key, (ZERO, ZERO))
    cash = reduce(plus, (moved.get(head["balance_id"], ZERO), in_positions), ZERO)
    return {**head, "cash": cash, "locked": locked, "free": minus(cash, locked)}


def _fold_in_order(
    projection: Projection[Any], events: Sequence[Recorded[Any]], as_of: datetime
) -> tuple[Recorded[Any], Any]:
    """Fold what is effective by then, the event that began the stream first; answers the last one and the row."""
    counting = [event for event in events if event.effective_at <= as_of]
    in_order = sorted(counting, key=lambda event: (event.version > 1, event.effective_at, event.version))
    row: Any = None
    for event in in_order:
        row = projection.folds_by_topic[event.topic](row, event)
    return in_order[-1], row


def _known(known_at: KnownAt | None) -> Composable:
    if known_at is None:
        return SQL("true")
    column = Identifier("row_effective_date" if isinstance(known_at, datetime) else "id")
    return SQL("p.{} <= {}").format(column, Placeholder("at"))
