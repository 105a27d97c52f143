"""Exposure: what open positions cost, what they are worth, and what they can lose. Never over currencies or environments.

In the figures of the domain (sign = -1 for SHORT, else +1): the value at the last marks is quantity * multiplier *
current_price = cost + sign * unrealized. A position of a binary market and a LONG lose at most their cost; YES and NO
of one market do not offset each other, as they do not in the account. What a SHORT can lose has no bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from psycopg.sql import SQL, Identifier

from position_ledger.errors import ConfigurationError
from position_ledger.reporting.environments import environments_of
from position_ledger.reporting.snapshot import Query, TableRow

__all__ = ["BY", "COLUMNS", "exposure"]

BY: Final[Mapping[str, str | None]] = {
    "market": "market_id",
    "strategy": "strategy_id",
    "account": "account_id",
    "environment": None,
}
"""By what positions are grouped, beside environment and currency: the column of each."""

COLUMNS: Final = ("positions", "cost", "market_value", "net_value", "unrealized_pnl", "worst_case_loss", "unbounded")

STATEMENT = """
SELECT p.execution_environment, p.currency, {key}
       count(*) AS positions,
       sum(p.cost) AS cost,
       sum(CASE p.side WHEN 'SHORT' THEN p.cost - p.unrealized_pnl ELSE p.cost + p.unrealized_pnl END) AS market_value,
       sum(CASE p.side WHEN 'SHORT' THEN p.unrealized_pnl - p.cost ELSE p.cost + p.unrealized_pnl END) AS net_value,
       sum(p.unrealized_pnl) AS unrealized_pnl,
       CASE WHEN bool_or(p.side = 'SHORT') THEN NULL ELSE sum(p.cost) END AS worst_case_loss,
       count(*) FILTER (WHERE p.side = 'SHORT') AS unbounded
  FROM {positions} AS p
 WHERE p.row_current_ind AND p.status = 'open' AND p.execution_environment = ANY(%(environments)s)
 GROUP BY p.execution_environment, p.currency {group}
 ORDER BY p.execution_environment, p.currency, sum(p.cost) DESC {group}
"""


def exposure(query: Query, schema: str, environment: str | Iterable[str] | None, by: str = "market") -> list[TableRow]:
    """One row for each environment, currency and group, the largest cost first.

    Columns: execution_environment, currency, the column of ``by``, then `COLUMNS`: how many positions are open, their
    cost, their value at the last marks (every side positive, and with shorts negative), what is unrealized, and the most
    that they can lose (None: there are shorts among them, ``unbounded`` says how many).

    Raises:
        ConfigurationError: no environment, or a grouping that does not exist.
    """
    environments = environments_of(environment)
    if by not in BY:
        msg = f"by is {by!r}; exposure is grouped by {', '.join(BY)}"
        raise ConfigurationError(msg)
    column = BY[by]
    statement = SQL(STATEMENT).format(
        positions=Identifier(schema, "positions"),
        key=SQL("p.{},").format(Identifier(column)) if column else SQL(""),
        group=SQL(", p.{}").format(Identifier(column)) if column else SQL(""),
    )
    return query(statement, {"environments": environments})
