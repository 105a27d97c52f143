"""Reading every table on the command line."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import (
    Deposit,
    DetectEdge,
    Ledger,
    OpenPosition,
    QuoteMarket,
    RecordGameState,
    RegisterMarket,
    SetMarketStatus,
)
from position_ledger.cli import listings
from tests.support.command_line import CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

D = Decimal
LISTINGS = [one for one in vars(listings).values() if isinstance(one, listings.Listing)]


@pytest.fixture(scope="module")
def database(ledger_template: Template) -> Iterator[str]:
    """Something in every table, in two environments."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock") as ledger:
            for environment in ("live", "paper"):
                market: dict[str, Any] = {"environment": environment, "market": "KXNBA-CLE"}
                ledger.execute(RegisterMarket(**market, kind="binary", title="Cavaliers to win"))
                ledger.execute(QuoteMarket(**market, yes_price=D("0.42"), no_price=D("0.60")))
                ledger.execute(Deposit(environment=environment, account="main", amount=1000))
                ledger.execute(
                    OpenPosition(**market, account="main", side="YES", quantity=100, entry_price=D("0.42"), strategy=3)
                )
                ledger.execute(DetectEdge(**market, true_win_probability=D("0.55"), market_price=D("0.42"), strategy=3))
                ledger.execute(
                    RecordGameState(environment=environment, game_id="CLE-NYK", league="NBA", home_team="CLE",
                                    away_team="NYK", home_score=7, away_score=9, game_status="live")
                )  # fmt: skip
            done = ledger.execute(SetMarketStatus(environment="live", market="KXNBA-CLE", status="halted"))
            ledger.wait_for(done.token)
        yield url


@pytest.fixture(scope="module")
def run(database: str) -> CommandLine:
    return in_this_process(database)


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda one: one.name)
def test_every_table_is_listed_as_table_json_and_csv(
    run: CommandLine, database: str, listing: listings.Listing
) -> None:
    """Given rows, then JSON and CSV have every column of the table exactly, and the table fits its terminal."""
    documents = run(listing.name, "--json").document
    lines = list(csv.DictReader(io.StringIO(run(listing.name, "--format", "csv").out)))
    table = run(listing.name, COLUMNS="80")

    with Ledger.open(database_url=database, redis_url="unix:///nowhere/valkey.sock") as ledger:
        rows = ledger.rows(listing.table)
        names = next(one.columns for one in ledger.projections if one.table == listing.table)
    assert len(rows) == 2
    assert {column.name for column in listing.shown} <= set(names)
    assert {column for column, _ in listing.filters.values()} <= set(names)
    assert [tuple(document) for document in documents] == [names, names]
    assert [document["id"] for document in documents] == [row["id"] for row in rows]
    assert [tuple(line) for line in lines] == [names, names]
    assert (table.code, table.out.splitlines()[-1]) == (0, f"2 {listing.noun}s")
    assert max(len(line) for line in table.out.splitlines()) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ("trades", "--environment", "live", "--account", "main", "--strategy", "3", "--status", "active"),
        ("markets", "--status", "halted"),
        ("markets", "--market", "KXNBA-CLE", "--environment", "live", "--kind", "binary"),
        ("accounts", "--account", "main", "--currency", "USD", "--environment", "live"),
        ("edges", "--environment", "live", "--strategy", "3", "--market", "KXNBA-CLE"),
        ("games", "--environment", "live", "--league", "NBA", "--game", "CLE-NYK", "--status", "live"),
    ],
)
def test_filters_narrow_a_list(run: CommandLine, arguments: tuple[str, ...]) -> None:
    (row,) = run(*arguments, "--json").document
    assert row["execution_environment"] == "live"


def test_trades_are_found_by_any_id_of_their_position(run: CommandLine) -> None:
    (position,) = run("positions", "--environment", "paper", "--json").document
    for reference in (position["position_id"], str(position["id"])):
        (trade,) = run("trades", "--position", reference, "--json").document
        assert trade["position_id"] == position["position_id"]
    unknown = run("trades", "--position", "POS-999999")
    assert (unknown.code, unknown.out) == (2, "")
    assert "position POS-999999 not found" in unknown.err


def test_nothing_that_passes_is_an_empty_list(run: CommandLine) -> None:
    assert run("markets", "--market", "none", "--json").document == []
    assert run("edges", "--status", "void").out == "0 edges\n"


def test_figures_are_exact_and_times_are_utc(run: CommandLine) -> None:
    (account,) = run("accounts", "--environment", "live", "--json").document
    assert (account["cash"], account["locked"], account["free"]) == ("1000", "42", "958")
    assert account["row_effective_date"].endswith("Z")


def test_known_at_is_what_the_ledger_knew_of_any_table(run: CommandLine) -> None:
    """Given a market that was halted later, when asked as known before, then it was open, with its quotes of then."""
    (now,) = run("markets", "--environment", "live", "--json").document
    assert now["status"] == "halted"
    (then,) = run("markets", "--environment", "paper", "--json").document
    known = run("markets", "--environment", "live", "--known-at", then["row_effective_date"], "--json").document
    assert [(row["market_id"], row["status"], row["yes_price"]) for row in known] == [
        (now["market_id"], "open", "0.42")
    ]
    assert run("games", "--known-at", "2000-01-01T00:00:00Z", "--json").document == []


@pytest.mark.parametrize("name", [one.name for one in LISTINGS])
def test_bad_input_is_a_sentence(run: CommandLine, name: str) -> None:
    for arguments, sentence in (
        (("--environment", "prod"), "'prod' is not one of 'live', 'paper', 'backtest'"),
        (("--known-at", "2026-03-01T14:30:00"), "has no offset from UTC"),
        (("--known-at", "2999-01-01T00:00:00Z"), "known_at 2999-01-01T00:00:00+00:00 lies after the clock"),
    ):
        answer = run(name, *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert sentence in answer.err
        assert "Traceback" not in answer.err
