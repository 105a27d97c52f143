"""Findings of a plan: what a file drops while the table that is kept to go back to, or the live one, still uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import psycopg

from position_ledger.migration.files import MigrationFile
from position_ledger.migration.findings import Finding
from position_ledger.migration.holding import Held, Moment, in_the_way, look
from position_ledger.migration.sets import Step
from position_ledger.projection.generations import Generation


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


def _line_of(one: Held) -> int:
    """The first statement that drops something of that name; 0 if none says so."""
    name = one.thing.split("(")[0].split()[-1].rpartition(".")[2].strip('"')
    return next((line for line, text in _drops(one.file) if name in text), 0)


def _drops(file: MigrationFile) -> Iterator[tuple[int, str]]:
    return ((one.line, one.text) for one in file.forward.statements if "drop" in one.words)
