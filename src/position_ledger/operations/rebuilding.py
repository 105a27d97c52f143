"""Rebuild a table, roll it back, change how it is projected."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg

from position_ledger.database import connect, translated
from position_ledger.errors import ConfigurationError, MigrationError
from position_ledger.events import EVENTS
from position_ledger.migration.classify import ProjectedChange, change_sets
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.runner import Migrator
from position_ledger.operations.common import (
    RELEASE,
    NoProgress,
    Tell,
    last_applied,
    migrator_of,
    owner,
    projection_named,
    projections,
)
from position_ledger.projection import inline
from position_ledger.projection import rebuild as rebuilding
from position_ledger.projection.catching_up import catch_up
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.rebuild import Progress, Rebuild, RebuildOptions, RebuildReport, Target
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from position_ledger.store.codec import Codec


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
    with translated():
        projection = projection_named(settings, table)
        migrator = migrator_of(settings, reached, tell)
        change = _pending_change(migrator, table)
        if change is None:
            catalogue = migrator.targets.catalogue_at(last_applied(settings, reached))
            return run_rebuild(settings, reached, projection, Target(catalogue, catalogue), options, progress, tell)
        reports: list[RebuildReport] = []
        strategy = partial(rebuild_for, settings, reached, migrator, options, progress, tell, reports=reports)
        if options.dry_run or not options.swap:
            strategy(change)
        else:
            migrator.up(change.files[-1].number, rebuild=strategy)
        return reports[-1]


def roll_back(
    settings: Settings, reached: Reached, table: str, *, tell: Tell, reason: str | None = None
) -> RebuildReport:
    """Put the retired generation of a table back; migrations that became applied with the active one are rolled back.

    Raises:
        GenerationNotOurs, SwapBlocked, MigrationError: nothing was changed; says what to do.
    """
    with translated():
        projection_named(settings, table)
        migrator = migrator_of(settings, reached, tell, reason=reason)
        return _roll_back(settings, reached, migrator, table, tell)


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
            bring_up = partial(_catch_up, settings, reached, projection)
            changed = inline.set_mode(connection, projection, Codec(EVENTS), mode, catch_up=bring_up)
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
    """Bring a change set of a projected table about: its files become applied in the transaction of the swap."""
    table = _only_table(change)

    def prove(cursor: psycopg.Cursor[Any], shadow: str) -> None:
        migrator.verify(cursor, change.files, schema=shadow)

    def record(cursor: psycopg.Cursor[Any]) -> None:
        migrator.record_applied(cursor, change.files, verify=False)

    numbers = tuple(file.number for file in change.files)
    target = Target(change.before, change.after, numbers, prove, record)
    report = run_rebuild(settings, reached, projection_named(settings, table), target, options, progress, tell)
    if reports is not None:
        reports.append(report)


def restore_for(settings: Settings, reached: Reached, migrator: Migrator, tell: Tell, change: ProjectedChange) -> None:
    """Take a change set of a projected table back: its retired generation becomes the live one again."""
    _roll_back(settings, reached, migrator, _only_table(change), tell, change.files)


def _pending_change(migrator: Migrator, table: str) -> ProjectedChange | None:
    """The first pending change set that concerns the table."""
    pending = [row.number for row in migrator.status().pending]
    if not pending:
        return None
    sets = change_sets(migrator.targets.effects(pending))
    return next((one for one in sets if isinstance(one, ProjectedChange) and table in one.tables), None)


def _only_table(change: ProjectedChange) -> str:
    if len(change.tables) != 1:
        names, files_ = ", ".join(sorted(change.tables)), ", ".join(file.filename for file in change.files)
        msg = f"{files_} change the projected tables {names} at once: put each table into a migration of its own"
        raise MigrationError(msg)
    return next(iter(change.tables))


def run_rebuild(
    settings: Settings,
    reached: Reached,
    projection: Projection[Any],
    target: Target,
    options: RebuildOptions,
    progress: Progress | None,
    tell: Tell,
) -> RebuildReport:
    """Rebuild one projection on a connection of its own."""
    with owner(settings, reached) as connection:
        return Rebuild(
            connection,
            reached.database_url,
            settings,
            projection,
            Codec(EVENTS),
            release=RELEASE,
            tell=tell,
            progress=progress or NoProgress(),
        ).run(target, options)


def _roll_back(
    settings: Settings,
    reached: Reached,
    migrator: Migrator,
    table: str,
    tell: Tell,
    only: Sequence[MigrationFile] | None = None,
) -> RebuildReport:
    applied = last_applied(settings, reached)

    def target(live: Generation, old: Generation) -> Target:
        with owner(settings, reached) as connection:
            row = connection.execute(
                "SELECT g.migrations FROM projection_generations AS g WHERE g.generation_id = %s", (live.generation_id,)
            ).fetchone()
        numbers = sorted(row[0]) if row else []
        if only is not None and sorted(file.number for file in only) != numbers:
            msg = f"migrations {numbers or 'none'} became applied with the active generation of {table}: roll back exactly those"
            raise MigrationError(msg)
        if numbers and numbers[-1] != applied:
            msg = (
                f"migration {applied} was applied after the active generation of {table} was built: roll it back first"
            )
            raise MigrationError(msg)
        unknown = sorted({applied, *numbers} - {file.number for file in migrator.files})
        if unknown:
            msg = (
                f"migrations {unknown} are applied and not in {settings.migrations}: roll {table} back with the release that "
                f"has them, while a worker of release {old.release} keeps the retired rows current"
            )
            raise MigrationError(msg)
        undone = [file for file in reversed(migrator.files) if file.number in numbers]
        before = migrator.targets.catalogue_at(applied)
        after = migrator.targets.catalogue_at(numbers[0] - 1) if numbers else before
        return Target(before, after, tuple(numbers), record=lambda cursor: migrator.record_rolled_back(cursor, undone))

    with owner(settings, reached) as connection:
        return rebuilding.roll_back(
            connection,
            settings,
            projections(settings),
            table,
            Codec(EVENTS),
            target,
            tell=tell,
            bring_up=partial(_catch_up, settings, reached),
        )


def _catch_up(settings: Settings, reached: Reached, projection: Projection[Any], generation: Generation) -> None:
    with connect(reached.database_url, settings, as_app=True, name="position-ledger operator") as connection:
        catch_up(connection, projection, generation, Codec(EVENTS))
