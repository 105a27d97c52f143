"""Settling, amending and voiding markets on a real database: every position once, whoever pays."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from position_ledger import (
    CommandRejected,
    ConfigurationError,
    Deposit,
    Ledger,
    OpenPosition,
    QuoteMarket,
    Reason,
    RecordFill,
    ReducePosition,
    SettleMarket,
    SettlePosition,
    VoidMarket,
)
from position_ledger.domain.numbers import amount_of
from position_ledger.events import EVENTS
from position_ledger.settings import load_settings
from position_ledger.settling.service import SettlingService
from position_ledger.store.codec import Codec
from tests.support import engine
from tests.support.settling import MARKET, OPENED_AT, figures, opened, openings, paid_count, payouts, query, registered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
YES = {"environment": "paper", "account": "ann", "market": MARKET, "side": "YES"}
PAIR = Decimal("3.333333333333333333")
POSITIONS = 450
"""More than two batches."""


@pytest.mark.uncounted
def test_settling_pays_every_position_once_and_pairs_receive_1(ledger: Ledger, ledger_url: str) -> None:
    """Law 4, on real rows."""
    # given
    registered(ledger)
    opened(ledger, POSITIONS)
    for side in ("YES", "NO"):
        ledger.execute(OpenPosition(**YES | {"side": side, "quantity": PAIR, "entry_price": "0.5"}))

    # when
    done = ledger.settle_market("paper", MARKET, "0.333333333333333333", fee="0.02")

    # then
    assert (done.settled, done.amended, done.voided, done.left) == (POSITIONS + 2, 0, 0, 0)
    assert (done.revision, done.having_it, done.market_id) == (1, POSITIONS + 2, "MKT-1")
    assert set(payouts(ledger_url).values()) == {1}
    rows = figures(ledger_url, MARKET)
    assert {row["status"] for row in rows} == {"settled"}
    assert {row["settlement_value"] for row in rows} == {Decimal("0.333333333333333333")}
    assert {(row["side"], row["exit_price"]) for row in rows} == {
        ("YES", Decimal("0.333333333333333333")),
        ("NO", Decimal("0.666666666666666667")),
    }
    yes, no = [row for row in rows if row["account_id"] == "ann"]
    cost = amount_of(PAIR, Decimal("0.5"))
    assert yes["realized_gross"] + no["realized_gross"] + 2 * cost == PAIR
    assert all(row["close_fees"] == Decimal("0.02") for row in rows)
    engine.proven(ledger.settings)


def test_the_same_call_again_changes_nothing(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    opened(ledger, 10)
    ledger.settle_market("paper", "MKT-1", 1)
    before = query(ledger_url, "SELECT count(*) AS n FROM events")

    again = ledger.settle_market("paper", MARKET, 1)

    assert (again.settled, again.left, again.having_it) == (0, 0, 10)
    assert query(ledger_url, "SELECT count(*) AS n FROM events") == before
    with pytest.raises(CommandRejected) as caught:
        ledger.settle_market("paper", MARKET, 0)
    assert caught.value.reason is Reason.MARKET_STATUS_WRONG


@pytest.mark.uncounted
def test_settle_then_amend_is_settle_on_real_rows(ledger: Ledger, ledger_url: str) -> None:
    """Law 9: settle(A) then amend(B) = settle(B), in every figure of every row; both steps stay visible."""
    for market in ("TWICE", "ONCE"):
        registered(ledger, market)
        opened(ledger, 60, market)
    ledger.catch_up()
    for market in ("TWICE", "ONCE"):
        for row in [row for row in ledger.positions(market=market) if row["strategy_id"] <= 20]:
            ledger.execute(
                ReducePosition(position_id=row["position_id"], quantity="0.5", price="0.4", effective_at=OPENED_AT)
            )

    first = ledger.settle_market("paper", "TWICE", 1, fee="0.03", effective_at=AT)
    amended = ledger.amend_market("paper", "TWICE", "0.25")
    ledger.settle_market("paper", "ONCE", "0.25", fee="0.03", effective_at=AT)

    assert {row["exit_time"] for row in figures(ledger_url, "TWICE")} == {AT}
    assert (first.settled, amended.amended, amended.settled, amended.revision) == (60, 60, 0, 2)
    assert figures(ledger_url, "TWICE") == figures(ledger_url, "ONCE")
    steps = query(
        ledger_url,
        "SELECT settlement_revision, count(*) AS rows FROM positions WHERE market_id = 'TWICE'"
        " AND settlement_revision IS NOT NULL GROUP BY 1 ORDER BY 1",
    )
    assert [(row["settlement_revision"], row["rows"]) for row in steps] == [(1, 60), (2, 60)]
    engine.proven(ledger.settings)


def test_back_and_forth_void_and_back_again(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    opened(ledger, 25)
    ledger.settle_market("paper", MARKET, 1, effective_at=AT)
    settled = figures(ledger_url, MARKET)

    voided = ledger.void_market("paper", MARKET)
    rows = figures(ledger_url, MARKET)
    assert (voided.voided, voided.revision) == (25, 2)
    assert {(row["status"], row["realized_gross"], row["settlement_value"]) for row in rows} == {("voided", 0, None)}
    assert all(row["exit_price"] == row["entry_price"] for row in rows)

    back = ledger.amend_market("paper", MARKET, 1)
    assert (back.amended, back.revision, back.left) == (25, 3, 0)
    assert figures(ledger_url, MARKET) == settled


def test_void_gives_cost_back_and_fees_on_demand(ledger: Ledger, ledger_url: str) -> None:
    for market, refund in (("KEPT", False), ("BACK", True)):
        registered(ledger, market)
        opened(ledger, 6, market)
        ledger.void_market("paper", market, refund_fees=refund)
    assert {row["realized_pnl"] for row in figures(ledger_url, "KEPT")} == {Decimal("-0.01")}
    assert {row["realized_pnl"] for row in figures(ledger_url, "BACK")} == {Decimal(0)}


@pytest.mark.uncounted
def test_unwinding_busts_every_trade_and_keeps_what_was_sold_from_counting(ledger: Ledger, ledger_url: str) -> None:
    """Earlier exits stay in a void market, unless it is unwound."""
    for market in ("VOID", "UNWOUND"):
        registered(ledger, market)
        key = YES | {"market": market}
        ledger.execute(RecordFill(**key, action="buy", quantity=10, price="0.40", fee="0.10"))
        ledger.execute(RecordFill(**key, action="sell", quantity=4, price="0.90", fee="0.04"))
        ledger.execute(RecordFill(**key, action="sell", quantity=9, price="0.80", fee="0.09", on_excess="flip"))
        opened(ledger, 5, market)

    void = ledger.void_market("paper", "VOID")
    unwound = ledger.void_market("paper", "UNWOUND", unwind=True)

    assert (void.voided, void.busted) == (6, 0)
    kept = [row for row in figures(ledger_url, "VOID") if row["account_id"] == "ann"]
    assert [(row["side"], row["status"], row["realized_gross"]) for row in kept] == [
        ("NO", "voided", 0),
        ("YES", "closed", Decimal("4.4")),
    ]
    assert (unwound.busted, unwound.left) == (8, 0), "the flip is one bust for its two legs"
    rows = figures(ledger_url, "UNWOUND")
    assert {(row["status"], row["realized_pnl"], row["quantity"]) for row in rows} == {("voided", 0, 0)}
    trades = query(
        ledger_url,
        "SELECT status, count(*) AS n FROM trades WHERE row_current_ind AND market_id = 'UNWOUND' GROUP BY 1",
    )
    assert trades == [{"status": "busted", "n": 9}]
    assert ledger.pay_markets() == ledger.pay_markets()
    assert ledger.pay_markets().positions == 0
    engine.proven(ledger.settings)


def test_unwinding_a_settled_market_takes_the_payout_back(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    opened(ledger, 12)
    ledger.settle_market("paper", MARKET, 1)
    done = ledger.void_market("paper", MARKET, unwind=True)
    assert (done.busted, done.left) == (12, 0)
    assert {(row["status"], row["realized_pnl"]) for row in figures(ledger_url, MARKET)} == {("voided", 0)}


def test_cash_is_what_came_in_and_what_was_earned(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    for number in range(7):
        ledger.execute(Deposit(environment="paper", account=f"account-{number}", amount=1000))
    opened(ledger, 70)
    ledger.settle_market("paper", MARKET, 1)
    ledger.amend_market("paper", MARKET, 0)
    earned: Counter[str] = Counter()
    for row in figures(ledger_url, MARKET):
        earned[row["account_id"]] += row["realized_pnl"]
    balances = query(ledger_url, "SELECT account_id, cash, locked FROM account_balance WHERE row_current_ind")
    assert {row["account_id"]: row["cash"] - 1000 for row in balances} == dict(earned)
    assert {row["locked"] for row in balances} == {0}


def test_environments_never_mix(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    registered(ledger, environment="live")
    opened(ledger, 4)
    ledger.execute(OpenPosition(**YES | {"environment": "live", "quantity": 1, "entry_price": "0.5"}))
    done = ledger.settle_market("live", MARKET, 1)
    assert (done.settled, done.having_it) == (1, 1)
    states = query(ledger_url, "SELECT DISTINCT execution_environment, status FROM positions WHERE row_current_ind")
    assert {(row["execution_environment"], row["status"]) for row in states} == {("paper", "open"), ("live", "settled")}


def test_what_was_settled_by_hand_is_left_alone(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    hand = ledger.execute(OpenPosition(**YES, quantity=10, entry_price="0.5"))
    ledger.execute(SettlePosition(position_id=str(hand.position_id), value=1))
    done = ledger.settle_market("paper", MARKET, 0)
    assert (done.settled, done.amended, done.left) == (0, 0, 0)
    assert figures(ledger_url, MARKET)[0]["settlement_value"] == 1


def test_a_position_that_cannot_be_paid_is_told_and_keeps_nobody_waiting(ledger: Ledger, ledger_url: str) -> None:
    """A YES from before its market was registered as one of another kind: 50,000 is no payout of it."""
    ledger.execute(OpenPosition(**YES, quantity=10, entry_price="0.5"))
    registered(ledger, kind="spot")
    ledger.execute(OpenPosition(**YES | {"side": "LONG"}, quantity=1, entry_price=40_000))
    done = ledger.settle_market("paper", MARKET, 50_000)
    assert (done.settled, done.left, done.having_it) == (1, 1, 1)
    assert {row["status"] for row in figures(ledger_url, MARKET)} == {"open", "settled"}


# Others at the same time


@pytest.fixture
def other(ledger: Ledger) -> Iterator[Ledger]:
    """Another process, as far as its memory goes."""
    with Ledger.open(
        database_url=ledger.settings.database_url, redis_url="redis://unused", wait_timeout_s=60
    ) as opened:
        yield opened


def test_a_stale_memory_of_an_open_market_lets_nothing_through(ledger: Ledger, other: Ledger, ledger_url: str) -> None:
    registered(ledger)
    other.execute(OpenPosition(**YES, quantity=1, entry_price="0.5"))
    ledger.settle_market("paper", MARKET, 1)

    with pytest.raises(CommandRejected) as caught:
        other.execute(OpenPosition(**YES, quantity=1, entry_price="0.5"))
    assert caught.value.reason is Reason.MARKET_NOT_OPEN

    fill = other.execute(RecordFill(**YES, action="buy", quantity=1, price="0.5"))
    assert fill.events >= 4, "opened and settled in one append, with its book"
    ledger.wait_for(fill.token)
    assert ledger.position(str(fill.position_id))["status"] == "settled"
    assert set(payouts(ledger_url).values()) == {1}


def test_a_quoted_market_can_be_traded_by_a_process_that_has_not_seen_the_quote(ledger: Ledger, other: Ledger) -> None:
    registered(ledger)
    other.execute(OpenPosition(**YES, quantity=1, entry_price="0.5"))
    for cent in range(10, 20):
        ledger.execute(QuoteMarket(environment="paper", market=MARKET, yes_price=Decimal(cent) / 100))
        assert other.execute(OpenPosition(**YES, quantity=1, entry_price="0.5")).position_id


@pytest.mark.uncounted
def test_several_that_pay_at_once_pay_each_position_once(ledger: Ledger, other: Ledger, ledger_url: str) -> None:
    registered(ledger)
    opened(ledger, 600)
    token = ledger.execute(SettleMarket(environment="paper", market=MARKET, value=1)).token
    ledger.wait_for(token)
    paid: list[int] = []

    def pay(one: Ledger) -> None:
        paid.append(one.pay_markets("paper").settled)

    threads = [threading.Thread(target=pay, args=(one,)) for one in (ledger, other, ledger)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(paid) == 600
    assert set(payouts(ledger_url).values()) == {1}


def test_openings_and_fills_while_a_market_is_settled_leave_nothing_open(
    ledger: Ledger, other: Ledger, ledger_url: str
) -> None:
    registered(ledger)
    opened(ledger, 50)
    refused: list[Reason] = []
    begun = threading.Event()

    def trade() -> None:
        for number, command in enumerate(openings(120)):
            try:
                other.execute(command)
                other.execute(RecordFill(**YES, action="buy", quantity=1, price="0.5", strategy=number + 100))
            except CommandRejected as refusal:
                refused.append(refusal.reason)
            if number == 20:
                begun.set()

    trader = threading.Thread(target=trade)
    trader.start()
    assert begun.wait(30)
    ledger.settle_market("paper", MARKET, 1)
    trader.join(60)
    ledger.pay_markets()

    assert set(refused) == {Reason.MARKET_NOT_OPEN}
    assert set(payouts(ledger_url).values()) == {1}
    ledger.catch_up()
    assert {row["status"] for row in figures(ledger_url, MARKET)} == {"settled"}


def service_of(ledger: Ledger, **settings: Any) -> SettlingService:
    loaded = load_settings(
        database_url=ledger.settings.database_url, redis_url="redis://unused", settling_poll_s=0.05, **settings
    )
    return SettlingService(str(loaded.database_url), loaded, ledger.projections, Codec(EVENTS))


def within(seconds: float, condition: Any) -> bool:
    """Whether a condition comes true in time."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    pause = threading.Event()
    while datetime.now(UTC) < deadline:
        if condition():
            return True
        pause.wait(0.02)
    return False


