"""The table of a generation that is being built: bare for the load, then with its indexes, then finished, or dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.migration.catalogue import Table
from position_ledger.migration.ddl import create_table, finish_table, index_statements, shadow_path
from position_ledger.migration.introspect import read_table
from position_ledger.projection import chunk_ledger, generations, rebuilds
from position_ledger.projection.generations import Generation
from position_ledger.projection.index_building import MEMORY, build_side_by_side
from position_ledger.projection.swap import make_schema
from position_ledger.settings import Settings

LOADERS_MAY = "GRANT SELECT, INSERT ON {} TO {}"
LOADERS_MAY_NOT = "REVOKE ALL ON {} FROM {}"
CHECKS = "SELECT k.conname::text FROM pg_constraint AS k WHERE k.conrelid = %s::regclass AND k.contype = 'c'"


def make(connection: psycopg.Connection[Any], table: Table, shadow: str, live: str, upto: int, parts: int) -> None:
    """The bare table in a schema of its own, and the list of what is to be loaded. In the caller's transaction."""
    make_schema(connection, shadow)
    connection.execute(shadow_path(shadow, live))
    connection.execute(create_table(table, shadow))
    connection.execute(_no_vacuum(shadow, table.name))
    connection.execute(_for_loaders(LOADERS_MAY, shadow, table.name))
    chunk_ledger.create(connection, shadow, upto, parts)


def build_indexes(
    connection: psycopg.Connection[Any],
    url: str,
    settings: Settings,
    table: Table,
    shadow: str,
    tick: Callable[[], None],
) -> None:
    """Build what is missing of its indexes. Those that a killed rebuild has finished stay, if they are as they should be.

    Raises:
        psycopg.IntegrityError: two rows have one key.
    """
    wanted = index_statements(table)
    there = read_table(connection, shadow, table.name, beside=settings.ledger_schema).indexes
    kept = {
        name
        for name, index in there.items()
        if name in wanted and index.valid and index.definition == table.indexes[name].definition
    }
    for name in there.keys() - kept:
        connection.execute(SQL("DROP INDEX {}").format(Identifier(shadow, name)))
    missing = [statement for name, statement in wanted.items() if name not in kept]
    build_side_by_side(url, settings, missing, shadow_path(shadow, settings.ledger_schema), tick=tick)


def finish(
    connection: psycopg.Connection[Any], table: Table, shadow: str, live: str, generation_id: int, upto: int
) -> None:
    """Constraints, triggers, grants, comments and checkpoints, all or nothing: from here on followers keep it current.

    Raises:
        psycopg.IntegrityError: the rows do not keep a constraint.
    """
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute(SQL("SET LOCAL maintenance_work_mem = {}").format(MEMORY))
        connection.execute(shadow_path(shadow, live))
        connection.execute(_for_loaders(LOADERS_MAY_NOT, shadow, table.name))
        for statement in finish_table(
            table, shadow, with_indexes=False, checks=_checks(connection, shadow, table.name)
        ):
            connection.execute(statement)
        connection.execute(_no_vacuum(shadow, table.name))
        connection.execute(SQL("SET LOCAL search_path = {}").format(Identifier(live)))
        generations.create_checkpoints(connection, generation_id, upto)
        chunk_ledger.drop(connection, shadow)


def _checks(connection: psycopg.Connection[Any], schema: str, table: str) -> set[str]:
    """The checks that a loaded table has: none if an older release made it."""
    name = Identifier(schema, table).as_string(connection)
    return {row[0] for row in connection.execute(CHECKS, (name,)).fetchall()}


def drop(connection: psycopg.Connection[Any], generation: Generation) -> None:
    """Drop a generation that is not live, with its table. Nothing happens if it has become the live one."""
    if connection.closed:
        return
    with connection.transaction():
        row = connection.execute(
            "UPDATE projection_generations SET state = 'dropped' "
            "WHERE generation_id = %s AND state IN ('building', 'retired') RETURNING schema_name",
            (generation.generation_id,),
        ).fetchone()
        if row is not None:
            connection.execute(
                "DELETE FROM projection_checkpoints WHERE generation_id = %s", (generation.generation_id,)
            )
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(row[0])))
            if rebuilds.exist(connection):
                rebuilds.finish(connection, generation.generation_id, "cancelled")


def _no_vacuum(schema: str, table: str) -> Any:
    return SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(Identifier(schema, table))


def _for_loaders(statement: str, schema: str, table: str) -> Any:
    return SQL(statement).format(Identifier(schema, table), Identifier(chunk_ledger.LOADERS))
