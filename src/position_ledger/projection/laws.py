"""The laws of positions, trades and accounts on live data: one query for each, over what the tables have now.

`verification` proves that a table equals the log; these prove that what it says adds up, within a table and between
tables. A law is checked where the tables and columns that it speaks of are projected. Tables may be projected to
different numbers: a law about several of them compares only what all of them have. A query answers with the first row
that breaks its law: business key and id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.snapshots import pinned, reach, snapshot

__all__ = ["LAWS", "NOTES", "Law", "broken_laws", "notes"]


@dataclass(frozen=True, slots=True)
class Law:
    """What must hold, in words, and a query for the first row that breaks it."""

    says: str
    table: str
    """Of the row that breaks it."""
    query: str
    """Tables in braces, the number that a table reaches as a parameter of its name; ``cut`` is the least of them."""
    columns: Mapping[str, str]
    """What it reads, by table; a law about a column that a team has taken out is not checked."""


SIGN: Final = "CASE WHEN p.side = 'SHORT' THEN -1 ELSE 1 END"
HALF: Final = "0.0000000000000000005"
"""Half of the last place: what rounding once can change."""

QUANTITY: Final = """
SELECT p.position_id, p.id FROM {positions} AS p
 WHERE p.id <= %(positions)s AND p.quantity <> p.entry_quantity - p.exit_quantity + p.transferred_quantity
 ORDER BY p.id LIMIT 1
"""
NET: Final = """
SELECT p.position_id, p.id FROM {positions} AS p
 WHERE p.id <= %(positions)s AND p.realized_pnl <> p.realized_gross - p.open_fees - p.close_fees ORDER BY p.id LIMIT 1
"""
UNREALIZED: Final = f"""
SELECT p.position_id, p.id FROM {{positions}} AS p
 WHERE p.id <= %(positions)s AND p.quantity <> 0 AND (p.unrealized_pnl IS NULL OR
       abs(p.unrealized_pnl - ({SIGN}) * (p.quantity * p.multiplier * p.current_price - p.cost)) > {HALF})
 ORDER BY p.id LIMIT 1
"""
FLAT: Final = """
SELECT p.position_id, p.id FROM {positions} AS p
 WHERE p.id <= %(positions)s AND p.quantity = 0
   AND (p.cost <> 0 OR p.unrealized_pnl IS NOT NULL OR p.average_entry_price IS NOT NULL) ORDER BY p.id LIMIT 1
"""
ONE_VALUE: Final = """
WITH paid AS (
    SELECT DISTINCT ON (p.position_id) p.position_id, p.id, p.execution_environment, p.market_id, p.settlement_revision,
           p.settlement_value, p.status
      FROM {positions} AS p WHERE p.id <= %(positions)s ORDER BY p.position_id, p.version DESC)
SELECT q.position_id, q.id FROM (
    SELECT p.position_id, p.id, p.settlement_value,
           first_value(p.settlement_value) OVER (
               PARTITION BY p.execution_environment, p.market_id, p.settlement_revision ORDER BY p.id) AS first_paid
      FROM paid AS p WHERE p.status = 'settled' AND p.settlement_revision IS NOT NULL) AS q
 WHERE q.settlement_value <> q.first_paid ORDER BY q.id LIMIT 1
