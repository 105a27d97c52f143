"""Feeds of game states and of edges: what a row of each means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge
from position_ledger.domain.edges.vocabulary import EdgeStatus
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.importing import reading
from position_ledger.importing.feed_mappings import JOINT, ClockReading, EdgeMapping, FeedMapping, GameMapping, start_of
from position_ledger.importing.feeds import FeedLedger, Tick, import_feed
from position_ledger.importing.mapping_files import load
from position_ledger.importing.refusals import RowReason, RowRefused

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.domain.vocabulary import Environment
    from position_ledger.importing.feed_mappings import EdgeColumns
    from position_ledger.importing.ordering import ImportResult, Progress
    from position_ledger.importing.rows import Cells

__all__ = ["import_edges", "import_game_states", "load_edge_mapping", "load_game_mapping"]

GAMES: Final = "game_states"
EDGES: Final = "edges"
"""Folders of the presets, and kinds of the feeds: part of the ids of commands for ever."""
COUNTS: Final = ("home_score", "away_score", "period")
WORDS: Final = ("league", "home_team", "away_team", "clock_display", "game_status")
CHANCES: Final = ("true_win_probability", "market_implied_probability", "market_price", "expected_value")
SAID_OF_EDGES: Final = ("confidence_level", "recommended_action")
COUNT_DIGITS_MAX: Final = 9


def load_game_mapping(source: str | Path) -> GameMapping:
    """Read a preset or mapping file for game states. Raises `ConfigurationError`."""
    return load(source, GameMapping, GAMES)


def load_edge_mapping(source: str | Path) -> EdgeMapping:
    """Read a preset or mapping file for edges. Raises `ConfigurationError`."""
    return load(source, EdgeMapping, EDGES)


def import_game_states(
    ledger: FeedLedger,
    path: str | Path,
    mapping: str | Path | GameMapping,
    *,
    environment: Environment | str,
    rejects_path: str | Path | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Record how the games of a CSV file went on. See `position_ledger.importing.feeds.import_feed`, also for errors."""
    checked = mapping if isinstance(mapping, GameMapping) else load_game_mapping(mapping)
    return import_feed(
        ledger, path, GameFeed(checked), environment=environment, rejects_path=rejects_path, progress=progress
    )


