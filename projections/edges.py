"""edges: one row for each version of an edge. Every value comes from the event; nothing is computed here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from position_ledger import Projection, Recorded, Row, replace
from position_ledger.events import EdgeDetected, EdgeRevised, EdgeStatusChanged


class EdgeRow(Row, frozen=True, gc=False):
    """The columns of edges beside id, edge_id and those of SCD Type 2."""

    execution_environment: str
    edge_name: str | None
    market_id: str
    strategy_id: int | None
    model_id: int | None
    side: str | None
    true_win_probability: Decimal
    market_implied_probability: Decimal | None
    market_price: Decimal | None
    expected_value: Decimal | None
    confidence_level: str | None
    recommended_action: str | None
    edge_status: str
    status_reason: str | None
    actual_outcome: Decimal | None
    resolved_at: datetime | None
    edge_metadata: Any


ENDS = {"expired", "settled", "void"}
"""What an edge does not come back from."""


def detected(row: EdgeRow | None, event: Recorded[EdgeDetected]) -> EdgeRow:
    """A new edge."""
    if row is not None:
        raise ValueError("an edge is detected once")
    body = event.body
    return EdgeRow(
        execution_environment=body.environment,
        edge_name=body.name,
        market_id=body.market,
        strategy_id=body.strategy,
        model_id=body.model,
        side=body.side,
        true_win_probability=body.true_win_probability,
        market_implied_probability=body.market_implied_probability,
        market_price=body.market_price,
        expected_value=body.expected_value,
        confidence_level=body.confidence_level,
        recommended_action=body.recommended_action,
        edge_status="detected",
        status_reason=None,
        actual_outcome=None,
        resolved_at=None,
        edge_metadata=body.metadata,
    )


def revised(row: EdgeRow, event: Recorded[EdgeRevised]) -> EdgeRow:
    """Its values are others now."""
    body = event.body
    return replace(
        row,
        true_win_probability=body.true_win_probability,
        market_implied_probability=body.market_implied_probability,
        market_price=body.market_price,
        expected_value=body.expected_value,
        confidence_level=body.confidence_level,
        recommended_action=body.recommended_action,
    )


def status_changed(row: EdgeRow, event: Recorded[EdgeStatusChanged]) -> EdgeRow:
    """It went on in its life; with an end it is resolved."""
    body = event.body
    return replace(
        row,
        edge_status=body.status,
        status_reason=body.reason,
        actual_outcome=body.actual_outcome,
        resolved_at=event.effective_at if body.status in ENDS else None,
    )


def edge_id(event: Recorded[Any]) -> str:
    """EDGE- and the number of the event that detected it."""
    return f"EDGE-{event.opened_seq}"


EDGES = Projection(
    table="edges",
    key_column="edge_id",
    key=edge_id,
    row=EdgeRow,
    folds={EdgeDetected: detected, EdgeRevised: revised, EdgeStatusChanged: status_changed},
)
