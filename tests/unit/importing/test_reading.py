from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.importing.mapping import NumberReading, TimeReading
from position_ledger.importing.reading import number, time
from position_ledger.importing.refusals import RowRefused

PLAIN = NumberReading()
AMERICAN = NumberReading(thousands=",", strip=("$", "¢", "%"))
GERMAN = NumberReading(decimal=",", thousands=".")


@pytest.mark.parametrize(
    ("text", "reading", "value"),
    [
        ("42.758599999999994", PLAIN, "42.758599999999994"),
        ("0.02700000027", PLAIN, "0.02700000027"),
        ("+.5", PLAIN, "0.5"),
        ("3.", PLAIN, "3"),
        ("1e-7", PLAIN, "0.0000001"),
        ("-12", PLAIN, "-12"),
        ("0." + "1" * 60, PLAIN, "0." + "1" * 60),
        ("1,234,567.5", AMERICAN, "1234567.5"),
        ("12,345", AMERICAN, "12345"),
        ("999", AMERICAN, "999"),
        ("$ 1,000", AMERICAN, "1000"),
        ("-$3.50", AMERICAN, "-3.50"),
        ("$-3.50", AMERICAN, "-3.50"),
        ("97.4¢", AMERICAN, "97.4"),
        ("\N{MINUS SIGN}5 %", AMERICAN, "-5"),
        ("1.234.567,25", GERMAN, "1234567.25"),
        ("0,5", GERMAN, "0.5"),
    ],
)
def test_numbers_are_read_exactly(text: str, reading: NumberReading, value: str) -> None:
    assert number("price", text, reading) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("", PLAIN),
        ("NaN", PLAIN),
        ("Infinity", PLAIN),
        ("1_000", PLAIN),
        ("1,234", PLAIN),
        ("1 234", PLAIN),
        ("٣", PLAIN),
        ("--1", PLAIN),
        ("(5)", PLAIN),
        ("0x10", PLAIN),
        ("1" * 201, PLAIN),
        ("12,34", AMERICAN),
        ("1,2345", AMERICAN),
        (",123", AMERICAN),
        ("1.000,5", AMERICAN),
        ("1.5", GERMAN),
        ("1,234.5", GERMAN),
    ],
)
def test_what_is_no_number_as_described_is_refused(text: str, reading: NumberReading) -> None:
    with pytest.raises(RowRefused, match="price is ") as error:
        number("price", text, reading)
    assert error.value.reason.code == "number_unreadable"


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12))
def test_grouped_numbers_mean_what_plain_ones_do(value: Decimal) -> None:
    assert number("price", f"{value:,f}", AMERICAN) == number("price", f"{value:f}", PLAIN) == value


def reading_of(**fields: Any) -> TimeReading:
    return TimeReading.model_validate(fields)


TEXT = "%A, %B %d, %Y %H:%M:%S %Z"


