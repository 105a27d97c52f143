"""What a migration does to the schema beside what it is for: grants and comments that go, or never came, types that readers meet.

Pure: two catalogues are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.migration.catalogue import diff
from position_ledger.migration.findings import Finding
from position_ledger.migration.history_rules import history_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.migration.catalogue import Grant
    from position_ledger.migration.trace import TracedFile

__all__ = ["schema_findings"]


def schema_findings(traced: TracedFile, projected: frozenset[str]) -> Iterator[Finding]:
    """Findings about the whole file, which has not failed."""
    yield from _does_nothing(traced)
    yield from history_findings(traced, projected)
    yield from _lost_grants(traced)
    yield from _other_types(traced)
    yield from _uncommented(traced)


def _does_nothing(traced: TracedFile) -> Iterator[Finding]:
    outside = traced.before.surroundings != traced.after.surroundings
    if outside or diff(traced.before, traced.after) or traced.written or any(one.rewrites for one in traced.statements):
        return
    cause = "it changes neither the schema nor a row: is what it makes there already (IF NOT EXISTS)?"
    yield Finding("warning", "does-nothing", traced.file.filename, 0, "", cause)


def _shown(grants: list[Grant]) -> str:
    return ", ".join(map(str, grants))


def _lost_grants(traced: TracedFile) -> Iterator[Finding]:
    if any("revoke" in one.words[:1] for one in traced.file.forward.statements):
        return
    before, after = traced.before, traced.after
    for kind, was, now in (("view", before.views, after.views), ("table", before.tables, after.tables)):
        for name in sorted(was.keys() & now.keys()):
            lost = [grant for grant in was[name].grants if grant not in now[name].grants]
            if not lost:
                continue
            cause = f"{kind} {name} was made again without what was granted on it: {_shown(lost)}"
            form = "\n".join(f"GRANT {one.privilege} ON {name} TO {one.grantee};" for one in lost)
            yield Finding("warning", "grants-lost", traced.file.filename, 0, "", cause, form)


def _other_types(traced: TracedFile) -> Iterator[Finding]:
    before, after = traced.before, traced.after
    shown: dict[str, list[str]] = {}
    for kind, was, now in (("table", before.tables, after.tables), ("view", before.views, after.views)):
        for name in sorted(was.keys() & now.keys()):
            old, new = was[name].columns, now[name].columns
            for column in old.keys() & new.keys():
                if old[column].type != new[column].type:
                    shown.setdefault(column, []).append(f"{kind} {name}")
    for column, places in sorted(shown.items()):
        cause = (
            f"{column} of {', '.join(places)} gets another type: a program that has prepared a statement that shows it meets "
            "one error, cached plan must not change result type, and prepares it again; the ledger's own reading does so "
            "by itself"
        )
        yield Finding("note", "result-type-changes", traced.file.filename, 0, "", cause)


def _uncommented(traced: TracedFile) -> Iterator[Finding]:
    before, after = traced.before.tables, traced.after.tables
    for name, table in after.items():
        known = before[name].columns if name in before else {}
        new = [column for column in table.columns if column not in known and not table.columns[column].comment]
        if new:
            cause = f"new columns of {name} say nothing about their purpose: {', '.join(new)}"
            form = "\n".join(f"COMMENT ON COLUMN {name}.{column} IS '<purpose>';" for column in new)
            yield Finding("note", "no-comment", traced.file.filename, 0, "", cause, form)
