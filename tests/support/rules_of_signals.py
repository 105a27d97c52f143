"""Tries at the rules of edges, game_states and the reference tables, for the test that wants one for every rule."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ALMOST = Decimal("0.000000000000000001")
"""The smallest step beyond a bound."""

Try = tuple[str, dict[str, Any], dict[str, Any]]

SCD2: dict[str, Any] = {
    "id": 1,
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
}
EDGE = SCD2 | {
    "edge_id": "EDGE-1",
    "market_id": "M",
    "true_win_probability": Decimal("0.6"),
    "edge_status": "detected",
}
GAME = SCD2 | {"game_state_id": "GS-1", "game_id": "G"}
SETTLED = {"edge_status": "settled", "actual_outcome": Decimal(1), "resolved_at": T0}

NUMBERED = {"strategies": "strategy_id", "probability_models": "model_id"}
WORDED = {"platforms": "platform_id", "market_events": "market_event_id"}


def edge(**changes: Any) -> Try:
    return "edges", EDGE, changes


def game(**changes: Any) -> Try:
    return "game_states", GAME, changes


def reference(table: str, **changes: Any) -> Try:
    key = NUMBERED.get(table)
    row = {key: 1} if key else {WORDED[table]: "kalshi"}
    return table, {**row, "name": "n", "version": "1", "config": "{}", "status": "draft"}, changes


FIRST = [edge(), edge(**SETTLED), game(), *(reference(table) for table in (*NUMBERED, *WORDED))]
"""Rows that every rule accepts."""
WITHOUT_DEFAULTS = [one for one in FIRST if one[0] not in NUMBERED]
"""Those whose tables give no missing column a value: strategies and models are numbered by the database."""


def _reference(table: str) -> dict[str, list[list[Try]]]:
    """What every reference table refuses."""

    def row(**changes: Any) -> Try:
        return reference(table, **changes)

    key = NUMBERED.get(table)
    other = {key: 2} if key else {WORDED[table]: "other"}
    ids = (
        {f"{table}_id_positive": [[row(**{key: 0})], [row(**{key: -1})]]}
        if key
        else {f"{table}_id_not_blank": [[row(**{WORDED[table]: bad})] for bad in ("", "  ")]}
    )
    return ids | {
        f"{table}_pkey": [[row(), row(version="2")]],
        f"{table}_one_row_a_version": [[row(), row(**other)]],
        f"{table}_named": [[row(name="")], [row(name=" ")], [row(version="")]],
        f"{table}_config_is_object": [[row(config=bad)] for bad in ("[]", "1", "null", '"x"')],
        f"{table}_status": [[row(status=bad)] for bad in ("Active", "expired", "")],
    }


BREAKS: dict[str, list[list[Try]]] = {
    "edges_side": [[edge(side=bad)] for bad in ("yes", "BUY", "")],
    "edges_status": [[edge(edge_status=bad)] for bad in ("DETECTED", "open", "")],
    "edges_probabilities": [
        [edge(true_win_probability=1 + ALMOST)],
        [edge(true_win_probability=-ALMOST)],
        [edge(market_implied_probability=1 + ALMOST)],
        [edge(market_implied_probability=-ALMOST)],
        [edge(**SETTLED | {"actual_outcome": 1 + ALMOST})],
    ],
    "edges_price": [[edge(market_price=-ALMOST)]],
    "edges_outcome_when_settled": [
        [edge(actual_outcome=Decimal(1))],
        [edge(**SETTLED | {"actual_outcome": None})],
        [edge(edge_status="void", resolved_at=T0, actual_outcome=Decimal(0))],
    ],
    "edges_resolved_at_the_end": [
        [edge(resolved_at=T0)],
        [edge(edge_status="expired")],
        [edge(**SETTLED | {"resolved_at": None})],
    ],
    "game_states_scores": [[game(home_score=-1)], [game(away_score=-1)], [game(home_score=1, away_score=-1)]],
    "game_states_period": [[game(period=-1)]],
    "game_states_clock": [[game(clock_seconds=-ALMOST)]],
    **{rule: tries for table in (*NUMBERED, *WORDED) for rule, tries in _reference(table).items()},
}
