"""game_states: one row for each version of a game. Each event says all that is known, so a row needs no other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row
from position_ledger.events import GameStateRecorded


class GameStateRow(Row, frozen=True, gc=False):
    """The columns of game_states beside id, game_state_id and those of SCD Type 2."""

    execution_environment: str
    game_id: str
    league: str | None
    home_team: str | None
    away_team: str | None
    home_score: int | None
    away_score: int | None
    period: int | None
    clock_seconds: Decimal | None
    clock_display: str | None
    game_status: str | None
    situation: Any


def recorded(row: GameStateRow | None, event: Recorded[GameStateRecorded]) -> GameStateRow:
    """How the game stands now."""
    body = event.body
    if row is not None and row.game_id != body.game_id:
        raise ValueError("a stream is one game")
    return GameStateRow(
        execution_environment=body.environment,
        game_id=body.game_id,
        league=body.league,
        home_team=body.home_team,
        away_team=body.away_team,
        home_score=body.home_score,
        away_score=body.away_score,
        period=body.period,
        clock_seconds=body.clock_seconds,
        clock_display=body.clock_display,
        game_status=body.game_status,
        situation=body.situation,
    )


def game_state_id(event: Recorded[Any]) -> str:
    """GS- and the number of the first event of the game."""
    return f"GS-{event.opened_seq}"


GAME_STATES = Projection(
    table="game_states",
    key_column="game_state_id",
    key=game_state_id,
    row=GameStateRow,
    folds={GameStateRecorded: recorded},
)
