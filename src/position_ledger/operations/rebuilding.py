"""Rebuild tables, roll them back, change how they are projected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg

from position_ledger.database import translated
from position_ledger.errors import ConfigurationError, MigrationError, SchemaMismatch, VerificationFailed
from position_ledger.events import EVENTS
from position_ledger.migration.catalogue import Catalogue
from position_ledger.migration.classify import ProjectedChange, change_sets
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.runner import Migrator
from position_ledger.migration.sets import grouped
from position_ledger.operations.common import (
    RELEASE,
    NoProgress,
    Tell,
    applied_numbers,
    last_applied,
    log_size,
    migrator_of,
    owner,
    projection_named,
    projections,
)
from position_ledger.operations.unfollowed import telling_unfollowed
from position_ledger.projection import foreign_keys, generations, inline, retention
from position_ledger.projection import rebuild as rebuilding
from position_ledger.projection.catching_up import bring_up
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.rebuild import Progress, RebuildOptions, RebuildReport, Target, Where
from position_ledger.projection.rolling_back import roll_back as exchange_back
from position_ledger.projection.swap import movable
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from position_ledger.store.codec import Codec


@contextmanager
def where(
    settings: Settings, reached: Reached, tell: Tell, progress: Progress | None = None, *, workers: int = 0
) -> Iterator[Where]:
    """What a rebuild works with: a connection of its own as the owner, closed afterwards."""

    def call(generation_id: int) -> None:
        if workers:
            from position_ledger.operations.helping import call_workers  # noqa: PLC0415 - dramatiq, for those who want it

            call_workers(settings, reached, generation_id, workers, tell)

    with owner(settings, reached) as connection:
        yield Where(
            connection, reached.database_url, settings, Codec(EVENTS), RELEASE, tell, progress or NoProgress(), call
        )


def rebuild(
    settings: Settings,
    reached: Reached,
    table: str,
    *,
    options: RebuildOptions,
    tell: Tell,
    progress: Progress | None = None,
) -> RebuildReport:
    """Rebuild a projection from the log and swap it in; pending migrations of the table become applied with the swap.

    Raises:
        ConfigurationError: no such projection. Otherwise as `position_ledger.projection.rebuild.Rebuild.run`.
    """
    with translated(), telling_unfollowed(settings, reached, tell):
        projection = projection_named(settings, table)
        migrator = migrator_of(settings, reached, tell)
        change = _pending_change(migrator, table)
        if change is None:
            catalogue = _catalogue_now(settings, reached, migrator)
            target = Target(catalogue, catalogue)
            with where(settings, reached, tell, progress, workers=options.workers) as at:
                return rebuilding.rebuild(at, [projection], target, options)[0]
        reports: list[RebuildReport] = []
        strategy = partial(rebuild_for, settings, reached, migrator, options, progress, tell, reports=reports)
        if options.dry_run or not options.swap:
            _refuse_in_place(change, options)
            strategy(change)
        else:
            migrator.up(change.files[-1].number, rebuild=strategy)
        return next(report for report in reports if report.table == table)


def _refuse_in_place(change: ProjectedChange, options: RebuildOptions) -> None:
    """MigrationError if files of the change set run in place before its rebuild: what only tries, runs none of them."""
    if not change.plain:
        return
    names = ", ".join(file.filename for file in change.plain)
    last = max(file.number for file in change.plain)
    msg = (
        f"{'--dry-run' if options.dry_run else '--no-swap'} runs no migration, and {names} runs in place before the rebuild "
        f"for {', '.join(file.filename for file in change.files)}: apply it first with position-ledger migrate up {last:03}, "
        "or see what all of it would do with position-ledger migrate plan"
    )
    raise MigrationError(msg)


def roll_back(
    settings: Settings,
    reached: Reached,
    table: str,
    *,
    tell: Tell,
    reason: str | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> RebuildReport:
    """Put the retired generation of a table back; migrations that became applied with the active one are rolled back.

    Tables that were swapped together go back together. What is far behind is brought up by so many ``processes``.

    Raises:
        GenerationNotOurs, SwapBlocked, MigrationError: nothing was changed; says what to do.
    """
    with translated(), telling_unfollowed(settings, reached, tell):
        projection_named(settings, table)
        migrator = migrator_of(settings, reached, tell, reason=reason)
        with owner(settings, reached) as connection:
            together = _swapped_together(connection, table)
        reports = _roll_back(settings, reached, migrator, together, tell, processes=processes, progress=progress)
        return next(report for report in reports if report.table == table)


def drop_retired(settings: Settings, reached: Reached, table: str) -> Generation | None:
    """Drop the table that is kept to go back to, before its time is over; None if there is none.

    Raises:
        ConfigurationError: no such projection.
        MigrationError: a rebuild of the table is running.
    """
    with translated(), owner(settings, reached) as connection:
        projection_named(settings, table)
        with rebuilding.alone(connection, table):
            return retention.drop_retired(connection, table)


def set_mode(settings: Settings, reached: Reached, table: str, mode: inline.Mode, *, tell: Tell) -> bool:
    """Have a table projected inline or by workers from now on; false if it is already. Commands go on meanwhile.

    Raises:
        ConfigurationError: no such projection, or no such mode.
        GenerationNotOurs, SwapBlocked, MigrationError: nothing was changed; says what to do.
    """
    if mode not in ("inline", "worker"):
        msg = f"mode cannot be {mode!r}: it is inline or worker"
        raise ConfigurationError(msg)
    with translated(), owner(settings, reached) as connection:
        projection = projection_named(settings, table)
        with rebuilding.alone(connection, table):
            catch_up = partial(
                bring_up, reached.database_url, settings, projection, processes=1, tell=tell, progress=NoProgress()
            )
            changed = inline.set_mode(connection, projection, Codec(EVENTS), mode, catch_up=catch_up)
    tell(
        f"{table} is projected {'inline' if mode == 'inline' else 'by workers'}{' from now on' if changed else ' already'}"
    )
    return changed


def rebuild_for(
    settings: Settings,
    reached: Reached,
    migrator: Migrator,
    options: RebuildOptions,
    progress: Progress | None,
    tell: Tell,
    change: ProjectedChange,
    *,
    reports: list[RebuildReport] | None = None,
) -> None:
    """Bring a change of projected tables about: its files become applied in the one transaction of the swap."""

    def record(cursor: psycopg.Cursor[Any]) -> None:
        migrator.record_applied(cursor, change.whole, verify=False)

    numbers = tuple(file.number for file in change.files)
    target = Target(change.before, change.after, numbers, partial(migrator.rehearse, change.files), record)
    chosen = [projection_named(settings, table) for table in change.moved]
    whole = replace(options, is_kept=False)  # a change set that fails is undone whole, shadows included
    with where(settings, reached, tell, progress, workers=options.workers) as at:
        done = rebuilding.rebuild(at, chosen, target, whole)
    if reports is not None:
        reports += done


def restore_for(settings: Settings, reached: Reached, migrator: Migrator, tell: Tell, change: ProjectedChange) -> None:
    """Take a change of projected tables back: their retired generations become the live ones again, in one swap."""
    _roll_back(settings, reached, migrator, change.moved, tell, change.files)


def abandon(settings: Settings, reached: Reached, tables: Iterable[str]) -> None:
    """Drop what is being built of tables whose change set is undone."""
    with owner(settings, reached) as connection:
        rebuilding.abandon(connection, tables)


def finish_swaps(settings: Settings, reached: Reached, tell: Tell) -> None:
    """What swaps of a killed process have left to do: foreign keys to validate, older generations to drop.

    A foreign key that does not hold is told each time: it keeps its table from the next rebuild, and nothing else.
    """
    with owner(settings, reached) as connection:
        if connection.execute("SELECT to_regclass('projection_generations')::oid").fetchone() == (None,):
            return
        for projection in projections(settings):
            try:
                foreign_keys.validate_pending(connection, projection.table)
            except VerificationFailed as error:
                tell(str(error))
            rebuilding.drop_older(connection, projection.table)


def outlook_of(
    settings: Settings, reached: Reached, migrator: Migrator, change: ProjectedChange, moved: Collection[str]
) -> str:
    """How much a change of projected tables has to do, as far as it is known.

    Of tables that are ``moved`` by an earlier change of the same run, what hangs on them is looked at when it comes to it.

    Raises:
        SchemaMismatch: the code does not fit the tables as they are after the change; names the migration it fits.
        SwapBlocked: something hangs on a table that cannot be moved, or it is projected inline.
    """
    for table in change.moved:
        _require_fit(migrator, projection_named(settings, table), change)
    with owner(settings, reached) as connection:
        for table in sorted(change.tables.difference(moved)):
            live = generations.active(connection, table)
            if live is not None:
                rebuilding.require_worker_mode(live)
                movable(connection, settings.ledger_schema, table, change.before)
        events = log_size(connection)
        rows = connection.execute(LAST_TOOK, (list(change.moved),)).fetchall()
    known = "".join(f"; {table} took {seconds:.0f} s the last time" for table, seconds in rows)
    return f"{events:,} events{known}"


LAST_TOOK = """
SELECT DISTINCT ON (g.projection) g.projection, extract(epoch FROM g.activated_at - g.created_at)::float8
  FROM projection_generations AS g
 WHERE g.projection = ANY(%s) AND g.activated_at - g.created_at BETWEEN '1 s' AND '1 day'
 ORDER BY g.projection, g.generation_id DESC
