"""Realized profit and loss by day, on two axes: when it happened, and when the ledger learned of it.

By recorded day it is what each version of a position changed realized_pnl by, on the day that the version was recorded:
what was reported at the time. By effective day it is the same money on the day of the fact that made it, with present
knowledge. Both sum to the same total; the difference of a day is what later knowledge has restated about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg.sql import SQL, Composable, Identifier, Placeholder

from position_ledger.domain.numbers import ZERO, minus, plus
from position_ledger.errors import ConfigurationError
from position_ledger.reporting.effective import realized_of_restated
from position_ledger.reporting.environments import environments_of
from position_ledger.reporting.snapshot import Query, TableRow
from position_ledger.store.codec import Codec

__all__ = ["AXES", "COLUMNS", "Change", "by_day", "pnl_changes", "zone_named"]

RECORDED: Final = "recorded"
EFFECTIVE: Final = "effective"
AXES: Final = (EFFECTIVE, RECORDED)
COLUMNS: Final = (
    "day",
    "execution_environment",
    "currency",
    "realized_pnl",
    "effective_pnl",
    "recorded_pnl",
    "restatement",
)
FILTERS: Final[Mapping[str, str]] = {"account": "account_id", "market": "market_id", "strategy": "strategy_id"}

# Quarters of an hour: every time zone in use begins its days on one, and a year of them is few rows whatever was traded.
CHANGES = """
WITH steps AS MATERIALIZED (
    SELECT p.position_id, p.execution_environment, p.currency, p.row_effective_date, p.effective_at,
           p.realized_pnl - lag(p.realized_pnl, 1, 0::numeric) OVER (PARTITION BY p.position_id ORDER BY p.version)
           AS change
      FROM {positions} AS p WHERE {where}
)
SELECT 'recorded' AS axis, s.execution_environment, s.currency,
       date_bin('15 minutes', s.row_effective_date, '2000-01-01Z') AS moment, sum(s.change) AS change
  FROM steps AS s WHERE s.change <> 0 GROUP BY 2, 3, 4
UNION ALL
SELECT 'effective', s.execution_environment, s.currency,
       date_bin('15 minutes', s.effective_at, '2000-01-01Z'), sum(s.change)
  FROM steps AS s WHERE s.change <> 0 AND s.position_id <> ALL (%(restated)s) GROUP BY 2, 3, 4
"""

# Positions whose rows are in the order in which things became known, not in that in which they happened.
RESTATED = """
SELECT p.id, p.position_id, p.execution_environment, p.currency, p.realized_pnl FROM {positions} AS p
 WHERE p.row_current_ind AND p.restatements > 0 AND {where}
 ORDER BY p.id
"""


class Change(NamedTuple):
    """Money that was realized, and when, on one of the two axes."""

    axis: str
    environment: str
    currency: str
    moment: datetime
    """Aware; at least the quarter of an hour is right."""
    change: Decimal


def zone_named(name: str) -> ZoneInfo:
    """The time zone in which days begin and end.

    Raises:
        ConfigurationError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"zone is {name!r}, which is no IANA time zone such as UTC or America/New_York"
        raise ConfigurationError(msg) from None


def pnl_changes(
    query: Query, schema: str, codec: Codec, environment: str | Iterable[str] | None, **filters: str | int | None
) -> list[Change]:
    """What positions have realized, on both axes. ``query`` must see one state of the database.

    ``filters``: account, market, strategy.

    Raises:
        ConfigurationError: no environment is named.
        VerificationFailed: the events of a restated position do not add up to its row.
    """
    where, parameters = _where(environments_of(environment), filters)
    positions = Identifier(schema, "positions")
    restated = query(SQL(RESTATED).format(positions=positions, where=where), parameters)
    parameters["restated"] = [row["position_id"] for row in restated]
    changes = [
        Change(row["axis"], row["execution_environment"], row["currency"], row["moment"], row["change"])
        for row in query(SQL(CHANGES).format(positions=positions, where=where), parameters)
    ]
    changes += [
        Change(EFFECTIVE, row["execution_environment"], row["currency"], at, change)
        for row, at, change in realized_of_restated(query, schema, codec, restated)
    ]
    return changes


def _where(environments: list[str], filters: Mapping[str, str | int | None]) -> tuple[Composable, dict[str, Any]]:
    given = {name: value for name, value in filters.items() if value is not None}
    conditions: list[Composable] = [SQL("p.execution_environment = ANY(%(environments)s)")]
    conditions += [SQL("p.{} = {}").format(Identifier(FILTERS[name]), Placeholder(name)) for name in given]
    return SQL(" AND ").join(conditions), {"environments": environments, **given}


def by_day(
    changes: Iterable[Change],
    axis: str,
    zone: ZoneInfo,
    *,
    since: date | None = None,
    until: date | None = None,
) -> list[TableRow]:
    """One row for each day, environment and currency in which anything was realized, the first day first.

    Columns: `COLUMNS`. ``realized_pnl`` is that of the axis asked for; ``restatement`` = effective_pnl - recorded_pnl.
    ``since`` and ``until`` (both included) are days of ``zone``.

    Raises:
        ConfigurationError: an axis that does not exist.
    """
    if axis not in AXES:
        msg = f"by is {axis!r}; realized P&L is reported by {' or '.join(AXES)} day"
        raise ConfigurationError(msg)
    sums: defaultdict[tuple[date, str, str], dict[str, Decimal]] = defaultdict(
        lambda: {EFFECTIVE: ZERO, RECORDED: ZERO}
    )
    for change in changes:
        day = change.moment.astimezone(zone).date()
        if (since is None or since <= day) and (until is None or day <= until):
            of_day = sums[day, change.environment, change.currency]
            of_day[change.axis] = plus(of_day[change.axis], change.change)
    return [_row(key, of_day, axis) for key, of_day in sorted(sums.items())]


def _row(key: tuple[date, str, str], of_day: Mapping[str, Decimal], axis: str) -> TableRow:
    effective, recorded = of_day[EFFECTIVE], of_day[RECORDED]
    values = (*key, of_day[axis], effective, recorded, minus(effective, recorded))
    return dict(zip(COLUMNS, values, strict=True))
