"""Feeds and reference data on the command line: what a user sees, what a script reads, and what is refused."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import CommandLine, in_this_process, on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "import-signals.md"
STATES = """sent_at,date,match,home,away,batting,runs,innings,clock,clock_text,status,wickets,overs
1767225600000,2026-01-01,NED-PNG,NED,PNG,0,0,1,10,0:10,IN,0,0.0
1767225601000,2026-01-01,NED-PNG,NED,PNG,NED,4,1,9,0:09,IN,0,0.1
1767225602000,2026-01-01,NED-PNG,NED,PNG,,,,8,0:08,,,
1767225603000,2026-01-01,NED-PNG,NED,PNG,SA,4,1,7,0:07,IN,0,0.1
"""
TICKS = """time,model,game,team,p_model,p_market,ask,won
2026-01-01T00:00:00Z,elo,G,NED,60,50,45,1
2026-01-01T00:00:01Z,elo,G,NED,60,50,45,1
2026-01-01T00:00:02Z,elo,G,NED,99,97,98,1
"""


@pytest.fixture(scope="module")
def database(ledger_template: Template) -> Iterator[str]:
    with ledger_template.clone() as url:
        yield url


@pytest.fixture
def run(ledger_database: str) -> CommandLine:
    return in_this_process(ledger_database)


def example(number: int) -> str:
    """A mapping file of the page, as it is printed there."""
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]


def arguments(folder: Path, kind: str, rows: str, mapping: str) -> list[str]:
    (folder / "feed.csv").write_text(rows)
    (folder / "map.toml").write_text(mapping)
    files = [str(folder / "feed.csv"), "--map", str(folder / "map.toml")]
    return ["import", kind, *files, "--environment", "paper"]


COUNTS = ("rows", "accepted", "rejected", "duplicates", "events")


def test_the_example_for_games_does_what_the_page_says(run: CommandLine, tmp_path: Path) -> None:
    # given the mapping of the page: clock-only rows make no event, a team that does not play is a reject
    importing = arguments(tmp_path, "game-states", STATES, example(0))
    rejects = tmp_path / "rejects.csv"
    # when it is imported, and imported again
    first = run(*importing, "--rejects", str(rejects))
    again = run(*importing, "--json", "--strict")
    # then
    assert first.code == 0
    assert "4 rows: 2 accepted (paper), 1 rejected, 1 told nothing new; 2 events" in first.out
    assert [row[1] for row in csv.reader(rejects.read_text().splitlines())] == ["reason", "team_unknown"]
    assert again.code == 1
    assert [again.document[name] for name in COUNTS] == [4, 0, 1, 3, 0]
    assert run("verify", "--json").document["holds"] is True


def test_the_example_for_edges_does_what_the_page_says(run: CommandLine, tmp_path: Path) -> None:
    importing = arguments(tmp_path, "edges", TICKS, example(1))
    first, again = run(*importing, "--json"), run(*importing, "--json")
    assert [first.document[name] for name in COUNTS] == [3, 2, 0, 1, 3]
    assert [again.document[name] for name in COUNTS] == [3, 0, 0, 3, 0]
    (edge,) = run("edges", "--json").document
    assert (edge["market_id"], edge["edge_name"], edge["edge_status"]) == ("G / NED", "elo / G / NED", "settled")
    assert [Decimal(edge[name]) for name in ("true_win_probability", "expected_value", "actual_outcome")] == [
        Decimal("0.99"),
        Decimal("0.01"),
        1,
    ]


def test_reference_data_is_entered_versioned_moved_on_and_listed(run: CommandLine, tmp_path: Path) -> None:
    """S2."""
    (tmp_path / "config.json").write_text('{"days": 10}')

    first = run(
        "reference", "add", "strategies", "momentum", "--config", '{"days": 20}', "--status", "active", "--json"
    )
    second = run(
        "reference", "version", "strategies", "1", "--version", "2", "--config", f"@{tmp_path / 'config.json'}"
    )
    moved = run("reference", "status", "strategies", "1", "deprecated", "--json")
    platform = run("reference", "add", "platforms", "Kalshi", "--id", "kalshi", "--json")

    assert (first.document["id"], first.document["config"], first.document["status"]) == (1, {"days": 20}, "active")
    assert (second.code, moved.document["status"]) == (0, "deprecated")
    assert (platform.document["id"], platform.document["status"]) == ("kalshi", "active")
    rows = run("reference", "list", "strategies", "--json").document
    assert [(row["id"], row["version"], row["config"], row["status"]) for row in rows] == [
        (1, "1", {"days": 20}, "deprecated"),
        (2, "2", {"days": 10}, "draft"),
    ]
    table = run("reference", "list", "strategies", "--status", "draft")
    assert "momentum" in table.out
    assert "deprecated" not in table.out
    assert "not in use" in run("reference", "list", "market_events").out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["reference", "add", "strategies", "x", "--config", "{"], "config cannot be read"),
        (["reference", "add", "strategies", "x", "--config", "[1]"], "config is [1]; it must be an object"),
        (["reference", "add", "strategies", "x", "--config", "@/nowhere"], "config cannot be read"),
        (["reference", "add", "strategies", "x", "--id", "one"], "strategy_id is one; it must be a whole number"),
        (["reference", "add", "platforms", "x"], "platform_id is None; it must be text"),
        (["reference", "status", "strategies", "9", "active"], "strategy_id 9 is not in strategies"),
        (["reference", "list", "positions"], "'positions' is not one of"),
        (["import", "edges", "x.csv", "--map", "nobody", "--environment", "paper"], "mapping 'nobody' is no preset"),
        (["import", "game-states", "x.csv", "--map", "cricket-stream"], "missing option '--environment'"),
    ],
)
def test_bad_input_is_one_sentence_and_the_code_2(database: str, line: list[str], sentence: str) -> None:
    answer = on(database)(*line)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert not answer.out
