"""The state of a game: its last event, and when that was."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from position_ledger.domain.event import Event
from position_ledger.domain.games.events import SAID, GameStateRecorded
from position_ledger.domain.vocabulary import Environment

__all__ = ["GameState", "evolve_game", "game_stream"]

_NAMESPACE: Final = UUID("2f6a1c52-9d0b-4c55-a3a4-6f0f4f1b8e07")
"""Of game streams; changing it would orphan every one ever written."""
_KEYS_CACHED_MAX: Final = 10_000


@lru_cache(maxsize=_KEYS_CACHED_MAX)
def game_stream(environment: Environment, game_id: str) -> UUID:
    """Stream id of a game: uuid5 of the canonical JSON of its key, the same in every process for ever."""
    return uuid5(_NAMESPACE, json.dumps([environment.value, game_id], ensure_ascii=False, separators=(",", ":")))


class GameState(msgspec.Struct, frozen=True, kw_only=True):
    """How a game stands."""

    version: int
    environment: Environment
    game_id: str
    league: str | None = None
    home_team: str | None = None
    away_team: str | None = None
    home_score: int | None = None
    away_score: int | None = None
    period: int | None = None
    clock_seconds: Decimal | None = None
    clock_display: str | None = None
    game_status: str | None = None
    situation: dict[str, Any] | None = None
    tick: int | None = None
    last_effective_at: datetime


def evolve_game(game: GameState | None, event: Event, effective_at: datetime) -> GameState:
    """Fold the next event of a game's stream. Raises ``TypeError`` for an event that does not fit."""
    if not isinstance(event, GameStateRecorded):
        raise TypeError(f"{type(event).__name__} cannot be folded into a game state; the log is damaged")
    return GameState(
        version=game.version + 1 if game else 1,
        environment=event.environment,
        game_id=event.game_id,
        **{name: getattr(event, name) for name in SAID},
        tick=event.tick,
        last_effective_at=effective_at,
    )
