"""Reports on a real database, against sums made by hand from the rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import ClosePosition, ConfigurationError, Ledger, MarkPosition, OpenPosition, ReducePosition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

D = Decimal
FIRST_DAY = datetime(2026, 3, 1, 22, tzinfo=UTC)


def opening(handle: str, **changes: Any) -> OpenPosition:
    fields: dict[str, Any] = {
        "environment": "live",
        "account": "main",
        "market": "CLE",
        "strategy": 1,
        "side": "YES",
        "quantity": 100,
        "entry_price": D("0.40"),
        "effective_at": FIRST_DAY,
        "handle": handle,
    }
    return OpenPosition(**{**fields, **changes})


@pytest.fixture(scope="module")
def ledger(ledger_template: Template) -> Iterator[Ledger]:
    """Both sides of a market, another account, a short, another currency and another environment."""
    with (
        ledger_template.clone() as url,
        Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock", consistency="strong") as ledger,
    ):
        later = FIRST_DAY + timedelta(hours=5)
        yes, no, *_ = ledger.execute_many(
            [
                opening("yes", fee=D("0.50")),
                opening("no", side="NO", entry_price=D("0.55"), strategy=2),
                opening("nyk", market="NYK", account="second", quantity=10),
                opening("short", market="BTC", side="SHORT", quantity=2, entry_price=100, strategy=None),
                opening("long", market="BTC", side="LONG", quantity=3, entry_price=100, strategy=None),
                opening("eur", currency="EUR", account="euro", entry_price=D("0.10")),
                opening("paper", environment="paper", quantity=1_000_000),
            ]
        )
        ids = {row["market_id"] + row["side"]: row["position_id"] for row in ledger.positions(environment="live")}
        ledger.execute_many(
            [
                MarkPosition(position_id=yes.position_id, price=D("0.50"), effective_at=later),
                MarkPosition(position_id=ids["BTCSHORT"], price=110, effective_at=later),
                MarkPosition(position_id=ids["BTCLONG"], price=110, effective_at=later),
                ReducePosition(
                    position_id=no.position_id, quantity=40, price=D("0.65"), fee=D("0.25"), effective_at=later
                ),
                ClosePosition(position_id=ids["NYKYES"], price=D("0.70"), reason="profit_target", effective_at=later),
            ]
        )
        yield ledger


def test_exposure_by_market(ledger: Ledger) -> None:
    """Given both sides, then neither offsets the other; a short has no bound and makes value net."""
    rows = ledger.exposure(environment="live")

    assert [(row["currency"], row["market_id"]) for row in rows] == [("EUR", "CLE"), ("USD", "BTC"), ("USD", "CLE")]
    eur, btc, cle = rows
    assert tuple(btc.items()) == (
        ("execution_environment", "live"),
        ("currency", "USD"),
        ("market_id", "BTC"),
        ("positions", 2),
        ("cost", D(500)),
        ("market_value", D(550)),
        ("net_value", D(110)),
        ("unrealized_pnl", D(10)),
        ("worst_case_loss", None),
        ("unbounded", 1),
    )
    assert (cle["positions"], cle["cost"], cle["unrealized_pnl"]) == (2, D("40") + D("33"), D(10))
    assert (cle["market_value"], cle["worst_case_loss"], cle["unbounded"]) == (D(83), D(73), 0)
    assert (eur["cost"], eur["market_value"]) == (D(10), D(10))


def test_exposure_by_other_groups(ledger: Ledger) -> None:
    usd = [row for row in ledger.exposure(environment="live", by="strategy") if row["currency"] == "USD"]
    assert [(row["strategy_id"], row["cost"]) for row in usd] == [(None, D(500)), (1, D(40)), (2, D(33))]
    accounts = ledger.exposure(environment="live", by="account")
    assert [(row["account_id"], row["currency"], row["cost"]) for row in accounts] == [
        ("euro", "EUR", D(10)),
        ("main", "USD", D(573)),
    ]


def test_exposure_by_environment_is_one_line_for_each_and_currency(ledger: Ledger) -> None:
    rows = ledger.exposure(environment=["live", "paper"], by="environment")
    assert [(row["execution_environment"], row["currency"], row["cost"]) for row in rows] == [
        ("live", "EUR", D(10)),
        ("live", "USD", D(573)),
        ("paper", "USD", D(400_000)),
    ]
    assert ledger.exposure(environment="backtest") == []


def test_exposure_is_the_sum_of_the_open_rows(ledger: Ledger) -> None:
    open_rows = [row for row in ledger.positions(status="open", environment="live") if row["currency"] == "USD"]
    (total,) = [row for row in ledger.exposure(environment="live", by="environment") if row["currency"] == "USD"]
    assert total["positions"] == len(open_rows)
    assert total["market_value"] == sum(row["quantity"] * row["current_price"] for row in open_rows)
    assert total["unrealized_pnl"] == sum(row["unrealized_pnl"] for row in open_rows)


def test_pnl_by_effective_day_in_a_zone(ledger: Ledger) -> None:
    """Given fills at 22:00 and 03:00 UTC, then UTC has two days of it, and New York one."""
    utc = [row for row in ledger.pnl(environment="live") if row["day"].year == 2026 and row["day"].month == 3]
    assert [(row["day"], row["currency"], row["realized_pnl"]) for row in utc] == [
        (date(2026, 3, 1), "USD", D("-0.50")),
        (date(2026, 3, 2), "USD", D("3.75") + D(3)),
    ]
    york = ledger.pnl(environment="live", zone="America/New_York", until=date(2026, 3, 31))
    assert [(row["day"], row["realized_pnl"]) for row in york] == [(date(2026, 3, 1), D("6.25"))]


def test_pnl_by_recorded_day_is_what_was_booked(ledger: Ledger) -> None:
    """Given facts that were learned today, then today has all of it, and restatements give it back to its days."""
    rows = ledger.pnl(environment="live", by="recorded")
    learned = [row for row in rows if row["recorded_pnl"]]

    assert sum(row["realized_pnl"] for row in learned) == D("6.25")
    assert {row["day"] for row in learned} <= {datetime.now(UTC).date(), datetime.now(UTC).date() - timedelta(days=1)}
    assert sum(row["restatement"] for row in rows) == 0
    assert [row["restatement"] for row in rows if row["day"].month == 3 and row["day"].year == 2026] == [
        D("-0.50"),
        D("6.75"),
    ]


def test_pnl_is_filtered(ledger: Ledger) -> None:
    def total(**filters: Any) -> Decimal:
        rows = ledger.pnl(environment="live", **filters)
        return sum((row["realized_pnl"] for row in rows), D(0))

    assert total(account="second") == total(market="NYK") == D(3)
    assert total(strategy=2) == D("3.75")
    assert total(strategy=1) == D("2.50")
    assert total(account="nobody") == 0
    assert total() == sum((row["realized_pnl"] for row in ledger.positions(environment="live")), D(0))


def test_reports_without_an_environment_are_refused(ledger: Ledger) -> None:
    for ask in (lambda: ledger.exposure(environment=()), lambda: ledger.pnl(environment=[])):
        with pytest.raises(ConfigurationError, match="environment is missing"):
            ask()
    with pytest.raises(ConfigurationError, match="by is 'moon'; exposure is grouped by market, strategy, account"):
        ledger.exposure(environment="live", by="moon")
