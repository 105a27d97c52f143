"""Pure decisions about files and what a database says is applied: what is pending, and what does not fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from position_ledger.errors import MigrationError, SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from position_ledger.migration.bookkeeping import Applied
    from position_ledger.migration.files import MigrationFile

__all__ = ["Status", "StatusRow", "begun_up_to", "check_fit", "pending_files", "status_of", "to_roll_back"]


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One migration: applied, running or reverting (killed in between), pending, edited since, or unknown here.

    In a change set that has begun, ``expanded`` ran in place and ``building`` waits for the rebuild of its tables.
    """

    number: int
    name: str
    state: Literal["applied", "pending", "running", "reverting", "expanded", "building", "edited", "unknown"]
    applied: Applied | None = None
    edited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """Every migration of folder and database, in order."""

    rows: tuple[StatusRow, ...]

    @property
    def pending(self) -> tuple[StatusRow, ...]:
        """What `migrate up` would apply or finish."""
        return tuple(row for row in self.rows if row.state in {"pending", "running", "expanded", "building"})

    @property
    def begun(self) -> tuple[StatusRow, ...]:
        """The files of a change set that has begun: `migrate up` goes on with it, `migrate up --abort` undoes it."""
        return tuple(row for row in self.rows if row.applied is not None and row.applied.is_begun)

    @property
    def is_current(self) -> bool:
        """Whether folder and database agree in every migration."""
        return all(row.state == "applied" for row in self.rows)


def status_of(files: Sequence[MigrationFile], applied: Sequence[Applied]) -> Status:
    """Compare folder and database without judging."""
    by_number = {row.number: row for row in applied}
    rows = [_status_row(file, by_number.get(file.number)) for file in files]
    rows += [StatusRow(row.number, row.name, "unknown", row) for row in applied if row.number > len(files)]
    return Status(tuple(rows))


def _status_row(file: MigrationFile, row: Applied | None) -> StatusRow:
    if row is None:
        return StatusRow(file.number, file.name, "pending")
    edited = _edited(file, row)
    if edited:
        return StatusRow(file.number, file.name, "edited", row, edited)
    return StatusRow(file.number, file.name, "applied" if row.state == "done" else row.state, row)


def _edited(file: MigrationFile, row: Applied) -> tuple[str, ...]:
    return (("name",) if file.name != row.name else ()) + file.checksums.edited(row.checksums)


def check_fit(files: Sequence[MigrationFile], applied: Sequence[Applied]) -> None:
    """Raise SchemaMismatch for a database from the future, MigrationError for an edited file or one left out."""
    unknown = [row for row in applied if row.number > len(files)]
    if unknown:
        raise SchemaMismatch(
            f"the database is ahead of this release: it has {', '.join(row.name for row in unknown)} applied and "
            f"the folder ends at {files[-1].name if files else 'nothing'}; install the release that has them"
        )
    for row in applied:
        file = files[row.number - 1]
        edited = _edited(file, row)
        if edited:
            _refuse_edited(file, row, edited)
    for file, row in zip(files, (row for row in applied if not row.is_begun), strict=False):
        if file.number != row.number:
            raise MigrationError(
                f"{file.filename} is not applied but the later {row.name} is: out of order; "
                "give it the next free number"
            )


def _refuse_edited(file: MigrationFile, row: Applied, edited: tuple[str, ...]) -> None:
    what = f"the name (it was {row.name})" if edited == ("name",) else f"section {', '.join(edited)}"
    raise MigrationError(
        f"{file.filename} was edited after it was applied on {row.applied_at:%Y-%m-%d %H:%M} UTC: {what}; "
        "restore the file as it was and put the change into a new migration, or, if it changes nothing in the database, "
        f"run `position-ledger migrate accept-checksum {file.number:03}`"
    )


def pending_files(
    files: Sequence[MigrationFile], applied: Sequence[Applied], target: int | None
) -> tuple[MigrationFile, ...]:
    """Files to apply up to and including target, or all; MigrationError for a number that does not exist."""
    _refuse_unknown_number(files, target)
    reverting = next((row for row in applied if row.state == "reverting"), None)
    if reverting is not None:
        raise MigrationError(
            f"the rollback of {reverting.name} was interrupted; finish it first with "
            f"`position-ledger migrate down {reverting.number:03}`"
        )
    _refuse_split(applied, target)
    done = {row.number for row in applied if row.state == "done"}
    last = len(files) if target is None else target
    return tuple(file for file in files[:last] if file.number not in done)


def begun_up_to(applied: Sequence[Applied]) -> int | None:
    """The last file of the change set that has begun; None if none has."""
    return max((row.change_set or row.number for row in applied if row.is_begun), default=None)


def _refuse_split(applied: Sequence[Applied], target: int | None) -> None:
    last = begun_up_to(applied)
    if last is not None and target is not None and target < last:
        first = min(row.number for row in applied if row.is_begun)
        raise MigrationError(
            f"the change set of migrations {first:03} to {last:03} has begun and cannot be split at {target:03}; go on with "
            f"`position-ledger migrate up {last:03}`, or undo it with `position-ledger migrate up --abort`"
        )


def _refuse_begun(applied: Sequence[Applied]) -> None:
    begun = [row.number for row in applied if row.is_begun]
    if begun:
        raise MigrationError(
            f"the change set of migrations {begun[0]:03} to {begun_up_to(applied):03} has begun and is not applied; go on "
            "with `position-ledger migrate up`, or undo it with `position-ledger migrate up --abort`, then roll back"
        )


def to_roll_back(files: Sequence[MigrationFile], applied: Sequence[Applied], number: int) -> tuple[MigrationFile, ...]:
    """Applied files from the latest down to number; MigrationError when one of them cannot be rolled back."""
    _refuse_unknown_number(files, number)
    _refuse_begun(applied)
    chosen = tuple(files[row.number - 1] for row in reversed(applied) if row.number >= number)
    for file in chosen:
        if not file.rollback.statements:
            raise MigrationError(
                f"{file.filename} cannot be rolled back, its header says: Rollback: {file.header['Rollback']}; "
                "restore a backup or write a new migration"
            )
    return chosen


def _refuse_unknown_number(files: Sequence[MigrationFile], number: int | None) -> None:
    if number is not None and not 1 <= number <= len(files):
        raise MigrationError(f"there is no migration {number:03}; the folder holds 001 to {len(files):03}")
