"""What verify finds when the tables do not add up: one violation of each law, planted as only an owner can."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from psycopg.sql import SQL, Composed
from rich.console import Console

from position_ledger import (
    AdjustCash,
    BustTrade,
    Deposit,
    Ledger,
    OpenPosition,
    RecordFill,
    ReducePosition,
    RegisterMarket,
    SettleMarket,
    SplitShares,
    TransferPosition,
    operations,
)
from position_ledger.cli.status import rendered
from position_ledger.projection import generations, laws
from position_ledger.status import read_status
from tests.support import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY: dict[str, Any] = {"environment": "paper", "account": "main", "market": "RAIN", "side": "YES"}
PAID = "(SELECT min(p.id) FROM positions AS p WHERE p.row_current_ind AND p.status = 'settled')"


TABLES = ("positions", "trades", "account_balance")


@contextmanager
def with_history(url: str) -> Iterator[Ledger]:
    """A history with something of everything that the laws speak of."""
    with Ledger.open(database_url=url, redis_url="redis://127.0.0.1:1/0") as opened:
        opened.execute(Deposit(environment="paper", account="main", amount=1000))
        opened.execute(RegisterMarket(environment="paper", market="RAIN", kind="binary"))
        first = opened.execute(OpenPosition(**KEY, quantity=10, entry_price="0.40", fee="0.10"))
        opened.execute(ReducePosition(position_id=str(first.position_id), quantity=4, price="0.60", fee="0.05"))
        flip = {"action": "sell", "quantity": 9, "price": "0.55", "on_excess": "flip", "strategy": 1}
        opened.execute(RecordFill(**KEY | {"strategy": 1}, action="buy", quantity=5, price="0.5"))
        opened.execute(RecordFill(**KEY, **flip))
        opened.execute(SettleMarket(environment="paper", market="RAIN", value="0.3"))
        opened.pay_markets()
        other = {**KEY, "market": "SUN"}
        opened.execute(OpenPosition(**other, quantity=7, entry_price="0.3333", fee="0.01"))
        long = opened.execute(OpenPosition(**KEY | {"market": "GOLD", "side": "LONG"}, quantity=8, entry_price=9))
        opened.execute(TransferPosition(position_id=str(long.position_id), to_account="second", quantity=3))
        opened.execute(SplitShares(position_id=str(long.position_id), ratio=3))
        opened.execute(OpenPosition(**KEY | {"market": "GOLD", "side": "SHORT"}, quantity=1, entry_price=9, fee=1))
        opened.catch_up(30)
        yield opened


@pytest.fixture
def own_ledger(ledger_database: str) -> Iterator[Ledger]:
    with with_history(ledger_database) as opened:
        yield opened


@pytest.fixture(scope="module")
def history(shared_database: str) -> Iterator[Ledger]:
    """One for all tests that plant violations; it keeps copies of its tables, and has no checks in the way."""
    with with_history(shared_database) as opened:
        with owner(opened) as connection:
            checks = connection.execute(
                "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c'"
                " AND connamespace = 'ledger'::regnamespace AND conrelid::regclass::text = ANY(%s)",
                (list(TABLES),),
            ).fetchall()
            for table, name in checks:
                connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
            for table in TABLES:
                connection.execute(f"CREATE TABLE public.kept_{table} AS TABLE {table}".encode())
        yield opened


@pytest.fixture
def ledger(history: Ledger) -> Iterator[Ledger]:
    """The history, put back as it was afterwards."""
    yield history
    with owner(history) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}".encode())
            connection.execute(f"INSERT INTO {table} TABLE public.kept_{table}".encode())


@contextmanager
def owner(ledger: Ledger) -> Iterator[psycopg.Connection[Any]]:
    """What only an owner can: triggers are taken down."""
    with psycopg.connect(ledger.database_url, options="-c search_path=ledger") as connection:
        connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


def planted(ledger: Ledger, statement: str) -> None:
    with owner(ledger) as connection:
        assert connection.execute(statement.encode()).rowcount > 0


def broken(ledger: Ledger) -> list[str]:
    """The laws alone, without comparing the tables with the log."""
    with engine.connected(ledger.settings, as_app=False) as connection:
        found = {one.table: (one, generations.active(connection, one.table)) for one in ledger.projections}
        tables = {table: (one, live) for table, (one, live) in found.items() if live is not None}
        return list(laws.broken_laws(connection, tables))


def problems(ledger: Ledger) -> tuple[str, ...]:
    report = operations.verify(ledger.settings, engine.reached(ledger.settings), None)
    assert not report.holds
    return report.broken_laws


class Explaining(psycopg.Connection[Any]):
    """Asks for the plan of whatever reads tables, right before it is run."""

    plans: ClassVar[list[str]] = []

    def execute(self, query: Any, params: Any = None, **more: Any) -> psycopg.Cursor[Any]:
        if isinstance(query, Composed) and "SELECT" in query.as_string(self):
            rows = super().execute(SQL("EXPLAIN ") + query, params).fetchall()
            self.plans.append("\n".join(row[0] for row in rows))
        return super().execute(query, params, **more)


def test_no_law_looks_up_one_row_after_the_other(history: Ledger) -> None:
    """What the server expects of a live table is wrong by orders: a join by rows would take hours where others take seconds."""
    Explaining.plans.clear()
    with Explaining.connect(history.database_url, autocommit=True, options="-c search_path=ledger") as connection:
        found = {one.table: (one, generations.active(connection, one.table)) for one in history.projections}
        tables = {table: (one, live) for table, (one, live) in found.items() if live is not None}
        Explaining.plans.clear()
        assert list(laws.broken_laws(connection, tables)) == []
    assert len(Explaining.plans) == len(laws.LAWS)
    assert not [plan for plan in Explaining.plans if "Nested Loop" in plan]


PLANTED = {
    "law 1, quantity = entered - left + transferred,": "UPDATE positions SET peak_quantity = 99, entry_quantity = 8"
    " WHERE row_current_ind AND market_id = 'SUN'",
    "law 2, realized_pnl = realized_gross - fees,": "UPDATE positions SET realized_pnl = realized_pnl + 0.01"
    " WHERE row_current_ind AND market_id = 'SUN'",
    "law 3, unrealized_pnl = value at current_price - cost,": "UPDATE positions SET unrealized_pnl = 1e-18"
    " WHERE row_current_ind AND market_id = 'SUN'",
    "law 4, positions paid by one verdict of a market are paid one value,": "UPDATE positions SET settlement_value = 0.31"
    f" WHERE id = {PAID}",
    "law 6, nothing held has no cost, no unrealized_pnl and no average_entry_price,": "UPDATE positions SET"
    f" average_entry_price = 0.4 WHERE id = {PAID}",
    "law 1, quantities are the sums of the position's trades,": "UPDATE trades SET quantity = quantity + 1"
    " WHERE row_current_ind AND market_id = 'SUN'",
    "law 2, fees are the sum of those of the position's trades,": "UPDATE trades SET fee = fee + 0.01"
    " WHERE row_current_ind AND market_id = 'SUN'",
    "law 2, what trades and the payout brought and cost = realized_gross - cost,": "UPDATE trades SET"
    " amount = amount + 1e-18 WHERE row_current_ind AND market_id = 'SUN'",
    "each version of a trade has the version of its position that the same event made,": "UPDATE trades SET"
    " account_id = 'second' WHERE row_current_ind AND market_id = 'SUN'",
    "the next leg of a trade exists in the same account,": "UPDATE trades SET linked_trade_id = 'TRD-1'"
    " WHERE row_current_ind AND linked_trade_id IS NOT NULL",
    "law 5, free + locked = cash,": "UPDATE account_balance SET free = free + 1 WHERE row_current_ind",
    "law 5, postings sum to zero and make the change,": "UPDATE account_balance SET posted_external = 7"
    " WHERE row_current_ind",
    "law 5, balances are the sums of all postings so far,": "UPDATE account_balance SET cash = cash + 1, free = free + 1"
    " WHERE row_current_ind AND account_id = 'main'",
    "what a balance says caused it is a version of a position of the same account,": "UPDATE account_balance SET"
    " cause_id = cause_id - 1 WHERE row_current_ind AND account_id = 'second'",
    "law 5, the account has booked all that the position has paid, locked and realized,": "UPDATE positions SET"
    " cost = cost + 0.01 WHERE row_current_ind AND side = 'SHORT'",
}


def test_every_law_has_a_violation_here() -> None:
    assert [law.says for law in laws.LAWS] == list(PLANTED)


@pytest.mark.uncounted
def test_a_sound_history_breaks_no_law(ledger: Ledger) -> None:
    report = operations.verify(ledger.settings, engine.reached(ledger.settings), None)
    assert (report.problems, report.notes) == ((), ())


@pytest.mark.parametrize(("says", "statement"), PLANTED.items(), ids=[says[:60].strip(",") for says in PLANTED])
def test_a_broken_law_is_named_with_its_first_row(ledger: Ledger, says: str, statement: str) -> None:
    planted(ledger, statement)

    found = [one for one in broken(ledger) if f": {says} does not hold" in one]

    assert len(found) == 1
    assert re.match(r"(positions POS|trades TRD|account_balance BAL)-\d+, row \d+: ", found[0])


def test_payouts_that_no_value_explains_break_law_2(ledger: Ledger) -> None:
    """YES and NO receive 1 a pair: a payout that differs by the last place is found, and verify says no."""
    planted(
        ledger,
        "UPDATE positions SET realized_gross = realized_gross + 1e-18, realized_pnl = realized_pnl + 1e-18"
        f" WHERE id = {PAID}",
    )
    assert any("what trades and the payout brought" in one for one in problems(ledger))


@pytest.mark.uncounted
def test_laws_are_checked_up_to_where_all_tables_are(own_ledger: Ledger) -> None:
    """Commands that some table has not projected yet break nothing."""
    ledger = own_ledger
    with engine.following(ledger.settings, share=False) as follower:
        engine.drain(follower)
        for number in range(5):
            ledger.execute(OpenPosition(**KEY | {"market": f"M-{number}"}, quantity=3, entry_price="0.5", fee="0.01"))
            follower.step()
            report = operations.verify(ledger.settings, engine.reached(ledger.settings), None)
            assert report.problems == ()


def test_shortfall_and_overdraft_are_notes_and_no_failure(own_ledger: Ledger) -> None:
    ledger = own_ledger
    # given a position whose purchase was busted after it had been sold, and an account that owes money
    bought = ledger.execute(RecordFill(**KEY | {"market": "LATE"}, action="buy", quantity=5, price="0.5"))
    ledger.execute(RecordFill(**KEY | {"market": "LATE"}, action="sell", quantity=5, price="0.6"))
    trade = {"trade": bought.trades[0], "bust_id": "b-1", "reason": "venue", "actor": "desk"}
    ledger.execute(BustTrade(**trade))
    ledger.execute(AdjustCash(environment="paper", account="main", amount=-5000, reason="venue statement"))
    ledger.catch_up(30)
    # when verified
    report = operations.verify(ledger.settings, engine.reached(ledger.settings), None)
    # then all holds and both are told
    assert report.holds, report.problems
    assert [re.sub(r"\d+$", "n", one) for one in report.notes] == [
        "positions: 1 have sold more than they held (shortfall), the first is POS-n",
        "account_balance: 1 are overdrawn (free is below zero), the first is BAL-n",
    ]
    assert report.notes[0].endswith(str(bought.position_id))
    # and status shows who owes
    (owing,) = read_status(ledger.settings, engine.reached(ledger.settings)).overdrawn
    assert (owing.account, owing.environment, owing.currency) == ("main", "paper", "USD")
    assert -5000 < owing.free < -4000
    assert any(line.startswith("overdrawn main in paper (BAL-1): free is -4") for line in shown(ledger))


def shown(ledger: Ledger) -> list[str]:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(rendered(read_status(ledger.settings, engine.reached(ledger.settings)), console))
    return captured.get().splitlines()


def test_a_single_table_is_checked_by_its_own_laws(ledger: Ledger) -> None:
    planted(ledger, PLANTED["law 2, fees are the sum of those of the position's trades,"])
    report = operations.verify(ledger.settings, engine.reached(ledger.settings), ["positions"])
    assert report.holds
