"""Positions as a trader looks at them: one version by its id, and what is open beside the quotes of its market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.sql import SQL, Composable, Identifier, Literal, Placeholder

from position_ledger.projection.definition import Projection
from position_ledger.reading import ROWS_MAX
from position_ledger.reporting.snapshot import Query, TableRow

__all__ = ["open_positions", "version"]

# A position names its market by the text that its venue gives it; in each environment that is one market at most.
OPEN = """
SELECT {columns}, q.ticker, q.yes_price, q.no_price
  FROM {positions} AS p
  LEFT JOIN {markets} AS q ON q.ticker = p.market_id AND q.execution_environment = p.execution_environment
                          AND q.row_current_ind
 WHERE p.row_current_ind AND p.status = 'open' AND {where}
 ORDER BY p.entry_time DESC, p.id DESC LIMIT {limit}
"""
FILTERS: Final[Mapping[str, str]] = {
    "environment": "execution_environment",
    "market": "market_id",
    "strategy": "strategy_id",
}


def version(query: Query, schema: str, positions: Projection[Any], surrogate_id: int) -> TableRow | None:
    """The version of a position that has a surrogate id, current or not; None if none has it."""
    statement = SQL("SELECT {columns} FROM {positions} AS p WHERE p.id = %(id)s").format(
        columns=_columns(positions.columns), positions=Identifier(schema, positions.table)
    )
    return next(iter(query(statement, {"id": surrogate_id})), None)


def open_positions(
    query: Query, schema: str, positions: Projection[Any], *, environment: str, **filters: str | int | None
) -> list[TableRow]:
    """Every column of the open positions of one environment, the newest entry first, beside their markets.

    Then ticker, yes_price and no_price of the market as it is now: None where the market has no row. ``filters``:
    market, strategy; None means all.
    """
    asked = {"environment": environment, **filters}
    given = {name: value for name, value in asked.items() if value is not None}
    conditions: list[Composable] = [
        SQL("p.{} = {}").format(Identifier(FILTERS[name]), Placeholder(name)) for name in given
    ]
    statement = SQL(OPEN).format(
        columns=_columns(positions.columns),
        positions=Identifier(schema, positions.table),
        markets=Identifier(schema, "markets"),
        where=SQL(" AND ").join(conditions),
        limit=Literal(ROWS_MAX),
    )
    return query(statement, given)


def _columns(names: Sequence[str]) -> Composable:
    return SQL(", ").join(Identifier("p", name) for name in names)
