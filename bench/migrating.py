"""`migrate up` of many small migrations on an empty database, against the bare statements, one transaction each."""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median
from typing import Any

import psycopg

from bench.arena import Servers
from bench.plan import Plan
from bench.report import Line, shown
from position_ledger.migration import MigrationFile, Migrator, parse_file

MIGRATIONS = 50
UP_S_MAX = 5.0
HEADER = """\
-- Migration: {number:03}
-- Description: a small step
-- Date: 2026-01-31
-- Author: bench
-- Related: none
-- Summary: a table, or a column and an index of one
-- Rollback: see below
"""


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Seconds of both, each time in an empty database."""
    files = [_file(number) for number in range(1, MIGRATIONS + 1)]
    up_s, bare_s = [], []
    for _ in range(plan.rounds):
        with servers.database() as url:
            began = time.perf_counter()
            done = Migrator(url, files).up()
            up_s.append(time.perf_counter() - began)
        if len(done.files) != MIGRATIONS:
            msg = f"{len(done.files)} of {MIGRATIONS} migrations were applied"
            raise RuntimeError(msg)
        with servers.database() as url:
            began = time.perf_counter()
            _run_bare(url, files)
            bare_s.append(time.perf_counter() - began)
    words = f"the bare statements, one transaction for each migration: {shown(median(bare_s), 's')}"
    line = Line(f"migrate up, {MIGRATIONS} small migrations", up_s, words, "at most", UP_S_MAX, "s")
    return [line], {"up_s": up_s, "bare_s": bare_s}


def _file(number: int) -> MigrationFile:
    """Every fifth makes a table, the four after it add to that table: what migrations are mostly like."""
    table = f"bench_{(number - 1) // 5}"
    if number % 5 == 1:
        forward = f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text NOT NULL);"
        verify, rollback = f"SELECT to_regclass('{table}') IS NOT NULL;", f"DROP TABLE {table};"
    else:
        column = f"added_{number}"
        forward = (
            f"ALTER TABLE {table} ADD COLUMN {column} numeric(38,18);\n"
            f"COMMENT ON COLUMN {table}.{column} IS 'Something.';\nCREATE INDEX {table}_{column} ON {table} ({column});"
        )
        verify = f"-- expect: no rows\nSELECT {column} FROM {table};"
        rollback = f"ALTER TABLE {table} DROP COLUMN {column};"
    text = f"{HEADER.format(number=number)}\n-- forward\n{forward}\n-- verify\n{verify}\n-- rollback\n{rollback}\n"
    return parse_file(f"{number:03}_small_step.sql", text.encode())


def _run_bare(url: str, files: list[MigrationFile]) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for file in files:
            with connection.transaction():
                for statement in file.forward.statements:
                    connection.execute(statement.text.encode())