"""

# What a position has of its trades. A received position has what it came with, as it was told last, instead of an opening
# trade; quantities of trades before a share split are counted in other contracts, so such positions are left out.
FROM_TRADES: Final = """
WITH traded AS (
    SELECT DISTINCT ON (t.trade_id) t.trade_id, t.position_id, t.position_effect IN ('open', 'increase') AS is_entry,
           t.quantity - t.busted_quantity AS quantity, t.amount - t.busted_amount AS amount, t.fee
      FROM {trades} AS t WHERE t.id <= %(cut)s ORDER BY t.trade_id, t.version DESC
), sums AS (
    SELECT t.position_id, sum(t.fee) AS fees,
           coalesce(sum(t.quantity) FILTER (WHERE t.is_entry), 0) AS entered,
           coalesce(sum(t.quantity) FILTER (WHERE NOT t.is_entry), 0) AS gone,
           coalesce(sum(t.amount) FILTER (WHERE t.is_entry), 0) AS paid,
           coalesce(sum(t.amount) FILTER (WHERE NOT t.is_entry), 0) AS got
      FROM traded AS t GROUP BY t.position_id
), split AS (
    SELECT DISTINCT 'POS-' || o.notification_id AS position_id
      FROM events AS e JOIN events AS o ON o.originator_id = e.originator_id AND o.originator_version = 1
     WHERE e.topic = 'position.shares_split' AND e.notification_id <= %(cut)s
), again AS (
    SELECT DISTINCT ON (o.notification_id) 'POS-' || o.notification_id AS position_id,
           (e.body ->> 'quantity')::numeric AS entry_quantity, (e.body ->> 'cost')::numeric AS cost,
           (e.body ->> 'fees')::numeric AS open_fees
      FROM event_log AS e JOIN events AS o ON o.originator_id = e.stream AND o.originator_version = 1
     WHERE e.topic = 'position.transfer_restated' AND e.seq <= %(cut)s ORDER BY o.notification_id, e.seq DESC
), begun AS (
    SELECT p.position_id, coalesce(a.entry_quantity, p.entry_quantity) AS entry_quantity,
           coalesce(a.cost, p.cost) AS cost, coalesce(a.open_fees, p.open_fees) AS open_fees
      FROM {positions} AS p LEFT JOIN again AS a USING (position_id)
     WHERE p.version = 1 AND p.id <= %(cut)s
       AND NOT EXISTS (SELECT FROM {trades} AS t WHERE t.id = p.id)
), latest AS (
    SELECT DISTINCT ON (p.position_id) p.position_id, p.id, p.side, p.status, p.exit_reason, p.quantity, p.entry_quantity,
           p.exit_quantity, p.transferred_quantity, p.shortfall_quantity, p.shortfall_amount, p.multiplier, p.cost,
           p.realized_gross, p.open_fees, p.close_fees, p.exit_price, p.settlement_value
      FROM {positions} AS p WHERE p.id <= %(cut)s ORDER BY p.position_id, p.version DESC
), told AS (
    SELECT p.position_id, p.id, p.side, p.quantity, p.entry_quantity, p.exit_quantity, p.shortfall_amount, p.cost,
           p.realized_gross, p.open_fees + p.close_fees AS charged, p.transferred_quantity,
           coalesce(s.entered, 0) + coalesce(b.entry_quantity, 0) AS entered,
           coalesce(s.gone, 0) - p.shortfall_quantity AS gone,
           coalesce(s.paid, 0) + coalesce(b.cost, 0) AS paid, coalesce(s.got, 0) - p.shortfall_amount AS got,
           coalesce(s.fees, 0) + coalesce(b.open_fees, 0) AS fees,
           p.status IN ('settled', 'voided') AND p.exit_reason IN ('settlement', 'void') AS is_paid,
           CASE WHEN p.status = 'voided' THEN p.exit_price WHEN p.side = 'NO' THEN 1 - p.settlement_value
                ELSE p.settlement_value END * p.multiplier AS payout, p.status, p.multiplier
      FROM latest AS p LEFT JOIN sums AS s USING (position_id) LEFT JOIN begun AS b USING (position_id)
     WHERE NOT EXISTS (SELECT FROM split WHERE split.position_id = p.position_id)
)
"""
TRADES_SUM_UP: Final = (
    FROM_TRADES
    + """
SELECT p.position_id, p.id FROM told AS p
 WHERE p.entry_quantity <> p.entered OR CASE WHEN p.is_paid THEN p.exit_quantity < p.gone
                                             ELSE p.exit_quantity <> p.gone END ORDER BY p.id LIMIT 1
"""
)
FEES_SUM_UP: Final = (
    FROM_TRADES
    + """
