"""Foreign keys of other tables that reference a projected one: proven before a swap, validated after it.

A swap puts them back without looking at the rows, so that it is short; that they must be looked at is written down in
its transaction, so that a process that is killed before the validation leaves the note behind. The same is done for foreign
keys and checks that a rollback gives back to a retired table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from position_ledger.errors import VerificationFailed
from position_ledger.migration.attached import IncomingForeignKey

COLUMNS_OF = """
SELECT (SELECT array_agg(a.attname::text ORDER BY w.place) FROM unnest(k.conkey) WITH ORDINALITY AS w (number, place)
          JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = w.number),
       (SELECT array_agg(a.attname::text ORDER BY w.place) FROM unnest(k.confkey) WITH ORDINALITY AS w (number, place)
          JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = w.number)
  FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE k.contype IN ('c', 'f') AND n.nspname = %s AND c.relname = %s AND k.conname = %s
"""
PENDING = """
SELECT g.generation_id, g.unvalidated FROM projection_generations AS g
 WHERE g.projection = %s AND g.unvalidated <> '[]' ORDER BY g.generation_id
"""
NOTE = "UPDATE projection_generations SET unvalidated = unvalidated || %s WHERE generation_id = %s"
DONE = "UPDATE projection_generations SET unvalidated = '[]' WHERE generation_id = %s"


def require_kept(
    connection: psycopg.Connection[Any],
    foreign_keys: Iterable[IncomingForeignKey],
    table: str,
    live: str,
    shadow: str,
    upto: int,
) -> None:
    """Refuse a shadow that lacks a row which a foreign key holds and the live table has up to a number.

    Raises:
        VerificationFailed: names the foreign key and the first row.
    """
    for key in foreign_keys:
        found = connection.execute(COLUMNS_OF, (key.schema, key.table, key.name)).fetchone()
        if found is None or not key.validated:
            continue
        missing = connection.execute(_missing(key, found[0], found[1], table, live, shadow), (upto,)).fetchone()
        if missing is not None:
            msg = (
                f"foreign key {key.name} of {key.schema}.{key.table} holds row {missing[0]} of {table}, which the rebuilt "
                "table does not have: change those rows first; the live table is unchanged"
            )
            raise VerificationFailed(msg)


def _missing(
    key: IncomingForeignKey, own: Sequence[str], referenced: Sequence[str], table: str, live: str, shadow: str
) -> Composed:
    def equal(left: str, left_columns: Sequence[str]) -> Composed:
        pairs = zip(left_columns, referenced, strict=True)
        return SQL(" AND ").join(SQL("{} = {}").format(Identifier(left, a), Identifier("l", b)) for a, b in pairs)

    return SQL(
        "SELECT l.id FROM {child} AS c JOIN {live} AS l ON {held} "
        "WHERE l.id <= %s AND NOT EXISTS (SELECT FROM {shadow} AS s WHERE {kept}) LIMIT 1"
    ).format(
        child=Identifier(key.schema, key.table),
        live=Identifier(live, table),
        shadow=Identifier(shadow, table),
        held=equal("c", own),
        kept=equal("s", referenced),
    )


def note(cursor: psycopg.Cursor[Any], generation_id: int, foreign_keys: Iterable[IncomingForeignKey]) -> None:
    """Write down, in the swap's transaction, which foreign keys were valid and are to be validated again."""
    note_names(cursor, generation_id, [(key.schema, key.table, key.name) for key in foreign_keys if key.validated])


def note_names(cursor: psycopg.Cursor[Any], generation_id: int, names: Sequence[tuple[str, str, str]]) -> None:
    """The same for foreign keys by schema, table and name."""
    if names:
        cursor.execute(NOTE, (Jsonb([list(name) for name in names]), generation_id))


def validate_pending(connection: psycopg.Connection[Any], table: str) -> None:
    """Validate what swaps of the table have put back, also of a process that was killed; readers and writers go on.

    Raises:
        VerificationFailed: a row of the other table holds an id that the projected one does not have.
    """
    for generation_id, pending in connection.execute(PENDING, (table,)).fetchall():
        for schema, child, name in pending:
            if connection.execute(COLUMNS_OF, (schema, child, name)).fetchone() is None:
                continue  # its owner has dropped it meanwhile
            _validate(connection, schema, child, name, table)
        connection.execute(DONE, (generation_id,))


def _validate(connection: psycopg.Connection[Any], schema: str, child: str, name: str, table: str) -> None:
    statement = SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(Identifier(schema, child), Identifier(name))
    try:
        connection.execute(statement)
    except (psycopg.errors.ForeignKeyViolation, psycopg.errors.CheckViolation) as error:
        what = "foreign key" if isinstance(error, psycopg.errors.ForeignKeyViolation) else "check"
        cause = error.diag.message_detail or error.diag.message_primary
        msg = (
            f"the swap of {table} took place, but {what} {name} of {schema}.{child} does not hold ({cause}): correct those "
            f"rows, then run ALTER TABLE … VALIDATE CONSTRAINT {name}"
        )
        raise VerificationFailed(msg) from error
