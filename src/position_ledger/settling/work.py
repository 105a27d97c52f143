"""What is still to be paid, read from the tables: markets with a verdict, and positions that do not have it yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.domain.commands import AmendSettlement, BustTrade, Command, SettlePosition, VoidPosition

__all__ = ["TABLES", "Connect", "Due", "Verdict", "Work", "payment", "unwinding"]

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

TABLES: Final = frozenset({"markets", "positions", "trades"})
"""What paying reads; without one of them nothing is paid."""

MARKETS_MAX: Final = 100
"""Markets that one pass takes on."""

ACTOR: Final = "settling"

MARKETS = """
SELECT m.market_id, m.ticker, m.execution_environment, m.status, m.settlement_value, m.settlement_fee,
       m.settlement_revision, m.is_fee_refunded, m.is_unwound, m.settled_at
  FROM {markets} AS m
 WHERE m.row_current_ind AND m.settlement_revision > 0
   AND (%(environment)s::text IS NULL OR m.execution_environment = %(environment)s)
   AND (%(market)s::text IS NULL OR m.ticker = %(market)s OR m.market_id = %(market)s)
   AND m.market_id > %(after)s
   AND (EXISTS (SELECT FROM {positions} AS p
                 WHERE p.row_current_ind AND p.status = 'open'
                   AND p.market_id = m.ticker AND p.execution_environment = m.execution_environment)
        OR (m.settlement_revision > 1
            AND EXISTS (SELECT FROM {positions} AS p
                         WHERE p.row_current_ind AND p.settlement_revision < m.settlement_revision
                           AND p.market_id = m.ticker AND p.execution_environment = m.execution_environment))
        OR (m.is_unwound AND m.status = 'voided'
            AND EXISTS (SELECT FROM {trades} AS t
                         WHERE t.row_current_ind AND t.status <> 'busted'
                           AND t.market_id = m.ticker AND t.execution_environment = m.execution_environment)))
 ORDER BY m.market_id LIMIT %(limit)s
"""
POSITIONS = """
(SELECT p.id, p.position_id, p.status FROM {positions} AS p
  WHERE p.row_current_ind AND p.status = 'open' AND p.market_id = %(market)s
    AND p.execution_environment = %(environment)s AND p.id > %(after)s
  ORDER BY p.id LIMIT %(limit)s)
UNION ALL
(SELECT p.id, p.position_id, p.status FROM {positions} AS p
  WHERE p.row_current_ind AND p.status <> 'open' AND p.settlement_revision < %(revision)s AND p.market_id = %(market)s
    AND p.execution_environment = %(environment)s AND p.id > %(after)s
  ORDER BY p.id LIMIT %(limit)s)
ORDER BY id LIMIT %(limit)s
"""
TRADES = """
SELECT t.id, t.trade_id FROM {trades} AS t
 WHERE t.row_current_ind AND t.status <> 'busted' AND t.market_id = %(market)s
   AND t.execution_environment = %(environment)s AND t.id > %(after)s
 ORDER BY t.id LIMIT %(limit)s
"""
HAVING_IT = """
SELECT m.settlement_revision, count(p.position_id)
  FROM {markets} AS m
  LEFT JOIN {positions} AS p ON p.row_current_ind AND p.settlement_revision = m.settlement_revision
        AND p.market_id = m.ticker AND p.execution_environment = m.execution_environment
 WHERE m.row_current_ind AND m.market_id = %(market_id)s
 GROUP BY m.settlement_revision
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the positions of a market are to be paid, as its current row says."""

    market_id: str
    market: str
    environment: str
    status: str
    """settled or voided."""
    value: Decimal | None
    fee: Decimal | None
    revision: int
    refund_fees: bool
    unwind: bool
    settled_at: datetime

    @property
    def is_void(self) -> bool:
        """Whether cost is given back instead of a value paid."""
        return self.status == "voided"


@dataclass(frozen=True, slots=True)
class Due:
    """A position or trade that does not have the verdict yet."""

    id: int
    """Of its current row; pages go on after it."""
    ref: str
    """POS-n or TRD-n."""
    is_open: bool = False


class Work:
    """Finds work in the tables of one schema. Reads in pages; keeps nothing in memory."""

    def __init__(self, connect: Connect, schema: str) -> None:
        self._connect = connect
        names = {table: Identifier(schema, table) for table in TABLES}
        self._markets, self._positions, self._trades, self._having_it = (
            SQL(text).format(**names) for text in (MARKETS, POSITIONS, TRADES, HAVING_IT)
        )

    def verdicts(self, environment: str | None, market: str | None, after: str) -> list[Verdict]:
        """A page of markets that still have work, by market id; ``market`` is a ticker or MKT-n."""
        asked = {"environment": environment, "market": market, "after": after, "limit": MARKETS_MAX}
        return [Verdict(*row) for row in self._rows(self._markets, asked)]

    def positions(self, verdict: Verdict, after: int, limit: int) -> list[Due]:
        """A page of positions without the verdict."""
        rows = self._rows(self._positions, _of(verdict, after=after, limit=limit))
        return [Due(row[0], row[1], row[2] == "open") for row in rows]

    def trades(self, verdict: Verdict, after: int, limit: int) -> list[Due]:
        """A page of trades that are not busted."""
        return [Due(row[0], row[1]) for row in self._rows(self._trades, _of(verdict, after=after, limit=limit))]

    def having(self, market_id: str) -> tuple[int, int]:
        """Revision of the verdict of a market, and how many positions have it."""
        revision, positions = self._rows(self._having_it, {"market_id": market_id})[0]
        return revision, positions

    def _rows(self, statement: Composed, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._connect() as connection:
            # Unprepared, as every read of a projected table that cannot be repeated: a swap may change a column's type.
            return connection.execute(statement, parameters, prepare=False).fetchall()


def _of(verdict: Verdict, **more: int) -> dict[str, Any]:
    return {"market": verdict.market, "environment": verdict.environment, "revision": verdict.revision, **more}


def payment(verdict: Verdict, due: Due) -> Command:
    """Say what gives a position the verdict of its market."""
    shared: dict[str, Any] = {
        "position_id": due.ref,
        "settlement_revision": verdict.revision,
        "actor": ACTOR,
        "correlation_id": verdict.market_id,
        "effective_at": verdict.settled_at,
    }
    if verdict.is_void:
        return VoidPosition(refund_fees=verdict.refund_fees, **shared)
    if due.is_open:
        return SettlePosition(value=verdict.value, fee=verdict.fee or 0, **shared)
    return AmendSettlement(value=verdict.value, fee=verdict.fee or 0, **shared)


def unwinding(verdict: Verdict, trades: Iterable[Due]) -> list[Command]:
    """Say what busts trades of a market that was unwound; the same for ever, so once for each trade."""
    return [
        BustTrade(
            trade=due.ref,
            bust_id=f"unwind:{verdict.market_id}:{verdict.revision}",
            reason=f"market {verdict.market} was voided and unwound",
            actor=ACTOR,
            correlation_id=verdict.market_id,
        )
        for due in trades
    ]
