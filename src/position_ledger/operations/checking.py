"""Does the code fit the database: migrations, catalogue, definitions, row types, and every SQL statement of the code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

from position_ledger.checking import composed as composing
from position_ledger.checking.definitions import Around, State, mismatch_of
from position_ledger.checking.files import Sources
from position_ledger.checking.findings import Mismatch, StatementsChecked, Undescribed
from position_ledger.checking.row_types import row_type_mismatches
from position_ledger.checking.source import statements_of
from position_ledger.checking.statements import Checker
from position_ledger.checking.text import Place, SqlText
from position_ledger.database import first_line, translated
from position_ledger.errors import ConfigurationError, MigrationError, SchemaMismatch
from position_ledger.migration.bookkeeping import BOOKKEEPING
from position_ledger.migration.catalogue import Catalogue
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.runner import Migrator
from position_ledger.operations.common import migrator_of, owner, projections
from position_ledger.operations.defined import around_of, definition_states
from position_ledger.projection.definition import Projection
from position_ledger.settings import Settings
from position_ledger.setup import Reached

__all__ = ["CheckReport", "check", "sources_of"]

PROGRAM: Final = Path(__file__).resolve().parents[1]
"""Our own package."""
NOTHING: Final = StatementsChecked(0, (), ())


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was compared. ``notes`` say what could not be, and why; they are no mismatches."""

    mismatches: tuple[Mismatch, ...]
    described: int
    """Statements that fit the schema."""
    undescribed: tuple[Undescribed, ...]
    projections: tuple[State, ...]
    notes: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.mismatches


def check(settings: Settings, reached: Reached, code: Sequence[str] = ()) -> CheckReport:
    """Compare code and database; nothing is written and nothing is run. ``code``: more folders of Python to look through.

    With migrations that do not fit, statements and row types are left alone: they are for the schema of the code.

    Raises:
        ConfigurationError: a folder that is not there, or a file that is no Python.
    """
    with translated(), ThreadPoolExecutor(1, "check") as beside:
        migrator = migrator_of(settings, reached)
        drift = beside.submit(_drift, migrator)  # it waits for the server, while the sources are read here
        texts = statements_of(sources_of(settings, code))
        found = list(_migrations(migrator))
        notes: list[str] = []
        with owner(settings, reached) as connection:
            connection.execute("SET default_transaction_read_only = on")
            catalogues = _Catalogues(connection, settings.ledger_schema)
            around = around_of(migrator.status())
            states, wrong = _definitions(connection, settings, around, None if found else catalogues)
            if found:
                notes.append("statements and row types were not looked at: they are for the schema of the code")
                statements = NOTHING
            else:
                statements = _statements(connection, settings, catalogues.of(settings.ledger_schema), texts)
        differences, unknown = drift.result()
        return CheckReport(
            (*found, *wrong, *statements.mismatches, *differences),
            statements.described,
            statements.undescribed,
            states,
            (*notes, *unknown),
        )


def sources_of(settings: Settings, code: Sequence[str] = ()) -> Sources:
    """The Python of the program, of the definitions and workers that the settings name, and of more folders."""
    sources = Sources()
    for package in (settings.projections, settings.workers):
        for folder in _folders(package):
            sources.add(folder, "" if Path(package).is_dir() else package)
    for name in (*code, *filter(None, (settings.code or "").split(os.pathsep))):
        sources.add(Path(name).resolve(), "")
    sources.add(PROGRAM, PROGRAM.name)
    return sources


def _folders(package: str) -> list[Path]:
    """Where a package lies: a folder, or what a dotted name stands for."""
    if Path(package).is_dir():
        return [Path(package).resolve()]
    try:
        spec = find_spec(package)
    except (ImportError, ValueError) as error:
        msg = f"{package!r} of the settings is neither a folder nor a package: {first_line(error)}"
        raise ConfigurationError(msg) from error
    if spec is None:
        msg = f"{package!r} of the settings is neither a folder nor a package: name one"
        raise ConfigurationError(msg)
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return [Path(place) for place in places]


def _migrations(migrator: Migrator) -> Iterator[Mismatch]:
    try:
        migrator.require_current()
    except (SchemaMismatch, MigrationError) as error:
        yield Mismatch("migration", str(error))


def _drift(migrator: Migrator) -> tuple[list[Mismatch], list[str]]:
    """How the catalogue differs from what the applied migrations make, and what kept us from knowing."""
    try:
        lines = migrator.differences()
    except MigrationError as error:
        return [], [f"the catalogue was not compared with that of the migrations: {error}"]
    remedy = "was done by hand or is missing: put it into a migration, or take it back"
    return [Mismatch("schema", f"{line} ({remedy})") for line in lines], []


class _Catalogues:
    """The schemas of the live tables and of kept generations, each read once."""

    def __init__(self, connection: psycopg.Connection[Any], live: str) -> None:
        self._connection = connection
        self._live = live
        self._read: dict[str, Catalogue] = {}

    def of(self, schema: str) -> Catalogue:
        """One schema."""
        if schema not in self._read:
            self._read[schema] = read_catalogue(self._connection, schema, beside=self._live)
        return self._read[schema]


def _definitions(
    connection: psycopg.Connection[Any], settings: Settings, around: Around, catalogues: _Catalogues | None
) -> tuple[tuple[State, ...], list[Mismatch]]:
    """The state of each definition, and what is wrong with it or, unless None is given, with its row type."""
    known = projections(settings)
    states = definition_states(connection, settings, around)
    if catalogues is None and all(state.why == "there is no ledger" for state in states):
        return states, []
    found = [one for one in map(mismatch_of, states) if one]
    if catalogues is not None:
        for projection, state in zip(known, states, strict=True):
            for schema in state.schemas or (settings.ledger_schema,):
                found += _row_type(projection, catalogues.of(schema), schema)
    return states, list(dict.fromkeys(found))


def _row_type(projection: Projection[Any], catalogue: Catalogue, schema: str) -> list[Mismatch]:
    table = catalogue.tables.get(projection.table)
    if table is None:
        what = f"table {schema}.{projection.table} does not exist: run position-ledger migrate up"
        return [Mismatch("row type", what)]
    return row_type_mismatches(projection, table)


def _statements(
    connection: psycopg.Connection[Any], settings: Settings, catalogue: Catalogue, texts: list[SqlText]
) -> StatementsChecked:
    known = projections(settings)
    relations = {*catalogue.tables, *catalogue.views, *BOOKKEEPING}
    made = composing.composed(settings.ledger_schema, known)
    return Checker(connection, relations, known).check(texts, made, Place(Path(composing.__file__), 1))
