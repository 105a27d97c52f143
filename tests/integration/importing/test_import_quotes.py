"""Quotes from files: the cricket ticks of one match, as two binary markets."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from position_ledger import ConfigurationError, Ledger, RegisterMarket
from position_ledger.domain.numbers import round18
from position_ledger.importing import import_quotes, load_quote_mapping, quote_preset_names
from position_ledger.importing.files import FileDamaged
from position_ledger.importing.mapping_files import parse
from position_ledger.importing.quote_mapping import QuoteMapping

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PRESET = "betfair-ticks"
HEADER = "publish_time_ms,in_play,kind,selection_id,odds_or_status,traded_delta,implied_prob\n"


def real_file() -> Path:
    """The real ticks lie beside the checkout, or beside the folder that it is in."""
    for folder in (ROOT.parent, ROOT.parent.parent):
        path = folder / "shared" / "data" / "cricket_market_ticks.csv.gz"
        if path.exists():
            return path
    pytest.skip("the real ticks are not beside this checkout")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as opened:
        yield opened


def rows_of(url: str, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()


def real_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(gzip.decompress(real_file().read_bytes()).decode().splitlines()))


def changes_of(rows: list[dict[str, str]]) -> dict[str, list[Decimal]]:
    """Another reading of the file: per runner, every last traded price that differs from the one before."""
    changes: dict[str, list[Decimal]] = {}
    for row in rows:
        if row["kind"] == "ltp":
            prices = changes.setdefault(row["selection_id"], [])
            price = round18(1 / Decimal(row["odds_or_status"]))
            if not prices or prices[-1] != price:
                prices.append(price)
    return changes


@pytest.mark.uncounted
def test_the_real_ticks_become_two_markets_with_every_change_of_price(ledger: Ledger, ledger_url: str) -> None:
    # given
    rows = real_rows()
    changes = changes_of(rows)

    # when
    result = import_quotes(ledger, real_file(), PRESET, environment="backtest")

    # then every row is counted once, and every change is one event
    kinds = Counter(row["kind"] for row in rows)
    quotes = sum(map(len, changes.values()))
    assert (result.rows, result.ignored, result.rejected) == (len(rows), kinds["trade"], 0)
    assert result.accepted == quotes + kinds["status"]
    assert result.duplicates == kinds["ltp"] - quotes
    assert result.events == result.accepted + 2
    assert result.paid == ("betfair-228749", "betfair-2857977")

    # and the tables say the same: prices in order, the winner settled at 1, the loser at 0
    ledger.wait_for(result.token, timeout_s=60)
    for runner, prices in changes.items():
        versions = rows_of(
            ledger_url,
            f"SELECT last_price FROM ledger.markets WHERE ticker = 'betfair-{runner}' AND last_price IS NOT NULL"
            " AND status = 'open' ORDER BY version",
        )
        assert [row["last_price"] for row in versions] == prices
    current = rows_of(
        ledger_url,
        "SELECT ticker, platform_id, kind, status, settlement_value, execution_environment, settled_at, version"
        " FROM ledger.current_markets ORDER BY ticker",
    )
    assert [(row["ticker"], row["status"], row["settlement_value"]) for row in current] == [
        ("betfair-228749", "settled", 1),
        ("betfair-2857977", "settled", 0),
    ]
    assert {(row["platform_id"], row["kind"], row["execution_environment"]) for row in current} == {
        ("betfair", "binary", "backtest")
    }
    assert {row["settled_at"].timestamp() for row in current} == {1657550847.332}


@pytest.mark.uncounted
def test_a_second_import_adds_nothing_and_a_longer_one_only_what_is_new(ledger: Ledger, tmp_path: Path) -> None:
    lines = gzip.decompress(real_file().read_bytes()).decode().splitlines(keepends=True)
    half = tmp_path / "half.csv"
    half.write_text("".join(lines[:9_000]))
    first = import_quotes(ledger, half, PRESET, environment="paper")
    again = import_quotes(ledger, half, PRESET, environment="paper")
    longer = import_quotes(ledger, real_file(), PRESET, environment="paper")
    whole = import_quotes(ledger, real_file(), PRESET, environment="paper")
    other = import_quotes(ledger, real_file(), PRESET, environment="backtest")

    assert (again.events, again.accepted, again.rejected, again.duplicates) == (
        0, 0, 0, first.accepted + first.duplicates,
    )  # fmt: skip
    assert first.events + longer.events == other.events
    assert (whole.events, whole.accepted, whole.rejected) == (0, 0, 0)
    assert whole.duplicates + whole.ignored == whole.rows


def test_rows_that_say_nothing_sensible_are_rejected_with_a_reason(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text(
        HEADER
        + "1657018212979,0,status,7,ACTIVE,,\n"
        + "1657018212980,0,ltp,7,0.5,,\n"
        + "1657018212981,0,ltp,7,fast,,\n"
        + "1657018212982,0,steam,7,2,,\n"
        + "1657018212983,0,status,7,GALLOPING,,\n"
        + "1657018212984,0,ltp,,2,,\n"
        + "1657018212985,0,ltp,7,,,\n"
        + "1657018212986,0,ltp,7,2,,\n"
        + "1657018212987,0,status,7,WINNER,,\n"
        + "1657018212988,0,ltp,7,1.01,,\n"
        + "1657018212989,0,status,7,LOSER,,\n"
        + "16570182129,ltp,7,2\n"
    )
    rejects = tmp_path / "rejects.csv"

    result = import_quotes(ledger, file, PRESET, environment="paper", rejects_path=rejects)

    with rejects.open(newline="") as rejected:
        reasons = {int(row["row"]): row["reason"] for row in csv.DictReader(rejected)}
    assert reasons == {
        2: "odds_below_1",
        3: "number_unreadable",
        4: "kind_unknown",
        5: "status_unknown",
        6: "text_blank",
        7: "field_missing",
        10: "market_status_wrong",
        11: "market_status_wrong",
        12: "row_ragged",
    }
    assert (result.rows, result.accepted, result.rejected, result.duplicates, result.ignored) == (12, 3, 9, 0, 0)
    assert (result.events, result.markets, result.paid) == (4, 1, ("betfair-7",))


COMPLETE = """
order = "by_time"
min_change = "0.02"

