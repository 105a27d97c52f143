"""From what a migration did in the scratch database, and what squawk says, to what its author should know.

Pure. A lock or a rewrite is as bad as the table is large: few rows are a matter of milliseconds, and said as a note.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from position_ledger.migration.advice import Case, safe_form, target_table
from position_ledger.migration.catalogue import views_above
from position_ledger.migration.classify import Effect, EffectRefused, classify
from position_ledger.migration.findings import Finding, Severity
from position_ledger.migration.lint import TYPE_RULES
from position_ledger.migration.schema_rules import schema_findings
from position_ledger.migration.sql_text import identifier, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from position_ledger.migration.lint import Remark
    from position_ledger.migration.rows import CopiedTable
    from position_ledger.migration.trace import Failure, TracedFile, TracedStatement

__all__ = ["MANY_ROWS", "SOME_ROWS", "Circumstances", "concerns_projected", "effect_of", "judge", "severity_of"]

MANY_ROWS: Final = 100_000
"""Above this, what reads or writes every row of a table while others wait is an error."""
SOME_ROWS: Final = 10_000
"""Above this, it is a warning."""

_CODES: Final = {
    "0A000": "used-by-others",
    "22001": "type-mismatch",
    "22003": "type-mismatch",
    "22007": "type-mismatch",
    "22008": "type-mismatch",
    "22P02": "type-mismatch",
    "23502": "not-null-violation",
    "23503": "foreign-key-violation",
    "23505": "unique-violation",
    "23514": "check-violation",
    "25001": "not-in-a-transaction",
    "2BP01": "used-by-others",
    "42501": "no-permission",
    "42601": "syntax-error",
    "42701": "already-there",
    "42703": "unknown-column",
    "42704": "unknown-object",
    "42710": "already-there",
    "42723": "already-there",
    "42804": "type-mismatch",
    "42846": "type-mismatch",
    "42883": "unknown-object",
    "42P01": "unknown-table",
    "42P07": "already-there",
    "55P04": "new-value-in-use",
}
_LOCKING: Final = frozenset(
    {
        "adding-foreign-key-constraint",
        "adding-not-nullable-field",
        "constraint-missing-not-valid",
        "disallowed-unique-constraint",
        "require-concurrent-index-creation",
        "require-concurrent-reindex",
    }
)
"""Rules of squawk about locks and scans: as bad as the table is large."""
_SEEN_BY_THE_TRACE: Final = frozenset(
    {"adding-field-with-default", "adding-required-field", "adding-serial-primary-key-field", "changing-column-type"}
)
"""Rules of squawk that guess what the trace knows: whether there are rows, and whether they are written again."""
_BRIEF: Final = frozenset(
    {"require-concurrent-index-deletion", "prefer-bigint-over-int", "prefer-bigint-over-smallint"}
)
_BLOCKING: Final = frozenset({"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the statements will meet: which tables come from the log, whether it has events, and the live tables."""

    projected: frozenset[str]
    has_events: bool
    tables: Mapping[str, CopiedTable] = field(default_factory=dict)

    def rows(self, table: str) -> int:
        """About how many rows the live table has."""
        return self.tables[table].rows if table in self.tables else 0


def severity_of(rows: int) -> Severity:
    """How bad it is that everybody waits while every row of a table of this size is read or written."""
    return "error" if rows > MANY_ROWS else "warning" if rows > SOME_ROWS else "note"


def effect_of(traced: TracedFile, circumstances: Circumstances) -> Effect | EffectRefused:
    """What the file is to the runner, or why it refuses it once there are events."""
    plain = traced.written - circumstances.projected
    try:
        return classify(traced.file, traced.before, traced.after, circumstances.projected, plain)
    except EffectRefused as refused:
        return refused


def concerns_projected(traced: TracedFile, circumstances: Circumstances) -> bool:
    """Whether the file changes a projected table, or fails where it may have been about to: it runs on a shadow.

    A shadow has the rows of history, and none while it is changed.
    """
    if traced.failure is not None:
        failed = traced.failure
        named = {failed.table, target_table(failed.statement)}
        return bool(named & circumstances.projected) or failed.statement.split()[:1] in (["DO"], ["do"])
    effect = effect_of(traced, circumstances)
    return isinstance(effect, EffectRefused) or effect.kind == "projected"


def judge(traced: TracedFile, remarks: Sequence[Remark], circumstances: Circumstances) -> list[Finding]:
    """Everything to know about one file, in no order."""
    return list(_Judge(traced, remarks, circumstances).findings())


