"""Findings of a plan about what hangs on projected tables, and what they use: what cannot go, change or be swapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import psycopg

from position_ledger.errors import SwapBlocked
from position_ledger.migration.catalogue import Catalogue
from position_ledger.migration.classify import ProjectedChange
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.findings import Finding
from position_ledger.migration.holding import Held, Moment, in_the_way, look, redefined
from position_ledger.migration.sets import Step
from position_ledger.projection.generations import Generation
from position_ledger.projection.swap import movable


def used_by_retired(
    connection: psycopg.Connection[Any], generations: Sequence[Generation]
) -> dict[str, AbstractSet[str]]:
    """What the retired tables use, by name."""
    schemas = {one.projection: one.schema for one in generations if one.state == "retired"}
    moment = look(connection, schemas)
    return {table: moment.names_kept(table) for table in schemas}


def used_by_others(
    steps: Sequence[Step], moments: Mapping[int, Moment], retired: Mapping[str, AbstractSet[str]]
) -> Iterator[Finding]:
    """What the server would refuse to drop, with the way out."""
    for one in in_the_way(steps, moments, retired):
        yield _by_retired(one) if one.is_retired else _until_swap(one)


def functions_changed(
    files: Sequence[MigrationFile], steps: Sequence[Step], moments: Mapping[int, Moment]
) -> Iterator[Finding]:
    """What a table's checks call, and is another from now on without a look at its rows."""
    rebuilt = frozenset(table for step in steps if isinstance(step, ProjectedChange) for table in step.tables)
    for one in redefined(files, moments, rebuilt):
        cause = (
            f"{one.thing} becomes another, and {one.table} calls it in a check, an index or a column: no row that is there is "
            "looked at again, and the first that breaks it stops the projection"
        )
        form = (
            "-- a function of another name, and in a file after it\n"
            f"ALTER TABLE {one.table} DROP CONSTRAINT …, ADD CONSTRAINT … CHECK (…);   -- rebuilt, so history is checked"
        )
        yield Finding("error", "function-in-use", one.file.filename, _line_of(one, "function"), "", cause, form)


def in_the_way_of_swaps(
    connection: psycopg.Connection[Any],
    schema: str,
    steps: Sequence[Step],
    before: Catalogue,
    *,
    tables: AbstractSet[str],
) -> Iterator[Finding]:
    """What hangs on ``tables`` that are to be swapped, and cannot go along: as `up` would refuse it."""
    for step in steps:
        if not isinstance(step, ProjectedChange):
            continue
        for table in sorted(step.tables & tables):
            try:
                movable(connection, schema, table, before)
            except SwapBlocked as error:
                yield Finding("error", "swap-blocked", step.files[0].filename, 0, "", str(error))


def _by_retired(one: Held) -> Finding:
    cause = (
        f"{one.thing} goes, and the table {one.table} that is kept to go back to, as it was before its last swap, still "
        "uses it"
    )
    form = (
        f"-- position-ledger migrate up {one.file.number - 1:03}   and when nobody will go back any more\n"
        f"-- position-ledger rebuild-projection {one.table} --drop-retired"
    )
    return Finding("error", "held-by-retired", one.file.filename, _line_of(one), "", cause, form)


def _until_swap(one: Held) -> Finding:
    cause = (
        f"{one.thing} goes, and the table {one.table} uses it until the swap of its change set: what stands between two "
        "changes of a projected table runs before both"
    )
    form = (
        f"-- give the file a number behind the last one that changes {one.table}, or\n"
        f"-- position-ledger migrate up {one.file.number:03}"
    )
    return Finding("error", "held-until-swap", one.file.filename, _line_of(one), "", cause, form)


def _line_of(one: Held, word: str = "drop") -> int:
    """The first statement with that word and the name; 0 if none says so."""
    name = one.thing.split("(")[0].split()[-1].rpartition(".")[2].strip('"')
    return next((line for line, text in _with(word, one.file) if name in text), 0)


def _with(word: str, file: MigrationFile) -> Iterator[tuple[int, str]]:
    return ((one.line, one.text) for one in file.forward.statements if word in one.words)
