"""Good rows of every table of the schema, and by rule the rows that it is there to refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HASH = bytes(32)

EVENT: dict[str, Any] = {
    "originator_id": UUID(int=1),
    "originator_version": 1,
    "topic": "position.marked",
    "state": b"{}",
    "notification_id": 1,
    "event_id": UUID(int=2),
    "recorded_at": T0,
    "effective_at": T0,
    "stream_hash": HASH,
}
GENERATION: dict[str, Any] = {
    "projection": "of_nobody",
    "fingerprint": "f",
    "columns": ["id"],
    "schema_name": "a",
    "state": "active",
    "release": "1",
}
CHECKPOINT: dict[str, Any] = {
    "generation_id": 1,
    "shard": 90,
    "stream_from": UUID(int=0),
    "stream_to": UUID(int=9),
    "position": 0,
}
ZEROS = dict.fromkeys(
    ["exit_quantity", "realized_gross", "open_fees", "close_fees", "open_fees_released", "realized_pnl"], Decimal(0)
)
POSITION: dict[str, Any] = {
    "id": 1,
    "position_id": "POS-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "account_id": "main",
    "market_id": "M",
    "currency": "USD",
    "side": "YES",
    "status": "open",
    "quantity": Decimal(100),
    "entry_quantity": Decimal(100),
    "peak_quantity": Decimal(100),
    "entry_price": Decimal("0.42"),
    "current_price": Decimal("0.42"),
    "cost": Decimal(42),
    "realized_pnl_closed": Decimal(0),
    "shortfall_quantity": Decimal(0),
    "is_dust": False,
    "entry_time": T0,
    "multiplier": Decimal(1),
    "margin_rate": Decimal(0),
    "transferred_quantity": Decimal(0),
    "shortfall_amount": Decimal(0),
    "restatements": 0,
    "restated_realized": Decimal(0),
    **ZEROS,
}
BALANCE: dict[str, Any] = {
    "id": 1,
    "balance_id": "BAL-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "account_id": "main",
    "currency": "USD",
    "cash": Decimal(100),
    "locked": Decimal(0),
    "free": Decimal(100),
    "change": Decimal(100),
    "cause": "deposit",
    "is_cash_controlled": True,
    "posted_free": Decimal(100),
    "posted_external": Decimal(-100),
    **dict.fromkeys(["posted_locked", "posted_holdings", "posted_realized", "posted_fees"], Decimal(0)),
}
MARKET: dict[str, Any] = {
    "id": 1,
    "market_id": "MKT-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "ticker": "KXNBA-CLE",
    "kind": "binary",
    "currency": "USD",
    "multiplier": Decimal(1),
    "margin_rate": Decimal(0),
    "netting": "side",
    "status": "open",
    "settlement_revision": 0,
    "is_fee_refunded": False,
    "is_unwound": False,
}
EDGE: dict[str, Any] = {
    "id": 1,
    "edge_id": "EDGE-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "market_id": "KXNBA-CLE",
    "true_win_probability": Decimal("0.6"),
    "edge_status": "detected",
}
GAME_STATE: dict[str, Any] = {
    "id": 1,
    "game_state_id": "GS-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "game_id": "NBA-1",
}
TRADE: dict[str, Any] = {
    "id": 1,
    "trade_id": "TRD-1",
    "row_current_ind": True,
    "row_effective_date": T0,
    "version": 1,
    "effective_at": T0,
    "execution_environment": "paper",
    "position_id": "POS-1",
    "leg": 1,
    "account_id": "main",
    "market_id": "M",
    "currency": "USD",
    "side": "YES",
    "action": "buy",
    "position_effect": "open",
    "quantity": Decimal(100),
    "price": Decimal("0.42"),
    "amount": Decimal(42),
    "fee": Decimal(0),
    "fee_currency": "USD",
    "realized_gross": Decimal(0),
    "busted_quantity": Decimal(0),
    "busted_amount": Decimal(0),
    "status": "active",
    "execution_time": T0,
}
CORRECTED = {"status": "corrected", "reason": "venue", "actor": "desk"}
BUSTED = {**CORRECTED, "version": 2, "status": "busted", "busted_quantity": Decimal(100), "busted_amount": Decimal(42)}
REFERENCE_KEYS: dict[str, tuple[str, Any, Any]] = {
    "strategies": ("strategy_id", 1, 2),
    "probability_models": ("model_id", 1, 2),
    "platforms": ("platform_id", "kalshi", "other"),
    "market_events": ("market_event_id", "NBA-1", "NBA-2"),
}
"""By reference table: its key, and two values of that."""

LEAST = Decimal("0.000000000000000001")
EXPIRED = {"row_current_ind": False, "row_expiration_date": T0 + HOUR}
SECOND = {"id": 2, "version": 2, "row_effective_date": T0 + HOUR}
FLAT = {"quantity": Decimal(0), "cost": Decimal(0)}

Rows = list[tuple[str, dict[str, Any], dict[str, Any]]]


def position(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "positions", POSITION, changes


def balance(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "account_balance", BALANCE, changes


def market(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "markets", MARKET, changes


def trade(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A fill; a later version than the first is a correction."""
    return "trades", TRADE if changes.get("version", 1) == 1 else {**TRADE, **CORRECTED}, changes