@pytest.mark.uncounted
def test_workers_pay_what_somebody_else_settled(ledger: Ledger, ledger_url: str) -> None:
    # given two workers that look for work
    registered(ledger)
    opened(ledger, 300)
    services = [service_of(ledger, settling_batch_max=40) for _ in range(2)]
    for service in services:
        service.start()
        service.start()
    try:
        # when a market is settled, voided, and settled again, by events alone
        ledger.execute(SettleMarket(environment="paper", market=MARKET, value=1))
        assert within(60, lambda: paid_count(ledger_url) == 300)
        ledger.execute(VoidMarket(environment="paper", market=MARKET))
        # then each time all positions follow
        assert within(60, lambda: sum(payouts(ledger_url, "position.voided").values()) == 300)
    finally:
        for service in services:
            service.stop()
    assert set(payouts(ledger_url).values()) == {1}
    assert set(payouts(ledger_url, "position.voided").values()) == {1}


def test_a_worker_whose_database_goes_away_comes_back(ledger: Ledger, ledger_url: str) -> None:
    registered(ledger)
    opened(ledger, 5)
    service = service_of(ledger)
    service.start()
    try:
        assert within(20, lambda: query(ledger_url, SETTLERS)[0]["n"] > 0)
        query(
            ledger_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'position-ledger settling'",
        )
        ledger.execute(SettleMarket(environment="paper", market=MARKET, value=0))
        assert within(60, lambda: paid_count(ledger_url) == 5)
    finally:
        service.stop()


SETTLERS = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'position-ledger settling'"
END_SETTLERS = SETTLERS.replace("count(*) AS n", "pg_terminate_backend(pid)")


def test_nobody_pays_without_the_tables(ledger_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_positions").mkdir()
    (tmp_path / "only_positions" / "__init__.py").write_text(
        "from position_ledger.reference.projections.positions import POSITIONS as POSITIONS\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with (
        Ledger.open(database_url=ledger_url, redis_url="redis://unused", projections="only_positions") as ledger,
        pytest.raises(ConfigurationError, match="lacks a table that paying reads: markets, positions, trades"),
    ):
        ledger.settle_market("paper", MARKET, 1)


def test_the_least_change_of_a_quote_can_be_a_setting(ledger_url: str) -> None:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused", quote_min_change="0.05") as ledger:
        registered(ledger)
        quotes = [
            ledger.execute(QuoteMarket(environment="paper", market=MARKET, yes_price=price, **more)).events
            for price, more in [
                ("0.50", {}), ("0.54", {}), ("0.55", {}), ("0.56", {"min_change": "0.01"}), ("0.57", {"min_change": 0}),
            ]
        ]  # fmt: skip
    assert quotes == [1, 0, 1, 1, 1]
