"""What a kind of streams is; `families` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from position_ledger.domain.event import Event

__all__ = ["Family"]


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of stream. Every state has ``version``, that of its stream after the last event folded."""

    name: str
    prefix: str | None
    """Of the business ids of its rows, such as POS-; None: nobody names its streams by number."""
    state: type[msgspec.Struct]
    shape: int
    """Raise it whenever a field of the state changes its meaning; new or missing fields are noticed without."""
    events: tuple[type[Event], ...]
    evolve: Callable[[Any, Event, datetime], Any]
    """``(state | None, event, effective_at) -> state``; TypeError for an event that does not fit."""

    @property
    def shape_name(self) -> str:
        """How a snapshot of its state is labelled."""
        return f"{self.name}.{self.shape}"
