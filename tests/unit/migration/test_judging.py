"""How what was seen is weighed: pure, over hand-made traces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.migration.catalogue import Catalogue, Column, Grant, Table, Trigger, View, diff
from position_ledger.migration.classify import EffectRefused
from position_ledger.migration.findings import Finding, by_weight
from position_ledger.migration.judging import MANY_ROWS, SOME_ROWS, Circumstances, effect_of, judge, severity_of
from position_ledger.migration.lint import Remark
from position_ledger.migration.rows import CopiedTable
from position_ledger.migration.trace import Failure, Lock, RollbackProof, TracedFile, TracedStatement
from tests.support.migration_files import migration

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = Catalogue({}, {}, {}, {}, {}, None, (), ())


def column(name: str, **more: Any) -> Column:
    plain = Column(
        name,
        "text",
        not_null=False,
        default=None,
        default_volatility="",
        generated="",
        identity="",
        collation=None,
        storage=None,
        compression="",
        comment="why",
        statistics_target=None,
        options=(),
        grants=(),
    )
    return replace(plain, **more)


def table(name: str, *columns: Column, **more: Any) -> Table:
    plain = Table(name, {one.name: one for one in columns}, {}, {}, {}, {}, None, (), (), (), "admin")
    return replace(plain, **more)


def holding(*tables: Table) -> Catalogue:
    return replace(NOTHING, tables={one.name: one for one in tables})


def view(name: str, *reads: str, definition: str = "SELECT 1") -> View:
    return View(name, False, definition, {}, {}, {}, {}, None, (), (), reads)  # noqa: FBT003 - not materialized


DESKS = table("desks", column("a"))
POSITIONS = table("positions", column("a"))
BEFORE = holding(DESKS, POSITIONS, table("events", column("state")))


def traced(text: str, after: Catalogue = BEFORE, **seen: Any) -> TracedFile:
    file = migration(2, text)
    statement = TracedStatement(file.forward.statements[0].line, file.forward.statements[0].text, **seen)
    return TracedFile(file, BEFORE, after, (statement,), rollback=RollbackProof("proven"))


def around(rows: int, copied: int | None = None, *, has_events: bool = True) -> Circumstances:
    there = CopiedTable("desks", rows, min(rows, 10_000) if copied is None else copied)
    return Circumstances(frozenset({"positions"}), has_events, {"desks": there})


def found(one: TracedFile, circumstances: Circumstances, *remarks: Remark) -> list[tuple[str, str]]:
    return [(each.severity, each.code) for each in judge(one, remarks, circumstances)]


@pytest.mark.parametrize(
    ("rows", "severity"),
    [(0, "note"), (SOME_ROWS, "note"), (SOME_ROWS + 1, "warning"), (MANY_ROWS, "warning"), (MANY_ROWS + 1, "error")],
)
def test_everything_is_as_bad_as_the_table_is_large(rows: int, severity: str) -> None:
    assert severity_of(rows) == severity
    index = traced("CREATE INDEX i ON desks (a);", locks=(Lock("desks", "SHARE"),), scans={"desks": 1})
    remark = Remark("require-concurrent-index-creation", 11, "writes wait.", "")
    expected = [(severity, remark.rule)] if rows else []
    assert [one for one in found(index, around(rows), remark) if one[1] == remark.rule] == expected


@pytest.mark.parametrize(("rows", "severity"), [(0, None), (1, "warning"), (MANY_ROWS + 1, "error")])
def test_a_rewrite_of_rows_is_at_least_a_warning(rows: int, severity: str | None) -> None:
    one = traced("ALTER TABLE desks ALTER a TYPE bigint;", rewrites=("desks",), differences=("table desks: x",))
    rewrites = [each for each in found(one, around(rows)) if each[1] == "table-rewrite"]
    assert rewrites == ([(severity, "table-rewrite")] if severity else [])


@pytest.mark.parametrize(
    ("text", "written", "rows", "expected"),
    [
        ("UPDATE desks SET a = 1;", 10_000, 200_000, ["error"]),
        ("UPDATE desks SET a = 1 WHERE a = 2;", 10, 200_000, []),
        ("UPDATE desks SET a = 1 WHERE a = 2;", 2_000, 100_000, ["warning"]),
        ("UPDATE desks SET a = 1;", 3, 3, ["note"]),
        ("DELETE FROM desks;", 10_000, 20_000, ["warning"]),
        ("INSERT INTO desks SELECT 1;", 10_000, 200_000, []),
    ],
)
def test_rows_written_are_told_for_the_whole_table(text: str, written: int, rows: int, expected: list[str]) -> None:
    one = traced(text, locks=(Lock("desks", "ROW EXCLUSIVE"),), written={"desks": written})
    assert [severity for severity, code in found(one, around(rows)) if code == "unbatched-write"] == expected


def test_rows_of_projected_tables_are_the_logs_also_where_none_is_there() -> None:
    for seen in (
        {"locks": (Lock("positions", "ROW EXCLUSIVE"),)},
        {"written": {"positions": 1}},
        {"rewrites": ("positions",)},
    ):
        assert ("error", "dml-on-projected") in found(traced("SELECT 1;", **seen), around(1))


def test_a_scan_under_a_lock_is_told_once() -> None:
    one = traced(
        "ALTER TABLE desks ADD CHECK (a <> '');", locks=(Lock("desks", "ACCESS EXCLUSIVE"),), scans={"desks": 1}
    )
    assert ("error", "scan-under-lock") in found(one, around(MANY_ROWS + 1))
    remark = Remark("constraint-missing-not-valid", 11, "reads every row.", "")
    told = [code for _, code in found(one, around(MANY_ROWS + 1), remark)]
    assert remark.rule in told
    assert "scan-under-lock" not in told


def test_what_runs_on_a_shadow_blocks_nobody() -> None:
    after = holding(DESKS, table("positions", column("a", type="bigint")), BEFORE.tables["events"])
    one = traced(
        "ALTER TABLE positions ALTER a TYPE bigint;",
        after,
        locks=(Lock("positions", "ACCESS EXCLUSIVE"),),
        rewrites=("positions",),
        differences=("table positions: column a: type 'text' became 'bigint'",),
    )
    remarks: Sequence[Remark] = (Remark("renaming-column", 11, "", ""), Remark("prefer-timestamp-tz", 11, "", ""))
    assert found(one, around(1), *remarks)[1:] == [("note", "result-type-changes")]
    assert [code for _, code in found(one, around(1), *remarks)][:1] == ["prefer-timestamp-tz"]
    assert "renaming-column" in [code for _, code in found(one, around(1, has_events=False), *remarks)]


def test_a_file_that_does_both_says_which_lines_to_move() -> None:
    after = holding(
        replace(DESKS, comment="who"), table("positions", column("a"), column("b")), BEFORE.tables["events"]
    )
    file = migration(2, "COMMENT ON TABLE desks IS 'who';\nALTER TABLE positions ADD b text;")
    first, second = file.forward.statements
    statements = (
        TracedStatement(first.line, first.text, differences=("table desks: comment None became 'who'",)),
        TracedStatement(second.line, second.text, differences=("table positions: column b is new",)),
    )
    one = TracedFile(file, BEFORE, after, statements, rollback=RollbackProof("proven"))
    assert isinstance(effect_of(one, around(1)), EffectRefused)
    (finding,) = [each for each in judge(one, (), around(1)) if each.code == "mixed-file"]
    assert finding.severity == "error"
    assert finding.safe_form.splitlines() == [
        "-- in 002_…",
        f"--   line {first.line}: {first.text}",
        "-- in 003_…",
        f"--   line {second.line}: {second.text}",
    ]
    assert ("note", "mixed-file") in found(one, around(1, has_events=False))


def test_a_view_of_a_projected_table_moves_with_it_and_any_other_does_not() -> None:
    views = {"open": view("open", "positions"), "largest": view("largest", "open"), "idle": view("idle", "desks")}
    before = replace(BEFORE, views=views)
    after = replace(holding(replace(DESKS, comment="who"), table("positions"), BEFORE.tables["events"]), views=views)
    texts = {
        "COMMENT ON TABLE desks IS 'who';": "table desks: comment None became 'who'",
        "DROP VIEW largest;": "view largest is gone",
        "DROP VIEW open;": "view open is gone",
        "DROP VIEW idle;": "view idle is gone",
        "ALTER TABLE positions DROP a;": "table positions: column a is gone",
        "CREATE VIEW open AS SELECT 1;": "view open is new",
        "GRANT SELECT ON open TO PUBLIC;": "view open: grants gained SELECT TO <public>",
    }
    file = migration(2, "\n".join(texts))
    statements = tuple(
        TracedStatement(one.line, one.text, differences=(said,))
        for one, said in zip(file.forward.statements, texts.values(), strict=True)
    )
    one = TracedFile(file, before, after, statements, rollback=RollbackProof("proven"))
    (finding,) = [each for each in judge(one, (), around(1)) if each.code == "mixed-file"]
    told = [line.split(": ", 1)[-1] for line in finding.safe_form.splitlines()]
    wanted = [text.removesuffix(";") for text in texts]
    assert told == ["-- in 002_…", wanted[0], wanted[3], "-- in 003_…", *wanted[1:3], *wanted[4:]]


def test_a_column_of_another_type_is_told_once_with_all_that_show_it() -> None:
    def catalogue(kind: str) -> Catalogue:
        shows = replace(view("all_of_it", "positions"), columns={"a": column("a", type=kind)})
        return replace(holding(DESKS, table("positions", column("a", type=kind))), views={"all_of_it": shows})

    file = migration(2, "ALTER TABLE positions ALTER a TYPE bigint;")
    one = TracedFile(file, catalogue("text"), catalogue("bigint"), (), rollback=RollbackProof("proven"))
    (told,) = [each.cause for each in judge(one, (), around(1)) if each.code == "result-type-changes"]
    assert told.startswith("a of table positions, view all_of_it gets another type: ")


def test_of_a_text_of_many_lines_only_those_are_told_that_differ() -> None:
    def became(old: str, new: str) -> list[str]:
        views = [{"v": view("v", definition=text)} for text in (old, new)]
        return diff(replace(NOTHING, views=views[0]), replace(NOTHING, views=views[1]))

    assert became(" SELECT a,\n    b\n   FROM t p;", " SELECT a,\n    c,\n    b\n   FROM t;") == [
        "view v: definition lost 'FROM t p;' and gained 'c', 'FROM t;'"
    ]
    assert became("SELECT a,\n b", "SELECT b") == ["view v: definition lost 'SELECT a', 'b' and gained 'SELECT b'"]
    assert became("SELECT a,\nb", "SELECT a,\n b") == ["view v: definition is written otherwise"]
    assert became("SELECT a", "SELECT b") == ["view v: definition 'SELECT a' became 'SELECT b'"]
    many = "\n".join(f"c{number}" for number in range(8))
    assert became(many, "c0") == [
        "view v: definition lost 'c1', 'c2', 'c3', 'c4', 'c5' and 2 more lines",
    ]


def test_a_failure_hides_what_squawk_only_guesses() -> None:
    text = "ALTER TABLE desks ADD b text NOT NULL"
    failure = Failure(11, text, "23502", "it contains null values", "desks", "b")
    one = TracedFile(migration(2, f"{text};"), BEFORE, BEFORE, (), failure)
    remark = Remark("adding-required-field", 11, "", "")
    (finding,) = judge(one, (remark,), around(5))
    assert (finding.code, finding.line) == ("not-null-violation", 11)
    assert finding.cause.endswith("(among 5 of the 5 rows of desks)")


@pytest.mark.parametrize(
    ("sqlstate", "cause", "code"),
    [
        ("0A000", "cannot alter type of a column used by a view or rule", "used-by-others"),
        ("0A000", "this is not supported", "statement-failed"),
        ("42804", "column is of type text", "type-mismatch"),
        ("55P04", "unsafe use of new value of enum type", "new-value-in-use"),
        ("XX000", "what nobody expects", "statement-failed"),
    ],
)
def test_the_code_of_a_refusal(sqlstate: str, cause: str, code: str) -> None:
    text = "ALTER TABLE desks ALTER a TYPE bigint"
    one = TracedFile(migration(2, f"{text};"), BEFORE, BEFORE, (), Failure(11, text, sqlstate, cause))
    assert [each.code for each in judge(one, (), around(0))] == [code]


def test_the_log_and_projected_tables_keep_their_keepers() -> None:
    keeper = Trigger("kept", "CREATE TRIGGER kept … EXECUTE FUNCTION refuse_change()", "O", None)
    before = holding(table("events", column("state"), triggers={"kept": keeper}))
    for after in (
        holding(table("events", column("state"))),
        holding(table("events", column("state"), triggers={"kept": replace(keeper, enabled="D")})),
    ):
        one = replace(traced("SELECT 1;", after), before=before)
        assert ("error", "history-unprotected") in found(one, around(0))
    writer = Grant("stranger", "UPDATE", grantable=False)
    after = holding(table("events", column("state"), triggers={"kept": keeper}, grants=(writer,)))
    one = replace(traced("SELECT 1;", after), before=before)
    assert ("error", "history-writable") in found(one, around(0))


def test_the_worst_comes_first_and_nothing_twice() -> None:
    note, error = Finding("note", "b", "1", 1, "", "x"), Finding("error", "a", "2", 1, "", "x")
    assert by_weight([note, error, note]) == (error, note)
