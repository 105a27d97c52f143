"""Real game states and win probabilities in a real database: what comes in, once, and what the tables then say."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import (
    ChangeEdgeStatus,
    CommandRejected,
    DetectEdge,
    Ledger,
    Reason,
    RecordGameState,
    ReviseEdge,
)
from position_ledger.database import only_row
from position_ledger.importing import ImportResult, import_edges, import_game_states
from position_ledger.importing.signals import load_edge_mapping
from position_ledger.operations import verify
from position_ledger.setup import Reached
from tests.support.commands import opening

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from position_ledger.testing.databases import Template

ROOT = Path(__file__).parents[3]
CRICKET, BASKETBALL = "cricket_game_states.csv.gz", "basketball_win_probability.csv.gz"
CRICKET_MAP, BASKETBALL_MAP = "cricket-stream", "basketball-win-probability"
NOT_A_COLUMN_OF_VERSIONS = {
    "id",
    "row_current_ind",
    "row_effective_date",
    "row_expiration_date",
    "version",
    "effective_at",
}


def real_file(name: str) -> Path:
    """The real files lie beside the checkout, or beside the folder that it is in."""
    for folder in (ROOT.parent, ROOT.parent.parent):
        path = folder / "shared" / "data" / name
        if path.exists():
            return path
    pytest.skip("the real files are not beside this checkout")


def real_rows(name: str) -> list[dict[str, str]]:
    with gzip.open(real_file(name), "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as opened:
        yield opened


def read(ledger: Ledger, table: str) -> list[dict[str, Any]]:
    """Every version in the table, once everything is in it, by id."""
    with ledger._connection() as connection:
        last = connection.execute("SELECT coalesce(max(notification_id), 0) FROM events").fetchone()
        assert last is not None
        ledger.wait_for(last[0], timeout_s=60)
        cursor = connection.execute(f"TABLE {table}")  # type: ignore[call-overload]
        names = [column.name for column in cursor.description or ()]
        return sorted((dict(zip(names, row, strict=True)) for row in cursor.fetchall()), key=lambda row: row["id"])


def events_of(ledger: Ledger) -> int:
    with ledger._connection() as connection:
        return int(only_row(connection.execute("SELECT count(*) FROM events"))[0])


def versions_by(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found


def require_history(rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Law 12: one current row, contiguous half-open intervals, versions 1..n, each different from the one before."""
    for versions in versions_by(rows, key).values():
        assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
        assert [row["row_current_ind"] for row in versions] == [False] * (len(versions) - 1) + [True]
        for before, after in pairwise(versions):
            assert before["row_expiration_date"] == after["row_effective_date"] > before["row_effective_date"]
            assert any(before[name] != after[name] for name in before.keys() - NOT_A_COLUMN_OF_VERSIONS)


def require_proven(ledger: Ledger) -> None:
    """`verify` finds the tables equal to the log."""
    report = verify(ledger.settings, Reached(ledger.database_url, "", None), None)
    assert report.holds, report.problems


# Cricket: one game, told in parts


