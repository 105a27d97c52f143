"""Change what is recorded without running anything: adopt a database as it is, accept a file as it is now.

Both prove first that the database is what the files make; only what a catalogue cannot prove is left to the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import accept, ensure_bookkeeping, read_applied, remember
from position_ledger.migration.catalogue import diff
from position_ledger.migration.execute import verify_section
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.plan import status_of
from position_ledger.migration.row_statements import row_statements
from position_ledger.migration.session import Connection, Limits, migration_session, use_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger.migration.bookkeeping import Applied
    from position_ledger.migration.catalogue import Catalogue
    from position_ledger.migration.files import MigrationFile
    from position_ledger.migration.scratch import Targets

__all__ = ["Place", "Recorded", "accept_checksum", "baseline"]

SHOWN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """The database and schema that are meant, the files of the folder, and their replay."""

    conninfo: str
    schema: str
    files: tuple[MigrationFile, ...]
    targets: Targets
    limits: Limits


@dataclass(frozen=True, slots=True)
class Recorded:
    """The files whose records changed, and what nothing could prove."""

    files: tuple[MigrationFile, ...]
    unproven: tuple[str, ...] = ()


def baseline(place: Place, number: int | None = None) -> Recorded:
    """Record files 1 to number, or all, as applied, because the database is exactly what they make; run nothing.

    Raises MigrationError where a migration is recorded already, where there is no schema, where the catalogue differs
    (with the differences), or where the verification of the last file does not hold.
    """
    last = len(place.files) if number is None else number
    _refuse_unknown(place.files, last)
    with migration_session(place.conninfo, place.schema, place.limits) as connection:
        _refuse_recorded(read_applied(connection, place.schema), place.schema)
        place.targets.prepare(range(len(place.files) + 1))
        with connection.transaction(), connection.cursor() as cursor:
            _refuse_difference(place, read_catalogue(connection, place.schema), last)
            ensure_bookkeeping(connection, place.schema)
            chosen = place.files[:last]
            verify_section(cursor, chosen[-1], chosen[-1].verify)
            for file in chosen:
                remember(cursor, place.schema, file, "done", 0, action="baseline")
    return Recorded(chosen, tuple(_rows_of(file) for file in chosen if row_statements(file.forward)))


def accept_checksum(place: Place, number: int, *, reason: str | None = None, is_forced: bool = False) -> Recorded:
    """Record the checksums of an applied file as it is now, because what it makes is what the database has.

    The history keeps the checksum before, who did it and why. Returns no file if it is as it was applied.
    Raises MigrationError where the file is not wholly applied, or where the replay of the files as they are now differs
    from the database, or where its rows cannot be compared; with ``is_forced`` these come back as unproven instead.
    """
    _refuse_unknown(place.files, number)
    file = place.files[number - 1]
    with migration_session(place.conninfo, place.schema, place.limits) as connection:
        applied = read_applied(connection, place.schema)
        old = _applied_row(file, applied)
        edited = status_of(place.files, applied).rows[number - 1].edited
        if not edited:
            return Recorded(())
        problems = _problems(place, connection, file, edited, max(row.number for row in applied))
        if problems and not is_forced:
            raise MigrationError(
                f"{file.filename} is not accepted, its section {', '.join(edited)} was edited and {_listed(problems)}; "
                "restore the file and write a new migration, or add --force if you have compared them yourself"
            )
        ensure_bookkeeping(connection, place.schema)
        with connection.transaction(), connection.cursor() as cursor:
            accept(cursor, place.schema, file, old, reason)
    return Recorded((file,), tuple(problems))


def _refuse_unknown(files: Sequence[MigrationFile], number: int) -> None:
    if not 1 <= number <= len(files):
        raise MigrationError(f"there is no migration {number:03}; the folder holds 001 to {len(files):03}")


def _refuse_recorded(applied: Sequence[Applied], schema: str) -> None:
    if applied:
        raise MigrationError(
            f"schema {schema} has {len(applied)} migrations recorded, up to {applied[-1].name}; a baseline is for a "
            "database where none ever was: see `position-ledger migrate status`"
        )


def _refuse_difference(place: Place, live: Catalogue, last: int) -> None:
    found = diff(place.targets.catalogue_at(last), live)
    if not found:
        return
    if not (live.tables or live.views or live.functions):
        raise MigrationError(f"schema {place.schema} holds nothing to adopt; run `position-ledger migrate up`")
    equal = [number for number in range(1, len(place.files) + 1) if place.targets.catalogue_at(number) == live]
    remedy = (
        f"it is what 001 to {equal[-1]:03} make: run `position-ledger migrate baseline {equal[-1]:03}`"
        if equal
        else "bring it there by hand, or name the last migration that it has"
    )
    raise MigrationError(
        f"schema {place.schema} is not what migrations 001 to {last:03} make: {_listed(found)}; nothing was recorded; {remedy}"
    )


def _applied_row(file: MigrationFile, applied: Sequence[Applied]) -> Applied:
    row = next((row for row in applied if row.number == file.number), None)
    if row is None:
        raise MigrationError(
            f"{file.filename} is not applied, so it may be edited freely; run `position-ledger migrate sum` after it"
        )
    if row.state != "done":
        raise MigrationError(f"{file.filename} is {row.state}; finish it first: see `position-ledger migrate status`")
    return row


def _problems(place: Place, connection: Connection, file: MigrationFile, edited: Sequence[str], last: int) -> list[str]:
    """Why the edited file may not be what the database has, a clause each."""
    try:
        target = place.targets.catalogue_at(last)
    except MigrationError as error:
        return [f"the files as they are now do not run from empty: {error}"]
    use_schema(connection, place.schema)
    problems = diff(target, read_catalogue(connection, place.schema))
    if "forward" in edited and row_statements(file.forward):
        problems.append(_rows_of(file))
    if file.number == last:  # later migrations may have changed what an earlier verification speaks of
        try:
            with connection.transaction(), connection.cursor() as cursor:
                verify_section(cursor, file, file.verify)
        except MigrationError as error:
            problems.append(str(error))
    return problems


def _rows_of(file: MigrationFile) -> str:
    first = row_statements(file.forward)[0]
    return (
        f"the rows that {file.filename} writes (line {first.line}: {first.excerpt!r}) are in no catalogue, compare them"
    )


def _listed(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - SHOWN_MAX} more" if len(lines) > SHOWN_MAX else ""
    return "; ".join(lines[:SHOWN_MAX]) + more
