"""Change sets: plain files that run in place and the rebuild that needs them become applied together, or not at all.

pending -> expanded (a plain file, in place) and building (a file of the rebuild, nothing done yet) -> done, all in the
transaction of the swap. A failure before the swap undoes the set by the rollback sections of its plain files. A kill
leaves the states behind: `up` goes on with exactly that set, `up --abort` undoes it.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import psycopg

from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import finish, forget, read_applied, remember
from position_ledger.migration.classify import ProjectedChange, change_sets
from position_ledger.migration.execute import FileFailed, StatementFailed
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.history_rules import refuse_lost_history

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from position_ledger.migration.bookkeeping import Applied
    from position_ledger.migration.scratch import Targets
    from position_ledger.migration.session import Connection
    from position_ledger.migration.steps import Rebuild, Run, Steps

__all__ = ["Abandon", "ChangeSets", "Outlook", "Step", "announce", "grouped", "refuse_lasting"]

Step: TypeAlias = "MigrationFile | ProjectedChange"
Outlook: TypeAlias = "Callable[[ProjectedChange, Collection[str]], str]"
"""What a rebuild will have to do, in words; SchemaMismatch if it cannot be done at all.

It is told which tables an earlier change of the same run moves: those are not yet as this one finds them.
"""

Abandon: TypeAlias = "Callable[[Collection[str]], object]"
"""Drops what has been built of tables whose change set is undone."""


class ChangeSets:
    """Takes the change sets of a run on the session that holds the migration lock."""

    def __init__(self, schema: str, targets: Targets, steps: Steps) -> None:
        self._schema = schema
        self._targets = targets
        self._steps = steps

    def cut(self, connection: Connection, files: Sequence[MigrationFile], run: Run, begun: int | None) -> list[Step]:
        """Without events every file runs in place; with events, each rebuild takes the plain files before it along.

        A set that has begun ends where it ended then. An index that is built CONCURRENTLY is applied on its own: it
        cannot be part of a transaction, harms nobody, and what stands before it is applied before it.
        Raises MigrationError for a set that could not be undone, and for a file that would lose history.
        """
        if self._steps.runs_in_place(connection, files, run):
            return list(files)
        parts = [[file for file in files if (file.number <= (begun or 0)) == is_begun] for is_begun in (True, False)]
        steps: list[Step] = []
        for part in filter(None, parts):
            effects = self._targets.effects([file.number for file in part])
            for effect in effects:
                refuse_lost_history(effect)
            steps += grouped(change_sets(effects))
        self._refuse_lasting([step for step in steps if isinstance(step, ProjectedChange)], begun or 0)
        return steps

    def _refuse_lasting(self, changes: Sequence[ProjectedChange], begun: int) -> None:
        """Before anything begins; a set that has begun goes on, or is undone as far as that goes."""
        new = [change for change in changes if change.files[-1].number > begun]
        plain = [file for change in new for file in change.plain]
        for change in new:
            refuse_lasting(change)
        failing = self._targets.lasting([file.number for file in plain])
        for change in new:
            refuse_lasting(change, failing)

    def take(self, connection: Connection, change: ProjectedChange, rebuild: Rebuild | None, run: Run) -> None:
        """Bring a change set about, or leave the database as it was; an error says why."""
        self._steps.require_strategy(change, rebuild)
        try:
            self._expand(connection, change, run)
            self._begin(connection, change)
            self._steps.hand_over(connection, change, rebuild, run, undo=False)
        except BaseException as error:
            self._undo_failed(connection, change, run, error)
            raise

    def abort(self, connection: Connection, files: Sequence[MigrationFile], abandon: Abandon, run: Run) -> None:
        """Undo the set that has begun, if one has: drop what was built, take back what ran in place.

        A plain file whose rollback fails for good stays applied, and those before it: then no set has begun any more.
        """
        begun = [row for row in read_applied(connection, self._schema) if row.is_begun]
        if not begun:
            run.say("nothing to abort: no change set has begun")
            return
        chosen = [files[row.number - 1] for row in begun]
        building = {row.number for row in begun if row.state == "building"}
        if building:
            abandon(self._tables(building))
        plain = tuple(file for file in chosen if file.number not in building)
        rebuilt = tuple(file for file in chosen if file.number in building)
        self._take_back(connection, plain, rebuilt, run, may_stay=True)

    def _tables(self, numbers: Collection[int]) -> set[str]:
        steps = change_sets(self._targets.effects(numbers))
        return {table for step in steps if isinstance(step, ProjectedChange) for table in step.moved}

    def _expand(self, connection: Connection, change: ProjectedChange, run: Run) -> None:
        done = self._begun(connection)
        for file in change.plain:
            if file.number not in done:
                self._steps.run_in_place(connection, file, run, change_set=change.files[-1].number)

    def _begin(self, connection: Connection, change: ProjectedChange) -> None:
        """Write down what is being built, so that whoever looks knows and whoever comes after a kill goes on."""
        done = self._begun(connection)
        with connection.transaction(), connection.cursor() as cursor:
            for file in change.files:
                if file.number not in done:
                    remember(cursor, self._schema, file, "building", 0, change_set=change.files[-1].number)

    def _begun(self, connection: Connection) -> dict[int, Applied]:
        return {row.number: row for row in read_applied(connection, self._schema) if row.is_begun}

    def _undo_failed(self, connection: Connection, change: ProjectedChange, run: Run, error: BaseException) -> None:
        """Leave the database as it was; without a connection the states stay, and say so."""
        if _is_lost(connection):
            return
        try:
            begun = self._begun(connection)
            if not begun:  # nothing was begun, or the swap took place and what failed came after it
                return
            plain = tuple(file for file in change.plain if file.number in begun)
            rebuilt = tuple(file for file in change.files if file.number in begun)
            self._take_back(connection, plain, rebuilt, run)
        except (MigrationError, psycopg.Error) as second:
            if _is_lost(connection):
                return
            cause = second.told if isinstance(second, FileFailed) else str(second)
            raise MigrationError(
                f"{error}; undoing the change set failed as well: {cause}; run "
                "`position-ledger migrate up --abort`: it undoes what can be undone and leaves the rest applied, on its own"
            ) from error

    def _take_back(
        self,
        connection: Connection,
        plain: Sequence[MigrationFile],
        rebuilt: Sequence[MigrationFile],
        run: Run,
        *,
        may_stay: bool = False,
    ) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            for file in reversed(rebuilt):
                forget(cursor, self._schema, file, 0, action="abort")
        for place, file in reversed(list(enumerate(plain))):
            try:
                self._steps.undo_in_place(connection, file, run, action="abort")
            except StatementFailed as error:
                is_first = all(file.number < other.number for other in rebuilt)
                if not may_stay or not is_first or _may_pass(error):
                    raise
                self._leave(connection, plain[: place + 1], error, run)
                break
        else:
            names = ", ".join(file.filename for file in (*plain, *rebuilt))
            run.say(f"undone: {names}; the database is as it was before")

    def _leave(self, connection: Connection, files: Sequence[MigrationFile], error: StatementFailed, run: Run) -> None:
        """Record what ran in place as applied, on its own."""
        with connection.transaction(), connection.cursor() as cursor:
            for file in files:
                finish(cursor, self._schema, file, 0)
        names, last = ", ".join(file.filename for file in files), files[-1]
        run.say(
            f"cannot be undone: {error.told}; {names} {'stays' if len(files) == 1 else 'stay'} applied, the rest of the change "
            f"set is undone and no set has begun any more; correct the files after {last.number:03} and run "
            f"`position-ledger migrate up`; when the cause is gone, `position-ledger migrate down {last.number:03}` takes it back"
        )


def _may_pass(error: StatementFailed) -> bool:
    """Whether the same may succeed later: a lock, a cancelled statement, a full disk, a server that may not write now."""
    return (error.sqlstate or "")[:2] in {"25", "40", "53", "55", "57", "58"}


def _is_lost(connection: Connection) -> bool:
    return connection.closed or connection.broken


def grouped(steps: Sequence[Step]) -> list[Step]:
    """The steps with each change set told which plain files before it belong to it."""
    found: list[Step] = []
    plain: list[MigrationFile] = []
    for step in steps:
        if isinstance(step, ProjectedChange):
            found.append(replace(step, plain=(*plain, *step.plain)))
            plain = []
            continue
        plain.append(step)
        if not step.is_transactional:
            found += plain
            plain = []
    return found + plain


def refuse_lasting(change: ProjectedChange, failing: Mapping[int, str] = MappingProxyType({})) -> None:
    """Raise MigrationError for a plain file that cannot be rolled back: it would stay when the rebuild after it fails.

    ``failing`` says, by number, why the rollback section of a file does not do what it should.
    """
    lasting = [file for file in change.plain if not file.rollback.statements or file.number in failing]
    if lasting:
        first, last = change.whole[0].number, change.files[-1].number
        cause = failing.get(lasting[-1].number, "")
        raise MigrationError(
            f"{lasting[-1].filename} cannot be rolled back{f' ({cause})' if cause else ''}, so it cannot be part of the "
            f"change set {first:03} to {last:03}, "
            f"which is undone whole if the rebuild of {', '.join(change.moved)} fails; apply it on its own first: run "
            f"`position-ledger migrate up {lasting[-1].number:03}`, then `position-ledger migrate up`"
        )


def announce(steps: Sequence[Step], run: Run, outlook: Outlook | None) -> None:
    """Say what will happen before it begins; whatever ``outlook`` raises stops the run before anything is done."""
    in_place: list[MigrationFile] = []
    words: list[str] = []
    moved: set[str] = set()
    for step in steps:
        if isinstance(step, ProjectedChange):
            words += _in_place(in_place)
            in_place = []
            words.append(_rebuild(step, moved, outlook))
            moved |= set(step.moved)
        else:
            in_place.append(step)
    for line in words + _in_place(in_place):
        run.say(line)


def _in_place(files: Sequence[MigrationFile]) -> list[str]:
    if not files:
        return []
    first, last = files[0].filename, files[-1].filename
    return [f"to apply in place: {first}" + (f" to {last} ({len(files)} files)" if len(files) > 1 else "")]


def _rebuild(change: ProjectedChange, moved: Collection[str], outlook: Outlook | None) -> str:
    doing = []
    if change.tables:
        doing.append(f"rebuild {', '.join(sorted(change.tables))}")
    if change.made:
        doing.append(f"fill {', '.join(sorted(change.made))}")
    names = ", ".join(file.filename for file in change.files)
    before = f", after {', '.join(file.filename for file in change.plain)} in place" if change.plain else ""
    about = f"; {outlook(change, moved)}" if outlook is not None else ""
    return f"to {' and '.join(doing)} for {names}{before}{about}"
