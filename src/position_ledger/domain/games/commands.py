"""What can be asked about games."""

from __future__ import annotations

from position_ledger.domain.commands import Command
from position_ledger.domain.fields import Count, Metadata, Text
from position_ledger.domain.numbers import NotNegative
from position_ledger.domain.vocabulary import Environment

__all__ = ["RecordGameState"]


class RecordGameState(Command):
    """Say how a game stands. A state that changes nothing, or is older than the last, makes no event.

    The state is told whole: what is None is not known any more, except league and teams, which stay as they were told
    first. With ``is_partial`` only what is given changes, and ``situation`` is merged key by key, null taking a key out.
    """

    environment: Environment
    game_id: Text
    """The caller's own id of the game, unique in its environment."""
    league: Text | None = None
    home_team: Text | None = None
    away_team: Text | None = None
    home_score: Count | None = None
    away_score: Count | None = None
    period: Count | None = None
    """Quarter, half, innings …, from 1; overtime counts on."""
    clock_seconds: NotNegative | None = None
    """What the clock of the period shows, in seconds."""
    clock_display: Text | None = None
    game_status: Text | None = None
    situation: Metadata | None = None
    """Whatever else the sport has: wickets and overs, down and distance …"""
    tick: Count | None = None
    """Number of the state among those of the same effective time; None: it comes after all that have arrived."""
    is_partial: bool = False
    skip_clock_only: bool = False
    """Make no event if nothing but the clock has changed."""