SELECT p.position_id, p.id FROM told AS p
 WHERE p.charged <> p.fees AND NOT p.is_paid AND p.transferred_quantity = 0 ORDER BY p.id LIMIT 1
"""
)
# Void gives back the cost, of which the exit price is the mean: rounded once, times the contracts.
CASH: Final = (
    FROM_TRADES
    + f"""
SELECT p.position_id, p.id FROM told AS p
 WHERE p.transferred_quantity = 0
   AND abs(({SIGN}) * p.realized_gross - (p.got - p.paid + p.cost
           + CASE WHEN p.is_paid THEN (p.exit_quantity - p.gone) * p.payout ELSE 0 END))
       > CASE WHEN NOT p.is_paid THEN 0 WHEN p.status = 'voided' THEN {HALF} * (2 + p.exit_quantity * p.multiplier)
              ELSE {HALF} END ORDER BY p.id LIMIT 1
"""
)
TRADE_HAS_POSITION: Final = """
SELECT t.trade_id, t.id FROM {trades} AS t LEFT JOIN {positions} AS p ON p.id = t.id
 WHERE t.id <= %(cut)s AND (p.position_id, p.account_id, p.market_id, p.side, p.execution_environment)
       IS DISTINCT FROM (t.position_id, t.account_id, t.market_id, t.side, t.execution_environment)
 ORDER BY t.id LIMIT 1
"""
TRADE_HAS_LEGS: Final = """
SELECT t.trade_id, t.id FROM {trades} AS t
  LEFT JOIN {trades} AS l ON l.trade_id = t.linked_trade_id AND l.version = 1
 WHERE t.version = 1 AND t.id <= %(trades)s AND t.linked_trade_id IS NOT NULL
   AND (l.id IS NULL AND substr(t.linked_trade_id, 5)::bigint <= %(trades)s
        OR l.id <= %(trades)s AND (l.linked_trade_id IS NULL OR l.account_id <> t.account_id))
 ORDER BY t.id LIMIT 1
"""

FREE_AND_LOCKED: Final = """
SELECT b.balance_id, b.id FROM {account_balance} AS b
 WHERE b.id <= %(account_balance)s AND b.cash <> b.free + b.locked ORDER BY b.id LIMIT 1
"""
ZERO_SUM: Final = """
SELECT b.balance_id, b.id FROM {account_balance} AS b
 WHERE b.id <= %(account_balance)s AND (b.change <> b.posted_free + b.posted_locked
       OR b.posted_free + b.posted_locked + b.posted_holdings + b.posted_realized + b.posted_fees + b.posted_external <> 0)
 ORDER BY b.id LIMIT 1
"""
CUMULATIVE: Final = """
SELECT s.balance_id, s.id FROM (
    SELECT b.balance_id, b.id, b.cash, b.locked, b.free, sum(b.change) OVER w AS cash_sum,
           sum(b.posted_locked) OVER w AS locked_sum, sum(b.posted_free) OVER w AS free_sum
      FROM {account_balance} AS b WHERE b.id <= %(account_balance)s
    WINDOW w AS (PARTITION BY b.balance_id ORDER BY b.version)) AS s
 WHERE (s.cash, s.locked, s.free) IS DISTINCT FROM (s.cash_sum, s.locked_sum, s.free_sum) ORDER BY s.id LIMIT 1
"""
CAUSE_EXISTS: Final = """
SELECT b.balance_id, b.id FROM {account_balance} AS b LEFT JOIN {positions} AS p ON p.id = b.cause_id
 WHERE b.id <= %(account_balance)s AND b.cause_id <= %(positions)s
   AND (p.account_id, p.currency, p.execution_environment)
       IS DISTINCT FROM (b.account_id, b.currency, b.execution_environment)
 ORDER BY b.id LIMIT 1
