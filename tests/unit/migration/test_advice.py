"""The safe form of what a plan finds unsafe: names come from the statement, and what is written parses."""

from __future__ import annotations

import pytest

from position_ledger.migration.advice import Case, alter_column, safe_form, target_table
from position_ledger.migration.sql_text import split_statements, tokenize

ADD = 'ALTER TABLE ONLY ledger.desks ADD COLUMN IF NOT EXISTS owner varchar(10) COLLATE "C" NOT NULL'


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        (ADD, "desks"),
        ('UPDATE "My Desks" SET a = 1', "My Desks"),
        ("DELETE FROM ledger.desks", "desks"),
        ("INSERT INTO desks VALUES (1)", "desks"),
        ("CREATE UNIQUE INDEX i ON ONLY desks (a)", "desks"),
        ("DROP TABLE IF EXISTS desks, rooms", "desks"),
        ("TRUNCATE TABLE desks", "desks"),
        ("SELECT 1", ""),
        ("CREATE TYPE mood AS ENUM ('on')", ""),
    ],
)
def test_the_table_that_a_statement_is_about(statement: str, table: str) -> None:
    assert target_table(statement) == table


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        (ADD, "owner"),
        ("ALTER TABLE desks ALTER note SET NOT NULL", "note"),
        ("ALTER TABLE desks RENAME COLUMN note TO notes", "note"),
        ("ALTER TABLE desks RENAME TO rooms", ""),
        ("ALTER TABLE desks ADD CONSTRAINT few CHECK (a < 3)", ""),
        ("ALTER TABLE desks OWNER TO somebody", ""),
        ("DROP TABLE desks", ""),
    ],
)
def test_the_column_that_a_statement_is_about(statement: str, column: str) -> None:
    assert alter_column(statement) == column


@pytest.mark.parametrize(
    ("code", "statement", "parts"),
    [
        ("not-null-violation", ADD, ["ADD COLUMN owner varchar(10);", "CHECK (owner IS NOT NULL) NOT VALID"]),
        ("not-null-violation", "ALTER TABLE desks ALTER note SET NOT NULL", ["UPDATE desks SET note", "VALIDATE"]),
        (
            "adding-foreign-key-constraint",
            "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES p (k)",
            ["ADD CONSTRAINT a_fkey FOREIGN KEY (b) REFERENCES p (k) NOT VALID;", "VALIDATE CONSTRAINT a_fkey"],
        ),
        (
            "foreign-key-violation",
            "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES p (k)",
            ["SELECT DISTINCT c.b FROM a AS c LEFT JOIN p AS p ON p.k = c.b"],
        ),
        ("foreign-key-violation", "INSERT INTO a VALUES (1)", ["FROM a AS c LEFT JOIN <parent>"]),
        (
            "type-mismatch",
            "ALTER TABLE a ALTER COLUMN b SET DATA TYPE numeric(8,2) USING b::numeric",
            ["pg_input_is_valid(b::text, 'numeric(8,2)')"],
        ),
        ("table-rewrite", "ALTER TABLE a ALTER b TYPE bigint", ["ADD COLUMN b_new bigint;", "RENAME COLUMN b_new TO b"]),
        ("unbatched-write", "UPDATE a SET b = 1", ["UPDATE a SET", "LIMIT 5000"]),
        ("require-concurrent-index-creation", "CREATE UNIQUE INDEX i ON a (b)", ["CREATE UNIQUE INDEX CONCURRENTLY i ON a (b);"]),
        ("not-in-a-transaction", "CREATE INDEX CONCURRENTLY i ON a (b)", ["-- Transactional: no", "CONCURRENTLY i ON a (b);"]),
        ("not-in-a-transaction", "VACUUM a", ["by hand"]),
        ("unique-violation", "CREATE UNIQUE INDEX i ON a (b)", ["HAVING count(*) > 1"]),
        ("check-violation", "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0)", ["VALIDATE CONSTRAINT"]),
        ("used-by-others", "ALTER TABLE a ALTER b TYPE bigint", ["DROP VIEW <view>;", "ALTER TABLE a ALTER b TYPE bigint;"]),
        ("renaming-column", "ALTER TABLE a RENAME b TO c", ["DROP COLUMN b;"]),
        ("dml-on-projected", "UPDATE a SET b = 1", ["rebuild-projection a"]),
        ("changing-default", "ALTER TABLE a ADD b numeric NOT NULL DEFAULT random()", ["ADD COLUMN b numeric;"]),
        ("drop-of-used", "DROP TABLE a", ["CREATE TABLE a_kept"]),
        ("fold-gives-null", "ALTER TABLE a ADD b numeric NOT NULL", ["ALTER COLUMN b DROP NOT NULL"]),
    ],
)  # fmt: skip
def test_the_safe_form_is_written_for_the_statement(code: str, statement: str, parts: list[str]) -> None:
    form = safe_form(code, Case(statement))
    for part in parts:
        assert part in form
    assert split_statements(form, list(tokenize(form))) is not None


def test_what_history_breaks_is_not_corrected_by_an_update() -> None:
    form = safe_form("check-violation", Case("", "positions", constraint="few", projected=True))
    assert "UPDATE" not in form
    assert "ALTER TABLE positions ADD CONSTRAINT few" in form


def test_rows_of_history_are_not_removed_for_a_key() -> None:
    """D11: rows of a projected table come from the log, and nobody can take one of two away."""
    form = safe_form("unique-violation", Case("", "positions", constraint="one", projected=True))
    assert "remove or change" not in form
    assert "the rows are what history says" in form
    assert "remove or change the duplicates" in safe_form("unique-violation", Case("", "desks"))


def test_parents_of_history_come_in_an_earlier_file() -> None:
    """D11: in the same file they would make it one that changes a projected table and other things."""
    statement = "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES p (k)"
    assert "before the constraint, in an earlier file" in safe_form(
        "foreign-key-violation", Case(statement, projected=True)
    )
    assert "before the constraint, in this file" in safe_form("foreign-key-violation", Case(statement))


def test_what_cascade_takes_along_is_dropped_by_name() -> None:
    """D11: the form names the views and is free of the CASCADE that it warns of."""
    form = safe_form("cascade-drops", Case("ALTER TABLE a DROP b\n  CASCADE", views=("late", "early")))
    assert "ALTER TABLE a DROP b;" in form
    assert form.count("CASCADE") == 1, "only in the comment"
    assert form.index("DROP VIEW late;") < form.index("DROP VIEW early;") < form.index("ALTER TABLE")
    assert form.index("CREATE VIEW early") < form.index("CREATE VIEW late")
    assert "<view>" not in form


def test_row_security_has_words_of_its_own() -> None:
    form = safe_form("not-projectable", Case("ALTER TABLE positions ENABLE ROW LEVEL SECURITY"))
    assert "ADD COLUMN" not in form
    assert "CREATE VIEW <view> WITH (security_barrier) AS SELECT <columns> FROM positions" in form


def test_a_code_that_says_it_all_has_no_form() -> None:
    assert not safe_form("syntax-error", Case("SELEC 1"))
