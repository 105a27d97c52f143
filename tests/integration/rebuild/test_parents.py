"""What a projected table uses (a parent, a function, a type), which comes and goes by migrations one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import operations
from position_ledger.errors import MigrationError, SwapBlocked
from position_ledger.operations import RebuildOptions
from tests.support import engine
from tests.support.engine import Traffic
from tests.support.migration_files import migration_text
from tests.support.rebuilding import execute, last_number, left_over, shipped_migrations

if TYPE_CHECKING:
    from position_ledger import Ledger
    from position_ledger.settings import Settings
    from position_ledger.setup import Reached

PARENT = "CREATE TABLE sides (side text PRIMARY KEY); INSERT INTO sides VALUES ('YES'), ('NO'), ('LONG'), ('SHORT');"
KEY = "ALTER TABLE positions ADD CONSTRAINT positions_of_side FOREIGN KEY (side) REFERENCES sides (side);"
NO_KEY = "ALTER TABLE positions DROP CONSTRAINT positions_of_side;"
KEYS = """
SELECT c.relnamespace::regnamespace::text, k.convalidated FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
 WHERE k.conname = 'positions_of_side' ORDER BY 1
"""


FINE = """CREATE FUNCTION fine(t text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN t IS NULL OR t <> 'x';
COMMENT ON FUNCTION fine(text) IS 'Whether a reason is one';"""
NO_FINE = "DROP FUNCTION fine(text);"
CHECK = "ALTER TABLE positions ADD CONSTRAINT is_fine CHECK (fine(exit_reason));"
NO_CHECK = "ALTER TABLE positions DROP CONSTRAINT is_fine;"
INDEX = "CREATE INDEX positions_fine ON positions (fine(exit_reason));"
NO_INDEX = "DROP INDEX positions_fine;"
LATER = "ALTER TABLE positions ADD CONSTRAINT has_side CHECK (side <> '');"
NO_LATER = "ALTER TABLE positions DROP CONSTRAINT has_side;"
ASIDE = "CREATE TABLE aside (a integer); COMMENT ON TABLE aside IS 'x'; COMMENT ON COLUMN aside.a IS 'x';"


def keys(settings: Settings) -> list[tuple[Any, ...]]:
    with engine.connected(settings, as_app=False) as owner:
        return owner.execute(KEYS).fetchall()


def written(settings: Settings, folder: Path, steps: list[tuple[str, str]]) -> tuple[tuple[Settings, Reached], int]:
    """A folder with a migration more for each step (forward and back), and the number of the first of them."""
    target, first = shipped_migrations(settings, folder), last_number(settings) + 1
    for number, (forward, rollback) in enumerate(steps, first):
        text = migration_text(number, forward, rollback=rollback, transactional="CONCURRENTLY" not in forward)
        (target / f"{number:03}_step.sql").write_text(text)
    return (settings.model_copy(update={"migrations": str(target)}), engine.reached(settings)), first


def codes(where: tuple[Settings, Reached]) -> list[tuple[str, str]]:
    """The errors of a plan: code and file."""
    return [(one.code, one.file) for one in operations.migrate_plan(*where).findings if one.severity == "error"]


@pytest.mark.uncounted
def test_a_parent_goes_after_the_key_and_both_come_back(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    Traffic(ledger, 8).run(15)
    steps = [(PARENT, "DROP TABLE sides;"), (KEY, NO_KEY), (NO_KEY, KEY), ("DROP TABLE sides;", PARENT)]
    where, first = written(settings, tmp_path, steps)
    # Given a projected table that refers to a parent
    operations.migrate_up(*where, first + 1, engine.quiet)
    assert keys(settings) == [("ledger", True)]
    # When the key goes by one migration and the parent by the next, then no retired table holds the parent
    operations.migrate_up(*where, None, engine.quiet)
    assert keys(settings) == []
    # When both are rolled back, then the key is there again and holds for every row
    operations.migrate_down(*where, first + 2, engine.quiet)
    assert keys(settings) == [("ledger", True)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        execute(settings, "DELETE FROM sides")
    assert left_over(settings) == []
    engine.proven(settings)


@pytest.mark.uncounted
def test_a_function_goes_after_the_check_that_called_it_and_both_come_back(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    Traffic(ledger, 8).run(15)
    steps = [(FINE, NO_FINE), (CHECK, NO_CHECK), (NO_CHECK, CHECK), (NO_FINE, FINE), (ASIDE, "DROP TABLE aside;")]
    where, first = written(settings, tmp_path, steps)
    # Given a projected table whose check calls a function
    operations.migrate_up(*where, first + 1, engine.quiet)
    # When the check goes by one migration and the function by the next, then no retired table holds the function
    assert codes(where) == []
    operations.migrate_up(*where, None, engine.quiet)
    # When both are rolled back, then the check is there again, valid, and the schema is that of before
    operations.migrate_down(*where, first + 2, engine.quiet)
    assert operations.migrate_verify(*where) == []
    with engine.connected(settings, as_app=False) as owner:
        assert owner.execute("SELECT convalidated FROM pg_constraint WHERE conname = 'is_fine'").fetchall() == [(True,)]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        execute(settings, NO_FINE)
    engine.proven(settings)


def test_a_function_that_only_the_retired_table_uses_is_refused_by_the_plan_until_that_is_dropped(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    Traffic(ledger, 8).run(15)
    steps = [(FINE, NO_FINE), (INDEX, NO_INDEX), (LATER, NO_LATER), (NO_INDEX, INDEX), (NO_FINE, FINE)]
    where, first = written(settings, tmp_path, steps)
    dropping = f"{first + 4:03}_step.sql"
    operations.migrate_up(*where, first + 1, engine.quiet)
    # When a table is to retire with an index that calls a function, which goes afterwards, then the plan says so
    assert codes(where) == [("held-by-retired", dropping)]
    # And up applies what is before it and stops there; the plan of the rest sees the table that is kept
    with pytest.raises(MigrationError, match="--drop-retired"):
        operations.migrate_up(*where, None, engine.quiet)
    assert codes(where) == [("held-by-retired", dropping)]
    # When that is given up, then the function goes
    dropped = operations.drop_retired(*where, "positions")
    assert dropped is not None
    assert dropped.state == "retired"
    assert operations.drop_retired(*where, "positions") is None
    assert codes(where) == []
    operations.migrate_up(*where, None, engine.quiet)
    assert left_over(settings) == []
    engine.proven(settings)


@pytest.mark.uncounted
def test_what_the_live_table_uses_until_the_swap_is_refused_by_the_plan(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    Traffic(ledger, 8).run(15)
    steps = [(FINE, NO_FINE), (CHECK, NO_CHECK), (NO_CHECK, CHECK), (NO_FINE, FINE), (LATER, NO_LATER)]
    where, first = written(settings, tmp_path, steps)
    operations.migrate_up(*where, first + 1, engine.quiet)
    # When a function goes between a file that lets go of it and another one of the same table, then the plan says so
    assert codes(where) == [("held-until-swap", f"{first + 3:03}_step.sql")]
    # And up undoes the change set
    with pytest.raises(MigrationError, match="other objects depend on it"):
        operations.migrate_up(*where, None, engine.quiet)
    assert [row.number for row in operations.migration_status(*where).pending] == [first + 2, first + 3, first + 4]
    # When it is brought about on its own, as the plan says, then all of it is
    operations.migrate_up(*where, first + 3, engine.quiet)
    operations.migrate_up(*where, None, engine.quiet)
    assert operations.migrate_verify(*where) == []
    engine.proven(settings)


@pytest.mark.uncounted
def test_two_rebuilds_of_a_table_in_one_run(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    Traffic(ledger, 8).run(15)
    alone = ("CREATE INDEX CONCURRENTLY aside_a ON aside (a);", "DROP INDEX CONCURRENTLY aside_a;")
    steps = [(ASIDE, "DROP TABLE aside;"), (CHECK, NO_CHECK), (NO_CHECK, CHECK), alone, (LATER, NO_LATER)]
    where, first = written(settings, tmp_path, [(FINE, NO_FINE), *steps])
    operations.migrate_up(*where, first + 2, engine.quiet)
    # Given what is applied on its own between them, and a constraint that the first takes away: the second never saw it
    told = operations.migrate_up(*where, None, engine.quiet).messages
    assert [line[-12:] for line in told if line.startswith("rebuilding")] == [
        f"{first + n:03}_step.sql" for n in (3, 5)
    ]
    assert operations.migrate_verify(*where) == []
    engine.proven(settings)


@pytest.mark.parametrize("options", [RebuildOptions(dry_run=True), RebuildOptions(swap=False)], ids=["dry", "no swap"])
def test_a_trial_says_at_once_that_it_runs_no_migration(
    settings: Settings, ledger: Ledger, tmp_path: Path, options: RebuildOptions
) -> None:
    Traffic(ledger, 8).run(5)
    where, first = written(settings, tmp_path, [(PARENT, "DROP TABLE sides;"), (KEY, NO_KEY)])
    # When the change of the table needs a parent that a file before it makes, then nothing is built in vain
    with pytest.raises(MigrationError, match=f"position-ledger migrate up {first:03}"):
        operations.rebuild(*where, "positions", options=options, tell=engine.quiet)
    assert left_over(settings) == []
    # When the parent is there, then the trial is one
    operations.migrate_up(*where, first, engine.quiet)
    assert not operations.rebuild(*where, "positions", options=options, tell=engine.quiet).swapped


def test_what_cannot_be_swapped_is_named_by_the_plan(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    Traffic(ledger, 8).run(5)
    view = "CREATE MATERIALIZED VIEW sides AS SELECT side FROM positions; COMMENT ON MATERIALIZED VIEW sides IS 'x';"
    where, first = written(settings, tmp_path, [(view, "DROP MATERIALIZED VIEW sides;"), (LATER, NO_LATER)])
    swap = f"{first + 1:03}_step.sql"
    # When it comes with a file before the rebuild, and when it is there already
    assert codes(where) == [("swap-blocked", swap)]
    operations.migrate_up(*where, first, engine.quiet)
    assert codes(where) == [("swap-blocked", swap)]
    with pytest.raises(SwapBlocked, match="materialized view ledger.sides"):
        operations.migrate_up(*where, None, engine.quiet)


@pytest.mark.uncounted
def test_a_function_that_a_check_calls_is_not_changed_behind_the_rows(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    Traffic(ledger, 8).run(5)
    again = FINE.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    other = again.replace("'x'", "'take_profit'")
    where, first = written(settings, tmp_path, [(FINE, NO_FINE), (CHECK, NO_CHECK), (other, again)])
    # When the check comes with the function as it is then, all rows are looked at
    assert "function-in-use" not in dict(codes(where))
    operations.migrate_up(*where, first + 1, engine.quiet)
    # When it becomes another afterwards, then none is
    found = [one for one in operations.migrate_plan(*where).findings if one.severity == "error"]
    assert {(one.code, one.file, one.line > 0) for one in found} >= {
        ("function-in-use", f"{first + 2:03}_step.sql", True)
    }


@pytest.mark.uncounted
def test_a_plan_of_what_reads_a_projected_table_meets_its_rows(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    Traffic(ledger, 8).run(15)
    engine.project_all(settings)
    parent = (
        "CREATE TABLE sides (side text PRIMARY KEY); INSERT INTO sides SELECT DISTINCT side FROM positions;"
        " COMMENT ON TABLE sides IS 'x'; COMMENT ON COLUMN sides.side IS 'x';"
    )
    doubled = ASIDE + " INSERT INTO aside SELECT 1 FROM positions; ALTER TABLE aside ADD UNIQUE (a);"
    where, first = written(settings, tmp_path, [(parent, "DROP TABLE sides;"), (KEY, NO_KEY)])
    filled = Path(where[0].migrations) / f"{first:03}_step.sql"
    filled.write_text(migration_text(first, parent, "SELECT count(*) > 0 FROM sides;", "DROP TABLE sides;"))
    # When the parents are filled from the rows, then their verification and the key hold in the plan too
    assert codes(where) == []
    # When the rows do not fit what a plain file makes of them, then the plan says so
    filled.write_text(migration_text(first, doubled, rollback="DROP TABLE aside;"))
    assert [code for code, _ in codes(where)] == ["unique-violation"]