[file]
delimiter = ";"

[columns]
time = "at"
yes_bid = "bid"
yes_ask = "ask"
no_bid = "no bid"
status = "state"

[constants]
market = "RAIN"

[values.status]
over = "closed"
final = "determined 0.5"
doubted = "disputed"
void = "voided"

[price]
scale = "0.01"

[market]
currency = "EUR"
"""


def test_cents_of_a_single_market_with_a_threshold(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text(
        "at;bid;ask;no bid;state\n"
        "2026-03-01T12:00:02Z;41;43;56;\n"
        "2026-03-01T12:00:00Z;40;42;57;\n"
        "2026-03-01T12:00:03Z;43;;;\n"
        "2026-03-01T12:00:01Z;40;42;57;\n"
    )
    result = import_quotes(ledger, file, parse("cents", COMPLETE, QuoteMapping), environment="paper")

    assert (result.rows, result.accepted, result.duplicates, result.events) == (4, 2, 2, 3)
    ledger.wait_for(result.token)
    (row,) = rows_of(ledger_url, "SELECT yes_bid, yes_ask, no_bid, currency, status FROM ledger.current_markets")
    assert (row["yes_bid"], row["yes_ask"], row["no_bid"]) == (Decimal("0.43"), Decimal("0.42"), Decimal("0.57"))
    assert (row["currency"], row["status"]) == ("EUR", "initialized")


def test_statuses_of_every_kind(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    text = COMPLETE.replace('yes_bid = "bid"\nyes_ask = "ask"\nno_bid = "no bid"\n', "")
    file = tmp_path / "states.csv"
    states = ["open", "halted", "open", "over", "final", "doubted", "void", "void"]
    file.write_text("at;state\n" + "".join(f"2026-03-01T12:00:0{n}Z;{state}\n" for n, state in enumerate(states)))

    result = import_quotes(ledger, file, parse("states", text, QuoteMapping), environment="paper")

    assert (result.rejected, result.accepted, result.duplicates) == (0, 7, 1)
    ledger.wait_for(result.token)
    history = rows_of(ledger_url, "SELECT status FROM ledger.markets ORDER BY version")
    assert [row["status"] for row in history] == [
        "initialized", "open", "halted", "open", "closed", "determined", "disputed", "voided",
    ]  # fmt: skip


def test_a_market_that_is_registered_keeps_its_terms(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    ledger.execute(RegisterMarket(environment="paper", market="betfair-7", kind="binary", currency="GBP"))
    file = tmp_path / "ticks.csv"
    file.write_text(HEADER + "1657018212986,0,ltp,7,2,,\n")

    result = import_quotes(ledger, file, PRESET, environment="paper")

    assert (result.accepted, result.rejected, result.events) == (1, 0, 1)
    ledger.wait_for(result.token)
    (row,) = rows_of(ledger_url, "SELECT currency, last_price FROM ledger.current_markets")
    assert (row["currency"], row["last_price"]) == ("GBP", Decimal("0.5"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('market = "RAIN"', 'market = "RAIN"\nx = 1'), "constants.x is no key of a mapping"),
        (('[constants]\nmarket = "RAIN"', ""), "market is needed once"),
        (('over = "closed"', 'over = "finished"'), "a status means open, halted"),
        (('final = "determined 0.5"', 'final = "settled"'), "a status means open, halted"),
        (('scale = "0.01"', 'space = "odds"\n[market]\nkind = "spot"'), "makes prices of binary markets only"),
        (("[price]", "[kinds]\nx = 'quote'\n[price]"), "speaks of a kind that has no column"),
    ],
)
def test_a_mapping_that_cannot_be_used(change: tuple[str, str], problem: str) -> None:
    text = COMPLETE.replace(*change)
    if text.count("[market]") > 1:
        text = text[: text.rindex("[market]")]
    with pytest.raises(ConfigurationError, match=problem):
        parse("bad", text, QuoteMapping)


def test_presets_of_quotes_are_apart_from_those_of_fills() -> None:
    assert PRESET in quote_preset_names()
    assert "polymarket-scrape" not in quote_preset_names()
    with pytest.raises(ConfigurationError, match=r"mapping 'polymarket-scrape' is no preset \(betfair-ticks\)"):
        load_quote_mapping("polymarket-scrape")


def test_a_file_that_lacks_a_column_leaves_nothing(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text("publish_time_ms,kind\n1657018212986,ltp\n")
    with pytest.raises(FileDamaged, match="has no column 'selection_id'"):
        import_quotes(ledger, file, PRESET, environment="paper")
    assert rows_of(ledger_url, "SELECT count(*) AS events FROM ledger.events") == [{"events": 0}]


def test_the_documented_mapping_is_one() -> None:
    page = (ROOT / "docs" / "how-to" / "import-quotes.md").read_text(encoding="utf-8")
    mapping = parse("documented", page.partition("```toml\n")[2].partition("```")[0], QuoteMapping)
    assert (mapping.market.prefix, mapping.kinds["heartbeat"], mapping.min_change) == (
        "my-venue-",
        "ignore",
        Decimal("0.01"),
    )
