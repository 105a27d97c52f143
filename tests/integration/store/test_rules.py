"""Every CHECK, key and unique index of the schema refuses what it is there for; one without a try here is a failure."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier, Placeholder

from position_ledger.database import connect
from position_ledger.settings import Settings
<<<<<<< HEAD
from tests.support.schema_rules import (
    ALSO_BROKEN,
    BREAKS,
    EXPIRED,
    GENERATED_KEYS,
    HISTORIES,
    HOUR,
    KEY,
    REFERENCE_KEYS,
    SECOND,
    SNAPSHOT,
    T0,
    WORKER,
    Rows,
    balance,
    checkpoint,
    event,
    generation,
    reference,
)
=======
from tests.support import rules_of_signals
>>>>>>> signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

<<<<<<< HEAD
=======
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
    "projection": "orders",
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
LEAST = Decimal("0.000000000000000001")
EXPIRED = {"row_current_ind": False, "row_expiration_date": T0 + HOUR}
SECOND = {"id": 2, "version": 2, "row_effective_date": T0 + HOUR}
FLAT = {"quantity": Decimal(0), "cost": Decimal(0)}

Rows = list[tuple[str, dict[str, Any], dict[str, Any]]]


def position(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "positions", POSITION, changes


def balance(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "account_balance", BALANCE, changes


def event(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "events", EVENT, changes


def generation(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "projection_generations", GENERATION, changes


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
WORKER: tuple[str, dict[str, Any], dict[str, Any]] = (
    "projection_workers",
    {"worker": "w", "fingerprints": ["f"], "seen_at": T0},
    {},
)

# What every table of versions refuses, whatever it holds. A new one is added here, and what is its own to BREAKS.
HISTORIES = {
    "positions": (position, "position_id", "POS-", "quantity"),
    "account_balance": (balance, "balance_id", "BAL-", "cash"),
    "edges": (rules_of_signals.edge, "edge_id", "EDGE-", "market_price"),
    "game_states": (rules_of_signals.game, "game_state_id", "GS-", "home_score"),
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


BREAKS: dict[str, list[Rows]] = {
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
    "projection_checkpoints_check": [[checkpoint(stream_from=UUID(int=10))]],
    "projection_checkpoints_generation_id_fkey": [[checkpoint(generation_id=999_999)]],
    "projection_checkpoints_pkey": [[checkpoint(), checkpoint()]],
    "projection_checkpoints_position_check": [[checkpoint(position=-1)]],
    "projection_checkpoints_shard_check": [[checkpoint(shard=-1)]],
    "projection_generations_fingerprint_check": [[generation(fingerprint="")]],
    "projection_generations_mode_check": [[generation(mode="both")]],
    "projection_generations_one_active": [[generation(), generation(schema_name="b")]],
    "projection_generations_one_building": [
        [generation(state="building"), generation(state="building", schema_name="b")],
    ],
    "projection_generations_one_table": [[generation(state="retired"), generation(state="building")]],
    "projection_generations_state_check": [[generation(state="shadow")]],
    "projection_workers_pkey": [[WORKER, WORKER]],
    **rules_of_signals.BREAKS,
}
ALSO_BROKEN = {f"{table}_one_row_a_version": {f"{table}_pkey", f"{table}_business_key"} for table in HISTORIES}
GENERATED_KEYS = {"projection_generations_pkey"}
"""Primary keys that are GENERATED ALWAYS: nobody can choose one, so nobody can repeat one."""

>>>>>>> signals
RULES = """
SELECT c.conname FROM pg_constraint AS c WHERE c.connamespace = 'ledger'::regnamespace AND c.contype <> 'n'
 UNION
SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE i.indisunique AND c.relnamespace = 'ledger'::regnamespace
"""
REQUIRED = """
SELECT a.attname FROM pg_attribute AS a
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND a.attnotnull AND NOT a.atthasdef AND NOT a.attisdropped
"""


@pytest.fixture(scope="module")
def owner(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner to a database that every test leaves as it was."""
    with closing(connect(shared_database, Settings(), as_app=False)) as connection:
        yield connection


