"""The plan document as lines: plain for a terminal, Markdown for a review."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from position_ledger.migration.findings import Finding
    from position_ledger.migration.trace import TracedStatement
    from position_ledger.operations.plan_document import Plan, PlannedColumn, PlannedFile, PlannedProjection

_WORDS = {"proven": "proven: forward, rollback, forward lead to the same schema", "not tried": "not tried"}


def text(plan: Plan) -> Iterator[str]:
    """For a terminal: each file, what the projected tables need, the findings, the verdict last."""
    if not plan.files:
        yield from (_finding(one) for one in plan.findings)
        yield "nothing is pending: every migration of the folder is applied"
        return
    for file in plan.files:
        yield from _file(file)
    for name in plan.untraced:
        yield f"{name}  not tried: it stands on a file that fails"
    yield ""
    yield from _projections(plan)
    for finding in plan.findings:
        yield ""
        yield from _finding_lines(finding)
    yield from ["", *plan.steps, *plan.backup]
    yield verdict(plan)


def verdict(plan: Plan) -> str:
    """One sentence: what was found, and whether it is safe."""
    counts = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for severity in ("error", "warning", "note")
        if (count := sum(one.severity == severity for one in plan.findings))
    ]
    found = ", ".join(counts) or "nothing to remark"
    if plan.is_applied:
        return f"already applied; planned as if at its place, without live rows: {found}"
    after = "safe to run: position-ledger migrate up" if plan.is_safe else "unsafe: correct what is marked error first"
    return f"{found}; {after} (planned in {plan.took_s:.1f} s)"


def _finding(one: Finding) -> str:
    place = f"{one.file}{f' line {one.line}' if one.line else ''}: " if one.file else ""
    return f"{one.severity} {one.code}: {place}{one.cause}"


def _finding_lines(one: Finding) -> Iterator[str]:
    yield _finding(one)
    if one.statement:
        yield f"    {one.statement}"
    if one.safe_form:
        yield "  safe form:"
        yield from (f"    {line}" for line in one.safe_form.splitlines())


def _file(file: PlannedFile) -> Iterator[str]:
    yield f"{file.filename}  {file.title}"
    yield f"  {file.summary}"
    yield f"  by {file.author}, {file.date}; {_kind(file)}"
    for table in file.tables:
        rows = f", about {table.rows:,} rows" if table.rows and table.change != "new" else ""
        yield f"  table {table.name}: {table.change}{', projected' if table.projected else ''}{rows}"
        yield from (f"    {_column(column)}" for column in table.columns)
        yield from (f"    {line}" for line in (*table.constraints, *table.indexes))
    for what, lines in (("view", file.views), ("foreign key", file.foreign_keys), ("function", file.functions)):
        yield from (f"  {what} {line}" for line in lines)
    for statement in file.statements:
        effects = "; ".join(_effects(statement))
        if effects:
            yield f"  line {statement.line}: {effects}"
    yield f"  rollback: {_rollback(file)}"


def _kind(file: PlannedFile) -> str:
    if not file.transactional:
        return "builds or drops an index while everybody goes on, outside a transaction"
    return {
        "plain": "plain: runs in one transaction",
        "projected": "projected: brought about by a rebuild once there are events",
        "unknown": "not to be run as it is",
    }[file.kind]


def _column(column: PlannedColumn) -> str:
    words = f"{column.type}{'' if column.nullable else ' NOT NULL'}"
    words += f" DEFAULT {column.default}" if column.default is not None else ""
    was = f" (was {column.was})" if column.was else ""
    purpose = f": {column.purpose}" if column.purpose else ""
    return f"column {column.name} {column.change}, {words}{was}{purpose}"


def _effects(statement: TracedStatement) -> Iterator[str]:
    if statement.locks:
        yield "locks " + ", ".join(f"{lock.table} {lock.mode}" for lock in statement.locks)
    if statement.rewrites:
        yield "rewrites " + ", ".join(statement.rewrites)
    if statement.written:
        yield "writes " + ", ".join(f"{rows:,} rows of {table}" for table, rows in statement.written.items())
    if statement.scans:
        yield "reads all of " + ", ".join(statement.scans)


def _rollback(file: PlannedFile) -> str:
    proof = file.rollback
    if proof.state in _WORDS:
        return _WORDS[proof.state]
    return f"none: {file.rollback_says}" if proof.state == "none" else f"WRONG: {proof.reason}"


def _projections(plan: Plan) -> Iterator[str]:
    concerned = [one for one in plan.projections if one.need != "nothing"]
    if not concerned:
        yield "projected tables: nothing to rebuild"
    for one in concerned:
        yield f"projected table {one.table}: {one.need}{_time(one)}"
        yield from (f"  because {reason}" for reason in one.reasons)
        yield from (f"  {line}" for line in _checklist(one))


def _time(one: PlannedProjection) -> str:
    if one.need not in {"rebuild", "fill"}:
        return ""
    seconds = f", about {one.estimated_s:.1f} s with one process" if one.estimated_s is not None else ""
    return f" from a log of {one.events:,} events{seconds}"


def _checklist(one: PlannedProjection) -> Iterator[str]:
    for story in one.checklist:
        parts = [
            f"{verb} {', '.join(topics)}"
            for verb, topics in (
                ("set by", story.set_by),
                ("changed by", story.changed_by),
                ("carried through", story.carried_by),
            )
            if topics
        ]
        yield f"column {story.column}: {'; '.join(parts) or 'no event of the sample concerns it'}"
    if one.sampled_events:
        yield f"tried with {one.sampled_events:,} events of the log, which made {one.sampled_versions:,} rows"
    if one.unseen and one.sampled_events:
        yield f"not in the sample: {', '.join(one.unseen)}"


def markdown(plan: Plan) -> Iterator[str]:
    """The document that goes with a review (S12)."""
    yield "# Migration plan"
    yield ""
    yield f"**{verdict(plan)}**" if plan.files else "Nothing is pending."
    if plan.steps or plan.backup:
        yield from ["", "## What happens", "", *(f"- {line}" for line in (*plan.steps, *plan.backup))]
    for file in plan.files:
        yield from _file_page(file)
    if plan.files:
        yield from ["", "## Projected tables", "", *_table(_PROJECTION_HEADS, map(_projection_row, plan.projections))]
        for one in plan.projections:
            lines = list(_checklist(one))
            yield from (
                ["", f"### {one.table}: open, update, close, list", "", *(f"- [ ] {line}" for line in lines)]
                if lines
                else []
            )
    if plan.findings:
        yield from ["", "## Findings"]
        for finding in plan.findings:
            yield from ["", f"- **{finding.severity}** `{finding.code}`: {_finding(finding).partition(': ')[2]}"]
            if finding.safe_form:
                yield from ["", "  ```sql", *(f"  {line}" for line in finding.safe_form.splitlines()), "  ```"]


_PROJECTION_HEADS = ("table", "needs", "because")


def _projection_row(one: PlannedProjection) -> tuple[str, ...]:
    return one.table, f"{one.need}{_time(one)}", "; ".join(one.reasons)


def _file_page(file: PlannedFile) -> Iterator[str]:
    yield from ["", f"## {file.number:03} {file.title}", "", file.summary, ""]
    facts = {"file": f"`{file.filename}`", "author": file.author, "date": file.date, "related": file.related}
    yield from (f"- {name}: {value}" for name, value in {**facts, "kind": _kind(file)}.items())
    yield f"- rollback: {_rollback(file)}. {file.rollback_says}"
    for table in file.tables:
        yield from ["", f"### Table `{table.name}` ({table.change})", ""]
        if table.purpose:
            yield from [table.purpose, ""]
        if table.columns:
            rows = [
                (
                    f"`{one.name}`",
                    one.change,
                    f"{one.type}",
                    "yes" if one.nullable else "no",
                    one.purpose or "",
                    one.was,
                )
                for one in table.columns
            ]
            yield from _table(("column", "change", "type", "null", "purpose", "was"), rows)
        yield from (f"- {line}" for line in (*table.constraints, *table.indexes))
    lists = (
        ("Views", file.views),
        ("Foreign keys", file.foreign_keys),
        ("Functions", file.functions),
        ("Tests needed", file.tests),
    )
    for heading, lines in lists:
        if lines:
            yield from ["", f"### {heading}", "", *(f"- {line}" for line in lines)]
    steps = [
        (str(one.line), f"`{' '.join(one.text.split())[:60]}`", "; ".join(_effects(one))) for one in file.statements
    ]
    yield from ["", "### Statements", "", *_table(("line", "statement", "effect"), steps)]


def _table(heads: Sequence[str], rows: object) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:  # type: ignore[attr-defined]
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        yield f"| {' | '.join(cells)} |"
