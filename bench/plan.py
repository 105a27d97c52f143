"""How long each part of a run takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and durations of a run; times in seconds."""

    rounds: int
    warm_up_s: float
    window_s: float
    backlog_events: int
    """What workers that stood still find when they go on, at least."""
    stock_window_s: float
    """How long the library's own runner projects in each round."""
    paced_commands: int
    """Commands of the lag measurement, over all rounds."""
    rebuild_events: tuple[int, ...]
    """Sizes of the log at which a rebuild is measured, the smallest first."""
    day_events: int
    """What is new when one goes back to the table before the rebuild."""
    load_events: tuple[tuple[int, int], ...]
    """Sizes of the log at which a load is measured against its floor, the smallest first, each with its rounds."""
    verified_events: int
    """Size of the log behind the table that verify proves."""
    archived_events: int
    """The log that is exported, verified and loaded from."""
    archive_rounds: int
    settled_positions: int
    """Positions of the market that is settled with one command."""
    known_at_versions: int
    """Versions of the table in which single rows of the past are looked up."""
    known_at_lookups: int
    """Look-ups of each kind in each round."""
    planned_migrations: int
    """Migrations that are there when the last of them is planned."""
    living_events: int
    """The log of a rebuild beside trading."""
    living_window_s: float
    """How long everybody trades in each window of it."""


FULL = Plan(
    rounds=5,
    warm_up_s=0.5,
    window_s=1.5,
    backlog_events=10_000,
    stock_window_s=1.5,
    paced_commands=300,
    rebuild_events=(100_000, 300_000, 1_000_000),
    day_events=200_000,
    load_events=((1_000_000, 5), (5_000_000, 3)),
    verified_events=1_000_000,
    archived_events=300_000,
    archive_rounds=3,
    settled_positions=10_000,
    known_at_versions=5_000_000,
    known_at_lookups=2_000,
    planned_migrations=50,
    living_events=300_000,
    living_window_s=10.0,
)
QUICK = Plan(
    rounds=3,
    warm_up_s=0.2,
    window_s=0.5,
    backlog_events=4_000,
    stock_window_s=1.0,
    paced_commands=90,
    rebuild_events=(20_000, 60_000),
    day_events=5_000,
    load_events=((40_000, 2), (120_000, 2)),
    verified_events=60_000,
    archived_events=20_000,
    archive_rounds=2,
    settled_positions=2_000,
    known_at_versions=100_000,
    known_at_lookups=500,
    planned_migrations=50,
    living_events=20_000,
    living_window_s=4.0,
)
