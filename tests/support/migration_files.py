"""Write small migrations for tests."""

from __future__ import annotations

from position_ledger.migration import MigrationFile, parse_file


def migration_text(
    number: int,
    forward: str,
    verify: str = "SELECT true;",
    rollback: str = "SELECT 1;",
    *,
    transactional: bool = True,
    rollback_says: str = "see below",
) -> str:
    """The text of one complete migration."""
    optional = "" if transactional else "-- Transactional: no\n"
    return (
        f"-- Migration: {number:03}\n-- Description: a test\n-- Date: 2026-01-31\n-- Author: test\n-- Related: none\n"
        f"-- Summary: one step\n--   of a test\n-- Rollback: {rollback_says}\n{optional}\n"
        f"-- forward\n{forward}\n\n-- verify\n{verify}\n\n-- rollback\n{rollback}\n"
    )


def migration(
    number: int, forward: str, verify: str = "SELECT true;", rollback: str = "SELECT 1;", **more: object
) -> MigrationFile:
    """One parsed migration called NNN_step.sql."""
    text = migration_text(number, forward, verify, rollback, **more)  # type: ignore[arg-type]
    return parse_file(f"{number:03}_step.sql", text.encode())


T1 = migration(
    1,
    "CREATE TABLE strategies (id bigint PRIMARY KEY, name text NOT NULL);",
    "SELECT to_regclass('ledger.strategies') IS NOT NULL;",
    "DROP TABLE strategies;",
)
T2 = migration(
    2,
    "ALTER TABLE strategies ADD COLUMN note text;\nCOMMENT ON COLUMN strategies.note IS 'a note';",
    "SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = 'ledger.strategies'::regclass AND attname = 'note';",
    "ALTER TABLE strategies DROP COLUMN note;",
)
T3 = migration(
    3,
    "CREATE INDEX CONCURRENTLY strategies_name ON strategies (name);",
    "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ledger.strategies_name'::regclass;",
    "DROP INDEX CONCURRENTLY strategies_name;",
    transactional=False,
)
