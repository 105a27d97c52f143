"""What a verification declares is read exactly or refused, and a result is held against it (S18, S19)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration.expectations import Expectation, parse_expectation
from tests.support.migration_files import migration


@pytest.mark.parametrize(
    ("declared", "rows", "is_met"),
    [
        ("true", [(True,)], True),
        ("true", [("true",)], False),
        ("true", [("t",)], False),
        ("true", [(1,)], False),
        ("true", [(None,)], False),
        ("true", [(True, True)], False),
        ("true", [(True,), (True,)], False),
        ("true", [], False),
        ("no rows", [], True),
        ("no rows", [(None,)], False),
        ("3 rows", [(1,), (None,), (3,)], True),
        ("1 row", [(False, "anything")], True),
        ("3 rows", [(3,)], False),
        ("0 rows", [], True),
        ("42", [(42,)], True),
        ("42", [("42",)], True),
        ("42", [(Decimal("42.00"),)], False),
        ("42.00", [(Decimal("42.00"),)], True),
        ("1", [(True,)], False),
        ("-1", [(-1,)], True),
        ("42", [(42,), (42,)], False),
        ("42", [(None,)], False),
        ("'bigint'", [("bigint",)], True),
        ("'bigint'", [("integer",)], False),
        ("'it''s'", [("it's",)], True),
        ("''", [("",)], True),
        ("''", [(None,)], False),
        ("'true'", [(True,)], False),
        ("'true'", [("true",)], True),
    ],
)
def test_a_result_is_held_against_what_is_declared(
    declared: str, rows: list[tuple[object, ...]], *, is_met: bool
) -> None:
    assert parse_expectation(declared).is_met(rows[:3], len(rows)) is is_met


@pytest.mark.parametrize(
    "text", ["", "false", "null", "TRUE", "rows", "-3 rows", "about 3", "'open", "3 rows or more", "x"]
)
def test_anything_else_is_refused_naming_the_forms(text: str) -> None:
    with pytest.raises(
        MigrationError, match=r"line 14: '-- expect: .*' is no expectation; write true, no rows, N rows"
    ):
        migration(1, "SELECT 1;", f"-- expect: {text}\nSELECT true;")


def test_each_statement_has_its_own_and_one_without_is_true() -> None:
    verify = "-- a remark\n-- expect: no rows\nSELECT 1 WHERE false;\n\nSELECT true; SELECT true;\n-- expect: 42\nSELECT\n42;"
    assert migration(1, "SELECT 1;", verify).verify.expectations == (
        Expectation(rows=0),
        Expectation(),
        Expectation(),
        Expectation(value="42"),
    )


def test_a_declaration_before_two_statements_on_a_line_is_that_of_the_first() -> None:
    file = migration(1, "SELECT 1;", "-- expect: 2\nSELECT 2; SELECT true;")
    assert file.verify.expectations == (Expectation(value="2"), Expectation())


@pytest.mark.parametrize(
    ("verify", "message"),
    [
        ("-- expect: 1 row\n\nSELECT 1;", r"line 14: '-- expect' belongs to no statement"),
        ("SELECT true;\n-- expect: 1 row", r"line 15: '-- expect' belongs to no statement"),
        ("SELECT\n-- expect: 1 row\n1;", r"line 15: '-- expect' belongs to no statement"),
        ("-- expect: 1 row\n-- expect: 2\nSELECT 2;", r"line 14: '-- expect' belongs to no statement"),
        (
            "SELECT true; -- expect: 1 row\nSELECT 1;",
            r"line 14: .* does not count; write '-- expect: …' on a line of its",
        ),
        ("-- expect 1 row\nSELECT 1;", r"line 14: '-- expect 1 row' does not count"),
    ],
)
def test_a_declaration_that_would_not_count_is_refused(verify: str, message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        migration(1, "SELECT 1;", verify)


def test_only_a_verification_declares() -> None:
    assert migration(1, "-- expect trouble\nSELECT 1;").verify.expectations == (Expectation(),)
    with pytest.raises(MigrationError, match=r"line 11: '-- expect' counts in '-- verify' only; move it there"):
        migration(1, "-- expect: 1 row\nSELECT 1;")
    with pytest.raises(MigrationError, match=r"line 17: '-- expect' counts in '-- verify' only; move it there"):
        migration(1, "SELECT 1;", rollback="-- expect: 1 row\nSELECT 1;")