def edge(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "edges", EDGE, changes


def game_state(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "game_states", GAME_STATE, changes


def reference(table: str, **changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A row of a reference table."""
    key, value, _ = REFERENCE_KEYS[table]
    return table, {key: value, "name": "momentum", "version": "1", "config": "{}", "status": "draft"}, changes


def event(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "events", EVENT, changes


def generation(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "projection_generations", GENERATION, changes


def rebuild(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return REBUILD[0], REBUILD[1], changes


def checkpoint(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "projection_checkpoints", CHECKPOINT, changes


SNAPSHOT = (
    "stream_snapshots",
    {
        "originator_id": UUID(int=1),
        "originator_version": 500,
        "shape": "book.1",
        "state": b"{}",
        "stream_hash": HASH,
        "opened_seq": 1,
        "last_seq": 500,
    },
)
KEY = ("append_keys", {"key": "command:1", "digest": HASH, "appended": "{}"})
FINDING = (
    "audit_findings",
    {
        "generation_id": 1,
        "id": 1,
        "key": "POS-1",
        "column_name": "cost",
        "expected": "1",
        "found": "2",
        "found_at": T0,
        "seen_at": T0,
    },
)
AUDIT = ("projection_audits", {"generation_id": 1, "begun_stream": UUID(int=0), "next_stream": UUID(int=0)})
WORKER: tuple[str, dict[str, Any], dict[str, Any]] = (
    "projection_workers",
    {"worker": "w", "fingerprints": ["f"], "seen_at": T0},
    {},
)

REBUILD: tuple[str, dict[str, Any], dict[str, Any]] = (
    "projection_rebuilds",
    {"generation_id": 1, "projection": "positions", "events_total": 10},
    {},
)

# What every table of versions refuses, whatever it holds. A new one is added here, and what is its own to BREAKS.
HISTORIES = {
    "positions": (position, "position_id", "POS-", "quantity"),
    "account_balance": (balance, "balance_id", "BAL-", "cash"),
    "markets": (market, "market_id", "MKT-", "multiplier"),
    "trades": (trade, "trade_id", "TRD-", "fee"),
    "edges": (edge, "edge_id", "EDGE-", "true_win_probability"),
    "game_states": (game_state, "game_state_id", "GS-", "period"),
}
"""By table: a good row, its business key, the prefix of that, and a figure."""


def rules_of_history(table: str) -> dict[str, list[Rows]]:
    """The tries of the rules that every table of versions has."""
    row, key, prefix, _ = HISTORIES[table]
    expired = row(**EXPIRED)

    def second(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        return row(**{**SECOND, **changes})

    rules: dict[str, list[Rows]] = {
        "business_key": [
            [row(**{key: f"{prefix}2"})],
            [row(**{key: "1"})],
            [expired, second(**{key: f"{prefix}01"})],
            [expired, second(**{key: prefix})],
            [expired, second(**{key: f"{prefix}1".lower()})],
        ],
        "current_has_no_end": [[row(row_expiration_date=T0 + HOUR)], [row(row_current_ind=False)]],
        "environment": [[row(execution_environment=bad)] for bad in ("PAPER", "demo", "")],
        "interval_not_empty": [
            [row(row_current_ind=False, row_expiration_date=T0)],
            [row(row_current_ind=False, row_expiration_date=T0 - HOUR)],
        ],
        "one_current_row": [[row(), second()]],
        "one_row_a_version": [[expired, second(version=1, id=1)]],
        "pkey": [[expired, second(id=1)]],
        "version_counts_from_1": [[row(version=0)]],
    }
    return {f"{table}_{rule}": tries for rule, tries in rules.items()}


def rules_of_reference(table: str) -> dict[str, list[Rows]]:
    """The tries of the rules of a reference table."""
    key, value, other = REFERENCE_KEYS[table]
    bad_ids = ("id_positive", [0, -1]) if isinstance(value, int) else ("id_not_blank", ["", " "])
    rules: dict[str, list[Rows]] = {
        "pkey": [[reference(table), reference(table, version="2")]],
        "one_row_a_version": [[reference(table), reference(table, **{key: other})]],
        bad_ids[0]: [[reference(table, **{key: bad})] for bad in bad_ids[1]],
        "named": [[reference(table, **{column: bad})] for column in ("name", "version") for bad in ("", " ")],
        "config_is_object": [[reference(table, config=bad)] for bad in ("[]", "1", "null")],
        "status": [[reference(table, status=bad)] for bad in ("DRAFT", "deleted", "")],
    }
    return {f"{table}_{rule}": tries for rule, tries in rules.items()}


SETTLED = {"status": "settled", "settlement_value": Decimal(1), "settlement_revision": 1}

BREAKS: dict[str, list[Rows]] = {
    **{rule: tries for table in REFERENCE_KEYS for rule, tries in rules_of_reference(table).items()},
    "positions_contract": [[position(multiplier=Decimal(0))], [position(margin_rate=-LEAST)]],
    "positions_shortfall": [
        [position(shortfall_amount=LEAST)],
        [position(shortfall_quantity=Decimal(1), shortfall_amount=-LEAST)],
    ],
    "positions_restatements": [[position(restatements=-1)], [position(restated_realized=LEAST)]],
    "trades_action": [[trade(action=bad)] for bad in ("BUY", "open", "")],
    "trades_fee_charged": [[trade(fee_charged=Decimal(1))], [trade(fee_charged_currency="BTC")]],
    "trades_busted": [
        [trade(busted_quantity=-LEAST)],
        [trade(busted_amount=Decimal(43))],
        [trade(busted_amount=-LEAST)],
        [trade(**{**BUSTED, "busted_amount": Decimal(43)})],
    ],
    "trades_correction_is_answered_for": [
        [trade(version=2, id=2, reason=None)],
        [trade(version=2, id=2, actor=None)],
    ],
    "trades_first_version_is_active": [[trade(**CORRECTED)], [trade(version=2, id=2, status="active")]],
    "trades_leg": [[trade(leg=0)]],
    "trades_position_effect": [[trade(position_effect=bad)] for bad in ("OPEN", "settle", "")],
    "trades_quantity": [[trade(price=-LEAST)], [trade(quantity=Decimal(0))]],
    "trades_side": [[trade(side=bad)] for bad in ("yes", "BUY", "")],
    "trades_status": [
        [trade(version=2, id=2, status="void")],
        [trade(**{**BUSTED, "busted_quantity": Decimal(99)})],
        [trade(version=2, id=2, busted_quantity=Decimal(100))],
    ],
    "markets_kind": [[market(kind=bad)] for bad in ("BINARY", "stock", "")],
    "markets_netting": [[market(netting=bad)] for bad in ("both", "")],
    "markets_status": [[market(status=bad)] for bad in ("OPEN", "finished", "")],
    "markets_terms": [
        [market(multiplier=Decimal(0))],
        [market(margin_rate=-LEAST)],
        [market(tick_size=Decimal(0))],
        [market(price_min=Decimal(1), price_max=Decimal(0))],
    ],
    "markets_only_binary_has_no": [
        [market(kind="spot", **{column: Decimal("0.5")})] for column in ("no_price", "no_bid", "no_ask")
    ],
    "game_states_one_row_a_game": [[game_state(), game_state(id=2, game_state_id="GS-2")]],
    "markets_one_market_a_ticker": [[market(), market(id=2, market_id="MKT-2")]],
    "markets_settled_at_a_value": [
        [market(settlement_value=Decimal(1))],
        [market(**{**SETTLED, "settlement_value": None})],
    ],
    "markets_paid_under_a_revision": [
        [market(settlement_revision=1)],
        [market(settlement_revision=-1)],
        [market(**{**SETTLED, "settlement_revision": 0})],
        [market(status="voided")],
    ],
    "edges_side": [[edge(side=bad)] for bad in ("yes", "BUY", "")],
    "edges_status": [[edge(edge_status=bad)] for bad in ("DETECTED", "won", "")],
    "edges_probabilities": [
        [edge(true_win_probability=Decimal(1) + LEAST)],
        [edge(true_win_probability=-LEAST)],
        [edge(market_implied_probability=Decimal(2))],
        [edge(edge_status="settled", resolved_at=T0, actual_outcome=Decimal(2))],
    ],
    "edges_price": [[edge(market_price=-LEAST)]],
    "edges_outcome_when_settled": [
        [edge(actual_outcome=Decimal(1))],
        [edge(edge_status="settled", resolved_at=T0)],
    ],
    "edges_resolved_at_the_end": [
        [edge(resolved_at=T0)],
        *[[edge(edge_status=end)] for end in ("expired", "void")],
    ],
    "game_states_scores": [[game_state(home_score=-1)], [game_state(away_score=-1)]],
    "game_states_period": [[game_state(period=-1)]],
    "game_states_clock": [[game_state(clock_seconds=-LEAST)]],
    **{rule: tries for table in HISTORIES for rule, tries in rules_of_history(table).items()},
    "account_balance_change": [[balance(change=Decimal(99))], [balance(change=Decimal(100) + LEAST)]],
    "account_balance_free_and_locked": [
        [balance(cash=Decimal(99))],
        [balance(locked=LEAST)],
        [balance(free=Decimal(101), locked=Decimal(1))],
    ],
    "account_balance_one_balance_a_key": [[balance(), balance(id=2, balance_id="BAL-2")]],
    "account_balance_postings_sum_to_zero": [
        [balance(posted_external=Decimal(-99))],
        [balance(posted_fees=LEAST)],
        [balance(posted_holdings=Decimal(1), posted_realized=Decimal(-2))],
    ],
    "stream_snapshots_originator_version_check": [[(*SNAPSHOT, {"originator_version": 0})]],
    "stream_snapshots_pkey": [[(*SNAPSHOT, {}), (*SNAPSHOT, {"originator_version": 501})]],
    "stream_snapshots_stream_hash_check": [[(*SNAPSHOT, {"stream_hash": b"short"})]],
    "append_keys_digest_check": [[(*KEY, {"digest": b"short"})]],
    "append_keys_pkey": [[(*KEY, {}), (*KEY, {"digest": bytes(31) + b"1"})]],
    "events_notification_id_idx": [[event(), event(originator_id=UUID(int=3), event_id=UUID(int=4))]],
    "events_originator_version_check": [[event(originator_version=0)], [event(originator_version=-1)]],
    "events_pkey": [[event(), event(notification_id=2, event_id=UUID(int=4))]],
    "events_stream_hash_check": [
        [event(stream_hash=bytes(31))],
        [event(stream_hash=bytes(33))],
        [event(stream_hash=b"")],
    ],
    "feed_inline_check": [[("feed", {"namespace": 1, "inline": text}, {})] for text in ("0", "1,", "x", "1,,2", "01")],
    "feed_namespace_check": [[("feed", {"namespace": 0}, {})], [("feed", {"namespace": -1}, {})]],
    "feed_only_row_check": [[("feed", {"namespace": 1, "only_row": False}, {})]],
    "feed_pkey": [[("feed", {"namespace": 1}, {})]],
    "positions_flat_costs_nothing": [
        [position(quantity=Decimal(0))],
        [position(**FLAT, unrealized_pnl=Decimal(0))],
    ],
    "positions_flat_unless_open": [[position(status=over)] for over in ("closed", "settled", "voided", "transferred")],
    "positions_net_of_fees": [
        [position(realized_pnl=Decimal(1))],
        [position(open_fees=Decimal("0.01"))],
        [position(realized_gross=Decimal(5), close_fees=Decimal(1), realized_pnl=Decimal(5))],
    ],
    "positions_quantity": [
        [position(quantity=Decimal(-1))],
        [position(quantity=Decimal(101))],
        [position(shortfall_quantity=Decimal("-0.000000000000000001"))],
    ],
    "positions_side": [[position(side=bad)] for bad in ("yes", "BUY", "")],
    "positions_status": [[position(**FLAT, status=bad)] for bad in ("OPEN", "expired", "")],
    "audit_findings_check": [[(*FINDING, {"seen_at": T0 - HOUR})]],
    "audit_findings_check1": [[(*FINDING, {"closed_at": T0 - HOUR})]],
    "audit_findings_column_name_check": [[(*FINDING, {"column_name": ""})]],
    "audit_findings_generation_id_fkey": [[(*FINDING, {"generation_id": 999_999})]],
    "audit_findings_pkey": [[(*FINDING, {}), (*FINDING, {"key": "POS-2"})]],
    "projection_audits_check": [[(*AUDIT, {"ended_at": T0})], [(*AUDIT, {"ended_events": 1})]],
    "projection_audits_ended_events_check": [[(*AUDIT, {"ended_at": T0, "ended_events": -1})]],
    "projection_audits_events_check": [[(*AUDIT, {"events": -1})]],
    "projection_audits_generation_id_fkey": [[(*AUDIT, {"generation_id": 999_999})]],
    "projection_audits_pkey": [[(*AUDIT, {}), (*AUDIT, {})]],
    "projection_checkpoints_check": [[checkpoint(stream_from=UUID(int=10))]],
    "projection_checkpoints_generation_id_fkey": [[checkpoint(generation_id=999_999)]],
    "projection_checkpoints_pkey": [[checkpoint(), checkpoint()]],
    "projection_checkpoints_position_check": [[checkpoint(position=-1)]],
    "projection_checkpoints_shard_check": [[checkpoint(shard=-1)]],
    "projection_generations_fingerprint_check": [[generation(fingerprint="")]],
    "projection_generations_fingerprint_parts_check": [[generation(fingerprint_parts="[]")]],
    "projection_generations_mode_check": [[generation(mode="both")]],
    "projection_generations_one_active": [[generation(), generation(schema_name="b")]],
    "projection_generations_one_building": [
        [generation(state="building"), generation(state="building", schema_name="b")],
    ],
    "projection_generations_one_table": [[generation(state="retired"), generation(state="building")]],
    "projection_generations_state_check": [[generation(state="shadow")]],
    "projection_rebuilds_finished": [
        [rebuild(finished_at=T0)],
        *[[rebuild(state=end)] for end in ("built", "done", "cancelled")],
        [rebuild(state="failed", problem="because")],
    ],
    "projection_rebuilds_generation": [[rebuild(generation_id=90)]],
    "projection_rebuilds_pace": [
        [rebuild(processes=0)],
        [rebuild(throttle_per_s=0)],
        [rebuild(events_per_s=-1)],
    ],
    "projection_rebuilds_pkey": [[rebuild(), rebuild()]],
    "projection_rebuilds_problem": [
        [rebuild(problem="because")],
        [rebuild(state="failed", finished_at=T0)],
    ],
    "projection_rebuilds_progress": [
        [rebuild(events_done=11)],
        [rebuild(events_done=-1)],
        [rebuild(after_load_s=-1)],
    ],
    "projection_rebuilds_state": [[rebuild(state="waiting")]],
    "projection_rebuilds_wanted": [[rebuild(wanted="stop")]],
    "projection_workers_mark_check": [[(WORKER[0], WORKER[1], {"mark": -1})]],
    "projection_workers_pkey": [[WORKER, WORKER]],
}
ALSO_BROKEN = {f"{table}_one_row_a_version": {f"{table}_pkey", f"{table}_business_key"} for table in HISTORIES}
GENERATED_KEYS = {"projection_generations_pkey"}
"""Primary keys that are GENERATED ALWAYS: nobody can choose one, so nobody can repeat one."""
