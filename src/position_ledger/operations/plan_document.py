"""The plan document: what a series of migrations does, as plain values that text, JSON and Markdown are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from position_ledger.migration.catalogue import Catalogue, Column, Table
from position_ledger.migration.findings import Finding
from position_ledger.migration.rows import CopiedTable
from position_ledger.migration.trace import RollbackProof, TracedFile, TracedStatement
from position_ledger.operations.sampling import ColumnStory

Change = Literal["new", "gone", "changed"]
Need = Literal["nothing", "in place", "fill", "rebuild"]


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column that comes, goes or changes; ``was`` has what it was in words, "" for a new one."""

    name: str
    change: Change
    type: str
    nullable: bool
    default: str | None
    purpose: str | None
    was: str = ""


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table that comes, goes or changes, with what changes of it, and about how many rows it has now."""

    name: str
    change: Change
    projected: bool
    purpose: str | None
    rows: int
    columns: tuple[PlannedColumn, ...]
    constraints: tuple[str, ...]
    indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One migration in its place. ``kind`` is what it is to the runner; "unknown" if it failed or is refused."""

    number: int
    filename: str
    title: str
    summary: str
    author: str
    date: str
    related: str
    kind: Literal["plain", "projected", "unknown"]
    transactional: bool
    statements: tuple[TracedStatement, ...]
    differences: tuple[str, ...]
    tables: tuple[PlannedTable, ...]
    views: tuple[str, ...]
    foreign_keys: tuple[str, ...]
    functions: tuple[str, ...]
    rollback: RollbackProof
    rollback_says: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedProjection:
    """What a projected table needs, why, how long about, and which events say what about the columns that change."""

    table: str
    need: Need
    reasons: tuple[str, ...]
    events: int = 0
    estimated_s: float | None = None
    sampled_events: int = 0
    sampled_versions: int = 0
    unseen: tuple[str, ...] = ()
    checklist: tuple[ColumnStory, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What `migrate up` would do. ``untraced`` are files behind one that failed: nothing can be said of them yet."""

    files: tuple[PlannedFile, ...]
    projections: tuple[PlannedProjection, ...]
    findings: tuple[Finding, ...]
    tables: tuple[CopiedTable, ...] = ()
    untraced: tuple[str, ...] = ()
    events: int = 0
    took_s: float = 0.0
    is_applied: bool = False
    steps: tuple[str, ...] = ()
    backup: tuple[str, ...] = ()

    @property
    def is_safe(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def planned_file(
    traced: TracedFile,
    kind: Literal["plain", "projected", "unknown"],
    projected: frozenset[str],
    tables: Mapping[str, CopiedTable],
    differences: Sequence[str],
) -> PlannedFile:
    """The page of one migration: header, trace, and what of the schema it touches."""
    file, header = traced.file, traced.file.header
    changed = tuple(_tables(traced.before, traced.after, projected, tables))
    touched = {table.name for table in changed} | _written(traced)
    return PlannedFile(
        file.number,
        file.filename,
        header["Description"],
        header["Summary"],
        header["Author"],
        header["Date"],
        header["Related"],
        kind,
        file.is_transactional,
        traced.statements,
        tuple(differences),
        changed,
        tuple(_views(traced, touched)),
        tuple(_foreign_keys(traced, touched)),
        tuple(_functions(traced, touched)),
        traced.rollback,
        header["Rollback"],
        tuple(_tests(changed, traced)),
    )


def _written(traced: TracedFile) -> set[str]:
    return {table for one in traced.statements for table in one.written}


def _tables(
    before: Catalogue, after: Catalogue, projected: frozenset[str], known: Mapping[str, CopiedTable]
) -> Iterator[PlannedTable]:
    for name in sorted({*before.tables, *after.tables}):
        old, new = before.tables.get(name), after.tables.get(name)
        if old == new:
            continue
        now = new or old
        change: Change = "new" if old is None else "gone" if new is None else "changed"
        yield PlannedTable(
            name,
            change,
            name in projected,
            now.comment if now else None,
            known[name].rows if name in known else 0,
            tuple(_columns(old, new)),
            tuple(_definitions("constraints", old, new)),
            tuple(_definitions("indexes", old, new)),
        )


def _columns(old: Table | None, new: Table | None) -> Iterator[PlannedColumn]:
    was, now = old.columns if old else {}, new.columns if new else {}
    for name in dict.fromkeys([*now, *was]):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        column = after or before
        if column is None:
            continue
        change: Change = "new" if before is None else "gone" if after is None else "changed"
        words = _in_words(before) if before else ""
        yield PlannedColumn(
            name, change, column.type, not column.not_null, column.default, column.comment, words if after else ""
        )


def _in_words(column: Column) -> str:
    default = f" DEFAULT {column.default}" if column.default is not None else ""
    return f"{column.type}{' NOT NULL' if column.not_null else ''}{default}"


def _definitions(part: Literal["constraints", "indexes"], old: Table | None, new: Table | None) -> Iterator[str]:
    was, now = getattr(old, part, {}), getattr(new, part, {})
    for name in sorted({*was, *now}):
        if was.get(name) == now.get(name):
            continue
        if name not in now:
            yield f"{name} is gone"
        else:
            yield f"{name} {'is new' if name not in was else 'becomes'}: {now[name].definition}"


def _views(traced: TracedFile, touched: set[str]) -> Iterator[str]:
    before, after = traced.before.views, traced.after.views
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"{name} is gone"
        elif name not in before:
            yield f"{name} is new"
        elif before[name] != after[name]:
            yield f"{name} changes"
        elif touched & set(after[name].reads):
            yield f"{name} reads {', '.join(sorted(touched & set(after[name].reads)))}"


def _foreign_keys(traced: TracedFile, touched: set[str]) -> Iterator[str]:
    for table in {**traced.before.tables, **traced.after.tables}.values():
        for one in table.constraints.values():
            if one.kind != "f":
                continue
            parent = parent_of(one.definition)
            if table.name in touched or parent in touched:
                yield f"{table.name}.{one.name}: {one.definition}"


def parent_of(definition: str) -> str:
    """The table that a foreign key refers to, of its definition in the server's words."""
    return definition.partition("REFERENCES ")[2].partition("(")[0].strip('" ')


def _functions(traced: TracedFile, touched: set[str]) -> Iterator[str]:
    before, after = traced.before.functions, traced.after.functions
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"{name} {'is gone' if name not in after else 'is new' if name not in before else 'changes'}"
        elif any(re.search(rf"\b{re.escape(table)}\b", after[name].definition) for table in touched):
            yield f"{name} names {', '.join(sorted(t for t in touched if t in after[name].definition))}"


def _tests(tables: Sequence[PlannedTable], traced: TracedFile) -> Iterator[str]:
    """What to test, of what this plan itself cannot prove."""
    for table in tables:
        columns = [one.name for one in table.columns if one.change != "gone"]
        if table.projected and columns:
            yield f"replay: {', '.join(columns)} of {table.name} after open, update, close, and in the lists that show them"
        elif columns:
            yield f"{table.name}: what reads or writes {', '.join(columns)}"
    if traced.rollback.state == "none":
        yield "restore of a backup: the file has no way back"