def recomputed_states(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Another reading of the file: what is known after each row that changes it."""
    known: dict[str, Any] = {}
    versions: list[dict[str, Any]] = []
    sides = {"Netherlands": "home_score", "Papua New Guinea": "away_score"}
    for row in rows:
        team = row["batting_team"]
        if team not in {*sides, "", "0"}:
            continue
        told: dict[str, Any] = {
            "game_status": row["fixture_status"], "event": row["event_status"], "overs": row["overs"],
            "period": row["innings"], "wickets": row["wickets"], "batting": "" if team == "0" else team,
        }  # fmt: skip
        if team in sides:
            told[sides[team]] = row["runs"]
        after = known | {name: value for name, value in told.items() if value}
        if after != known:
            versions.append(after)
        known = after
    return versions


def as_told(row: Mapping[str, Any]) -> dict[str, str | None]:
    """A version in the words of the file."""
    situation = row["situation"]
    told = {
        "game_status": row["game_status"], "period": row["period"], "home_score": row["home_score"],
        "away_score": row["away_score"], "event": situation.get("event_status"), "overs": situation.get("overs"),
        "wickets": situation.get("wickets"), "batting": situation.get("batting_team"),
    }  # fmt: skip
    return {name: None if value is None else str(value) for name, value in told.items()}


def test_the_real_match_gives_what_another_reading_gives(ledger: Ledger, tmp_path: Path) -> None:
    # given 2,132 messages of one match, when they are imported
    rejects = tmp_path / "rejects.csv"
    result = import_game_states(ledger, real_file(CRICKET), CRICKET_MAP, environment="paper", rejects_path=rejects)
    expected = recomputed_states(real_rows(CRICKET))

    # then every change is a version, and nothing else is
    assert (result.rows, result.accepted, result.events) == (2132, len(expected), len(expected))
    assert (result.rejected, result.reasons) == (1, {"team_unknown": 1})
    assert result.duplicates == 2132 - 1 - len(expected)
    assert "South Africa Women" in rejects.read_text().splitlines()[1]
    rows = read(ledger, "game_states")
    require_history(rows, "game_state_id")
    assert [as_told(row) for row in rows] == [{name: told.get(name) for name in as_told(rows[0])} for told in expected]
    # and the last one is how the match ended
    assert (rows[-1]["home_score"], rows[-1]["away_score"], rows[-1]["situation"]["wickets"]) == (163, 111, 10)
    assert rows[-1]["game_state_id"] == f"GS-{rows[0]['id']}"


@pytest.mark.uncounted
def test_importing_the_match_again_or_more_of_it_adds_only_what_is_new(ledger: Ledger, tmp_path: Path) -> None:
    # given the first half of the match
    lines = gzip.decompress(real_file(CRICKET).read_bytes()).decode().splitlines(keepends=True)
    half = tmp_path / "half.csv"
    half.write_text("".join(lines[:1001]))
    first = import_game_states(ledger, half, CRICKET_MAP, environment="paper")
    # when all of it is imported, twice
    whole = import_game_states(ledger, real_file(CRICKET), CRICKET_MAP, environment="paper")
    again = import_game_states(ledger, real_file(CRICKET), CRICKET_MAP, environment="paper")
    # then there is what one import of all makes, and the second time nothing happens
    assert first.events + whole.events == len(recomputed_states(real_rows(CRICKET))) == events_of(ledger)
    assert (again.events, again.accepted, again.rejected, again.duplicates, again.token) == (0, 0, 1, 2131, 0)


def test_rows_that_move_the_clock_alone_are_skipped_where_the_mapping_says_so(ledger: Ledger, tmp_path: Path) -> None:
    """Every row of a basketball game moves its clock; without them it is its periods."""
    lines = gzip.decompress(real_file(BASKETBALL).read_bytes()).decode().splitlines(keepends=True)
    some = tmp_path / "some.csv"
    some.write_text("".join(lines[:193]))
    preset = ROOT / "src/position_ledger/importing/presets/game_states" / f"{BASKETBALL_MAP}.toml"
    quiet = tmp_path / "quiet.toml"
    quiet.write_text("skip_clock_only = true\n" + preset.read_text())

    loud = import_game_states(ledger, some, BASKETBALL_MAP, environment="paper")
    silent = import_game_states(ledger, some, quiet, environment="backtest")

    assert (loud.rows, loud.events) == (192, 192)
    assert (silent.accepted, silent.duplicates, silent.events) == (2, 190, 2)
    rows = [row for row in read(ledger, "game_states") if row["execution_environment"] == "backtest"]
    assert [row["period"] for row in rows] == [1, 2]
    again = import_game_states(ledger, some, quiet, environment="backtest")
    assert again.events == 0


# Basketball: 240 edges


@pytest.fixture(scope="module")
def season(ledger_template: Template) -> Iterator[tuple[Ledger, ImportResult]]:
    """The real win probabilities, imported as edges."""
    with (
        ledger_template.clone() as url,
        Ledger.open(database_url=url, redis_url="redis://unused") as ledger,
    ):
        yield ledger, import_edges(ledger, real_file(BASKETBALL), BASKETBALL_MAP, environment="backtest")


def recomputed_edges() -> dict[str, list[Decimal]]:
    """Another reading of the file: name of the edge to its probabilities, one for each change."""
    found: dict[str, list[Decimal]] = defaultdict(list)
    for row in real_rows(BASKETBALL):
        for side in "12":
            name = " / ".join((row["season"], row["team1"], row["team2"], row[f"team{side}"]))
            chance = round(Decimal(row[f"prob{side}"]), 18)  # the file has some with 19
            if not found[name] or found[name][-1] != chance:
                found[name].append(chance)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.soak
def test_every_team_of_every_game_is_an_edge_that_its_outcome_settles(season: tuple[Ledger, ImportResult]) -> None:
    ledger, result = season
    expected = recomputed_edges()
    outcomes = {
        " / ".join((row["season"], row["team1"], row["team2"], row[f"team{side}"])): Decimal(row[f"prob{side}_outcome"])
        for row in real_rows(BASKETBALL)
        for side in "12"
    }
    assert (result.rows, result.rejected, len(expected)) == (20_000, 0, 240)
    assert result.events == sum(map(len, expected.values())) + len(expected)

    rows = read(ledger, "edges")
    require_history(rows, "edge_id")
    for versions in versions_by(rows, "edge_id").values():
        name, last = versions[0]["edge_name"], versions[-1]
        assert [row["true_win_probability"] for row in versions[:-1]] == expected.pop(name)
        assert {row["edge_status"] for row in versions[:-1]} == {"detected"}
        assert (last["edge_status"], last["actual_outcome"]) == ("settled", outcomes[name])
        assert last["resolved_at"] == last["effective_at"] >= versions[-2]["effective_at"]
        assert (last["market_price"], last["expected_value"]) == (None, None)
        assert last["edge_id"] == f"EDGE-{versions[0]['id']}"
    assert not expected
    require_proven(ledger)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.uncounted
@pytest.mark.soak
def test_importing_the_season_again_appends_nothing(season: tuple[Ledger, ImportResult]) -> None:
    ledger, first = season
    again = import_edges(ledger, real_file(BASKETBALL), BASKETBALL_MAP, environment="backtest")
    assert (again.rows, again.accepted, again.rejected, again.duplicates) == (20_000, 0, 0, 20_000)
    assert (again.events, events_of(ledger)) == (0, first.events)


def test_a_file_that_ends_early_leaves_its_edges_open_and_goes_on_later(ledger: Ledger, tmp_path: Path) -> None:
    lines = gzip.decompress(real_file(BASKETBALL).read_bytes()).decode().splitlines(keepends=True)
    for name, end in (("early", 100), ("whole", 193)):
        (tmp_path / name).write_text("".join(lines[:end]))
    early = load_edge_mapping(BASKETBALL_MAP).model_copy(update={"settle": "never"})

    import_edges(ledger, tmp_path / "early", early, environment="paper")
    assert {row["edge_status"] for row in read(ledger, "current_edges")} == {"detected"}
    import_edges(ledger, tmp_path / "whole", BASKETBALL_MAP, environment="paper")

    assert {row["edge_status"] for row in read(ledger, "current_edges")} == {"settled"}
    names = {row["edge_name"] for row in read(ledger, "edges")}
    changes = sum(len(recomputed_edges()[name]) for name in names)
    assert (len(names), events_of(ledger)) == (2, changes + 2)


# Commands, by hand


@pytest.mark.uncounted
def test_an_edge_lives_in_the_table_and_positions_name_it(ledger: Ledger) -> None:
    """S90: every status change is a version; the edge that a position acts on must exist."""
    detected = ledger.execute(
        DetectEdge(
            environment="paper", market="KXNBA-CLE", strategy=1, model=2, side="YES", true_win_probability="0.60",
            market_implied_probability="0.46", market_price="0.45", confidence_level="high",
            recommended_action="buy YES", metadata={"run": 7},
        )
    )  # fmt: skip
    edge_id = detected.id
    assert edge_id == f"EDGE-{detected.token}"
    ledger.execute(ChangeEdgeStatus(edge=edge_id, status="recommended", reason="above the threshold"))
    opened = ledger.execute(opening(edge=detected.token))
    ledger.execute_many(
        [
            ChangeEdgeStatus(edge=edge_id, status="acted_on"),
            ReviseEdge(edge=edge_id, market_price="0.50"),
            ChangeEdgeStatus(edge=edge_id, status="settled", actual_outcome=1),
        ]
    )
    with pytest.raises(CommandRejected) as caught:
        ledger.execute(opening(edge=opened.token))  # the number of a position
    assert caught.value.reason is Reason.EDGE_UNKNOWN

    rows = read(ledger, "edges")
    require_history(rows, "edge_id")
    assert [row["edge_status"] for row in rows] == ["detected", "recommended", "acted_on", "acted_on", "settled"]
    assert [row["expected_value"] for row in rows] == [Decimal("0.15")] * 3 + [Decimal("0.10")] * 2
    assert rows[1]["status_reason"] == "above the threshold"
    assert (rows[0]["edge_metadata"], rows[4]["edge_metadata"]) == ({"run": 7}, {"run": 7})
    assert ledger.position(opened.position_id or "")["edge_id"] == detected.token
    assert [row["edge_id"] for row in read(ledger, "current_edges")] == [edge_id]
    require_proven(ledger)


def test_another_process_addresses_edges_by_any_of_their_numbers(ledger: Ledger, ledger_url: str) -> None:
    edge = {"environment": "paper", "market": "M", "name": "n", "true_win_probability": "0.5"}
    first = ledger.execute(DetectEdge(**edge))
    second = ledger.execute(ReviseEdge(edge=first.id, true_win_probability="0.6"))
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        assert other.execute(ReviseEdge(edge=second.token, true_win_probability="0.7")).id == first.id
        assert other.execute(DetectEdge(**edge | {"true_win_probability": "0.7"})).events == 0
    # and this process, whose memory is behind now, decides on what is true
    assert ledger.execute(DetectEdge(**edge | {"true_win_probability": "0.7"})).events == 0
    assert ledger.execute(DetectEdge(**edge | {"true_win_probability": "0.6"})).events == 1


def test_feeds_that_meet_on_one_edge_and_one_game_lose_nothing(ledger: Ledger) -> None:
    """Law 11: of writers with one expected version one wins and the others decide again; nobody is refused."""

    def feed(number: int) -> list[int]:
        ticks = [
            command
            for tick in range(10)
            for command in (
                DetectEdge(
                    environment="live", name="n", market="M", true_win_probability=Decimal(10 * number + tick) / 100
                ),
                RecordGameState(environment="live", game_id="G", home_score=10 * number + tick),
            )
        ]
        return [ledger.execute(command).events for command in ticks]

    with ThreadPoolExecutor(max_workers=8) as pool:
        events = [count for counts in pool.map(feed, range(8)) for count in counts]

    assert events_of(ledger) == sum(events)
    for table, key in (("edges", "edge_id"), ("game_states", "game_state_id")):
        rows = read(ledger, table)
        assert len({row[key] for row in rows}) == 1
        require_history(rows, key)
    assert sum(len(read(ledger, table)) for table in ("edges", "game_states")) == sum(events)


def test_a_command_that_comes_twice_is_recorded_once(ledger: Ledger) -> None:
    tell = RecordGameState(environment="live", game_id="G", home_score=1, command_id="c-1")
    first, again = ledger.execute(tell), ledger.execute(tell)
    assert (first.events, again.is_repeat, again.id) == (1, True, first.id)
    with pytest.raises(CommandRejected, match="command_id c-1 was used before"):
        ledger.execute(RecordGameState(environment="live", game_id="G", home_score=2, command_id="c-1"))


def test_long_games_are_read_from_a_snapshot(ledger: Ledger, ledger_url: str) -> None:
    for start in range(0, 1200, 400):
        ledger.execute_many(
            [
                RecordGameState(environment="live", game_id="G", home_score=score, situation={"n": score})
                for score in range(start, start + 400)
            ]
        )
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        assert (
            other.execute(RecordGameState(environment="live", game_id="G", is_partial=True, home_score=1199)).events
            == 0
        )
    with Ledger.open(database_url=ledger_url, redis_url="redis://unused") as other:
        assert (
            other.execute(RecordGameState(environment="live", game_id="G", is_partial=True, home_score=1)).events == 1
        )
    with ledger._connection() as connection:
        shape = connection.execute("SELECT shape FROM stream_snapshots").fetchone()
    assert shape == ("game_state.1",)
