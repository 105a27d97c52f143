"""Statements of the code that name what migrations take away: described by the server in the schema they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from position_ledger.checking import composed as composing
from position_ledger.checking.files import Sources
from position_ledger.checking.findings import Mismatch
from position_ledger.checking.source import statements_of
from position_ledger.checking.statements import Checker
from position_ledger.checking.text import Place
from position_ledger.migration.bookkeeping import BOOKKEEPING
from position_ledger.migration.catalogue import Catalogue
from position_ledger.migration.findings import Finding
from position_ledger.migration.session import use_schema
from position_ledger.migration.trace import TracedFile, Tracer
from position_ledger.operations.checking import sources_of
from position_ledger.operations.common import projections
from position_ledger.settings import Settings

SHOWN_MAX = 5


def still_used(tracer: Tracer, settings: Settings, base: Catalogue, traced: Sequence[TracedFile]) -> Iterator[Finding]:
    """A finding for each table, view or column that is gone at the end and that a statement of the code still names."""
    after = traced[-1].after
    sources = sources_of(settings)
    gone = _named(sources, list(_gone(base, after)))
    if not gone:
        return
    if tracer.is_held:
        cause = "statements of the code were not described: the migrations make roles, and are undone as one"
        yield Finding("note", "code-not-checked", "", 0, "", cause)
        return
    broken = _broken(tracer, settings, sources, after)
    for names in gone:
        found = [one for one in broken if re.search(rf"\b{re.escape(names[-1])}\b", one.sentence)]
        if found:
            yield _finding(traced, names, found)


def _gone(base: Catalogue, after: Catalogue) -> Iterator[tuple[str, ...]]:
    """Tables and views by name, columns by table and name."""
    for name in (*base.tables, *base.views):
        if name not in after.tables and name not in after.views:
            yield (name,)
    for old, new in ((base.tables, after.tables), (base.views, after.views)):
        for name in sorted(old.keys() & new.keys()):
            columns = new[name].columns
            yield from ((name, column) for column in old[name].columns if column not in columns)


def _named(sources: Sources, gone: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those whose name stands in a file at all: most do not, and describing every statement takes a second."""
    if not gone:
        return []
    words = {word for file in sources.files.values() for word in re.findall(rb"\w+", file.read_bytes())}
    return [names for names in gone if names[-1].encode() in words]


def _broken(tracer: Tracer, settings: Settings, sources: Sources, after: Catalogue) -> tuple[Mismatch, ...]:
    known = projections(settings)
    use_schema(tracer.connection, settings.ledger_schema)
    made = composing.composed(settings.ledger_schema, known)
    checker = Checker(tracer.connection, {*after.tables, *after.views, *BOOKKEEPING}, known)
    return checker.check(statements_of(sources), made, Place(Path(composing.__file__), 1)).mismatches


def _finding(traced: Sequence[TracedFile], names: tuple[str, ...], found: Sequence[Mismatch]) -> Finding:
    what = f"column {names[1]} of {names[0]}" if len(names) > 1 else names[0]
    shown = "; ".join(map(str, found[:SHOWN_MAX]))
    more = f" and {len(found) - SHOWN_MAX} more places" if len(found) > SHOWN_MAX else ""
    place, line, statement = _taken_away(traced, names)
    cause = f"{what} is still used by the code: {shown}{more}"
    form = "-- first a release whose code names it no more, then this file"
    return Finding("error", "drop-of-used", place, line, statement, cause, form)


def _taken_away(traced: Sequence[TracedFile], names: tuple[str, ...]) -> tuple[str, int, str]:
    """File, line and statement that took something away; nothing for what went with something else."""
    kinds = ("table", "view")
    wanted = {f"{kind} {names[0]}: column {names[1]} is gone" for kind in kinds} if len(names) > 1 else set()
    wanted |= {f"{kind} {names[0]} is gone" for kind in kinds}
    for one in traced:
        for statement in one.statements:
            if wanted.intersection(statement.differences):
                return one.file.filename, statement.line, " ".join(statement.text.split())[:80]
    return "", 0, ""
