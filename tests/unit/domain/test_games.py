"""Game states: what is news, what is not, and that parts and wholes say the same."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.events import PositionMarked
from position_ledger.domain.families import state_from_json, state_json
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.games.events import SAID, GameStateRecorded
from position_ledger.domain.games.state import GameState, evolve_game, game_stream
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import NOON, D, World, examples

STREAM = game_stream(Environment.PAPER, "G")
FULL: dict[str, Any] = {
    "league": "NFL", "home_team": "SEA", "away_team": "SF", "home_score": 7, "away_score": 3, "period": 2,
    "clock_seconds": "754.5", "clock_display": "12:34", "game_status": "in_progress",
    "situation": {"down": 3, "distance": 7},
}  # fmt: skip


def telling(**fields: Any) -> RecordGameState:
    return RecordGameState(**{"environment": "paper", "game_id": "G"} | fields)


def game_of(world: World) -> GameState:
    game = world.states[STREAM]
    assert isinstance(game, GameState)
    return game


@pytest.fixture
def world() -> World:
    """A game in its second quarter."""
    world = World()
    world.do(telling(**FULL))
    return world


def test_a_state_is_recorded_whole(world: World) -> None:
    game, event = game_of(world), world.log[0].event
    assert isinstance(event, GameStateRecorded)
    assert all(getattr(game, name) == getattr(event, name) for name in SAID)
    assert (game.home_score, game.clock_seconds, game.situation) == (7, D("754.5"), {"down": 3, "distance": 7})


def test_the_same_state_again_is_no_event(world: World) -> None:
    assert not world.do(telling(**FULL, effective_at=NOON + timedelta(seconds=9))).appends
    assert not world.do(telling(**FULL | {"situation": {"distance": 7, "down": 3}})).appends


def test_a_state_told_whole_forgets_what_it_does_not_say_but_not_whose_game_it_is(world: World) -> None:
    world.do(telling(home_score=14))
    game = game_of(world)
    assert (game.home_score, game.away_score, game.clock_seconds, game.situation) == (14, None, None, None)
    assert (game.league, game.home_team, game.away_team) == ("NFL", "SEA", "SF")


def test_a_part_leaves_the_rest_and_merges_the_situation(world: World) -> None:
    world.do(telling(is_partial=True, away_score=10, situation={"down": None, "possession": "SF"}))
    game = game_of(world)
    assert (game.home_score, game.away_score, game.clock_display) == (7, 10, "12:34")
    assert game.situation == {"distance": 7, "possession": "SF"}
    assert not world.do(telling(is_partial=True)).appends


def test_an_older_state_changes_nothing_and_one_of_the_same_time_does(world: World) -> None:
    assert not world.do(telling(home_score=99, effective_at=NOON - timedelta(seconds=1))).appends
    assert world.do(telling(home_score=99, effective_at=NOON)).appends


def test_states_of_one_time_count_by_their_number() -> None:
    world = World()
    world.do(telling(home_score=1, tick=1, effective_at=NOON))
    assert not world.do(telling(home_score=0, tick=0, effective_at=NOON)).appends
    assert world.do(telling(home_score=2, tick=2, effective_at=NOON)).appends


@pytest.mark.parametrize(
    ("skip", "change", "events"),
    [
        (False, {"clock_seconds": "750", "clock_display": "12:30"}, 1),
        (True, {"clock_seconds": "750", "clock_display": "12:30"}, 0),
        (True, {"clock_seconds": "750", "home_score": 10}, 1),
        (True, {"period": 3}, 1),
    ],
)
def test_ticks_of_the_clock_are_skipped_where_that_is_asked_for(
    world: World, skip: object, change: dict[str, Any], events: int
) -> None:
    decision = world.do(telling(**FULL | change, skip_clock_only=skip))
    assert len(decision.appends) == events


def test_a_skipped_clock_is_in_the_next_state_that_counts(world: World) -> None:
    world.do(telling(**FULL | {"clock_seconds": 700}, skip_clock_only=True))
    world.do(telling(**FULL | {"clock_seconds": 690, "home_score": 14}, skip_clock_only=True))
    assert (game_of(world).version, game_of(world).clock_seconds) == (2, 690)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"home_score": -1}, Reason.COUNT_INVALID),
        ({"home_score": 2**31}, Reason.COUNT_INVALID),
        ({"away_score": True}, Reason.COUNT_INVALID),
        ({"period": "2"}, Reason.COUNT_INVALID),
        ({"period": 1.0}, Reason.COUNT_INVALID),
        ({"clock_seconds": -1}, Reason.NUMBER_NEGATIVE),
        ({"clock_seconds": 1.5}, Reason.FLOAT_NOT_ALLOWED),
        ({"game_id": " "}, Reason.TEXT_BLANK),
        ({"environment": "demo"}, Reason.ENVIRONMENT_UNKNOWN),
        ({"situation": ["down"]}, Reason.METADATA_INVALID),
        ({"situation": {"x": float("inf")}}, Reason.METADATA_INVALID),
        ({"score": 1}, Reason.FIELD_UNKNOWN),
    ],
)
def test_what_is_refused(fields: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(CommandRejected) as caught:
        telling(**fields)
    assert caught.value.reason is reason


def test_environments_and_games_do_not_mix(world: World) -> None:
    world.do(telling(**FULL, game_id="H"))
    world.do(RecordGameState(**FULL, environment="live", game_id="G"))
    assert game_of(world).version == 1
    assert len(world.states) == 3


def test_an_event_that_does_not_fit_is_damage(world: World) -> None:
    with pytest.raises(TypeError, match="PositionMarked cannot be folded into a game state"):
        evolve_game(game_of(world), PositionMarked(price=D(1), unrealized_pnl=D(0)), NOON)


states = st.fixed_dictionaries(
    {},
    optional={
        "home_score": st.integers(0, 2),
        "period": st.integers(1, 2),
        "clock_seconds": st.integers(0, 2),
        "situation": st.dictionaries(st.sampled_from("ab"), st.integers(0, 1) | st.none(), max_size=2),
        "is_partial": st.booleans(),
        "skip_clock_only": st.booleans(),
    },
)


@pytest.mark.uncounted
@examples(300)
@given(history=st.lists(st.tuples(states, st.integers(-2, 5)), max_size=30))
def test_versions_are_exactly_the_changes_whatever_comes(history: list[tuple[dict[str, Any], int]]) -> None:
    """Law 12: every version differs from the one before it and is not older; the state is the fold of the log."""
    world = World()
    seen: list[GameState] = []
    for fields, seconds in history:
        decision = world.do(telling(**fields, effective_at=NOON + timedelta(seconds=seconds)))
        seen += [game_of(world)] * len(decision.appends)

    assert [game.version for game in seen] == list(range(1, len(seen) + 1))
    for before, after in pairwise(seen):
        assert any(getattr(before, name) != getattr(after, name) for name in SAID)
        assert before.last_effective_at <= after.last_effective_at
    assert world.replayed() == world.states
    assert all(state_from_json("game_state.1", state_json(game)) == game for game in seen)
