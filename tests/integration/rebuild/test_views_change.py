"""A migration that changes the type of a projected column, and the views that show it, with history in the table."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from position_ledger import operations
from tests.support import engine
from tests.support.rebuilding import execute, last_number, shipped_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from position_ledger import Ledger
    from position_ledger.settings import Settings

BOUNDED = """-- Migration: {number:03}
-- Description: reasons are bounded
-- Date: 2026-11-22
-- Author: test
-- Related: none
-- Summary: text to varchar keeps CHECKs, comments and indexes; a view is replaced, one goes, one is new.
-- Rollback: The column is text again.

-- forward

DROP VIEW open_positions;
DROP VIEW current_positions;
ALTER TABLE positions ALTER COLUMN exit_reason TYPE varchar(500);
CREATE VIEW current_positions AS SELECT p.id, p.position_id, p.version, p.quantity FROM positions AS p WHERE p.row_current_ind;
COMMENT ON VIEW current_positions IS 'Fewer columns.';
GRANT SELECT ON current_positions TO position_ledger_reader;
CREATE VIEW many_versions AS SELECT c.position_id, c.version FROM current_positions AS c WHERE c.version > 3;
GRANT SELECT ON many_versions TO position_ledger_reader;

-- verify

SELECT format_type(atttypid, atttypmod) = 'character varying(500)' FROM pg_attribute
 WHERE attrelid = to_regclass(current_schema() || '.positions') AND attname = 'exit_reason';

-- rollback

DROP VIEW many_versions;
DROP VIEW current_positions;
ALTER TABLE positions ALTER COLUMN exit_reason TYPE text;
CREATE VIEW current_positions AS SELECT p.id FROM positions AS p;
CREATE VIEW open_positions AS SELECT p.id FROM positions AS p;
"""


@pytest.fixture
def bounded(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    folder, number = shipped_migrations(settings, tmp_path), last_number(settings) + 1
    (folder / f"{number:03}_bounded.sql").write_text(BOUNDED.format(number=number))
    yield settings.model_copy(update={"migrations": str(folder)})
    shutil.rmtree(folder)


def columns(settings: Settings, relation: str) -> list[str]:
    with engine.connected(settings) as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
                (f"ledger.{relation}",),
            )
        ]


def test_a_type_and_its_views_change_together_and_come_back(
    settings: Settings, bounded: Settings, ledger: Ledger
) -> None:
    """S3: another type, with CHECKs and views, is one command; the rollback has the rows and views of before.

    A reader of ours that has prepared its statements goes on over both swaps, though PostgreSQL refuses a prepared
    statement whose result has another type now (0A000).
    """
    traffic = engine.Traffic(ledger, 5)
    traffic.run(60)
    engine.project_all(settings)
    versions = {position: [ledger.history(position) for _ in range(8)][-1] for position in traffic.open[:1]}
    assert versions
    before = engine.positions_rows(settings)
    views = columns(settings, "current_positions"), columns(settings, "open_positions")

    outcome = operations.migrate_up(bounded, engine.reached(bounded), None, engine.quiet)

    assert {position: ledger.history(position) for position in versions} == versions
    assert [file.number for file in outcome.files] == [last_number(bounded)]
    assert engine.positions_rows(settings) == before
    assert columns(settings, "current_positions") == ["id", "position_id", "version", "quantity"]
    assert columns(settings, "many_versions") == ["position_id", "version"]
    assert columns(settings, "open_positions") == []
    with pytest.raises(Exception, match="positions_version_counts_from_1"):
        execute(settings, "INSERT INTO positions SELECT (p).* FROM (SELECT jsonb_populate_record(NULL::positions,"
                " to_jsonb(q) || '{\"version\": 0, \"id\": 999999}') AS p FROM positions AS q LIMIT 1) AS r")  # fmt: skip
    engine.proven(settings)

    operations.migrate_down(bounded, engine.reached(bounded), last_number(bounded), engine.quiet)

    assert {position: ledger.history(position) for position in versions} == versions
    assert (columns(settings, "current_positions"), columns(settings, "open_positions")) == views
    assert columns(settings, "many_versions") == []
    assert engine.positions_rows(settings) == before
    engine.proven(settings)