@pytest.mark.parametrize(
    ("text", "fields", "moment"),
    [
        ("2026-02-26T20:03:48Z", {}, "2026-02-26T20:03:48+00:00"),
        ("2026-02-26 20:03:48.123456789+01:00", {}, "2026-02-26T19:03:48.123456+00:00"),
        ("2026-02-26 20:03:48", {"zone": "America/New_York"}, "2026-02-27T01:03:48+00:00"),
        ("1772154228", {"formats": ["epoch_s"]}, "2026-02-27T01:03:48+00:00"),
        ("1772154228.5", {"formats": ["epoch_s"]}, "2026-02-27T01:03:48.500000+00:00"),
        ("1.772154228e9", {"formats": ["epoch_s"]}, "2026-02-27T01:03:48+00:00"),
        ("1772154228123", {"formats": ["epoch_ms"]}, "2026-02-27T01:03:48.123000+00:00"),
        ("1772154228123456", {"formats": ["epoch_us"]}, "2026-02-27T01:03:48.123456+00:00"),
        ("1772154228123456999", {"formats": ["epoch_ns"]}, "2026-02-27T01:03:48.123456+00:00"),
        ("26.02.2026 20:03", {"formats": ["%d.%m.%Y %H:%M"], "zone": "UTC"}, "2026-02-26T20:03:00+00:00"),
        ("1772154228", {"formats": ["iso", "epoch_s"]}, "2026-02-27T01:03:48+00:00"),
        (
            "Thursday, February 26, 2026 20:03:48 EST",
            {"formats": [TEXT], "zone": "America/New_York"},
            "2026-02-27T01:03:48+00:00",
        ),
        (
            "Sunday, July 26, 2026 20:03:48 EDT",
            {"formats": [TEXT], "zone": "America/New_York"},
            "2026-07-27T00:03:48+00:00",
        ),
        (
            "2026-11-01 01:30 EDT",
            {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "America/New_York"},
            "2026-11-01T05:30:00Z",
        ),
        (
            "2026-11-01 01:30 EST",
            {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "America/New_York"},
            "2026-11-01T06:30:00Z",
        ),
        (
            "2026-07-01 12:00 UTC",
            {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "America/New_York"},
            "2026-07-01T12:00:00Z",
        ),
        (
            "2026-07-01 12:00 EST",
            {"formats": ["%Y-%m-%d %H:%M %Z"], "abbreviations": {"EST": "-05:00"}},
            "2026-07-01T17:00:00Z",
        ),
        ("2026-11-01 01:30", {"zone": "America/New_York", "ambiguous": "earlier"}, "2026-11-01T05:30:00Z"),
        ("2026-11-01 01:30", {"zone": "America/New_York", "ambiguous": "later"}, "2026-11-01T06:30:00Z"),
    ],
)
def test_times_of_every_usual_form(text: str, fields: dict[str, Any], moment: str) -> None:
    read = time(text, reading_of(**fields))
    assert read == datetime.fromisoformat(moment)
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "fields", "code"),
    [
        ("yesterday", {}, "time_unreadable"),
        ("", {}, "time_unreadable"),
        ("1e999", {"formats": ["epoch_s"]}, "time_unreadable"),
        ("1772154228123", {"formats": ["epoch_s"]}, "time_unreadable"),
        ("1772154228", {"formats": ["epoch_ms"]}, "time_implausible"),
        ("2026-02-26T20:03:48", {}, "time_without_zone"),
        ("2026-07-01 12:00 EST", {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "America/New_York"}, "time_not_in_zone"),
        ("2026-07-01 12:00 PDT", {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "America/New_York"}, "time_not_in_zone"),
        ("2026-07-01 12:00", {"formats": ["%Y-%m-%d %H:%M %Z"], "zone": "UTC"}, "time_unreadable"),
        (
            "2026-07-01 12:00 PDT",
            {"formats": ["%Y-%m-%d %H:%M %Z"], "abbreviations": {"EST": "-05:00"}},
            "time_without_zone",
        ),
        ("2026-03-08 02:30", {"zone": "America/New_York"}, "time_not_in_zone"),
        ("2026-11-01 01:30", {"zone": "America/New_York"}, "time_ambiguous"),
    ],
)
def test_a_time_that_is_not_certain_is_refused(text: str, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(RowRefused) as error:
        time(text, reading_of(**fields))
    assert error.value.reason.code == code
    assert "\n" not in str(error.value)


@given(st.datetimes(min_value=datetime(1991, 1, 1), max_value=datetime(2090, 1, 1)))  # noqa: DTZ001 - hypothesis asks
def test_text_with_the_abbreviation_of_its_zone_is_the_same_moment(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC, microsecond=0)
    reading = reading_of(formats=[TEXT], zone="America/New_York")
    assert reading.zone is not None
    assert time(moment.astimezone(reading.zone).strftime(TEXT), reading) == moment
