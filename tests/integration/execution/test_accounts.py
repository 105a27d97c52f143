"""Money through the ledger on a real database: balances and postings as rows, refusals, and many callers at once."""

from __future__ import annotations

import json
from contextlib import ExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import (
    AdjustCash,
    CommandRejected,
    Deposit,
    IncreasePosition,
    Ledger,
    OpenPosition,
    Reason,
    RecordCash,
    SetOpeningBalance,
    Withdraw,
    operations,
)
from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.vocabulary import Environment
from position_ledger.execution.streams import PAGE_EVENTS
from position_ledger.setup import Reached
from tests.support import contending
from tests.support.commands import closing, marking, opening, reducing
from tests.support.engine import Traffic
from tests.support.processes import running

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN: dict[str, Any] = {"environment": "paper", "account": "main"}
BUSY: dict[str, Any] = {"environment": "paper", "account": "busy"}
THREADS = 64
PROCESSES, THREADS_EACH = 4, 16
DEPOSITED = 1000

BALANCE = """
SELECT b.version, b.cash, b.locked, b.free FROM ledger.current_account_balance AS b
 WHERE b.execution_environment = %s AND b.account_id = %s AND b.currency = 'USD'
"""
SUMS_OF_EVENTS = """
SELECT p.id, sum(p.amount) FROM ledger.postings AS p GROUP BY p.id HAVING sum(p.amount) <> 0
"""
BOOKS = """
SELECT b.balance_id, b.free, b.locked, coalesce(sum(p.amount) FILTER (WHERE p.book = 'free'), 0),
       coalesce(sum(p.amount) FILTER (WHERE p.book = 'locked'), 0)
  FROM ledger.current_account_balance AS b LEFT JOIN ledger.postings AS p ON p.balance_id = b.balance_id
 GROUP BY b.balance_id, b.free, b.locked
"""
# From the rows of positions alone, all of them binary: what they have earned, what stands behind them, what was paid.
OF_POSITIONS = """
SELECT p.account_id, sum(p.realized_pnl), sum(p.cost), sum(p.realized_gross), sum(p.open_fees + p.close_fees)
  FROM ledger.current_positions AS p GROUP BY p.account_id ORDER BY p.account_id
"""
OF_ACCOUNTS = """
SELECT b.account_id,
       b.cash - coalesce((SELECT -sum(p.amount) FROM ledger.postings AS p
                           WHERE p.balance_id = b.balance_id AND p.book = 'external'), 0),
       b.locked,
       coalesce((SELECT -sum(p.amount) FROM ledger.postings AS p
                  WHERE p.balance_id = b.balance_id AND p.book = 'realized'), 0),
       coalesce((SELECT sum(p.amount) FROM ledger.postings AS p
                  WHERE p.balance_id = b.balance_id AND p.book = 'fees'), 0)
  FROM ledger.current_account_balance AS b ORDER BY b.account_id
"""
STEPS = """
SELECT count(*) FROM ledger.account_balance AS b JOIN ledger.account_balance AS o
    ON o.balance_id = b.balance_id AND o.version = b.version - 1
 WHERE b.cash <> o.cash + b.change OR o.row_expiration_date <> b.row_effective_date
"""
CAUSES = """
SELECT count(*) FILTER (WHERE p.id IS NULL), count(*) FILTER (WHERE p.account_id <> b.account_id), count(*)
  FROM ledger.account_balance AS b LEFT JOIN ledger.positions AS p ON p.id = b.cause_id WHERE b.cause_id IS NOT NULL
"""


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with another(ledger_url) as opened:
        yield opened


def another(url: str) -> Ledger:
    """A ledger that remembers nothing, as in a process that has just started."""
    return Ledger.open(database_url=url, redis_url=contending.NO_QUEUE)


