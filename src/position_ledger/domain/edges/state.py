"""The state of an edge: the fold of its events."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from position_ledger.domain.edges.events import VALUES, EdgeDetected, EdgeRevised, EdgeStatusChanged
from position_ledger.domain.edges.vocabulary import EdgeStatus
from position_ledger.domain.event import Event
from position_ledger.domain.vocabulary import Environment, Side

__all__ = ["Edge", "edge_stream", "evolve_edge"]

_NAMESPACE: Final = UUID("c4c1f6f0-3f0e-4f5e-8f0b-5b1f7a9e2d63")
"""Of the streams of edges that have a name; changing it would orphan every one ever written."""
_KEYS_CACHED_MAX: Final = 10_000


@lru_cache(maxsize=_KEYS_CACHED_MAX)
def edge_stream(environment: Environment, name: str) -> UUID:
    """Stream id of an edge that has a name: uuid5 of the canonical JSON of its key, the same for ever."""
    return uuid5(_NAMESPACE, json.dumps([environment.value, name], ensure_ascii=False, separators=(",", ":")))


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """One edge. Times are effective ones, UTC."""

    version: int
    environment: Environment
    name: str | None = None
    market: str
    strategy: int | None = None
    model: int | None = None
    side: Side | None = None
    true_win_probability: Decimal
    market_implied_probability: Decimal | None = None
    market_price: Decimal | None = None
    expected_value: Decimal | None = None
    confidence_level: str | None = None
    recommended_action: str | None = None
    status: EdgeStatus = EdgeStatus.DETECTED
    actual_outcome: Decimal | None = None
    valued_at: datetime
    """Of the last event that carried values."""
    valued_tick: int | None = None
    changed_at: datetime
    """Of the last change of status."""
    last_effective_at: datetime


def evolve_edge(edge: Edge | None, event: Event, effective_at: datetime) -> Edge:
    """Fold the next event of an edge's stream. Raises ``TypeError`` for an event that does not fit."""
    if edge is None:
        if isinstance(event, EdgeDetected):
            return _detected(event, effective_at)
    elif isinstance(event, EdgeRevised):
        return _after(edge, effective_at, valued_at=effective_at, valued_tick=event.tick, **_values(event))
    elif isinstance(event, EdgeStatusChanged):
        outcome = event.actual_outcome
        return _after(edge, effective_at, status=event.status, actual_outcome=outcome, changed_at=effective_at)
    raise TypeError(f"{type(event).__name__} cannot be folded into {type(edge).__name__}; the log is damaged")


def _detected(event: EdgeDetected, effective_at: datetime) -> Edge:
    return Edge(
        version=1,
        environment=event.environment,
        name=event.name,
        market=event.market,
        strategy=event.strategy,
        model=event.model,
        side=event.side,
        **_values(event),
        valued_at=effective_at,
        valued_tick=event.tick,
        changed_at=effective_at,
        last_effective_at=effective_at,
    )


def _values(event: EdgeDetected | EdgeRevised) -> dict[str, Any]:
    return {name: getattr(event, name) for name in VALUES}


def _after(edge: Edge, effective_at: datetime, **changes: Any) -> Edge:
    latest = max(edge.last_effective_at, effective_at)
    return msgspec.structs.replace(edge, version=edge.version + 1, last_effective_at=latest, **changes)
