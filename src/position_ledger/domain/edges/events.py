"""What can happen to an edge. Detections and revisions carry every value after them."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from position_ledger.domain.edges.vocabulary import EdgeStatus
from position_ledger.domain.event import Event
from position_ledger.domain.numbers import Figure
from position_ledger.domain.vocabulary import Environment, Side

__all__ = ["EDGE_EVENTS", "VALUES", "EdgeDetected", "EdgeRevised", "EdgeStatusChanged"]


class EdgeDetected(Event):
    """The first event of an edge's stream: a model sees another probability than the market does."""

    TOPIC = "edge.detected"

    environment: Environment
    name: str | None = None
    market: str
    strategy: int | None = None
    model: int | None = None
    side: Side | None = None
    true_win_probability: Figure
    market_implied_probability: Figure | None = None
    market_price: Figure | None = None
    expected_value: Figure | None = None
    confidence_level: str | None = None
    recommended_action: str | None = None
    tick: int | None = None
    """Number among the ticks of the same effective time."""
    metadata: dict[str, JsonValue] | None = None


class EdgeRevised(Event):
    """Its values are others now: all of them, changed or not."""

    TOPIC = "edge.revised"

    true_win_probability: Figure
    market_implied_probability: Figure | None = None
    market_price: Figure | None = None
    expected_value: Figure | None = None
    confidence_level: str | None = None
    recommended_action: str | None = None
    tick: int | None = None


class EdgeStatusChanged(Event):
    """It went on in its life."""

    TOPIC = "edge.status_changed"

    status: EdgeStatus
    actual_outcome: Figure | None = None
    """What the contract paid, once settled: 1 it won, 0 it lost."""
    reason: str | None = None


EDGE_EVENTS: Final = (EdgeDetected, EdgeRevised, EdgeStatusChanged)

VALUES: Final = (
    "true_win_probability",
    "market_implied_probability",
    "market_price",
    "expected_value",
    "confidence_level",
    "recommended_action",
)
"""What a revision can change, on commands, events and the state alike."""
