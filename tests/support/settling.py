"""Markets with many positions, and what the log says became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from position_ledger import OpenPosition, RegisterMarket

if TYPE_CHECKING:
    from position_ledger import Command, Ledger

MARKET = "RAIN"
OPENED_AT = datetime(2026, 4, 1, 12, tzinfo=UTC)
BATCH = 500


def registered(ledger: Ledger, market: str = MARKET, **terms: Any) -> str:
    """Register a market; its MKT-n."""
    fields = {"environment": "paper", "market": market, "kind": "binary"}
    return str(ledger.execute(RegisterMarket(**fields | terms)).id)


def openings(count: int, market: str = MARKET, accounts: int = 7) -> list[Command]:
    """Openings of YES and NO in turn, of several accounts, strategies and prices."""
    return [
        OpenPosition(
            environment="paper",
            account=f"account-{number % accounts}",
            market=market,
            strategy=number % 50 + 1,
            side=("YES", "NO")[number % 2],
            quantity=number % 9 + 1,
            entry_price=Decimal(number % 90 + 5) / 100,
            fee="0.01",
            effective_at=OPENED_AT,
        )
        for number in range(count)
    ]


def opened(ledger: Ledger, count: int, market: str = MARKET) -> int:
    """Open positions in batches; the token of the last."""
    commands, token = openings(count, market), 0
    for start in range(0, count, BATCH):
        token = max(one.token for one in ledger.execute_many(commands[start : start + BATCH]))
    return token


def query(url: str, text: str, *parameters: Any) -> list[dict[str, Any]]:
    """Rows of a query as the owner sees them."""
    with psycopg.connect(url, row_factory=dict_row, options="-c search_path=ledger") as connection:
        return connection.execute(text, parameters).fetchall()  # type: ignore[arg-type]


def payouts(url: str, topic: str = "position.settled") -> dict[str, int]:
    """How often each position was paid, by its stream."""
    rows = query(
        url,
        "SELECT o.originator_id AS stream, count(e.topic) AS paid FROM events AS o"
        " LEFT JOIN events AS e ON e.originator_id = o.originator_id AND e.topic = %s"
        " WHERE o.topic = 'position.opened' GROUP BY o.originator_id",
        topic,
    )
    return {str(row["stream"]): row["paid"] for row in rows}


def paid_count(url: str) -> int:
    """Payouts in the log."""
    return int(query(url, "SELECT count(*) AS n FROM events WHERE topic = 'position.settled'")[0]["n"])


def figures(url: str, market: str) -> list[dict[str, Any]]:
    """All money of the positions of a market, in an order of its own."""
    return query(
        url,
        "SELECT account_id, side, strategy_id, status, quantity, entry_price, exit_price, settlement_value, cost,"
        " realized_gross, open_fees, close_fees, open_fees_released, realized_pnl, realized_pnl_closed, exit_reason,"
        " exit_time FROM positions WHERE row_current_ind AND market_id = %s"
        " ORDER BY account_id, side, strategy_id, entry_price, entry_quantity, exit_time",
        market,
    )
