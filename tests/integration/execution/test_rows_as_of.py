"""Every table as of an effective time, on a real database: what was true then, by what is known now or was known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import (
    BustTrade,
    ChangeEdgeStatus,
    ConfigurationError,
    Deposit,
    DetectEdge,
    QuoteMarket,
    RecordFill,
    RecordGameState,
    RegisterMarket,
    ReviseEdge,
    SetMarketStatus,
    TransferPosition,
    Withdraw,
)

if TYPE_CHECKING:
    from position_ledger import Ledger

D = Decimal
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAPER = {"environment": "paper"}
MAIN = {**PAPER, "account": "main"}


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def row(ledger: Ledger, table: str, minutes: int, **columns: Any) -> dict[str, Any] | None:
    ledger.catch_up()
    return next(iter(ledger.rows(table, as_of=at(minutes), **columns)), None)


def fill(action: str, quantity: int, price: str, minutes: int, **fields: Any) -> RecordFill:
    key = {**MAIN, "market": "M", "side": "YES"}
    return RecordFill(
        **key | {"action": action, "quantity": quantity, "price": price} | fields, effective_at=at(minutes)
    )


def test_a_balance_is_what_was_paid_and_what_positions_had_done_by_then(ledger: Ledger) -> None:
    # given payments and fills, one of them late, one busted
    ledger.execute(Deposit(**MAIN, amount=100, effective_at=at(0)))
    ledger.execute(fill("buy", 10, "0.40", 10))
    ledger.execute(fill("sell", 5, "0.60", 30))
    late = ledger.execute(fill("buy", 10, "0.50", 20, fee="0.20"))
    ledger.execute(Withdraw(**MAIN, amount=7, effective_at=at(40)))

    def balance(minutes: int) -> tuple[Decimal, Decimal, Decimal] | None:
        found = row(ledger, "account_balance", minutes)
        return None if found is None else (found["cash"], found["locked"], found["free"])

    # then, as if all had come in order
    assert balance(-1) is None
    assert balance(5) == (100, 0, 100)
    assert balance(15) == (100, 4, 96)
    assert balance(25) == (D("99.8"), 9, D("90.8"))
    assert balance(35) == (D("100.55"), D("6.75"), D("93.8"))
    assert balance(45) == (D("93.55"), D("6.75"), D("86.8"))
    current = ledger.rows("account_balance")[0]
    assert balance(60) == (current["cash"], current["locked"], current["free"])

    # and when the late one turns out never to have been
    ledger.execute(BustTrade(trade=late.trades[0], bust_id="b", reason="venue", actor="desk"))
    assert balance(25) == (100, 4, 96)
    assert balance(35) == (101, 2, 99)


def test_money_that_came_along_with_a_position_counts_from_then(ledger: Ledger) -> None:
    ledger.execute(Deposit(**MAIN, amount=10, effective_at=at(0)))
    opened = ledger.execute(fill("buy", 10, "0.40", 10))
    ledger.execute(
        TransferPosition(position_id=opened.position_id, to_account="other", quantity=5, effective_at=at(20))
    )

    before, after = (row(ledger, "account_balance", minutes, account_id="main") for minutes in (15, 25))
    assert before is not None
    assert after is not None
    assert (before["cash"], before["locked"], after["cash"], after["locked"]) == (10, 4, 8, 2)
    assert row(ledger, "account_balance", 15, account_id="other") is None
    other = row(ledger, "account_balance", 25, account_id="other")
    assert other is not None
    assert (other["cash"], other["locked"], other["free"]) == (2, 2, 0)


def test_a_bust_from_before_a_transfer_counts_when_it_was_bought_and_when_it_was_handed_on(ledger: Ledger) -> None:
    """10 @ .40 and 10 @ .60, of which 15 are handed on for 7.50; without the second only 10 are, for 4."""
    ledger.execute(Deposit(**MAIN, amount=100, effective_at=at(0)))
    opened = ledger.execute(fill("buy", 10, "0.40", 10))
    second = ledger.execute(fill("buy", 10, "0.60", 15))
    moved = TransferPosition(position_id=opened.position_id, to_account="other", quantity=15, effective_at=at(20))
    believed = ledger.execute(moved)
    receiver = str(believed.position_id)

    busted = ledger.execute(BustTrade(trade=second.trades[0], bust_id="b", reason="venue", actor="desk"))

    def money(account: str, minutes: int) -> tuple[Decimal, Decimal] | None:
        found = row(ledger, "account_balance", minutes, account_id=account)
        return None if found is None else (found["cash"], found["locked"])

    assert set(busted.positions) == {opened.position_id, receiver}
    assert [money("main", minutes) for minutes in (5, 12, 17, 25)] == [(100, 0), (100, 4), (100, 4), (96, 0)]
    assert [money("other", minutes) for minutes in (17, 25)] == [None, (4, 4)]
    ledger.wait_for(busted.token)
    for account in ("main", "other"):
        now = ledger.rows("account_balance", account_id=account)[0]
        assert (now["cash"], now["locked"]) == money(account, 60)
    # and the receiver, of which no trade speaks, is found as it is and as it was believed to be
    assert ledger.position(receiver, as_of=at(25))["quantity"] == 10
    assert ledger.position(receiver, as_of=at(25), known_at=believed.token)["quantity"] == 15


def test_a_market_as_of_a_time_is_told_in_effective_order(ledger: Ledger) -> None:
    # given a status that was heard of after a later quote
    market = {**PAPER, "market": "M"}
    ledger.execute(RegisterMarket(**market, kind="binary", effective_at=at(0)))
    ledger.execute(QuoteMarket(**market, yes_price="0.4", effective_at=at(10)))
    ledger.execute(QuoteMarket(**market, yes_price="0.6", effective_at=at(30)))
    ledger.execute(SetMarketStatus(**market, status="halted", effective_at=at(20)))

    def seen(minutes: int) -> tuple[str, Decimal | None] | None:
        found = row(ledger, "markets", minutes)
        return None if found is None else (found["status"], found["yes_price"])

    assert seen(-1) is None
    assert [seen(minutes) for minutes in (5, 15, 25, 35)] == [
        ("open", None), ("open", D("0.4")), ("halted", D("0.4")), ("halted", D("0.6")),
    ]  # fmt: skip


def test_edges_and_games_as_of_a_time(ledger: Ledger) -> None:
    edge = {**PAPER, "name": "e"}
    ledger.execute(DetectEdge(**edge, market="M", true_win_probability="0.6", effective_at=at(0)))
    ledger.execute(ReviseEdge(**edge, true_win_probability="0.7", effective_at=at(10)))
    ledger.execute(ChangeEdgeStatus(**edge, status="expired", effective_at=at(20)))
    for minute, score in ((0, 0), (10, 2), (20, 5)):
        ledger.execute(RecordGameState(**PAPER, game_id="G", home_score=score, effective_at=at(minute)))

    edges = [row(ledger, "edges", minutes) for minutes in (5, 15, 25)]
    games = [row(ledger, "game_states", minutes) for minutes in (5, 15, 25)]
    assert [(one["true_win_probability"], one["edge_status"]) for one in edges if one] == [
        (D("0.6"), "detected"), (D("0.7"), "detected"), (D("0.7"), "expired"),
    ]  # fmt: skip
    assert [one["home_score"] for one in games if one] == [0, 2, 5]


def test_both_axes_together_in_every_table(ledger: Ledger) -> None:
    """What we believed at a token about a time: without what became known later."""
    ledger.execute(Deposit(**MAIN, amount=100, effective_at=at(0)))
    known = ledger.execute(fill("buy", 10, "0.40", 10)).token
    ledger.execute(fill("buy", 10, "0.50", 5))
    ledger.catch_up()

    for table, column, then, now in (
        ("account_balance", "locked", 4, 9),
        ("positions", "quantity", 10, 20),
        ("trades", "quantity", 10, 10),
    ):
        believed = ledger.rows(table, as_of=at(15), known_at=known)
        believes = ledger.rows(table, as_of=at(15))
        assert believed[0][column] == then
        assert believes[0][column] == now
        assert len(ledger.rows("trades", as_of=at(15), known_at=known)) == 1


def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="has no time zone"):
        ledger.rows("markets", as_of=datetime(2026, 3, 1))  # noqa: DTZ001 - what is tried
