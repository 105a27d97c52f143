"""Mapping files of feeds: how the columns of a CSV file become game states or edges. Checked before a file is read."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from position_ledger.domain.vocabulary import Side
from position_ledger.importing.mapping import FileLayout, Name, NumberReading, PositiveScale, TimeReading

__all__ = ["ClockReading", "EdgeMapping", "FeedMapping", "GameMapping", "Joined"]

JOINT: Final = " / "
"""Stands between the parts of a text that several columns make."""


def _joined(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


Joined = Annotated[tuple[Name, ...], BeforeValidator(_joined), Field(min_length=1)]
"""A column, or several that are joined."""


class ClockReading(_Table):
    """Nominal times of a file that tells the period and its clock but no time of day: start plus what was played."""

    period: Name
    remaining: Name
    """Column with the seconds that are left of the period."""
    period_seconds: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    """Length of each regular period."""
    overtime_seconds: Annotated[int, Field(gt=0)] = 300
    start: Name | None = None
    """Column that chooses the start."""
    starts: dict[str, AwareDatetime] = {}
    """What the column says, and when the game is taken to begin; without a column, the entry "all"."""

    @model_validator(mode="after")
    def _startable(self) -> Self:
        if not self.starts or (self.start is None and "all" not in self.starts):
            raise ValueError('clock.starts must say when games begin, without clock.start under the key "all"')
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Its columns by what they are for."""
        given = {"period": self.period, "remaining": self.remaining, "start": self.start}
        return {f"clock.{name}": column for name, column in given.items() if column}


class FeedMapping(_Table):
    """What the mapping of every feed has."""

    name: str
    """Of the preset or the file, for messages."""
    description: str = ""
    order: Literal["oldest_first", "newest_first", "by_time"]
    """As for fills: which of two rows with the same time was first."""
    file: FileLayout = FileLayout()
    time_column: Name | None = None
    time: TimeReading = TimeReading()
    clock: ClockReading | None = None
    numbers: NumberReading = NumberReading()
    values: dict[str, dict[str, str]] = {}
    """Per column of the file: what a cell says, and what it means; empty: nothing."""

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.time_column is None) is (self.clock is None):
            raise ValueError("give either time_column, or [clock] for a file that tells no time of day")
        return self

    @property
    def timing(self) -> dict[str, str]:
        """The columns that tell the time."""
        return self.clock.columns if self.clock else {"time": self.time_column or ""}


class GameColumns(_Table):
    """Which column has what a state says."""

    game_id: Joined | None = None
    league: Name | None = None
    home_team: Name | None = None
    away_team: Name | None = None
    home_score: Name | None = None
    away_score: Name | None = None
    team: Name | None = None
    """Which of the two teams ``score`` is that of."""
    score: Name | None = None
    period: Name | None = None
    clock_seconds: Name | None = None
    clock_display: Name | None = None
    game_status: Name | None = None


class GameConstants(_Table):
    """Values that are the same for every row."""

    game_id: Name | None = None
    league: Name | None = None
    home_team: Name | None = None
    away_team: Name | None = None
    game_status: Name | None = None

    @cached_property
    def given(self) -> dict[str, str]:
        """Field to value."""
        return {field: value for field, value in self if value is not None}


class GameMapping(FeedMapping):
    """How a file becomes game states. A row says what it says: an empty cell leaves the state as it was."""

    columns: GameColumns
    constants: GameConstants = GameConstants()
    situation: dict[Name, Name] = {}
    """Key of the situation to the column that has it; whole numbers are kept as such, all else as text."""
    skip_clock_only: bool = False
    """Rows that change nothing but the clock make no event."""

    @cached_property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Field to its columns."""
        return {field: (value,) if isinstance(value, str) else value for field, value in self.columns if value}

    @cached_property
    def needed(self) -> dict[str, str]:
        """Every field, and the column that the file must have for it."""
        parts = {f"{field} ({column})": column for field, columns in self.named.items() for column in columns}
        return self.timing | parts | {f"situation.{key}": column for key, column in self.situation.items()}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for field in self.named.keys() & self.constants.given.keys():
            raise ValueError(f"{field} is both in [columns] and in [constants]; keep one of them")
        if "game_id" not in self.named and self.constants.game_id is None:
            raise ValueError("game_id is missing; name its columns in [columns] or its value in [constants]")
        if (self.columns.team is None) is not (self.columns.score is None):
            raise ValueError("team and score go together: the score is that of the team which the row names")
        _require_columns_of_values(self.values, self.needed)
        return self


class EdgeColumns(_Table):
    """Which column has what a tick says about one edge; a file may tell of several in each row."""

    market: Joined
    name: Joined | None = None
    """What the edge is called; None: as its market."""
    true_win_probability: Name
    market_implied_probability: Name | None = None
    market_price: Name | None = None
    expected_value: Name | None = None
    confidence_level: Name | None = None
    recommended_action: Name | None = None
    actual_outcome: Name | None = None
    """What the contract paid, known in the end and read from the last row of the edge."""

    @cached_property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Field to its columns."""
        return {field: (value,) if isinstance(value, str) else value for field, value in self if value}


class EdgeConstants(_Table):
    """Values that are the same for every edge."""

    strategy: Annotated[int, Field(gt=0, strict=True)] | None = None
    model: Annotated[int, Field(gt=0, strict=True)] | None = None
    side: Side | None = None
    confidence_level: Name | None = None
    recommended_action: Name | None = None

    @cached_property
    def given(self) -> dict[str, Any]:
        """Field to value."""
        return {field: value for field, value in self if value is not None}


class EdgeMapping(FeedMapping):
    """How a file becomes edges: the first row of each detects it, the others revise it, the last one may settle it."""

    edges: Annotated[tuple[EdgeColumns, ...], Field(min_length=1)]
    constants: EdgeConstants = EdgeConstants()
    scale: PositiveScale = Decimal(1)
    """What one unit of probabilities, prices and values is worth: 0.01 for percent."""
    settle: Literal["last_row", "never"] = "last_row"
    """last_row: an edge is settled at its outcome with the last row that the file has of it. Say never for a file that
    may end before its games do, because what is settled is not revised any more."""

    @cached_property
    def needed(self) -> dict[str, str]:
        """Every field, and the column that the file must have for it."""
        parts = (
            (f"edges.{place}.{field} ({column})", column)
            for place, one in enumerate(self.edges, 1)
            for field, columns in one.named.items()
            for column in columns
        )
        return self.timing | dict(parts)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        mapped = set(chain.from_iterable(one.named for one in self.edges))
        for field in mapped & self.constants.given.keys():
            raise ValueError(f"{field} is both in [[edges]] and in [constants]; keep one of them")
        _require_columns_of_values(self.values, self.needed)
        return self


def _require_columns_of_values(values: dict[str, dict[str, str]], needed: dict[str, str]) -> None:
    for column in values.keys() - set(needed.values()):
        raise ValueError(f"values.{column} speaks of no column that is mapped")


def start_of(clock: ClockReading, said: str) -> datetime | None:
    """When the game of a row is taken to begin; None: the mapping does not say."""
    return clock.starts.get(said if clock.start else "all")
