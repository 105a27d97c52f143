"""What a check finds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from position_ledger.checking.text import Place

Kind = Literal["migration", "statement", "row type", "definition", "schema"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One way in which code and schema disagree; ``sentence`` says what, where it is known ``place`` says where."""

    kind: Kind
    sentence: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


@dataclass(frozen=True, slots=True)
class Undescribed:
    """A statement that nobody could look at, and why."""

    place: Place
    excerpt: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}: {self.excerpt}"


@dataclass(frozen=True, slots=True)
class StatementsChecked:
    """How many statements fit, those that do not, and those that could not be described."""

    described: int
    mismatches: tuple[Mismatch, ...]
    undescribed: tuple[Undescribed, ...]
