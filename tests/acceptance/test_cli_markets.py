"""Verdicts on markets and their quotes from the command line: what is answered, and with which exit code."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from position_ledger import Ledger
from tests.support.command_line import CommandLine, in_this_process
from tests.support.settling import MARKET, opened, registered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger.testing.databases import Template

TICKS = """publish_time_ms,in_play,kind,selection_id,odds_or_status,traded_delta,implied_prob
1657018212979,0,status,7,ACTIVE,,
1657018212986,0,ltp,7,2,,
1657018212987,0,trade,7,2,5,
1657018212990,0,status,7,WINNER,,
"""


@pytest.fixture
def database(ledger_template: Template) -> Iterator[str]:
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def run(database: str) -> CommandLine:
    return in_this_process(database)


@pytest.fixture
def positions(database: str) -> int:
    """A market with six open positions, three of each side."""
    with Ledger.open(database_url=database, redis_url="redis://unused") as ledger:
        registered(ledger)
        ledger.wait_for(opened(ledger, 6), timeout_s=60)
    return 6


def test_a_market_is_settled_amended_and_voided(run: CommandLine, positions: int) -> None:
    """Given open positions, when a verdict is given, then all have it when the command returns."""
    settled = run("settle", MARKET, "--value", "1", "--fee", "0.10", "--environment", "paper", "--actor", "desk")
    rows = run("positions", "--market", MARKET, "--json").document

    assert settled.code == 0
    assert f"RAIN (MKT-1) settled at 1, revision 1: {positions} positions settled" in settled.out
    assert {(row["status"], row["settlement_value"], row["close_fees"]) for row in rows} == {("settled", "1", "0.1")}

    amended = run("amend", "MKT-1", "--value", "0", "--environment", "paper", "--json").document
    voided = run("void", MARKET, "--refund-fees", "--environment", "paper", "--json").document
    assert (amended["amended"], amended["revision"], amended["positions"], amended["left"]) == (positions, 2, 6, 0)
    assert (voided["voided"], voided["revision"], voided["market_id"]) == (positions, 3, "MKT-1")
    after = run("positions", "--market", MARKET, "--json").document
    assert {(row["status"], Decimal(row["realized_pnl"])) for row in after} == {("voided", 0)}


def test_what_cannot_be_is_one_sentence_and_changes_nothing(run: CommandLine, positions: int) -> None:
    """Given a market, when a verdict is not possible, then the answer says why, with exit code 2."""
    for arguments, problem in [
        (("settle", "NOWHERE", "--value", "1"), "market NOWHERE is not registered in paper"),
        (("settle", MARKET, "--value", "1.5"), "outside valid range [0, 1]"),
        (("settle", MARKET, "--value", "yes"), "value is yes, not a finite number"),
        (("amend", MARKET, "--value", "1"), "market RAIN is open, and AmendMarket is not possible then"),
    ]:
        answer = run(*arguments, "--environment", "paper")
        assert answer.code == 2
        assert problem in answer.err
        assert "Traceback" not in answer.err
    assert run("settle", MARKET, "--value", "1").code == 2, "the environment is never assumed"
    rows = run("positions", "--market", MARKET, "--json").document
    assert {row["status"] for row in rows} == {"open"}


def test_a_file_of_quotes_registers_quotes_and_settles(run: CommandLine, tmp_path: Path) -> None:
    """Given a position in a market that a file settles, when it is imported twice, then it is paid, once."""
    (tmp_path / "ticks.csv").write_text(TICKS)
    (tmp_path / "fills.csv").write_text(
        "account,market,side,action,quantity,price,time\nmain,betfair-7,YES,buy,10,0.4,2022-07-05T10:50:12.990Z\n"
    )
    columns = "".join(
        f'{name} = "{name}"\n' for name in ("account", "market", "side", "action", "quantity", "price", "time")
    )
    (tmp_path / "map.toml").write_text(f'order = "oldest_first"\n[columns]\n{columns}')
    arguments = ["import", "quotes", str(tmp_path / "ticks.csv"), "--map", "betfair-ticks", "--environment", "paper"]
    assert (
        run(
            "import",
            "fills",
            str(tmp_path / "fills.csv"),
            "--map",
            str(tmp_path / "map.toml"),
            "--environment",
            "paper",
        ).code
        == 0
    )

    first = run(*arguments)
    again = run(*arguments, "--json", "--strict")

    assert (first.code, again.code) == (0, 0)
    assert "4 rows: 3 accepted (paper), 0 rejected, 0 told nothing new; 4 events" in first.out
    found = again.document
    names = ("rows", "accepted", "rejected", "duplicates", "ignored", "events", "markets")
    assert [found[name] for name in names] == [4, 0, 0, 3, 1, 0, 1]
    (row,) = run("positions", "--json").document
    assert (row["status"], row["settlement_value"], Decimal(row["realized_pnl"])) == ("settled", "1", 6)
