"""No money comes from nowhere and none is lost: random commands of the whole domain against a real database.

The short form is part of `make test`; ``POSITION_LEDGER_SOAK=1`` makes the long one, 100,000 commands or as many as
POSITION_LEDGER_SOAK_COMMANDS says (`make soak`).
"""

from __future__ import annotations

import os
from contextlib import closing
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import Deposit, Ledger, OpenPosition, RegisterMarket
from tests.support import engine
from tests.support.database_trading import DatabaseTrading, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.chaos, pytest.mark.uncounted]

SHORT, LONG = 1_500, int(os.environ.get("POSITION_LEDGER_SOAK_COMMANDS", "100000"))
IS_SOAK = os.environ.get("POSITION_LEDGER_SOAK", "") not in {"", "0"}
LAST_PLACE = Decimal("1e-18")

ACCOUNTS = (
    "SELECT b.account_id, b.cash, b.locked, b.free FROM ledger.current_account_balance AS b WHERE b.currency = 'USD'"
)
# What positions did, told by their rows: what they realized, and what stands in them.
POSITIONS = """
SELECT p.account_id,
       sum(p.realized_pnl - CASE p.side WHEN 'LONG' THEN p.cost WHEN 'SHORT' THEN -p.cost ELSE 0 END),
       sum(CASE p.side WHEN 'LONG' THEN 0 WHEN 'SHORT' THEN round(p.cost * (1 + p.margin_rate), 18) ELSE p.cost END),
       count(*) FILTER (WHERE p.side = 'SHORT')
  FROM ledger.current_positions AS p GROUP BY p.account_id
"""
BROUGHT_AT_FIRST = """
SELECT p.account_id, sum(p.open_fees + CASE p.side WHEN 'SHORT' THEN 0 ELSE p.cost END)
  FROM ledger.positions AS p WHERE p.version = 1 AND p.position_id = ANY(%s) GROUP BY p.account_id
"""
HANDED_OVER = """
SELECT b.account_id, -sum(b.posted_external) FROM ledger.account_balance AS b
 WHERE b.cause IN ('transferred', 'received', 'transfer_restated') GROUP BY b.account_id
"""
BOOKS = "SELECT p.currency, sum(p.amount), count(*) FROM ledger.postings AS p GROUP BY p.currency"
# Payouts by what trades cannot explain: what was realized, less what exits brought, and what entries had cost.
PAIRS = """
WITH traded AS (
    SELECT t.position_id,
           sum(CASE WHEN t.position_effect IN ('open', 'increase') THEN 1 ELSE -1 END * (t.quantity - t.busted_quantity)) AS held,
           sum(CASE WHEN t.position_effect IN ('open', 'increase') THEN -1 ELSE 1 END * (t.amount - t.busted_amount)) AS got
      FROM ledger.current_trades AS t GROUP BY t.position_id)
SELECT p.market_id, p.settlement_value, p.side, count(*), sum(t.held + p.shortfall_quantity) * p.multiplier,
       sum(p.realized_gross - t.got + p.shortfall_amount)
  FROM ledger.current_positions AS p JOIN traded AS t USING (position_id)
 WHERE p.side IN ('YES', 'NO') AND p.status = 'settled' AND p.settlement_revision IS NOT NULL
   AND p.transferred_quantity = 0
   AND EXISTS (SELECT FROM ledger.trades AS o WHERE o.position_id = p.position_id AND o.position_effect = 'open')
 GROUP BY p.market_id, p.settlement_value, p.settlement_revision, p.side, p.multiplier
"""


@pytest.fixture
def exact() -> Iterator[None]:
    with localcontext(prec=80):
        yield


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(IS_SOAK, reason="the long form runs instead")
def test_money_is_conserved(ledger_database: str, exact: None) -> None:
    conserved(ledger_database, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not IS_SOAK, reason="the long form: make soak, or POSITION_LEDGER_SOAK=1 with -m soak")
def test_money_is_conserved_over_a_long_time(ledger_database: str, exact: None) -> None:
    conserved(ledger_database, LONG)


def conserved(url: str, commands: int) -> None:
    # given a reader that looks at random instants, when random commands of every kind were sent
    with Ledger.open(database_url=url, redis_url="redis://127.0.0.1:1/0", wait_timeout_s=100) as ledger:
        with (
            watched(url, 7, pause_s=max(0.05, commands / 50_000)) as seen,
            closing(DatabaseTrading(ledger, url, 20261122)) as trading,
        ):
            trading.run(commands)
            settle_a_pair(ledger, trading)
        assert trading.accepted > commands / 3
        assert len(seen) > 5
        assert not [one for one in seen if not one.startswith("looked")]
        with psycopg.connect(url) as connection:
            # then accounts have what came in and what positions did, and every posting has its other half
            check_accounts(connection, trading)
            books = connection.execute(BOOKS).fetchall()
            assert [(currency, total) for currency, total, _ in books] == [("USD", 0)]
            assert books[0][2] > commands / 2
            check_pairs(connection)
        # and every table equals the log, and the laws hold
        engine.proven(ledger.settings)


def settle_a_pair(ledger: Ledger, trading: DatabaseTrading) -> None:
    """What chance may leave out of a short history: both sides of a market that is paid.

    Facts are never refused, so random ones may have left the account with less than nothing; the deposit is enough
    to open positions again.
    """
    market = {"environment": "paper", "market": "LAST"}
    deposit = Deposit(environment="paper", account="main", amount=10**12)
    trading.note(deposit, ledger.execute(deposit))
    ledger.execute(RegisterMarket(**market, kind="binary"))
    for side in ("YES", "NO"):
        ledger.execute(OpenPosition(**market, account="main", side=side, quantity=3, entry_price="0.4"))
    ledger.settle_market("paper", "LAST", 1)
    ledger.catch_up()


def check_accounts(connection: psycopg.Connection[Any], trading: DatabaseTrading) -> None:
    positions = {row[0]: row[1:] for row in connection.execute(POSITIONS)}
    first: dict[str, Decimal] = dict(connection.execute(BROUGHT_AT_FIRST, (trading.openings,)).fetchall())
    handed: dict[str, Decimal] = dict(connection.execute(HANDED_OVER).fetchall())
    # what one account hands over the other gets: only what was held before the ledger comes from outside
    assert sum(handed.values()) == sum(first.values())
    found = connection.execute(ACCOUNTS).fetchall()
    assert {row[0] for row in found} == {"main", "other"}
    for account, cash, locked, free in found:
        gained, stands, shorts = positions[account]
        moved = trading.cash[account] + handed.get(account, Decimal(0)) + gained
        assert cash == moved
        assert abs(locked - stands) <= shorts * LAST_PLACE
        assert free == cash - locked


def check_pairs(connection: psycopg.Connection[Any]) -> None:
    """YES received the value and NO what it leaves: 1 a pair, whoever had them and however they were corrected."""
    paid = connection.execute(PAIRS).fetchall()
    assert {side for _, _, side, *_ in paid} == {"YES", "NO"}
    for market, value, side, count, contracts, payout in paid:
        worth = value if side == "YES" else 1 - value
        assert abs(payout - contracts * worth) <= count * LAST_PLACE, (market, side)