def rows(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


def balance(ledger: Ledger, url: str, account: str = "main") -> tuple[int, Decimal, Decimal, Decimal]:
    """Version, cash, locked and free, as the table has them once everything is projected."""
    token = rows(url, "SELECT max(notification_id) FROM ledger.events")[0][0]
    ledger.wait_for(token, timeout_s=30)
    ((version, cash, locked, free),) = rows(url, BALANCE, "paper", account)
    return version, cash, locked, free


def refused(ledger: Ledger, command: Any) -> Reason:
    with pytest.raises(CommandRejected) as error:
        ledger.execute(command)
    return error.value.reason


def proven(ledger: Ledger) -> None:
    """Everything equals the log, and the laws hold."""
    report = operations.verify(ledger.settings, Reached(ledger.database_url, ledger.redis_url, None), None)
    assert report.holds, report.problems


# One after the other


def test_deposits_and_withdrawals_are_rows_of_one_balance(ledger: Ledger, ledger_url: str) -> None:
    paid_in = ledger.execute(Deposit(**MAIN, amount=100, reason="wire"))
    taken_out = ledger.execute(Withdraw(**MAIN, amount="30.50"))

    assert (paid_in.events, taken_out.events) == (1, 1)
    assert paid_in.id == taken_out.id == f"BAL-{paid_in.token}"
    assert paid_in.positions == ()
    assert balance(ledger, ledger_url) == (2, Decimal("69.5"), 0, Decimal("69.5"))
    history = rows(
        ledger_url,
        "SELECT b.balance_id, b.version, b.cause, b.change, b.reason, b.is_cash_controlled, b.row_current_ind"
        " FROM ledger.account_balance AS b ORDER BY b.id",
    )
    assert history == [
        (paid_in.id, 1, "deposit", Decimal(100), "wire", True, False),
        (paid_in.id, 2, "withdrawal", Decimal("-30.5"), None, True, True),
    ]


def test_a_position_moves_money_in_the_same_append(ledger: Ledger, ledger_url: str) -> None:
    """The figures of domain.md: a binary's amount goes from free to locked, its fee out of the account."""
    ledger.execute(Deposit(**MAIN, amount=100))
    opened = ledger.execute(opening(quantity=10, entry_price="0.40", fee="0.10"))

    assert balance(ledger, ledger_url)[1:] == (Decimal("99.90"), Decimal(4), Decimal("95.90"))
    ledger.execute(closing(opened.position_id or "", "0.55", fee="0.05"))
    assert balance(ledger, ledger_url)[1:] == (Decimal("101.35"), 0, Decimal("101.35"))
    # each event of the position and its booking were committed together, and the booking names the version
    times = rows(
        ledger_url,
        "SELECT count(DISTINCT e.xmin::text) FROM ledger.events AS e"
        " WHERE e.topic IN ('position.opened', 'book.position_opened') OR (e.topic = 'account.position_booked'"
        " AND e.originator_version = 2)",
    )
    assert times == [(1,)]
    assert rows(ledger_url, CAUSES) == [(0, 0, 2)]


def test_a_mark_moves_no_money(ledger: Ledger, ledger_url: str) -> None:
    opened = ledger.execute(opening())
    before = balance(ledger, ledger_url)

    marked = ledger.execute(marking(opened.position_id or "", "0.99"))

    assert marked.events == 1
    assert balance(ledger, ledger_url) == before


def test_intentions_are_refused_for_lack_of_money_and_facts_never(ledger: Ledger, ledger_url: str) -> None:
    # given an account without any deposit, then it may be overdrawn: it is not cash-controlled
    opened = ledger.execute(opening(quantity=10, entry_price="0.40"))
    assert balance(ledger, ledger_url)[3] == -4
    # when it is cash-controlled, then what would overdraw it is refused, may be tried again, and leaves nothing
    ledger.execute(Deposit(**MAIN, amount=10))
    before = balance(ledger, ledger_url)
    for intention in (Withdraw(**MAIN, amount="6.01"), opening(quantity=11, entry_price="0.55", market="OTHER")):
        reason = refused(ledger, intention)
        assert reason is Reason.INSUFFICIENT_FUNDS
        assert reason.transient
    assert balance(ledger, ledger_url) == before
    # and what has happened is recorded all the same
    ledger.execute(IncreasePosition(position_id=opened.position_id or "", quantity=100, price="0.50"))
    assert balance(ledger, ledger_url)[3] == -44
    ledger.execute(AdjustCash(**MAIN, amount=-1, reason="as the venue says"))
    assert balance(ledger, ledger_url)[3] == -45


def test_what_is_wrong_with_a_command_is_told_and_nothing_is_written(ledger: Ledger, ledger_url: str) -> None:
    ledger.execute(SetOpeningBalance(**MAIN, amount=5))
    before = rows(ledger_url, "SELECT count(*) FROM ledger.events")

    assert refused(ledger, SetOpeningBalance(**MAIN, amount=5)) is Reason.BALANCE_ALREADY_SET
    assert refused(ledger, RecordCash(**MAIN, kind="deposit", amount=5)) is Reason.CASH_KIND_NOT_RECORDED

    assert rows(ledger_url, "SELECT count(*) FROM ledger.events") == before


def test_nothing_is_decided_on_a_balance_that_has_changed_elsewhere(ledger: Ledger, ledger_url: str) -> None:
    # given two processes that both remember 100
    ledger.execute(Deposit(**MAIN, amount=100))
    with another(ledger_url) as other:
        other.execute(Deposit(**MAIN, amount=1))
        # when one takes all, then the other cannot take it again
        ledger.execute(Withdraw(**MAIN, amount=101))
        assert refused(other, Withdraw(**MAIN, amount=1)) is Reason.INSUFFICIENT_FUNDS
        # and a refusal is not told on what is old either
        other.execute(Deposit(**MAIN, amount=7))
        ledger.execute(Withdraw(**MAIN, amount=7))
    assert balance(ledger, ledger_url)[1] == 0


def test_accounts_currencies_and_environments_are_never_mixed(ledger: Ledger, ledger_url: str) -> None:
    ledger.execute_many(
        [
            Deposit(**MAIN, amount=1),
            Deposit(**MAIN, amount=2, currency="EUR"),
            Deposit(environment="live", account="main", amount=4),
            Deposit(environment="paper", account="other", amount=8),
        ]
    )
    balance(ledger, ledger_url)
    found = rows(ledger_url, "SELECT b.cash FROM ledger.current_account_balance AS b ORDER BY b.cash")
    assert found == [(1,), (2,), (4,), (8,)]


# A mixed history


@pytest.mark.uncounted
def test_rows_and_postings_add_up_after_a_mixed_history(ledger: Ledger, ledger_url: str) -> None:
    """Laws of domain.md: free + locked = cash, postings sum to zero, and accounts are what positions say."""
    # given random trading with flips, partial exits and settlements, and money that comes and goes beside it
    traffic = Traffic(ledger, 21, accounts=3)
    for _ in range(12):
        traffic.run(20)
        for account in traffic.accounts:
            where = {"environment": "paper", "account": account}
            ledger.execute(Deposit(**where, amount=50))
            ledger.execute(RecordCash(**where, kind="reward", amount="0.37"))
            ledger.execute(AdjustCash(**where, amount="-0.01", reason="rounding of the venue"))
    balance(ledger, ledger_url, traffic.accounts[0])
    # then every event sums to zero, and every book is the sum of its postings
    assert rows(ledger_url, SUMS_OF_EVENTS) == []
    for balance_id, free, locked, posted_free, posted_locked in rows(ledger_url, BOOKS):
        assert (free, locked) == (posted_free, posted_locked), balance_id
    # and each version follows from the one before it, and names the version of the position that moved it
    assert rows(ledger_url, STEPS) == [(0,)]
    lost, strange, booked = rows(ledger_url, CAUSES)[0]
    assert (lost, strange) == (0, 0)
    assert booked > 100
    # and the accounts have earned, locked and paid what their positions say, added up from the other table
    assert rows(ledger_url, OF_ACCOUNTS) == rows(ledger_url, OF_POSITIONS)
    proven(ledger)


@pytest.mark.parametrize(("side", "locked", "holdings"), [("LONG", 0, 20), ("SHORT", 20, -20)])
def test_holdings_of_a_long_and_a_short_are_posted(
    ledger: Ledger, ledger_url: str, side: str, locked: int, holdings: int
) -> None:
    ledger.execute(Deposit(**MAIN, amount=100))
    opened = ledger.execute(opening(side=side, quantity=2, entry_price=10))
    assert balance(ledger, ledger_url)[1:] == (100 - holdings, locked, 100 - holdings - locked)
    posted = rows(ledger_url, "SELECT sum(p.amount) FROM ledger.postings AS p WHERE p.book = 'holdings'")
    assert posted == [(holdings,)]
    # and half of it out at a profit of 1
    ledger.execute(reducing(opened.position_id or "", 1, 11 if side == "LONG" else 9))
    balance(ledger, ledger_url)
    posted = rows(ledger_url, "SELECT p.book, sum(p.amount) FROM ledger.postings AS p GROUP BY p.book")
    assert (dict(posted)["holdings"], dict(posted)["realized"]) == (holdings // 2, -1)
    assert rows(ledger_url, SUMS_OF_EVENTS) == []


# Many at once


def expected_after(commands: list[Any]) -> tuple[int, Decimal, Decimal, Decimal]:
    """Version, cash, locked and free when each of these has happened once after the deposit, in any order."""
    cash = Decimal(DEPOSITED) + sum(
        one.amount if isinstance(one, Deposit) else -one.amount if isinstance(one, Withdraw) else -one.fee
        for one in commands
    )
    opened = [one for one in commands if isinstance(one, OpenPosition)]
    locked = sum((one.quantity * one.entry_price for one in opened), Decimal(0))
    return 1 + len(commands), cash, locked, cash - locked


@pytest.mark.uncounted
def test_many_threads_on_one_account_lose_nothing_and_all_finish(
    ledger: Ledger, ledger_url: str, record_property: Any
) -> None:
    """64 at once: each is decided on what the others left, and waits for its turn instead of racing again."""
    ledger.execute(Deposit(**BUSY, amount=DEPOSITED))
    commands = contending.commands_of(0, THREADS)

    attempts = contending.all_at_once(ledger, commands)

    record_property("attempts_mean", sum(attempts) / THREADS)
    record_property("attempts_max", max(attempts))
    assert balance(ledger, ledger_url, "busy") == expected_after(commands)
    # Racing, each would be appended about 9 times; in line it is once, and once more for those who came before it.
    assert sum(attempts) < 4 * THREADS, attempts
    proven(ledger)


@pytest.mark.uncounted
def test_several_processes_on_one_account_lose_nothing_and_all_finish(
    ledger: Ledger, ledger_url: str, record_property: Any
) -> None:
    ledger.execute(Deposit(**BUSY, amount=DEPOSITED))
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running("-m", "tests.support.contending", ledger_url, str(number), str(THREADS_EACH)))
            for number in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        attempts = [one for process in processes for one in answered(process)]

    record_property("attempts_mean", sum(attempts) / len(attempts))
    record_property("attempts_max", max(attempts))
    commands = [one for number in range(PROCESSES) for one in contending.commands_of(number, THREADS_EACH)]
    assert len(attempts) == len(commands)
    assert max(attempts) <= ledger.settings.conflict_retries_max
    assert balance(ledger, ledger_url, "busy") == expected_after(commands)
    proven(ledger)


def answered(process: Any) -> list[int]:
    """What a process of `contending` answers, which it does when every command of its own has been executed."""
    counts: list[int] = json.loads(process.stdout.readline())
    assert process.wait(contending.END_LIMIT_S) == 0
    return counts


# Long accounts


@pytest.mark.parametrize("command", [Withdraw(**MAIN, amount=1), opening(quantity=1)], ids=["withdraw", "open"])
def test_a_fresh_process_reads_a_page_of_a_long_account_at_most(
    ledger: Ledger, ledger_url: str, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever appends to a stream leaves a snapshot when it has grown by a page."""
    # given an account with more than 2,000 events, appended in batches that end at no particular version
    batch = [Deposit(**MAIN, amount=1) for _ in range(7)]
    while True:
        done = ledger.execute_many(batch * 15)
        if done[-1].token > 4 * PAGE_EVENTS + PAGE_EVENTS // 2:
            break
    # when a process that remembers nothing decides on it
    decoded: list[str] = []
    with another(ledger_url) as fresh:
        decode = fresh.codec.decode

        def counted(topic: str, body: bytes) -> Any:
            decoded.append(topic)
            return decode(topic, body)

        monkeypatch.setattr(fresh.codec, "decode", counted)
        fresh.execute(command)
        stream = account_stream(AccountKey(Environment.PAPER, "main", "USD"))
        version = fresh._executor._cache.get(stream).version  # type: ignore[union-attr]
    # then it has read no more than what came since the last snapshot
    assert version == done[-1].token + 1
    assert 0 < len(decoded) < PAGE_EVENTS
    assert balance(ledger, ledger_url)[0] == version
