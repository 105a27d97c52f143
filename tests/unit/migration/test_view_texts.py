"""Which views hang on a column, and what was said of them, as the texts of migrations have it."""

from __future__ import annotations

from position_ledger.migration.view_texts import views_on
from tests.support.migration_files import migration

FILES = [
    migration(1, "CREATE TABLE a (x integer, y integer); CREATE TABLE b (x integer);"),
    migration(
        2,
        "CREATE VIEW gone AS SELECT x FROM a; CREATE VIEW shows AS SELECT x FROM ledger.a;\n"
        "CREATE VIEW other AS SELECT y FROM a; CREATE VIEW of_b AS SELECT x FROM b;\n"
        "COMMENT ON VIEW shows IS 'before'; GRANT SELECT ON shows, other TO PUBLIC;",
    ),
    migration(3, "DROP VIEW IF EXISTS gone; CREATE VIEW ledger.above AS SELECT count(*) FROM shows;"),
    migration(4, "CREATE OR REPLACE VIEW shows AS SELECT x, y FROM a; COMMENT ON COLUMN shows.y IS 'new';"),
    migration(5, "CREATE VIEW again AS SELECT x FROM a; DROP VIEW again; CREATE VIEW again AS SELECT y FROM a;"),
]


def test_what_shows_a_column_and_what_reads_that_is_found_with_all_that_was_said_of_it() -> None:
    assert views_on(FILES, "a", "x") == (
        (
            "shows",
            (
                "CREATE OR REPLACE VIEW shows AS SELECT x, y FROM a",
                "COMMENT ON VIEW shows IS 'before'",
                "GRANT SELECT ON shows, other TO PUBLIC",
                "COMMENT ON COLUMN shows.y IS 'new'",
            ),
        ),
        ("above", ("CREATE VIEW ledger.above AS SELECT count(*) FROM shows",)),
    )


def test_a_column_that_no_view_shows_needs_none() -> None:
    assert views_on(FILES, "b", "y") == ()
    assert [view.name for view in views_on(FILES, "a", "y")] == ["shows", "other", "above", "again"]