class _Judge:
    """One file."""

    def __init__(self, traced: TracedFile, remarks: Sequence[Remark], circumstances: Circumstances) -> None:
        self._traced, self._remarks, self._around = traced, remarks, circumstances
        effect = effect_of(traced, circumstances)
        self._refused = effect if isinstance(effect, EffectRefused) else None
        self._on_shadow = circumstances.has_events and (isinstance(effect, EffectRefused) or effect.kind == "projected")

    def findings(self) -> Iterator[Finding]:
        yield from self._failure()
        yield from self._effect()
        for statement in self._traced.statements:
            yield from self._writes(statement)
            yield from self._cascade(statement)
            if not self._on_shadow:
                yield from self._rewrites(statement)
                yield from self._scans(statement)
        for remark in {(self._text_at(one.line), one.rule): one for one in reversed(self._remarks)}.values():
            yield from self._remark(remark)
        if self._traced.failure is None:
            yield from self._verification()
            yield from self._rollback()
            yield from schema_findings(self._traced, self._around.projected)

    def _finding(
        self, severity: Severity, code: str, line: int, statement: str, cause: str, case: Case | None = None
    ) -> Finding:
        form = safe_form(code, case or Case(statement))
        return Finding(severity, code, self._traced.file.filename, line, _excerpt(statement), cause, form)

    def _failure(self) -> Iterator[Finding]:
        failure = self._traced.failure
        if failure is None:
            return
        code = _code_of(failure)
        table = failure.table or target_table(failure.statement)
        case = Case(failure.statement, table, failure.column, failure.constraint, table in self._around.projected)
        met = self._around.tables.get(table)
        rows = (
            f" (among {met.copied:,} of the {met.rows:,} rows of {table})"
            if met and failure.sqlstate[:2] in _BY_ROWS
            else ""
        )
        yield self._finding("error", code, failure.line, failure.statement, failure.cause + rows, case)

    def _effect(self) -> Iterator[Finding]:
        refused = self._refused
        if refused is None:
            return
        message = str(refused).removeprefix(f"{self._traced.file.filename} ")
        severity: Severity = "error" if self._around.has_events or refused.code != "mixed-file" else "note"
        if refused.code == "mixed-file":
            yield (
                self._finding(severity, refused.code, 0, "", f"it {message}", None)
                if not self._sides()
                else Finding(
                    severity,
                    refused.code,
                    self._traced.file.filename,
                    self._first_line(),
                    "",
                    f"it {message}",
                    self._sides(),
                )
            )
            return
        concerned = next((one for one in self._traced.statements if "default" in one.text.lower()), None)
        line, text = (concerned.line, concerned.text) if concerned else (self._first_line(), "")
        yield self._finding(severity, refused.code, line, text, f"it {message}")

    def _first_line(self) -> int:
        statements = self._traced.file.forward.statements
        return statements[0].line if statements else 0

    def _sides(self) -> str:
        """Which lines belong to which file, once it is split."""
        ours: list[str] = []
        others: list[str] = []
        for one in self._traced.statements:
            side = ours if self._concerns_projected(one) else others
            side.append(f"--   line {one.line}: {_excerpt(one.text)}")
        number = self._traced.file.number
        return "\n".join([f"-- in {number:03}_…", *others, f"-- in {number + 1:03}_…", *ours])

    def _concerns_projected(self, statement: TracedStatement) -> bool:
        """It changes a projected table, or a view of one, which has to go and come with it."""
        before, after = self._traced.before, self._traced.after
        tables = self._around.projected & before.tables.keys()
        views = views_above(before, tables) | views_above(after, tables)
        places = [f"table {name}" for name in tables] + [f"view {name}" for name in views]
        return any(
            line.startswith((f"{place}:", f"{place} ")) for place in places for line in statement.differences
        ) or (not statement.differences and target_table(statement.text) in self._around.projected)

    def _writes(self, statement: TracedStatement) -> Iterator[Finding]:
        locked = {lock.table for lock in statement.locks if lock.mode == "ROW EXCLUSIVE"}
        emptied = {
            name
            for name in statement.rewrites
            if not any(line.startswith(f"table {name}") for line in statement.differences)
        }
        there = self._traced.before.tables
        for name in sorted(
            self._around.projected & (locked | emptied | {t for t, n in statement.written.items() if n})
        ):
            cause = (
                f"it writes rows of the projected table {name}: they come from the event log only, and the next rebuild "
                "would not have them"
            )
            yield self._finding(
                "error", "dml-on-projected", statement.line, statement.text, cause, Case(statement.text, name)
            )
        for name, rows in statement.written.items():
            if name in there and name not in self._around.projected and statement.text.split()[0].lower() != "insert":
                yield from self._unbatched(statement, name, rows)

    def _unbatched(self, statement: TracedStatement, table: str, written: int) -> Iterator[Finding]:
        met = self._around.tables.get(table)
        if met is None or not met.copied:
            return
        rows = round(met.rows * min(1.0, written / met.copied))
        if rows <= SOME_ROWS and " where " in f" {' '.join(statement.text.lower().split())} ":
            return
        cause = (
            f"it writes about {rows:,} of the {met.rows:,} rows of {table} in one transaction: their locks are held and "
            "their old versions kept until it ends"
        )
        yield self._finding(severity_of(rows), "unbatched-write", statement.line, statement.text, cause)

    def _cascade(self, statement: TracedStatement) -> Iterator[Finding]:
        if "cascade" not in statement.text.lower():
            return
        target = target_table(statement.text)
        after = self._traced.after
        gone = [
            line.removesuffix(" is gone")
            for line in statement.differences
            if line.endswith(" is gone") and not line.startswith((f"table {target}:", f"table {target} "))
        ]
        lost = [what for what in gone if what.removeprefix("view ") not in after.views]
        if lost:
            cause = f"CASCADE takes away more than the statement names: {'; '.join(lost)}"
            views = tuple(what.removeprefix("view ") for what in lost if what.startswith("view ") and ":" not in what)
            case = Case(statement.text, views=views)
            yield self._finding("error", "cascade-drops", statement.line, statement.text, cause, case)

    def _rewrites(self, statement: TracedStatement) -> Iterator[Finding]:
        for table in statement.rewrites:
            rows = self._around.rows(table)
            if table not in self._traced.before.tables or not rows:
                continue
            if _is_truncate(statement):
                cause = f"about {rows:,} rows of {table} are thrown away, and no rollback brings them back"
                yield self._finding("warning", "rows-lost", statement.line, statement.text, cause)
                continue
            severity: Severity = "error" if rows > MANY_ROWS else "warning"
            cause = f"every one of about {rows:,} rows of {table} is written again while nobody can read it"
            yield self._finding(
                severity, "table-rewrite", statement.line, statement.text, cause, Case(statement.text, table)
            )

    def _scans(self, statement: TracedStatement) -> Iterator[Finding]:
        if not self._traced.file.is_transactional:
            return
        if any(remark.rule in _LOCKING and self._statement_at(remark.line) is statement for remark in self._remarks):
            return
        held = {lock.table: lock.mode for lock in statement.locks if lock.mode in _BLOCKING}
        for table in statement.scans:
            rows = self._around.rows(table)
            if table in held and table not in statement.rewrites and rows > SOME_ROWS:
                cause = f"about {rows:,} rows of {table} are read under a {held[table]} lock, and writers wait for it"
                yield self._finding(severity_of(rows), "scan-under-lock", statement.line, statement.text, cause)

    def _statement_at(self, line: int) -> TracedStatement | None:
        return next((one for one in reversed(self._traced.statements) if one.line <= line), None)

    def _line(self, line: int) -> str:
        statement = next((one for one in reversed(self._traced.file.forward.statements) if one.line <= line), None)
        lines = statement.text.splitlines()[line - statement.line :] if statement else []
        return lines[0].strip() if lines else ""

    def _text_at(self, line: int) -> str:
        statements = self._traced.file.forward.statements
        return next((one.text for one in reversed(statements) if one.line <= line), "")

    def _remark(self, remark: Remark) -> Iterator[Finding]:
        traced, text = self._statement_at(remark.line), self._text_at(remark.line)
        is_traced = traced is not None and traced.text == text
        if self._on_shadow and remark.rule not in TYPE_RULES:
            return
        if remark.rule == "prefer-bigint-over-int" and self._line(remark.line).split()[:1] == ["version"]:
            return  # of a projected table: it counts the versions of one key
        if remark.rule == "ban-drop-view" and self._is_made_again(text):
            return
        if remark.rule in _SEEN_BY_THE_TRACE and (is_traced or self._fails_at(text)):
            return
        if remark.rule == "constraint-missing-not-valid" and self._is_said(
            "adding-foreign-key-constraint", remark.line
        ):
            return
        rows = self._rows_locked(traced if is_traced else None, text)
        severity: Severity = "note" if remark.rule in _BRIEF else "warning"
        if remark.rule in _LOCKING | _SEEN_BY_THE_TRACE:
            if not rows:
                return
            severity = severity_of(rows)
        cause = remark.message + (f" About {rows:,} rows." if rows and remark.rule not in TYPE_RULES else "")
        cause += f" {remark.advice}" if remark.advice else ""
        case = Case(text, constraint=_constraint_named(text))
        yield self._finding(severity, remark.rule, remark.line, text, cause, case)

    def _is_made_again(self, text: str) -> bool:
        """Whether a view that the statement drops is there again at the end of the file."""
        dropped = [
            name for name in self._traced.before.views if name in text.replace(",", " ").replace(";", " ").split()
        ]
        return bool(dropped) and all(name in self._traced.after.views for name in dropped)

    def _fails_at(self, text: str) -> bool:
        return self._traced.failure is not None and self._traced.failure.statement == text

    def _is_said(self, rule: str, line: int) -> bool:
        return any(one.rule == rule and one.line == line for one in self._remarks)

    def _rows_locked(self, statement: TracedStatement | None, text: str) -> int:
        tables = {lock.table for lock in statement.locks if lock.mode in _BLOCKING} if statement else set()
        return max((self._around.rows(table) for table in tables or {target_table(text)}), default=0)

    def _verification(self) -> Iterator[Finding]:
        for failure in self._traced.untrue:
            partial = self._seen_in_part(failure.statement)
            cause = failure.cause
            if partial:
                cause += f"; but the plan has not all rows of {', '.join(partial)}, so `up` may find otherwise"
            code, severity = ("verification-unproven", "warning") if partial else ("verification-failed", "error")
            yield self._finding(severity, code, failure.line, failure.statement, cause)  # type: ignore[arg-type]

    def _seen_in_part(self, statement: str) -> list[str]:
        """Tables that the statement names and of which the scratch database has not every row."""
        named = {identifier(token) for token in tokenize(statement) if token.kind in {"word", "name"}}
        return sorted(
            name
            for name in named & self._traced.after.tables.keys()
            if (name in self._around.projected and self._around.has_events and name not in self._around.tables)
            or (name in self._around.tables and not self._around.tables[name].is_complete)
        )

    def _rollback(self) -> Iterator[Finding]:
        proof = self._traced.rollback
        if proof.state == "wrong":
            cause = f"{proof.reason}"
            form = "\n".join(f"-- {line}" for line in proof.differences[:10])
            yield Finding("error", "rollback-wrong", self._traced.file.filename, proof.line, "", cause, form)
        elif proof.state == "none":
            cause = f"it has no way back; its header says: Rollback: {proof.reason}"
            yield self._finding("warning", "no-rollback", 0, "", cause)
        thrown = {table for one in self._traced.statements if _is_truncate(one) for table in one.rewrites}
        lost = [one for one in proof.lost if one.table not in thrown]
        if lost:
            line = self._traced.file.rollback.statements[0].line
            told = ", ".join(str(one) for one in lost[:LOST_MAX])
            more = f" and {len(lost) - LOST_MAX} more" if len(lost) > LOST_MAX else ""
            partial = sorted({one.table for one in lost if not self._around.tables[one.table].is_complete})
            seen = f" (of the rows of {', '.join(partial)} that the plan copied)" if partial else ""
            cause = f"the rollback gives back the schema, but not {told}{more}{seen}: keep them in a table of their own"
            yield Finding("warning", "rows-lost", self._traced.file.filename, line, "", cause)


LOST_MAX: Final = 5
"""Columns of which a finding tells what they lose."""
_BY_ROWS: Final = frozenset({"22", "23"})


def _is_truncate(statement: TracedStatement) -> bool:
    return statement.text.split()[0].lower() == "truncate"


def _code_of(failure: Failure) -> str:
    if failure.sqlstate == "42804" and not failure.statement.lower().lstrip().startswith("alter"):
        return "statement-failed"
    if failure.sqlstate == "0A000" and "used by" not in failure.cause:
        return "statement-failed"
    return _CODES.get(failure.sqlstate, "statement-failed")


def _constraint_named(text: str) -> str:
    words = text.split()
    lowered = [word.lower() for word in words]
    return words[lowered.index("constraint") + 1] if "constraint" in lowered[:-1] else ""


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:77] + "..."  # noqa: PLR2004 - as Statement.excerpt