@pytest.fixture
def undone(owner: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner in a transaction that is rolled back."""
    with owner.transaction(force_rollback=True):
        yield owner


def insert(connection: psycopg.Connection[Any], table: str, fields: Mapping[str, Any]) -> None:
    statement = SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Identifier(table),
        SQL(", ").join(map(Identifier, fields)),
        SQL(", ").join(map(Placeholder, fields)),
    )
    connection.execute(statement, dict(fields))


def insert_all(connection: psycopg.Connection[Any], rows: Rows) -> None:
    for table, fields, changes in rows:
        insert(connection, table, {**fields, **changes})


def test_every_rule_of_the_schema_has_a_try(owner: psycopg.Connection[Any]) -> None:
    rules = {row[0] for row in owner.execute(RULES)}
    rules = {rule for rule in rules if not rule.startswith("schema_migration")}  # the bookkeeping has tests of its own
    assert rules - GENERATED_KEYS == set(BREAKS)


@pytest.mark.parametrize(
    "rows",
    [
        [event()],
        [(*KEY, {})],
        [(*SNAPSHOT, {})],
<<<<<<< HEAD
        [generation()],
        [checkpoint()],
        [WORKER],
        *[[row()] for row, *_ in HISTORIES.values()],
        *[[reference(table)] for table in REFERENCE_KEYS],
=======
        [position()],
        [balance()],
        [generation()],
        [checkpoint()],
        [WORKER],
        *([row] for row in rules_of_signals.FIRST),
>>>>>>> signals
    ],
    ids=lambda rows: rows[0][0],
)
def test_the_rows_that_the_tries_start_from_are_accepted(undone: psycopg.Connection[Any], rows: Rows) -> None:
    insert_all(undone, rows)


@pytest.mark.parametrize("table", HISTORIES)
def test_two_versions_that_follow_each_other_are_accepted(undone: psycopg.Connection[Any], table: str) -> None:
    row, *_ = HISTORIES[table]
    insert_all(undone, [row(**EXPIRED), row(**SECOND)])


def test_every_projected_table_is_tried_as_one_of_versions(owner: psycopg.Connection[Any]) -> None:
    projected = {row[0] for row in owner.execute("SELECT DISTINCT g.projection FROM projection_generations AS g")}
    assert projected == set(HISTORIES)


@pytest.mark.parametrize(
    "other",
    [{"account_id": "other"}, {"currency": "EUR"}, {"execution_environment": "live"}],
    ids=lambda other: next(iter(other)),
)
def test_each_account_currency_and_environment_has_a_balance_of_its_own(
    undone: psycopg.Connection[Any], other: dict[str, str]
) -> None:
    insert_all(undone, [balance(), balance(id=2, balance_id="BAL-2", **other)])


@pytest.mark.parametrize(
    ("rule", "rows"),
    [pytest.param(rule, rows, id=f"{rule}-{n}") for rule, tries in BREAKS.items() for n, rows in enumerate(tries)],
)
def test_the_rule_holds_even_for_the_owner(undone: psycopg.Connection[Any], rule: str, rows: Rows) -> None:
    insert_all(undone, rows[:-1])
    with pytest.raises(errors.IntegrityError) as refused:
        insert_all(undone, rows[-1:])
    assert refused.value.diag.constraint_name in {rule, *ALSO_BROKEN.get(rule, ())}


@pytest.mark.parametrize(
    "base",
<<<<<<< HEAD
    [event(), generation(), checkpoint(), *[row() for row, *_ in HISTORIES.values()]],
=======
    [event(), position(), balance(), generation(), checkpoint(), *rules_of_signals.WITHOUT_DEFAULTS],
>>>>>>> signals
    ids=lambda base: base[0],
)
def test_no_required_column_can_be_null(
    owner: psycopg.Connection[Any], base: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    table, fields, _ = base
    required = [row[0] for row in owner.execute(REQUIRED, (table,)) if row[0] in fields]
    assert required
    for column in required:
        with owner.transaction(force_rollback=True), pytest.raises(errors.IntegrityError) as refused:
            insert(owner, table, {**fields, column: None})
        assert column in str(refused.value)


HISTORY_CHANGES = {
    "a figure of an old version": "UPDATE {table} SET {figure} = 1 WHERE id = 1",
    "the end of an old version": "UPDATE {table} SET row_expiration_date = row_expiration_date + interval '1 s' "
    "WHERE id = 1",
    "an old version becomes current": "UPDATE {table} SET row_current_ind = true, row_expiration_date = NULL "
    "WHERE id = 1",
    "a figure of the current version": "UPDATE {table} SET {figure} = 1 WHERE id = 2",
    "the surrogate of the version that expires": "UPDATE {table} SET id = 3, row_current_ind = false, "
    "row_expiration_date = now() WHERE id = 2",
    "the key of the version that expires": "UPDATE {table} SET {key} = '{prefix}9', row_current_ind = false, "
    "row_expiration_date = now() WHERE id = 2",
    "the beginning of the version that expires": "UPDATE {table} SET row_effective_date = row_effective_date - "
    "interval '1 s', row_current_ind = false, row_expiration_date = now() WHERE id = 2",
    "a delete of an old version": "DELETE FROM {table} WHERE id = 1",
    "a delete of the current version": "DELETE FROM {table} WHERE id = 2",
    "a truncate": "TRUNCATE {table}",
}


@pytest.mark.parametrize("statement", HISTORY_CHANGES.values(), ids=HISTORY_CHANGES.keys())
@pytest.mark.parametrize("table", HISTORIES)
def test_history_refuses_even_its_owner(undone: psycopg.Connection[Any], table: str, statement: str) -> None:
    row, key, prefix, figure = HISTORIES[table]
    insert_all(undone, [row(**EXPIRED), row(**SECOND)])
    with pytest.raises(errors.InsufficientPrivilege, match="history rows never change"):
        undone.execute(statement.format(table=table, key=key, prefix=prefix, figure=figure).encode())


@pytest.mark.parametrize("table", HISTORIES)
def test_the_current_version_expires_once(undone: psycopg.Connection[Any], table: str) -> None:
    row, *_ = HISTORIES[table]
    insert_all(undone, [row()])
    expire = SQL("UPDATE {} SET row_current_ind = false, row_expiration_date = %s WHERE id = 1").format(
        Identifier(table)
    )
    undone.execute(expire, (T0 + HOUR,))
    with pytest.raises(errors.InsufficientPrivilege, match="history rows never change"):
        undone.execute(expire, (T0 + 2 * HOUR,))


@pytest.mark.parametrize("column", ["position", "token"])
def test_a_checkpoint_never_steps_back(undone: psycopg.Connection[Any], column: str) -> None:
    number = Identifier(column)
    undone.execute(SQL("UPDATE projection_checkpoints SET {} = 7").format(number))
    undone.execute(SQL("UPDATE projection_checkpoints SET {0} = {0}").format(number))
    with pytest.raises(errors.IntegrityError, match="never moves back"):
        undone.execute(SQL("UPDATE projection_checkpoints SET {} = 6").format(number))


def test_the_feed_has_a_namespace_of_its_own_in_each_schema(owner: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.UniqueViolation):
        owner.execute("INSERT INTO position_ledger_shared.feed_namespaces (schema_name) VALUES ('ledger')")
    with pytest.raises(errors.GeneratedAlways):
        owner.execute("INSERT INTO position_ledger_shared.feed_namespaces VALUES (1, 'other')")
    mine = owner.execute("SELECT namespace FROM feed").fetchone()
    assert mine == owner.execute("SELECT namespace FROM position_ledger_shared.feed_namespaces").fetchone()
