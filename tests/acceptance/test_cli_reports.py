"""Reports on the command line: documents, tables and pictures."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from position_ledger import ClosePosition, Ledger, MarkPosition, OpenPosition
from tests.support.command_line import MAIN, CommandLine, in_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger.testing.databases import Template

WITHOUT_MATPLOTLIB = f"import sys; sys.modules['matplotlib'] = None; {MAIN}"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(ledger_template: Template) -> Iterator[CommandLine]:
    """A live position that is open and one that is closed, and a closed one on paper."""
    with ledger_template.clone() as url:
        with Ledger.open(database_url=url, redis_url="unix:///nowhere/valkey.sock") as ledger:
            for number, (environment, market) in enumerate((("live", "CLE"), ("live", "NYK"), ("paper", "CLE"))):
                opened = ledger.execute(
                    OpenPosition(
                        account="main",
                        market=market,
                        strategy=1,
                        side="YES",
                        quantity=10,
                        entry_price=Decimal("0.4975"),
                        environment=environment,
                        effective_at="2026-03-01T20:00:00Z",
                    )
                ).position_id
                done = ledger.execute(
                    ClosePosition(
                        position_id=opened, price=Decimal("0.7"), reason="manual", effective_at="2026-03-02T02:00:00Z"
                    )
                    if number
                    else MarkPosition(position_id=opened, price=Decimal("0.52"))
                )
            ledger.wait_for(done.token)
        yield in_this_process(url)


def test_exposure_as_json_is_exact(run: CommandLine) -> None:
    answer = run("report", "exposure", "--environment", "live", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.document == [
        {
            "execution_environment": "live",
            "currency": "USD",
            "market_id": "CLE",
            "positions": 1,
            "cost": "4.975",
            "market_value": "5.2",
            "net_value": "5.2",
            "unrealized_pnl": "0.225",
            "worst_case_loss": "4.975",
            "unbounded": 0,
        }
    ]


def test_pnl_as_json_has_plain_days(run: CommandLine) -> None:
    utc = run("report", "pnl", "--environment", "live", "--until", "2026-03-31", "--json").document
    york = run(
        "report", "pnl", "--environment", "live", "--until", "2026-03-31", "--zone", "America/New_York", "--json"
    ).document
    assert [(row["day"], row["realized_pnl"], row["recorded_pnl"]) for row in utc] == [("2026-03-02", "2.025", "0")]
    assert [row["day"] for row in york] == ["2026-03-01"]
    both = run(
        "report", "pnl", "--environment", "paper", "--environment", "live", "--until", "2026-03-31", "--json"
    ).document
    assert [row["execution_environment"] for row in both] == ["live", "paper"]


def test_tables_and_csv(run: CommandLine) -> None:
    table = run("report", "exposure", "--environment", "live", "--by", "environment")
    assert table.out.splitlines()[0].split()[:2] == ["env", "currency"]
    assert table.out.splitlines()[-1] == "1 group"
    assert "4.975" in table.out
    (line,) = csv.DictReader(
        io.StringIO(run("report", "pnl", "--environment", "live", "--until", "2026-03-31", "--format", "csv").out)
    )
    assert (line["day"], line["realized_pnl"], line["restatement"]) == ("2026-03-02", "2.025", "2.025")
    empty = run("report", "exposure", "--environment", "backtest")
    assert empty.out == "0 groups\n"


@pytest.mark.parametrize("report", ["exposure", "pnl"])
def test_a_report_without_an_environment_is_refused(run: CommandLine, report: str) -> None:
    answer = run("report", report)
    assert (answer.code, answer.out) == (2, "")
    assert "--environment" in answer.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pnl", "--zone", "Mars/Olympus"), "zone is 'Mars/Olympus', which is no IANA time zone"),
        (("pnl", "--since", "yesterday"), "'yesterday' is no day in ISO 8601, such as 2026-03-01"),
        (("pnl", "--by", "settled"), "'settled' is not one of 'effective', 'recorded'"),
        (("exposure", "--by", "moon"), "'moon' is not one of"),
        (("exposure", "--plot", "exposure.bmp"), "pictures are written as .png, .svg, .pdf"),
        (("exposure", "--plot", "/nowhere/at/all.png"), "cannot be written: No such file or directory"),
    ],
)
def test_bad_input_is_told_in_a_sentence(run: CommandLine, arguments: tuple[str, ...], sentence: str) -> None:
    name, *rest = arguments
    answer = run("report", name, "--environment", "live", *rest)
    assert (answer.code, answer.out) == (2, "")
    assert sentence in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("report", ["exposure", "pnl"])
def test_a_report_can_be_drawn(run: CommandLine, tmp_path: Path, report: str) -> None:
    """Given matplotlib, when asked to plot, then the file is a picture and the table is written as ever."""
    picture = tmp_path / "report.png"
    answer = run("report", report, "--environment", "live", "--plot", str(picture))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1].endswith(("group", "line", "lines"))
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 5000


@pytest.mark.uncounted
def test_without_matplotlib_the_sentence_says_what_to_install(run: CommandLine, tmp_path: Path) -> None:
    answer = run(
        "report", "pnl", "--environment", "live", "--plot", str(tmp_path / "pnl.png"), entry=WITHOUT_MATPLOTLIB
    )
    assert (answer.code, answer.out) == (2, "")
    assert "--plot needs matplotlib, which is not installed: pip install 'position-ledger[plot]'" in answer.err
    assert run("report", "pnl", "--environment", "live", entry=WITHOUT_MATPLOTLIB).code == 0


def test_nothing_to_draw_is_told(run: CommandLine, tmp_path: Path) -> None:
    answer = run("report", "exposure", "--environment", "backtest", "--plot", str(tmp_path / "none.png"))
    assert answer.code == 2
    assert "there is nothing to draw" in answer.err
    assert list(tmp_path.iterdir()) == []
