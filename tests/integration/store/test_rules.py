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
from tests.support.schema_rules import (
    ALSO_BROKEN,
    AUDIT,
    BREAKS,
    EXPIRED,
    FINDING,
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
    rebuild,
    reference,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        [(*AUDIT, {})],
        [(*FINDING, {})],
        [generation()],
        [checkpoint()],
        [WORKER],
        [rebuild()],
        *[[row()] for row, *_ in HISTORIES.values()],
        *[[reference(table)] for table in REFERENCE_KEYS],
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
    [event(), generation(), checkpoint(), *[row() for row, *_ in HISTORIES.values()]],
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
