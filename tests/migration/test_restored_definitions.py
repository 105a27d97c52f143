"""What was dumped and restored is the same schema, though the server has parsed every definition another time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from position_ledger.migration import diff, read_catalogue

if TYPE_CHECKING:
    import psycopg

BEFORE = """
CREATE SCHEMA before;
SET search_path = before;
CREATE DOMAIN share AS numeric CONSTRAINT share_range CHECK (value BETWEEN 0 AND 1 AND value IS NOT NULL);
CREATE TABLE t (
    a integer DEFAULT (1 + 2) * 3,
    b integer,
    CONSTRAINT both_ranges CHECK (a BETWEEN 0 AND 1 AND b BETWEEN 0 AND 1),
    CONSTRAINT either CHECK ((a BETWEEN 0 AND 1 AND b = 2) OR (NOT (a = 1 OR b = 2) AND (a + b) * 2 = a - (b - 1)))
);
CREATE INDEX partly ON t (a) WHERE a BETWEEN 0 AND 1 AND b > 3;
CREATE VIEW v AS SELECT a, (a - (b - 1)) * 2 AS c FROM t WHERE a BETWEEN 0 AND 1 AND b BETWEEN 0 AND 1 AND (a > 0 OR b > 0);
"""
PARTS = """
SELECT 'CREATE DOMAIN share AS numeric CONSTRAINT share_range ' || pg_get_constraintdef(k.oid)
  FROM pg_constraint AS k WHERE k.conname = 'share_range'
UNION ALL
SELECT 'CREATE TABLE t (a integer DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) || ', b integer)' FROM pg_attrdef AS d
 WHERE d.adrelid = 'before.t'::regclass
UNION ALL
SELECT 'ALTER TABLE t ADD CONSTRAINT ' || k.conname || ' ' || pg_get_constraintdef(k.oid) FROM pg_constraint AS k
 WHERE k.conrelid = 'before.t'::regclass
UNION ALL
SELECT replace(pg_get_indexdef('before.partly'::regclass), 'before.', '')
UNION ALL
SELECT 'CREATE VIEW v AS ' || pg_get_viewdef('before.v'::regclass)
"""
"""What pg_dump writes: the plain form of every definition."""


def test_a_restored_schema_compares_equal(connection: psycopg.Connection) -> None:
    connection.execute(BEFORE.encode())
    connection.execute("CREATE SCHEMA after")
    written = [text for (text,) in connection.execute(PARTS.encode()).fetchall()]
    assert len(written) == 6
    connection.execute("SET search_path = after")
    for text in written:
        connection.execute(text.encode())

    before, after = (read_catalogue(connection, schema) for schema in ("before", "after"))

    assert diff(before, after) == []
    plain = "SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k WHERE k.conname = 'both_ranges'"
    texts = [text for (text,) in connection.execute(sql.SQL(plain)).fetchall()]
    assert len(set(texts)) == 2  # the server's plain words do differ


def test_another_meaning_is_another_definition(connection: psycopg.Connection) -> None:
    """Given the same words with other parentheses, when compared, then they differ."""
    for schema, check in (("one", "(a = 1 OR a = 2) AND b = 3"), ("two", "a = 1 OR (a = 2 AND b = 3)")):
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (a int, b int, CHECK ({check}))".encode())

    assert len(diff(read_catalogue(connection, "one"), read_catalogue(connection, "two"))) == 1
