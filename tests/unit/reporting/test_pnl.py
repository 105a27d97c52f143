"""Putting realized money on days: pure shaping."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_ledger import ConfigurationError
from position_ledger.reporting.environments import environments_of
from position_ledger.reporting.pnl import COLUMNS, Change, by_day, zone_named

D = Decimal
NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)


def change(axis: str, amount: str, moment: datetime = NOON, currency: str = "USD", environment: str = "live") -> Change:
    return Change(axis, environment, currency, moment, D(amount))


def test_a_bust_of_yesterday_is_restated_on_the_day_that_it_is_about() -> None:
    # given +10 on the first day, and on the second the news that it never was
    tomorrow = NOON + timedelta(days=1)
    changes = [change("recorded", "10"), change("recorded", "-10", tomorrow), change("effective", "3", tomorrow)]

    effective = by_day(changes, "effective", ZoneInfo("UTC"))
    recorded = by_day(changes, "recorded", ZoneInfo("UTC"))

    assert [tuple(row) for row in effective] == [COLUMNS, COLUMNS]
    assert [(row["day"].day, row["realized_pnl"], row["restatement"]) for row in effective] == [
        (8, D(0), D(-10)),
        (9, D(3), D(13)),
    ]
    assert [(row["day"].day, row["realized_pnl"], row["restatement"]) for row in recorded] == [
        (8, D(10), D(-10)),
        (9, D(-10), D(13)),
    ]


def test_currencies_and_environments_are_never_summed() -> None:
    changes = [
        change("recorded", "1"),
        change("recorded", "2", currency="EUR"),
        change("recorded", "4", environment="paper"),
    ]
    rows = by_day(changes, "recorded", ZoneInfo("UTC"))
    assert [(row["execution_environment"], row["currency"], row["realized_pnl"]) for row in rows] == [
        ("live", "EUR", D(2)),
        ("live", "USD", D(1)),
        ("paper", "USD", D(4)),
    ]


def test_days_begin_where_the_zone_says_also_when_clocks_change() -> None:
    """New York goes from -5 to -4 on 8 March 2026: its day begins at 05:00 UTC and ends at 04:00."""
    moments = [datetime(2026, 3, 8, 4, 59, tzinfo=UTC), datetime(2026, 3, 8, 5, tzinfo=UTC),
               datetime(2026, 3, 9, 3, 45, tzinfo=UTC), datetime(2026, 3, 9, 4, tzinfo=UTC)]  # fmt: skip
    rows = by_day([change("effective", "1", moment) for moment in moments], "effective", ZoneInfo("America/New_York"))
    assert [(row["day"].isoformat(), row["realized_pnl"]) for row in rows] == [
        ("2026-03-07", D(1)),
        ("2026-03-08", D(2)),
        ("2026-03-09", D(1)),
    ]


def test_a_range_includes_both_ends() -> None:
    changes = [change("effective", "1", NOON + timedelta(days=number)) for number in range(4)]
    rows = by_day(changes, "effective", ZoneInfo("UTC"), since=date(2026, 3, 9), until=date(2026, 3, 10))
    assert [row["day"].day for row in rows] == [9, 10]


def test_sums_are_exact_whatever_the_context_of_the_caller() -> None:
    with localcontext() as context:
        context.prec = 3
        (row,) = by_day([change("effective", "12345.678901234567890123"), change("effective", "1")], "effective",
                        ZoneInfo("UTC"))  # fmt: skip
    assert row["realized_pnl"] == D("12346.678901234567890123")


@settings(max_examples=200, deadline=None)
@given(
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    zone=st.sampled_from(sorted(available_timezones())),
)
def test_a_quarter_of_an_hour_lies_in_one_day_of_every_zone(moment: datetime, zone: str) -> None:
    """What the database sums before the zone is known: no day begins inside of it."""
    floor = moment - timedelta(minutes=moment.minute % 15, seconds=moment.second, microseconds=moment.microsecond)
    assert moment.astimezone(ZoneInfo(zone)).date() == floor.astimezone(ZoneInfo(zone)).date()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 5), st.integers(0, 5))))
def test_both_axes_have_the_same_total_and_restatements_sum_to_zero(facts: list[tuple[int, int, int]]) -> None:
    changes = [
        one
        for amount, happened, learned in facts
        for one in (
            change("effective", str(amount), NOON + timedelta(days=happened)),
            change("recorded", str(amount), NOON + timedelta(days=learned)),
        )
    ]
    rows = by_day(changes, "effective", ZoneInfo("UTC"))
    assert sum(row["restatement"] for row in rows) == 0
    assert sum(row["effective_pnl"] for row in rows) == sum(row["recorded_pnl"] for row in rows)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "UTC\x00"])
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no IANA time zone"):
        zone_named(name)


def test_an_axis_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="by is 'settled'; realized P&L is reported by effective or recorded"):
        by_day([], "settled", ZoneInfo("UTC"))


def test_a_report_names_its_environments() -> None:
    assert environments_of("live") == ["live"]
    assert environments_of(("paper", "live", "paper")) == ["paper", "live"]
    for missing in (None, (), ""):
        with pytest.raises(ConfigurationError, match="environment is"):
            environments_of(missing)
    with pytest.raises(ConfigurationError, match="environment is 'prod'; it must be live, paper or backtest"):
        environments_of(["live", "prod"])