"""
# Position and account change in one append, of which one table may have a part only: bookings that are in the log and
# not yet in account_balance are read from the log, and their positions left out.
BOOKED: Final = f"""
WITH booked AS (
    SELECT p.position_id, sum(b.posted_locked) AS locked, sum(b.posted_holdings) AS holdings,
           sum(b.posted_realized) AS realized, sum(b.posted_fees) AS fees
      FROM {{account_balance}} AS b JOIN {{positions}} AS p ON p.id = b.cause_id
     WHERE b.id <= %(account_balance)s AND b.cause_id <= %(positions)s GROUP BY p.position_id
), behind AS (
    SELECT DISTINCT 'POS-' || o.notification_id AS position_id
      FROM event_log AS e
      JOIN events AS o ON o.originator_id = (e.body -> 'event' ->> 'stream')::uuid AND o.originator_version = 1
     WHERE e.seq > %(account_balance)s AND e.topic = 'account.position_booked'
), latest AS (
    SELECT DISTINCT ON (p.position_id) p.position_id, p.id, p.side, p.cost, p.margin_rate, p.realized_gross, p.open_fees,
           p.close_fees
      FROM {{positions}} AS p WHERE p.id <= %(positions)s ORDER BY p.position_id, p.version DESC)
SELECT p.position_id, p.id FROM latest AS p LEFT JOIN booked AS b USING (position_id)
 WHERE NOT EXISTS (SELECT FROM behind WHERE behind.position_id = p.position_id)
   AND (abs(coalesce(b.locked, 0) - CASE p.side WHEN 'LONG' THEN 0 WHEN 'SHORT' THEN p.cost * (1 + p.margin_rate)
                                    ELSE p.cost END) > {HALF}
        OR coalesce(b.holdings, 0) <> CASE p.side WHEN 'LONG' THEN p.cost WHEN 'SHORT' THEN -p.cost ELSE 0 END
        OR coalesce(b.realized, 0) <> -p.realized_gross OR coalesce(b.fees, 0) <> p.open_fees + p.close_fees)
 ORDER BY p.id LIMIT 1
"""

_OF_TRADES: Final = "trade_id position_id position_effect quantity amount fee busted_quantity busted_amount"
_OF_POSITIONS: Final = (
    "side status exit_reason quantity entry_quantity exit_quantity transferred_quantity shortfall_quantity "
    "shortfall_amount multiplier cost realized_gross open_fees close_fees exit_price settlement_value"
)
_TRADED: Final = {"positions": _OF_POSITIONS, "trades": _OF_TRADES}
_WHO: Final = "position_id account_id market_id side execution_environment"
_POSTED: Final = "posted_free posted_locked posted_holdings posted_realized posted_fees posted_external change"

LAWS: Final = (
    Law("law 1, quantity = entered - left + transferred,", "positions", QUANTITY,
        {"positions": "quantity entry_quantity exit_quantity transferred_quantity"}),
    Law("law 2, realized_pnl = realized_gross - fees,", "positions", NET,
        {"positions": "realized_pnl realized_gross open_fees close_fees"}),
    Law("law 3, unrealized_pnl = value at current_price - cost,", "positions", UNREALIZED,
        {"positions": "side quantity multiplier current_price cost unrealized_pnl"}),
    Law("law 4, positions paid by one verdict of a market are paid one value,", "positions", ONE_VALUE,
        {"positions": "execution_environment market_id settlement_revision settlement_value status"}),
    Law("law 6, nothing held has no cost, no unrealized_pnl and no average_entry_price,", "positions", FLAT,
        {"positions": "quantity cost unrealized_pnl average_entry_price"}),
    Law("law 1, quantities are the sums of the position's trades,", "positions", TRADES_SUM_UP, _TRADED),
    Law("law 2, fees are the sum of those of the position's trades,", "positions", FEES_SUM_UP, _TRADED),
    Law("law 2, what trades and the payout brought and cost = realized_gross - cost,", "positions", CASH, _TRADED),
    Law("each version of a trade has the version of its position that the same event made,", "trades",
        TRADE_HAS_POSITION, {"positions": _WHO, "trades": _WHO}),
    Law("the next leg of a trade exists in the same account,", "trades", TRADE_HAS_LEGS,
        {"trades": "linked_trade_id account_id"}),
    Law("law 5, free + locked = cash,", "account_balance", FREE_AND_LOCKED, {"account_balance": "cash free locked"}),
    Law("law 5, postings sum to zero and make the change,", "account_balance", ZERO_SUM, {"account_balance": _POSTED}),
    Law("law 5, balances are the sums of all postings so far,", "account_balance", CUMULATIVE,
        {"account_balance": f"cash free locked {_POSTED}"}),
    Law("what a balance says caused it is a version of a position of the same account,", "account_balance", CAUSE_EXISTS,
        {"account_balance": "cause_id account_id currency execution_environment",
         "positions": "account_id currency execution_environment"}),
    Law("law 5, the account has booked all that the position has paid, locked and realized,", "positions", BOOKED,
        {"account_balance": f"cause_id {_POSTED}",
         "positions": "side cost margin_rate realized_gross open_fees close_fees"}),
)  # fmt: skip
"""In the order in which they are checked: within a table first, then between tables."""

SHORTFALLS: Final = """
SELECT p.position_id, p.id, count(*) OVER () FROM {positions} AS p
 WHERE p.row_current_ind AND p.shortfall_quantity > 0 ORDER BY p.id LIMIT 1
