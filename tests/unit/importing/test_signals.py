"""Feeds of game states and edges: what a row means, when it was, and which ids its commands have."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from position_ledger.domain.commands import Command
from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.rejections import CommandRejected
from position_ledger.errors import ConfigurationError
from position_ledger.execution.executor import Executed
from position_ledger.importing import import_edges, import_game_states
from position_ledger.importing.feed_mappings import EdgeMapping, FeedMapping, GameMapping
from position_ledger.importing.files import FileDamaged
from position_ledger.importing.mapping_files import parse, presets
from position_ledger.importing.refusals import RowReason, RowRefused
from position_ledger.importing.signals import load_edge_mapping, load_game_mapping, time_of
from tests.unit.domain.world import World

GAME = """
order = "oldest_first"
time_column = "at"
[columns]
game_id = ["date", "match"]
home_team = "home"
away_team = "away"
team = "batting"
score = "runs"
period = "innings"
clock_seconds = "clock"
[situation]
wickets = "wickets"
overs = "overs"
[values.batting]
0 = ""
"""
GAME_HEADER = "at,date,match,home,away,batting,runs,innings,clock,wickets,overs\n"
EDGES = """
order = "oldest_first"
time_column = "at"
scale = "0.01"
[[edges]]
market = ["game", "one"]
true_win_probability = "p1"
market_price = "ask1"
actual_outcome = "won1"
[[edges]]
name = ["game", "two"]
market = "two"
true_win_probability = "p2"
[constants]
strategy = 4
side = "YES"
"""
EDGES_HEADER = "at,game,one,two,p1,ask1,won1,p2\n"
CLOCK = """
order = "by_time"
[columns]
period = "period"
[constants]
game_id = "G"
[clock]
period = "period"
remaining = "secs"
period_seconds = [1200, 600]
overtime_seconds = 300
start = "season"
[clock.starts]
2016 = 2016-03-15T01:00:00+01:00
"""
START = datetime(2016, 3, 15, tzinfo=UTC)


@dataclass
class Heard:
    """Decides commands by the pure domain, one after the other, and keeps them; no database is claimed here."""

    world: World = field(default_factory=World)
    commands: list[Any] = field(default_factory=list)

    def execute_each(self, commands: Sequence[Command]) -> list[Executed | CommandRejected]:
        outcomes: list[Executed | CommandRejected] = []
        for command in commands:
            self.commands.append(command)
            try:
                decision = self.world.do(command)
            except CommandRejected as refusal:
                outcomes.append(refusal)
            else:
                outcomes.append(Executed(None, (), token=len(self.world.log), events=len(decision.appends)))
        return outcomes


def game_mapping(text: str = GAME) -> GameMapping:
    return parse("test", text, GameMapping)


def edge_mapping(text: str = EDGES) -> EdgeMapping:
    return parse("test", text, EdgeMapping)


def written(folder: Path, text: str) -> Path:
    path = folder / "feed.csv"
    path.write_text(text, encoding="utf-8")
    return path


def states(folder: Path, *rows: str, mapping: GameMapping | None = None) -> list[RecordGameState]:
    heard = Heard()
    import_game_states(
        heard, written(folder, GAME_HEADER + "\n".join(rows)), mapping or game_mapping(), environment="paper"
    )
    return heard.commands


T = "2026-03-01T12:00:00Z"


def test_a_row_says_what_it_says_and_no_more(tmp_path: Path) -> None:
    full, part = states(tmp_path, f"{T},d,m,NED,PNG,PNG,7,2,4.3,1,0.5", f"{T},d,m,,,,,,,,")

    assert (full.game_id, full.environment, full.is_partial) == ("d / m", "paper", True)
    assert (full.home_team, full.home_score, full.away_score, full.period) == ("NED", None, 7, 2)
    assert (full.clock_seconds, full.situation) == (Decimal("4.3"), {"wickets": 1, "overs": "0.5"})
    told = part.model_dump(exclude_none=True, exclude_defaults=True)
    assert told.keys() == {
        "command_id", "correlation_id", "causation_id", "effective_at", "environment", "game_id", "tick", "is_partial",
    }  # fmt: skip
    assert (full.tick, part.tick) == (0, 1)
    assert (full.causation_id, part.causation_id) == ("row:1", "row:2")


@pytest.mark.parametrize(
    ("cell", "kept"), [("7", 7), ("0", 0), ("07", "07"), ("7.10", "7.10"), ("-7", "-7"), ("9" * 20, "9" * 20)]
)
def test_numbers_of_the_situation_lose_nothing(tmp_path: Path, cell: str, kept: object) -> None:
    (state,) = states(tmp_path, f"{T},d,m,,,,,,,,{cell}")
    assert state.situation == {"overs": kept}


def test_a_meaning_of_nothing_says_nothing(tmp_path: Path) -> None:
    (state,) = states(tmp_path, f"{T},d,m,NED,PNG,0,0,1,,,")
    assert (state.home_score, state.away_score, state.period) == (None, None, 1)


def test_rows_that_cannot_be_read_are_refused_with_reason_and_the_others_go_in(tmp_path: Path) -> None:
    rows = [
        f"{T},d,m,NED,PNG,NED,7,1,,,",
        f"{T},d,m,NED,PNG,South Africa,7,1,,,",
        f"{T},d,m,NED,PNG,NED,seven,1,,,",
        f"{T},d,m,NED,PNG,NED,-7,1,,,",
        f"{T},d,m,NED,PNG,NED,8,1,1:20,,",
        f"{T},d,,NED,PNG,NED,8,1,,,",
        "yesterday,d,m,NED,PNG,NED,8,1,,,",
        f"{T},d,m",
        f"{T},d,m,NED,PNG,NED,8,1,,,",
    ]
    heard, rejects = Heard(), tmp_path / "rejects.csv"
    result = import_game_states(
        heard,
        written(tmp_path, GAME_HEADER + "\n".join(rows)),
        game_mapping(),
        environment="paper",
        rejects_path=rejects,
    )
    assert (result.rows, result.accepted, result.rejected, result.duplicates, result.events) == (9, 2, 7, 0, 2)
    assert result.reasons == {
        "number_unreadable": 3, "row_ragged": 1, "team_unknown": 1, "text_blank": 1, "time_unreadable": 1,
    }  # fmt: skip
    told = rejects.read_text().splitlines()
    assert told[0] == "row,reason,sentence," + GAME_HEADER.strip()
    assert [line.split(",")[0] for line in told[1:]] == ["2", "3", "4", "5", "6", "7", "8"]
    assert "team is South Africa, but the game is between NED and PNG" in told[1]


def test_ids_follow_from_the_row_and_its_ordinal_alone(tmp_path: Path) -> None:
    rows = [f"{T},d,m,,,,,1,,,", f"{T},d,m,,,,,2,,,", f"{T},d,m,,,,,1,,,", "2026-03-01T12:00:01Z,d,m,,,,,1,,,"]
    ids = [state.command_id for state in states(tmp_path, *rows)]
    longer = [state.command_id for state in states(tmp_path, *rows, "2026-03-01T12:00:02Z,d,m,,,,,1,,,")]
    assert len(set(ids)) == 4
    assert longer[:4] == ids
    live = Heard()
    import_game_states(live, written(tmp_path, GAME_HEADER + "\n".join(rows)), game_mapping(), environment="live")
    assert not {command.command_id for command in live.commands} & set(ids)


def test_columns_that_nobody_asked_for_are_no_part_of_the_id(tmp_path: Path) -> None:
    plain = states(tmp_path, f"{T},d,m,,,,,1,,,")
    heard = Heard()
    text = GAME_HEADER.replace("\n", ",extra\n") + f"{T},d,m,,,,,1,,,,x"
    import_game_states(heard, written(tmp_path, text), game_mapping(), environment="paper")
    assert heard.commands[0].command_id == plain[0].command_id


def edges(folder: Path, *rows: str, mapping: EdgeMapping | None = None) -> tuple[Heard, Any]:
    heard = Heard()
    path = written(folder, EDGES_HEADER + "\n".join(rows))
    return heard, import_edges(heard, path, mapping or edge_mapping(), environment="paper")


def test_each_row_is_a_tick_of_each_edge_and_the_last_one_settles(tmp_path: Path) -> None:
    heard, result = edges(
        tmp_path,
        "2026-03-01T12:00:00Z,g,A,B,60,45,1,40",
        "2026-03-01T12:00:02Z,g,A,B,100,,1,0",
        "2026-03-01T12:00:01Z,g,A,B,60,45,1,40",
    )
    kinds = [type(command).__name__ for command in heard.commands]
    assert kinds == ["DetectEdge"] * 5 + ["ChangeEdgeStatus", "DetectEdge"]
    first, second = heard.commands[:2]
    assert isinstance(first, DetectEdge)
    assert (first.name, first.market, first.true_win_probability) == ("g / A", "g / A", Decimal("0.60"))
    assert (first.market_price, first.strategy, first.side) == (Decimal("0.45"), 4, "YES")
    assert (second.name, second.market, second.market_price) == ("g / B", "B", None)
    end = heard.commands[5]
    assert isinstance(end, ChangeEdgeStatus)
    assert (end.name, end.status, end.actual_outcome) == ("g / A", "settled", 1)
    assert end.effective_at == datetime(2026, 3, 1, 12, 0, 2, tzinfo=UTC)
    assert (result.rows, result.accepted, result.duplicates, result.events) == (3, 2, 1, 5)
    assert len({command.command_id for command in heard.commands}) == len(heard.commands)


def test_edges_of_a_file_that_may_end_early_are_left_open(tmp_path: Path) -> None:
    mapping = edge_mapping('settle = "never"\n' + EDGES)
    heard, _ = edges(tmp_path, f"{T},g,A,B,60,45,1,40", mapping=mapping)
    assert not [command for command in heard.commands if isinstance(command, ChangeEdgeStatus)]


def test_a_row_is_rejected_if_any_of_its_edges_is(tmp_path: Path) -> None:
    heard, result = edges(tmp_path, f"{T},g,A,B,60,45,1,140", f"{T},g,A,B,,45,1,40")
    assert (result.accepted, result.rejected, result.events) == (0, 2, 0)
    assert result.reasons == {"not_a_number": 1, "probability_out_of_range": 1}
    assert not heard.commands


@pytest.mark.parametrize(
    ("period", "secs", "seconds"),
    [("1", "1200", 0), ("1", "0", 1200), ("2", "600", 1200), ("2", "1", 1799), ("3", "300", 1800), ("4", "0", 2400)],
)
def test_nominal_times_are_the_start_plus_what_was_played(period: str, secs: str, seconds: int) -> None:
    row = {"season": "2016", "period": period, "secs": secs}
    assert time_of(row, game_mapping(CLOCK)) == START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "row",
    [
        {"season": "2018", "period": "1", "secs": "0"},
        {"season": "2016", "period": "0", "secs": "0"},
        {"season": "2016", "period": "", "secs": "0"},
        {"season": "2016", "period": "1", "secs": ""},
        {"season": "2016", "period": "3", "secs": "301"},
    ],
)
def test_a_clock_that_gives_no_time_is_refused(row: dict[str, str]) -> None:
    with pytest.raises(RowRefused) as caught:
        time_of(row, game_mapping(CLOCK))
    assert caught.value.reason is RowReason.CLOCK_UNREADABLE


def test_one_start_for_all_games() -> None:
    text = CLOCK.replace('start = "season"\n', "").replace("2016 =", "all =")
    assert time_of({"period": "1", "secs": "1200"}, game_mapping(text)) == START


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GAME.replace('time_column = "at"\n', ""), "give either time_column, or"),
        (
            GAME + "[clock]\nperiod='p'\nremaining='r'\nperiod_seconds=[1]\nstarts={all=2026-01-01T00:00:00Z}",
            "give either",
        ),
        (GAME.replace('game_id = ["date", "match"]', ""), "game_id is missing; name its columns"),
        (GAME.replace('team = "batting"\n', ""), "team and score go together"),
        (GAME + '[constants]\nhome_team = "NED"', "home_team is both in"),
        (GAME + '[values.other]\nx = "y"', "values.other speaks of no column"),
        (GAME.replace("order", "sorted"), "order is missing"),
        (GAME + "[columns2]\nx = 'y'", "columns2 is no key of a mapping"),
        (CLOCK.replace("2016 = 2016-03-15T01:00:00+01:00", ""), "clock.starts must say"),
        (CLOCK.replace('start = "season"', ""), "clock.starts must say"),
        (CLOCK.replace("[1200, 600]", "[]"), "clock.period_seconds"),
    ],
)
def test_a_mapping_for_games_that_cannot_be_used(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="mapping test") as caught:
        game_mapping(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (EDGES.replace('true_win_probability = "p2"', ""), "true_win_probability is missing"),
        (EDGES.split("[[edges]]", maxsplit=1)[0], "edges is missing"),
        (
            EDGES.replace('name = ["game", "two"]', 'confidence_level = "game"') + 'confidence_level = "x"',
            "both in [[edges]]",
        ),
        (EDGES.replace('scale = "0.01"', "scale = 0"), "scale"),
        (EDGES.replace("strategy = 4", "strategy = 0"), "constants.strategy"),
    ],
)
def test_a_mapping_for_edges_that_cannot_be_used(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="mapping test") as caught:
        edge_mapping(text)
    assert sentence in str(caught.value)


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileDamaged, match=r"has no column 'overs', which mapping test needs once for situation\.overs"):
        import_game_states(
            Heard(), written(tmp_path, GAME_HEADER.replace(",overs", "")), game_mapping(), environment="paper"
        )


def test_a_packed_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv.gz"
    path.write_bytes(gzip.compress((GAME_HEADER + f"{T},d,m,,,,,1,,,").encode()))
    assert import_game_states(Heard(), path, game_mapping(), environment="paper").accepted == 1


@pytest.mark.parametrize("environment", ["demo", ""])
def test_the_environment_is_never_assumed(tmp_path: Path, environment: str) -> None:
    with pytest.raises(ConfigurationError, match="it must be one of live, paper, backtest"):
        import_game_states(Heard(), written(tmp_path, GAME_HEADER), game_mapping(), environment=environment)


def test_the_presets_are_valid_and_described() -> None:
    found: list[FeedMapping] = [load_game_mapping(name) for name in presets("game_states")]
    found += [load_edge_mapping(name) for name in presets("edges")]
    assert Counter(mapping.name for mapping in found) == {"cricket-stream": 1, "basketball-win-probability": 2}
    assert all(mapping.description for mapping in found)
    with pytest.raises(ConfigurationError, match="'polymarket-scrape' is no preset"):
        load_game_mapping("polymarket-scrape")
