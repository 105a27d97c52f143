"""Reports on a real database, against sums made by hand from the rows."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.rows import dict_row

from position_ledger import (
    AmendSettlement,
    BustTrade,
    ClosePosition,
    ConfigurationError,
    IncreasePosition,
    Ledger,
    MarkPosition,
    OpenPosition,
    QuoteMarket,
    ReducePosition,
    RegisterMarket,
    SettlePosition,
    VerificationFailed,
)
from position_ledger.database import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    asks: list[Callable[[], object]] = [
        lambda: ledger.exposure(environment=()),
        lambda: ledger.pnl(environment=[]),
    ]
    for ask in asks:
        with pytest.raises(ConfigurationError, match="environment is missing"):
            ask()
    with pytest.raises(ConfigurationError, match="by is 'moon'; exposure is grouped by market, strategy, account"):
        ledger.exposure(environment="live", by="moon")


# The views of migration 012


def rows_of(ledger: Ledger, statement: str) -> list[dict[str, Any]]:
    with closing(connect(ledger.database_url, ledger.settings, as_app=True)) as connection:
        return connection.cursor(row_factory=dict_row).execute(statement).fetchall()  # type: ignore[call-overload,no-any-return]


def test_the_view_of_exposure_sums_to_the_report(ledger: Ledger) -> None:
    """Given the view by account, market and strategy, when summed by market, then it is the report."""
    summed = rows_of(
        ledger,
        "SELECT e.execution_environment, e.currency, e.market_id, sum(e.positions)::bigint AS positions, "
        "sum(e.cost) AS cost, sum(e.market_value) AS market_value, sum(e.net_value) AS net_value, "
        "sum(e.unrealized_pnl) AS unrealized_pnl, "
        "CASE WHEN sum(e.unbounded) = 0 THEN sum(e.worst_case_loss) END AS worst_case_loss, "
        "sum(e.unbounded)::bigint AS unbounded FROM exposure AS e WHERE e.execution_environment = 'live' "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 5 DESC, 3",
    )
    assert summed == ledger.exposure(environment="live")


def test_the_view_of_realized_changes_sums_to_realized_pnl(ledger: Ledger) -> None:
    """Given every change, then they sum to the realized P&L of each position, and no version without one is listed."""
    changes = rows_of(
        ledger, "SELECT c.position_id, sum(c.change) AS total, count(*) AS n FROM realized_changes AS c GROUP BY 1"
    )
    realized = {row["position_id"]: row["realized_pnl"] for row in ledger.positions() if row["realized_pnl"]}
    assert {row["position_id"]: row["total"] for row in changes} == realized
    assert sum(row["n"] for row in changes) == 3


def test_the_view_of_open_positions_joins_the_market_of_the_same_environment(ledger: Ledger) -> None:
    """S32, S50: with the quotes of now; unregistered markets show with null."""
    ledger.execute(RegisterMarket(environment="live", market="CLE", kind="binary", title="Cavaliers"))
    ledger.execute(QuoteMarket(environment="live", market="CLE", yes_price=D("0.51"), no_price=D("0.50")))
    rows = rows_of(
        ledger,
        "SELECT o.execution_environment AS environment, o.market_id, o.side, o.ticker, o.market_title, o.yes_price, "
        "o.no_price FROM open_positions AS o WHERE o.currency = 'USD' ORDER BY 1, 2, 3",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("live", "BTC", "LONG", None, None, None, None),
        ("live", "BTC", "SHORT", None, None, None, None),
        ("live", "CLE", "NO", "CLE", "Cavaliers", D("0.51"), D("0.50")),
        ("live", "CLE", "YES", "CLE", "Cavaliers", D("0.51"), D("0.50")),
        ("paper", "CLE", "YES", None, None, None, None),
    ]


# Facts that came late, busts and amendments


@pytest.fixture
def restated(ledger_template: Template) -> Iterator[Ledger]:
    """G8 on three days, a sale that was busted, and a settlement that was amended."""
    with (
        ledger_template.clone() as url,
        Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock", consistency="strong") as ledger,
    ):
        late = ledger.execute(opening("late", quantity=10)).position_id
        busted = ledger.execute(opening("busted", market="NYK", quantity=10)).position_id
        amended = ledger.execute(opening("amended", market="BOS", quantity=10)).position_id
        sale = {"quantity": 5, "price": D("0.60"), "effective_at": FIRST_DAY + timedelta(days=2)}
        ledger.execute(ReducePosition(position_id=late, **sale))
        sold = ledger.execute(ReducePosition(position_id=busted, **sale))
        ledger.execute(SettlePosition(position_id=amended, value=1, effective_at=FIRST_DAY + timedelta(days=3)))
        ledger.execute(
            IncreasePosition(position_id=late, quantity=10, price=D("0.50"), effective_at=FIRST_DAY + timedelta(days=1))
        )
        ledger.execute(BustTrade(trade=sold.trades[0], bust_id="b-1", reason="erroneous", actor="desk"))
        ledger.execute(AmendSettlement(position_id=amended, value=0))
        yield ledger


def test_restated_money_stands_on_the_day_of_the_fact_that_made_it(restated: Ledger) -> None:
    """G8: .75 on the day of the sale; the busted sale made nothing; the settlement is what it was amended to."""
    rows = [row for row in restated.pnl(environment="live") if row["effective_pnl"]]

    assert [(row["day"], row["effective_pnl"]) for row in rows] == [
        (date(2026, 3, 3), D("0.75")),
        (date(2026, 3, 4), D(-4)),
    ]
    assert [
        (row["day"], row["realized_pnl"])
        for row in restated.pnl(environment="live", market="CLE")
        if row["day"].day == 3
    ] == [(date(2026, 3, 3), D("0.75"))]


def test_what_was_recorded_stays_and_restatements_sum_to_zero(restated: Ledger) -> None:
    rows = restated.pnl(environment="live", by="recorded")
    total = sum((row["realized_pnl"] for row in restated.positions()), D(0))

    assert sum(row["recorded_pnl"] for row in rows) == sum(row["effective_pnl"] for row in rows) == total == D("-3.25")
    assert sum(row["restatement"] for row in rows) == 0


def test_a_report_that_does_not_add_up_is_refused(restated: Ledger, ledger_template: Template) -> None:
    """Given a row that somebody changed by hand, when its position is folded again, then the report names it."""
    with closing(connect(restated.database_url, restated.settings, as_app=False)) as owner:
        owner.execute("ALTER TABLE positions DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE positions SET realized_pnl = realized_pnl + 1, realized_gross = realized_gross + 1 "
            "WHERE row_current_ind AND market_id = 'NYK'"
        )
    with pytest.raises(VerificationFailed, match=r"table positions, POS-\d+, realized_pnl is 1, which is not what"):
        restated.pnl(environment="live")
    assert restated.pnl(environment="live", market="CLE")
