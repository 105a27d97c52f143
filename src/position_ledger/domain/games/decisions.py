"""How commands about games are decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from position_ledger.domain.draft import Append, Decision, Subject, effective_time
from position_ledger.domain.families import GAME_STATE
from position_ledger.domain.games.events import CLOCK, IDENTITY, SAID, GameStateRecorded
from position_ledger.domain.games.state import GameState, game_stream
from position_ledger.domain.ticks import is_past

if TYPE_CHECKING:
    from datetime import datetime

    from position_ledger.domain.draft import Streams
    from position_ledger.domain.games.commands import RecordGameState

__all__ = ["record_state"]


def record_state(command: RecordGameState, streams: Streams, now: datetime) -> Decision:
    """Record how a game stands, if that is news."""
    stream = game_stream(command.environment, command.game_id)
    game: GameState | None = streams.state(stream)
    at = effective_time(command, now, (game.last_effective_at,) if game else ())
    before = {name: getattr(game, name, None) for name in SAID}
    after = _after(command, before)
    if game is not None and (
        is_past(at, command.tick, game.last_effective_at, game.tick)
        or not _is_news(before, after, skip_clock_only=command.skip_clock_only)
    ):
        return Decision(subject=Subject(GAME_STATE, stream))
    event = GameStateRecorded(environment=command.environment, game_id=command.game_id, **after, tick=command.tick)
    version = game.version + 1 if game else 1
    return Decision(appends=(Append(stream, version, event, at),), subject=Subject(GAME_STATE, stream))


def _after(command: RecordGameState, before: dict[str, Any]) -> dict[str, Any]:
    """The whole state after the command: what it does not say is forgotten, or stays if it is partial."""
    kept = SAID if command.is_partial else IDENTITY
    after = {name: _said(getattr(command, name), before[name] if name in kept else None) for name in SAID}
    situation = _merged(before["situation"], command.situation) if command.is_partial else command.situation
    return after | {"situation": situation or None}


def _said(given: Any, before: Any) -> Any:
    return before if given is None else given


def _merged(before: dict[str, Any] | None, given: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in {**(before or {}), **(given or {})}.items() if value is not None}


def _is_news(before: dict[str, Any], after: dict[str, Any], *, skip_clock_only: bool) -> bool:
    changed = {name for name in SAID if before[name] != after[name]}
    return bool(changed.difference(CLOCK) if skip_clock_only else changed)