def import_edges(
    ledger: FeedLedger,
    path: str | Path,
    mapping: str | Path | EdgeMapping,
    *,
    environment: Environment | str,
    rejects_path: str | Path | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Detect, revise and settle the edges of a CSV file. See `position_ledger.importing.feeds.import_feed`."""
    checked = mapping if isinstance(mapping, EdgeMapping) else load_edge_mapping(mapping)
    return import_feed(
        ledger, path, EdgeFeed(checked), environment=environment, rejects_path=rejects_path, progress=progress
    )


class GameFeed:
    """Each row is one state, told in part: an empty cell leaves what was."""

    kind = GAMES

    def __init__(self, mapping: GameMapping) -> None:
        self.mapping = mapping

    def time_of(self, row: Cells) -> datetime:
        """When the row was so."""
        return time_of(row, self.mapping)

    def see(self, row: Cells, tick: Tick) -> None:
        """Nothing: a state needs no other row."""

    def commands(self, row: Cells, tick: Tick) -> Sequence[Command]:
        """The state that the row tells."""
        game_id = self._text("game_id", row)
        words = {name: self._text(name, row) or None for name in WORDS}
        counts = {name: _count(name, self._text(name, row)) for name in COUNTS}
        clock = self._text("clock_seconds", row)
        return [
            RecordGameState(
                **tick.about(game_id),
                **words,
                **(counts | self._score(row, words)),
                game_id=game_id,
                clock_seconds=reading.number("clock_seconds", clock, self.mapping.numbers) if clock else None,
                situation=self._situation(row),
                tick=tick.place(game_id),
                is_partial=True,
                skip_clock_only=self.mapping.skip_clock_only,
            )
        ]

    def _text(self, field: str, row: Cells) -> str:
        columns = self.mapping.named.get(field)
        return _told(columns, row, self.mapping) if columns else self.mapping.constants.given.get(field, "")

    def _score(self, row: Cells, words: dict[str, str | None]) -> dict[str, int]:
        """The score of the team that the row names; nothing if it names none."""
        team, score = self._text("team", row), _count("score", self._text("score", row))
        if not team or score is None:
            return {}
        for side in ("home", "away"):
            if team == words[f"{side}_team"]:
                return {f"{side}_score": score}
        raise RowRefused(RowReason.TEAM_UNKNOWN, value=team, held=f"{words['home_team']} and {words['away_team']}")

    def _situation(self, row: Cells) -> dict[str, Any] | None:
        told = {key: _told((column,), row, self.mapping) for key, column in self.mapping.situation.items()}
        return {key: _plain(value) for key, value in told.items() if value} or None


class EdgeFeed:
    """Each row is a tick of one or more edges; the last row of an edge settles it, if the mapping says so."""

    kind = EDGES

    def __init__(self, mapping: EdgeMapping) -> None:
        self.mapping = mapping
        self._last: dict[str, int] = {}

    def time_of(self, row: Cells) -> datetime:
        """When the row was so."""
        return time_of(row, self.mapping)

    def see(self, row: Cells, tick: Tick) -> None:
        """Remember the last row of each edge."""
        for columns in self.mapping.edges:
            self._last[self._name(columns, row)] = tick.number

    def commands(self, row: Cells, tick: Tick) -> Sequence[Command]:
        """The ticks that the row tells, and the ends of edges that it is the last row of."""
        return [command for columns in self.mapping.edges for command in self._of_edge(columns, row, tick)]

    def _of_edge(self, columns: EdgeColumns, row: Cells, tick: Tick) -> list[Command]:
        name = self._name(columns, row)
        chances = {field: self._number(field, columns, row) for field in CHANCES}
        words = {field: self._text(field, columns, row) or None for field in SAID_OF_EDGES}
        told: list[Command] = [
            DetectEdge(
                **tick.about(name),
                **{**self.mapping.constants.given, **chances, **{k: v for k, v in words.items() if v}},
                name=name,
                market=self._text("market", columns, row),
                tick=tick.place(name),
            )
        ]
        outcome = self._number("actual_outcome", columns, row)
        if self.mapping.settle == "last_row" and outcome is not None and self._last[name] == tick.number:
            end = EdgeStatus.SETTLED
            told.append(ChangeEdgeStatus(**tick.about(name, "end"), name=name, status=end, actual_outcome=outcome))
        return told

    def _name(self, columns: EdgeColumns, row: Cells) -> str:
        return self._text("name" if columns.name else "market", columns, row)

    def _text(self, field: str, columns: EdgeColumns, row: Cells) -> str:
        named = columns.named.get(field)
        return _told(named, row, self.mapping) if named else ""

    def _number(self, field: str, columns: EdgeColumns, row: Cells) -> Decimal | None:
        text = self._text(field, columns, row)
        if not text:
            return None
        number = reading.number(field, text, self.mapping.numbers)
        return number if field == "actual_outcome" else reading.scaled(number, self.mapping.scale)


def time_of(row: Cells, mapping: FeedMapping) -> datetime:
    """When a row was so, in UTC; by its clock it is a nominal time. Raises `RowRefused`."""
    if mapping.clock is not None:
        return _nominal(row, mapping.clock)
    return reading.time(row[mapping.time_column or ""], mapping.time)


def _nominal(row: Cells, clock: ClockReading) -> datetime:
    """Start of the game plus the seconds played: whole periods before this one, and what is gone of it."""
    said = row[clock.start] if clock.start else "all"
    start = start_of(clock, said)
    period, remaining = _count("period", row[clock.period]), _count("remaining", row[clock.remaining])
    if start is None or not period or remaining is None:
        raise RowRefused(RowReason.CLOCK_UNREADABLE, value=f"{said}, {row[clock.period]}, {row[clock.remaining]}")
    lengths = [*clock.period_seconds, *[clock.overtime_seconds] * max(0, period - len(clock.period_seconds))]
    if remaining > lengths[period - 1]:
        raise RowRefused(RowReason.CLOCK_UNREADABLE, value=f"{said}, {row[clock.period]}, {row[clock.remaining]}")
    return start.astimezone(UTC) + timedelta(seconds=sum(lengths[:period]) - remaining)


def _told(columns: Sequence[str], row: Cells, mapping: FeedMapping) -> str:
    """What the columns say, in the meaning that the mapping gives them; empty if one of several says nothing."""
    parts = [mapping.values.get(column, {}).get(row[column], row[column]) for column in columns]
    return JOINT.join(parts) if all(parts) else ""


def _count(field: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > COUNT_DIGITS_MAX:
        raise RowRefused(RowReason.NUMBER_UNREADABLE, field=field, value=text)
    return int(text)


def _plain(text: str) -> int | str:
    """A whole number as such, if its text is the usual one; all else as it was written."""
    is_number = text.isascii() and text.isdigit() and len(text) <= COUNT_DIGITS_MAX and str(int(text)) == text
    return int(text) if is_number else text
