"""Bring the schema up or down; what concerns a projected table with history is handed to its rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from position_ledger.database import translated
from position_ledger.errors import MigrationError, SchemaMismatch
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.plan import Status
from position_ledger.migration.runner import Migrator, Outcome
from position_ledger.operations.backup import look_for_backup
from position_ledger.operations.common import RELEASE, Tell, migrator_of, owner, projections
from position_ledger.operations.rebuilding import abandon, fill, finish_swaps, outlook_of, rebuild_for, restore_for
from position_ledger.operations.requiring import HAS_TABLE
from position_ledger.operations.unfollowed import telling_unfollowed
from position_ledger.projection import generations, inline
from position_ledger.projection.definition import Projection
from position_ledger.projection.rebuild import Progress, RebuildOptions
from position_ledger.settings import Settings
from position_ledger.setup import Reached


def migration_status(settings: Settings, reached: Reached) -> Status:
    """Which migrations are applied, pending or edited. Writes nothing."""
    with translated():
        return migrator_of(settings, reached).status()


def migrate_verify(settings: Settings, reached: Reached) -> list[str]:
    """How the schema differs from what its applied migrations make, a sentence each; empty: it is exactly that."""
    with translated():
        return migrator_of(settings, reached).differences()


def migrate_up(
    settings: Settings,
    reached: Reached,
    target: int | None,
    tell: Tell,
    *,
    options: RebuildOptions | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Apply pending migrations; one that changes a projected table with history is brought about by a rebuild.

    Raises:
        MigrationError, SchemaMismatch, VerificationFailed, SwapBlocked: the file that failed has left nothing behind; or
            there is no recent backup, and the settings want one before anything is done.
    """
    migrator = migrator_of(settings, reached, tell)
    chosen = options or RebuildOptions()
    with translated(), telling_unfollowed(settings, reached, tell) as unfollowed:
        strategy = partial(rebuild_for, settings, reached, migrator, chosen, progress, tell)
        _forget_dropped(settings, reached)
        _refuse_unrecorded(settings, reached, migrator)
        said = look_for_backup(settings, reached, migrator, target, tell)
        _drop_without_table(settings, reached)
        finish_swaps(settings, reached, tell)
        outcome = migrator.up(target, rebuild=strategy, outlook=partial(outlook_of, settings, reached, migrator))
        for projection in _not_set_up(settings, reached, tell, is_complete=not migrator.status().pending):
            tell(f"filling {projection.table} from the log")
            fill(settings, reached, migrator, projection, chosen, progress, tell)
        _note_missing_parts(settings, reached)
    return replace(outcome, messages=(*said, *outcome.messages, *unfollowed))


IS_GONE = (
    "SELECT to_regclass(%(schema)s || '.feed') IS NULL AND to_regclass(%(schema)s || '.schema_migrations') IS NULL"
)
LEFT = "SELECT n.nspname::text FROM pg_namespace AS n WHERE n.nspname ~ ('^' || %s || '_g[0-9]+(_before)?$') ORDER BY 1"
NAMESPACES = "SELECT to_regclass('position_ledger_shared.feed_namespaces') IS NOT NULL"
FORGET = "DELETE FROM position_ledger_shared.feed_namespaces AS f WHERE f.schema_name = %s"


def _forget_dropped(settings: Settings, reached: Reached) -> None:
    """Of a ledger whose schema was dropped: forget its place among the ledgers of the database, so that it can begin anew.

    Raises:
        MigrationError: tables of its generations are left, in schemas of their own; nobody drops those unasked.
    """
    schema = settings.ledger_schema
    with owner(settings, reached) as connection:
        if connection.execute(IS_GONE, {"schema": schema}).fetchone() != (True,):
            return
        left = [row[0] for row in connection.execute(LEFT, (schema,)).fetchall()]
        if left:
            msg = (
                f"schema {schema} has no ledger, and {', '.join(left)} of one that was dropped are left: run "
                f"DROP SCHEMA {', '.join(left)} CASCADE, then this command again"
            )
            raise MigrationError(msg)
        if connection.execute(NAMESPACES).fetchone() == (True,):
            connection.execute(FORGET, (schema,))


def _note_missing_parts(settings: Settings, reached: Reached) -> None:
    with owner(settings, reached) as connection:
        generations.note_missing_parts(connection, projections(settings))


def _refuse_unrecorded(settings: Settings, reached: Reached, migrator: Migrator) -> None:
    """MigrationError for a ledger that does not know its migrations, such as one restored without their record."""
    if any(row.applied is not None for row in migrator.status().rows):
        return
    with owner(settings, reached) as connection:
        is_there = connection.execute(HAS_TABLE).fetchone() == (True,)
    if is_there:
        msg = (
            f"schema {settings.ledger_schema} has the tables of a ledger and no record of its migrations: adopt it with "
            f"position-ledger migrate baseline {len(migrator.files):03}, which names another number if that one does not fit"
        )
        raise MigrationError(msg)


def migrate_abort(settings: Settings, reached: Reached, tell: Tell) -> Outcome:
    """Undo a change set that has begun and is not applied: the database is as it was before its first file.

    Raises:
        MigrationError, SchemaMismatch: what is in the way; run it again to go on.
    """
    migrator = migrator_of(settings, reached, tell)
    with translated():
        return migrator.abort(partial(abandon, settings, reached))


def _not_set_up(settings: Settings, reached: Reached, tell: Tell, *, is_complete: bool) -> list[Projection[Any]]:
    """The tables that are there, were never projected, and have a history to be filled from.

    Without a history they get their first generation here. As long as migrations are pending, a table that does not fit
    the code yet waits for them.
    """
    waiting: list[Projection[Any]] = []
    with owner(settings, reached) as connection:
        for projection in projections(settings):
            try:
                made = generations.ensure_first(
                    connection, [projection], schema=settings.ledger_schema, release=RELEASE
                )
            except SchemaMismatch as mismatch:
                if is_complete:
                    raise
                tell(f"{projection.table} waits for the migrations that are still pending: {mismatch}")
                continue
            for table in made:
                tell(f"{table} is projected from the first event on")
            if generations.active(connection, projection.table) is None:
                waiting.append(projection)
    return waiting


def _drop_without_table(settings: Settings, reached: Reached) -> None:
    """After a rollback, and before going up again, in case the rollback was interrupted in between."""
    with owner(settings, reached) as connection:
        if connection.execute(HAS_TABLE).fetchone() == (True,):
            inline.drop_without_table(connection)


def migrate_down(
    settings: Settings,
    reached: Reached,
    number: int,
    tell: Tell,
    *,
    reason: str | None = None,
    only: Sequence[MigrationFile] | None = None,
) -> Outcome:
    """Roll back a migration and all later ones; a projected table goes back to its retired generation.

    ``only`` are the files, latest first, that the caller agreed to; the history keeps the ``reason``.

    Raises:
        MigrationError: other files would be rolled back than those, or one of them cannot be; it and those before it
            are as they were.
    """
    migrator = migrator_of(settings, reached, tell, reason=reason)
    with translated(), telling_unfollowed(settings, reached, tell) as unfollowed:
        outcome = migrator.down(number, restore=partial(restore_for, settings, reached, migrator, tell), only=only)
        _drop_without_table(settings, reached)
    return replace(outcome, messages=(*outcome.messages, *unfollowed))
