"""Which statements may have written rows, which no comparison of catalogues can prove."""

from __future__ import annotations

import pytest

from position_ledger.migration.row_statements import row_statements
from tests.support.migration_files import migration


@pytest.mark.parametrize(
    ("statement", "is_found"),
    [
        ("INSERT INTO t VALUES (1)", True),
        ("DELETE FROM t", True),
        ("TRUNCATE t", True),
        ("DO $$ BEGIN DELETE FROM t; END $$", True),
        ("CALL fill()", True),
        ("SELECT setval('s', 7)", True),
        ('SELECT "Fill" (7)', True),
        ("WITH gone AS (DELETE FROM t RETURNING x) SELECT x FROM gone", True),
        ("SELECT x INTO u FROM t", True),
        ("CREATE TABLE u AS SELECT x FROM t", True),
        ("CREATE TEMPORARY TABLE u AS VALUES (1)", True),
        ("REFRESH MATERIALIZED VIEW v", True),
        ("SELECT 1", False),
        ("SELECT x FROM t WHERE x IN (1, 2)", False),
        ("CREATE TABLE u (x int)", False),
        ("CREATE VIEW v AS SELECT x FROM t", False),
        ("ALTER TABLE t ADD COLUMN y int", False),
        ("COMMENT ON TABLE t IS 'INSERT INTO t'", False),
        ("GRANT INSERT ON t TO PUBLIC", False),
    ],
)
def test_what_may_write_rows_is_found(statement: str, *, is_found: bool) -> None:
    assert bool(row_statements(migration(1, f"{statement};").forward)) is is_found