"""
OVERDRAWN: Final = """
SELECT b.balance_id, b.id, count(*) OVER () FROM {account_balance} AS b
 WHERE b.row_current_ind AND b.is_cash_controlled AND b.free < 0 ORDER BY b.id LIMIT 1
"""
NOTES: Final = (
    Law("have sold more than they held (shortfall)", "positions", SHORTFALLS, {"positions": "shortfall_quantity"}),
    Law(
        "are overdrawn (free is below zero)",
        "account_balance",
        OVERDRAWN,
        {"account_balance": "free is_cash_controlled"},
    ),
)
"""What breaks no law, and somebody should know."""

WHOLE_TABLES: Final = "SET LOCAL enable_nestloop = off"
"""Every law reads tables as a whole. Of a query that takes them apart so often the server expects one row, and would look
for the others of each row anew: at 100,000 versions three of the laws took more than twenty minutes, and take a second.
"""

Tables = Mapping[str, tuple[Projection[Any], Generation]]
"""The tables that may be read, each with its active generation."""


def broken_laws(connection: psycopg.Connection[Any], tables: Tables) -> Iterator[str]:
    """Give a sentence for each law that is broken, naming the first row that breaks it. In one snapshot."""
    for law, row in _found(connection, LAWS, tables):
        yield f"{law.table} {row[0]}, row {row[1]}: {law.says} does not hold"


def notes(connection: psycopg.Connection[Any], tables: Tables) -> Iterator[str]:
    """Give a sentence for whatever breaks no law and somebody should know."""
    for note, row in _found(connection, NOTES, tables):
        yield f"{note.table}: {row[2]} {note.says}, the first is {row[0]}"


def _found(
    connection: psycopg.Connection[Any], laws: Sequence[Law], tables: Tables
) -> Iterator[tuple[Law, tuple[Any, ...]]]:
    with snapshot(connection):
        live = {name: pinned(connection, generation) for name, (_, generation) in tables.items()}
        upto = {name: reach(connection, generation).lowest for name, generation in live.items()}
        names = {name: Identifier(generation.schema, name) for name, generation in live.items()}
        connection.execute(WHOLE_TABLES)
        for law in laws:
            if not _can_be_asked(law, tables):
                continue
            cut = min(upto[name] for name in law.columns)
            row = connection.execute(SQL(law.query).format(**names), {**upto, "cut": cut}).fetchone()
            if row is not None:
                yield law, row


def _can_be_asked(law: Law, tables: Tables) -> bool:
    return all(
        name in tables and set(columns.split()) <= set(tables[name][0].columns) for name, columns in law.columns.items()
    )