"""


def _require_fit(migrator: Migrator, projection: Projection[Any], change: ProjectedChange) -> None:
    made = change.after.tables.get(projection.table)
    gap = generations.column_gap(projection.columns, list(made.columns)) if made is not None else ""
    if not gap:
        return  # a table that no migration makes is refused by its rebuild
    first, last = change.whole[0].number, change.files[-1].number
    fitting = next((n for n in range(last + 1, len(migrator.files) + 1) if _fits(migrator, projection, n)), None)
    if fitting is None:
        remedy = "add the field to the row type or the column in a migration"
    else:
        remedy = _how_to_reach(migrator, last, fitting)
    made_by = f"migration {last:03} makes" if first == last else f"migrations {first:03} to {last:03} make"
    msg = f"table {projection.table} as {made_by} it and row type {projection.row.__name__} differ{gap}: {remedy}"
    raise SchemaMismatch(msg)


def _how_to_reach(migrator: Migrator, last: int, fitting: int) -> str:
    """What to do when the code fits a later migration only."""
    between = migrator.targets.effects(range(last + 1, fitting))
    fixed = next((one.file for one in between if one.kind == "plain" and not one.may_move), None)
    if fixed is None:
        return f"it fits migration {fitting:03}: run position-ledger migrate up {fitting:03}"
    return (
        f"it fits migration {fitting:03}, and {fixed.filename} in between has to be applied on its own: run position-ledger "
        f"migrate up {fixed.number:03} with the release that fits it first"
    )


def _fits(migrator: Migrator, projection: Projection[Any], number: int) -> bool:
    made = migrator.targets.catalogue_at(number).tables.get(projection.table)
    return made is not None and not generations.column_gap(projection.columns, list(made.columns))


def fill(
    settings: Settings,
    reached: Reached,
    migrator: Migrator,
    projection: Projection[Any],
    options: RebuildOptions,
    progress: Progress | None,
    tell: Tell,
) -> RebuildReport:
    """Fill a table that is there, was never projected, and has a history to be made from."""
    catalogue = _catalogue_now(settings, reached, migrator)
    with where(settings, reached, tell, progress) as at:
        return rebuilding.rebuild(at, [projection], Target(catalogue, catalogue), options)[0]


def _catalogue_now(settings: Settings, reached: Reached, migrator: Migrator) -> Catalogue:
    """What the applied migrations make; SchemaMismatch if the folder lacks one of them."""
    number = last_applied(settings, reached)
    if number > len(migrator.files):
        msg = (
            f"the database is ahead of this release: migration {number:03} is applied and {settings.migrations} ends at "
            f"{len(migrator.files):03}; use the folder or release that has it"
        )
        raise SchemaMismatch(msg)
    return migrator.targets.catalogue_at(number)


def _pending_change(migrator: Migrator, table: str) -> ProjectedChange | None:
    """The first pending change that concerns the table."""
    pending = [row.number for row in migrator.status().pending]
    if not pending:
        return None
    sets = grouped(change_sets(migrator.targets.effects(pending)))
    return next((one for one in sets if isinstance(one, ProjectedChange) and table in one.moved), None)


def _migrations_of(connection: psycopg.Connection[Any], live: Iterable[Generation]) -> dict[str, set[int]]:
    """The migrations that became applied with each of the active generations, by table."""
    rows = connection.execute(
        "SELECT g.projection, g.migrations FROM projection_generations AS g WHERE g.generation_id = ANY(%s)",
        ([one.generation_id for one in live],),
    ).fetchall()
    return {table: set(numbers) for table, numbers in rows}


def _swapped_together(connection: psycopg.Connection[Any], table: str) -> list[str]:
    """The tables whose active generations came with the same migrations: they cannot go back one without the other."""
    active = [one for one in generations.kept(connection) if one.state == "active"]
    numbers = _migrations_of(connection, active)
    mine = numbers.get(table, set())
    return sorted({table} | {other for other, theirs in numbers.items() if theirs & mine})


def _roll_back(
    settings: Settings,
    reached: Reached,
    migrator: Migrator,
    tables: Sequence[str],
    tell: Tell,
    only: Sequence[MigrationFile] | None = None,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[RebuildReport]:
    known = applied_numbers(settings, reached)
    applied = max(known, default=0)

    def target(live: Sequence[Generation], old: Sequence[Generation]) -> Target:
        with owner(settings, reached) as connection:
            numbers = sorted(set().union(*_migrations_of(connection, live).values()).intersection(known))
        _require_last(settings, migrator, tables, numbers, applied, old)
        if only is not None and sorted(file.number for file in only) != numbers:
            raise MigrationError(_not_those(tables, numbers))
        undone = [file for file in reversed(migrator.files) if file.number in numbers]
        before = migrator.targets.catalogue_at(applied)
        after = migrator.targets.catalogue_at(numbers[0] - 1) if numbers else before
        return Target(before, after, tuple(numbers), record=lambda cursor: migrator.record_rolled_back(cursor, undone))

    with where(settings, reached, tell, progress) as at:
        return exchange_back(at, projections(settings), tables, target, processes=processes)


def _not_those(tables: Sequence[str], numbers: Sequence[int]) -> str:
    named = ", ".join(tables)
    if not numbers:
        return f"the active generation of {named} came without a migration: roll it back with rebuild-projection --rollback"
    return (
        f"migrations {list(numbers)} became applied in one swap with the active generation of {named}: roll back exactly "
        f"those, with position-ledger migrate down {numbers[0]:03}"
    )


def _require_last(
    settings: Settings,
    migrator: Migrator,
    tables: Sequence[str],
    numbers: Sequence[int],
    applied: int,
    old: Sequence[Generation],
) -> None:
    """Nothing that was applied later may depend on what goes, and this release must know what it is."""
    named = ", ".join(tables)
    if numbers and numbers[-1] != applied:
        msg = f"migration {applied} was applied after the active generation of {named} was built: roll it back first"
        raise MigrationError(msg)
    unknown = sorted({applied, *numbers} - {file.number for file in migrator.files})
    if unknown:
        releases = ", ".join(sorted({one.release for one in old})) or "that made it"
        msg = (
            f"migrations {unknown} are applied and not in {settings.migrations}: roll {named} back with the release that "
            f"has them, while a worker of release {releases} keeps the retired rows current"
        )
        raise MigrationError(msg)
