"""What can happen to a game."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from position_ledger.domain.event import Event
from position_ledger.domain.numbers import Figure
from position_ledger.domain.vocabulary import Environment

__all__ = ["CLOCK", "GAME_EVENTS", "IDENTITY", "SAID", "GameStateRecorded"]


class GameStateRecorded(Event):
    """How the game stands now: everything that is known, changed or not."""

    TOPIC = "game_state.recorded"

    environment: Environment
    game_id: str
    league: str | None = None
    home_team: str | None = None
    away_team: str | None = None
    home_score: int | None = None
    away_score: int | None = None
    period: int | None = None
    clock_seconds: Figure | None = None
    clock_display: str | None = None
    game_status: str | None = None
    situation: dict[str, JsonValue] | None = None
    tick: int | None = None
    """Number among the states of the same effective time."""


GAME_EVENTS: Final = (GameStateRecorded,)

IDENTITY: Final = ("league", "home_team", "away_team")
CLOCK: Final = ("clock_seconds", "clock_display")
SAID: Final = (*IDENTITY, "home_score", "away_score", "period", *CLOCK, "game_status", "situation")
"""What a state says, on commands, events and the state alike."""
