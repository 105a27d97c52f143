"""What the projected tables need of the log, and whether a sample of it fits the tables that migrations lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

import psycopg

from position_ledger.checking.row_types import row_type_mismatches
from position_ledger.errors import SchemaMismatch
from position_ledger.migration.advice import Case, safe_form
from position_ledger.migration.catalogue import Catalogue, Table, diff
from position_ledger.migration.classify import Effect, EffectRefused
from position_ledger.migration.findings import Finding, Severity
from position_ledger.migration.rows import clear_rows
from position_ledger.migration.trace import Failure, TracedFile, TracedStatement, Tracer
from position_ledger.operations.plan_document import Need, PlannedProjection, parent_of
from position_ledger.operations.sampling import Folded, Problem, altered, fold, put_in
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import why_other
from position_ledger.settings import Settings

if TYPE_CHECKING:
    from position_ledger.operations.planning import Live

SAMPLE_TELLS_EVENTS: Final = 200
"""A sample of fewer events says nothing about how long a rebuild takes:"""
SLOW_EVENTS_PER_S: Final = 5_000
"""then this many a second are folded and copied, which is slow."""

Judged = Sequence[tuple[TracedFile, Effect | EffectRefused]]


@dataclass(slots=True)
class Needs:
    """What was found.

    ``proven`` has, for each projected file whose verification was repeated with rows of the sample in the tables, what
    did not hold then.
    """

    projections: tuple[PlannedProjection, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    proven: dict[int, tuple[Failure, ...]] = field(default_factory=dict)


def needs(
    tracer: Tracer,
    live_connection: psycopg.Connection[Any],
    settings: Settings,
    definitions: Sequence[Projection[Any]],
    live: Live,
    judged: Judged,
) -> Needs:
    """Say what each projected table needs, and try the sample on those that need something."""
    found = Needs()
    is_whole = all(traced.failure is None for traced, _ in judged)
    base, after = judged[0][0].before, judged[-1][0].after
    planned: list[PlannedProjection] = []
    folded: dict[str, Folded] = {}
    for definition in definitions:
        gaps = list(_gaps(definition, base, after, judged)) if is_whole else []
        found.findings += gaps
        need, reasons = _need(definition, base, after, live, judged)
        if is_whole and not gaps:
            found.findings += _of_row_type(definition, base, after)
        found.findings += _inline(definition, need, live)
        is_touched = base.tables.get(definition.table) != after.tables.get(definition.table) or need == "rebuild"
        if is_whole and live.sampled and is_touched and not gaps:
            folded[definition.table] = _folded(live_connection, definition, live, found, judged)
        planned.append(PlannedProjection(definition.table, need, reasons, live.events))
    if folded:
        _try(tracer, settings, list(folded.values()), live, judged, found)
    found.projections = tuple(_with_sample(one, folded.get(one.table), live, judged) for one in planned)
    return found


def _gaps(definition: Projection[Any], base: Catalogue, after: Catalogue, judged: Judged) -> Iterator[Finding]:
    """Columns that the definition has and the table lacks, and the other way round (S13)."""
    name, row = definition.table, definition.row.__name__
    table = after.tables.get(name)
    if table is None:
        if name in base.tables:
            cause = f"the projected table {name} goes, and the code still defines it: take the definition away first"
            yield _located(judged, f"table {name} is gone", "error", "drop-of-used", cause, Case("", name))
        else:
            cause = f"the code defines the projected table {name}, and no migration makes it"
            yield Finding("error", "table-without-migration", "", 0, "", cause, "-- position-ledger migrate new")
        return
    for column in table.columns:
        if column not in definition.columns:
            cause = f"column {column} of {name} has no field in {row}, so nothing would ever fill it"
            form = f"-- in the definition of {name}:\n--   class {row}(Row): {column}: {_annotation(table, column)}"
            place = _located(judged, f"table {name}: column {column} is new", "error", "column-without-field", cause)
            yield Finding(place.severity, place.code, place.file, place.line, place.statement, cause, form)
    for column in definition.columns:
        if column not in table.columns:
            was = name in base.tables and column in base.tables[name].columns
            code = "drop-of-used" if was else "field-without-column"
            cause = f"field {column} of {row} has no column in {name}" + (" any more" if was else "")
            form = f"ALTER TABLE {name} ADD COLUMN {column} {_column_form(definition, base, column)};"
            place = _located(judged, f"table {name}: column {column} is gone", "error", code, cause)
            yield Finding(place.severity, place.code, place.file, place.line, place.statement, cause, form)


def _of_row_type(definition: Projection[Any], base: Catalogue, after: Catalogue) -> Iterator[Finding]:
    """What `check` would say of the definition, where the table changes."""
    name = definition.table
    if base.tables.get(name) != after.tables[name]:
        for mismatch in row_type_mismatches(definition, after.tables[name]):
            yield Finding("warning", "row-type", "", 0, "", str(mismatch))


def _inline(definition: Projection[Any], need: Need, live: Live) -> Iterator[Finding]:
    name = definition.table
    modes = [one.mode for one in live.generations if one.projection == name and one.state == "active"]
    if need == "rebuild" and "inline" in modes:
        cause = f"table {name} is projected inline, and only a table in worker mode can be replaced"
        form = (
            f"-- position-ledger mode {name} worker   before, and\n-- position-ledger mode {name} inline   afterwards"
        )
        yield Finding("error", "projected-inline", "", 0, "", cause, form)


def _annotation(table: Table, column: str) -> str:
    type_ = table.columns[column].type
    python = next((value for key, value in _PYTHON.items() if type_.startswith(key)), "Any")
    return python if table.columns[column].not_null else f"{python} | None"


def _column_form(definition: Projection[Any], base: Catalogue, column: str) -> str:
    """Type and NOT NULL as the table has them, else as the field of the definition says."""
    table = base.tables.get(definition.table)
    if table is not None and column in table.columns:
        was = table.columns[column]
        return was.type + (" NOT NULL" if was.not_null else "")
    return "<type>" + ("" if _is_optional(definition, column) else " NOT NULL")


def _is_optional(definition: Projection[Any], column: str) -> bool:
    hint = get_type_hints(definition.row).get(column)
    return type(None) in get_args(hint)


_PYTHON: Final = {
    "bigint": "int",
    "integer": "int",
    "smallint": "int",
    "numeric": "Decimal",
    "text": "str",
    "character": "str",
    "boolean": "bool",
    "timestamp": "datetime",
    "date": "date",
}


def _located(
    judged: Judged, difference: str, severity: Severity, code: str, cause: str, case: Case | None = None
) -> Finding:
    """A finding at the statement that made a difference in the catalogue; without a place if none did."""
    traced, statement = _statement_of(judged, lambda line: line == difference)
    form = safe_form(code, case) if case else ""
    if traced is None or statement is None:
        return Finding(severity, code, "", 0, "", cause, form)
    return Finding(severity, code, traced.file.filename, statement.line, _flat(statement.text), cause, form)


def _statement_of(judged: Judged, fits: Any) -> tuple[TracedFile | None, TracedStatement | None]:
    for traced, _ in reversed(judged):
        for statement in reversed(traced.statements):
            if any(fits(line) for line in statement.differences):
                return traced, statement
    return None, None


def _flat(text: str) -> str:
    return " ".join(text.split())[:80]


def _need(
    definition: Projection[Any], base: Catalogue, after: Catalogue, live: Live, judged: Judged
) -> tuple[Need, tuple[str, ...]]:
    name = definition.table
    changing = [traced.file for traced, effect in judged if isinstance(effect, Effect) and name in effect.tables]
    current = next((one for one in live.generations if one.projection == name and one.state == "active"), None)
    lines = tuple(f"{file.filename} changes {_what(name, base, after)}" for file in changing)
    if not live.events:
        return ("in place", lines) if lines else ("nothing", ("there are no events yet",))
    if name not in base.tables and name in after.tables:
        return "fill", ("the table is new, and its rows are in the log",)
    if current is not None and not any(
        one.fingerprint == fingerprint_of(definition) for one in live.generations if one.projection == name
    ):
        told = why_other(definition, current) or ["the code of its folds, its columns or its events are others"]
        lines += (f"{'; '.join(told)} (the rows are of release {current.release})",)
    return ("rebuild", lines) if lines else ("nothing", ("its columns, constraints and code stay as they are",))


def _what(name: str, base: Catalogue, after: Catalogue) -> str:
    old, new = base.tables.get(name), after.tables.get(name)
    if old is None or new is None:
        return name
    lines = [line.removeprefix(f"table {name}: ") for line in diff(old, new)]
    return "; ".join(lines[:5]) + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")  # noqa: PLR2004


def _folded(
    connection: psycopg.Connection[Any], definition: Projection[Any], live: Live, found: Needs, judged: Judged
) -> Folded:
    try:
        folded = fold(connection, definition, live.sampled)
    except SchemaMismatch as error:
        found.findings.append(Finding("error", "events-unreadable", "", 0, "", str(error)))
        return Folded(definition)
    found.findings += [_of_problem(problem, live, judged) for problem in folded.problems]
    return folded


def _try(
    tracer: Tracer, settings: Settings, folded: Sequence[Folded], live: Live, judged: Judged, found: Needs
) -> None:
    """Put the rows in, look at the verifications of projected files again, and take the rows out."""
    with tracer.step(keep=False):
        clear_rows(tracer.connection, settings.ledger_schema, [one.projection.table for one in folded])
        for one in folded:
            problems = list(put_in(tracer.connection, settings.ledger_schema, one))
            problems += altered(tracer.connection, settings.ledger_schema, one, _changed(one.projection, judged))
            found.findings += [_of_problem(problem, live, judged) for problem in problems]
        for traced, effect in judged:
            if traced.untrue and isinstance(effect, Effect) and effect.kind == "projected":
                found.proven[traced.file.number] = tracer.untrue(traced.file)


def _changed(definition: Projection[Any], judged: Judged) -> list[str]:
    """Columns of the row type that are new in the table, or of another type than before."""
    old = judged[0][0].before.tables.get(definition.table)
    new = judged[-1][0].after.tables.get(definition.table)
    return [
        name
        for name, column in (new.columns if new else {}).items()
        if (old is None or old.columns.get(name) != column) and name in definition.row.__struct_fields__
    ]


def _of_problem(problem: Problem, live: Live, judged: Judged) -> Finding:
    """The finding, at the statement that made the column or constraint."""
    name = problem.table
    marks = [f"column {problem.column} "] if problem.column else []
    marks += [f"constraint {problem.constraint} ", f"index {problem.constraint} "] if problem.constraint else []

    def concerns(line: str) -> bool:
        return line.startswith(f"table {name}") and any(mark in f"{line} " for mark in marks)

    traced, statement = _statement_of(judged, concerns)
    if traced is None:
        traced, statement = _statement_of(judged, lambda line: line.startswith(f"table {name}"))
    text = statement.text if statement else ""
    case = Case(text, name, problem.column, problem.constraint, projected=True)
    at = f"event {problem.event} ({problem.topic}): " if problem.event else ""
    more = f" ({problem.rows:,} rows of the sample)" if problem.rows > 1 else ""
    cause = f"history does not fit {name}: {at}{problem.cause}{more}"
    severity: Severity = "warning" if _is_parent_in_part(problem, live, judged) else "error"
    form = safe_form(problem.code, case)
    if traced is None or statement is None:
        return Finding(severity, problem.code, "", 0, "", cause, form)
    return Finding(severity, problem.code, traced.file.filename, statement.line, _flat(text), cause, form)


def _is_parent_in_part(problem: Problem, live: Live, judged: Judged) -> bool:
    """Whether a missing parent may only be missing in the plan, which does not copy all rows of a large table."""
    table = judged[-1][0].after.tables.get(problem.table)
    constraint = table.constraints.get(problem.constraint) if table else None
    parent = live.tables.get(parent_of(constraint.definition)) if constraint and constraint.kind == "f" else None
    return parent is not None and not parent.is_complete


def _with_sample(planned: PlannedProjection, folded: Folded | None, live: Live, judged: Judged) -> PlannedProjection:
    if folded is None:
        return planned
    return PlannedProjection(
        planned.table,
        planned.need,
        planned.reasons,
        live.events,
        _estimate(folded, live),
        folded.events,
        len(folded.versions),
        folded.unseen,
        tuple(folded.story(column) for column in _changed(folded.projection, judged)),
    )


def _estimate(folded: Folded, live: Live) -> float | None:
    """Seconds that loading the table takes about, by what the sample took; None for an empty sample."""
    if not live.sampled:
        return None
    share = folded.events / len(live.sampled)
    tells = folded.events >= SAMPLE_TELLS_EVENTS and folded.took_s > 0
    rate = folded.events / folded.took_s if tells else SLOW_EVENTS_PER_S
    return round(live.events * share / rate, 1)
