"""What an operator does to a ledger: migrate, check, verify, rebuild, roll back. Each function is one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import psycopg

from position_ledger.database import connect, first_line, translated
from position_ledger.errors import ConfigurationError, MigrationError, SchemaMismatch
from position_ledger.events import EVENTS
from position_ledger.migration.bookkeeping import read_applied
from position_ledger.migration.classify import ProjectedChange, change_sets
from position_ledger.migration.files import MigrationFile
from position_ledger.migration.plan import Status
from position_ledger.migration.runner import Migrator, Outcome
from position_ledger.projection import generations, inline, laws, verification
from position_ledger.projection import rebuild as rebuilding
from position_ledger.projection.catching_up import catch_up
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.generations import Generation
from position_ledger.projection.rebuild import Progress, Rebuild, RebuildOptions, RebuildReport, Target
from position_ledger.projection.references import LogBroken
from position_ledger.projection.scd2 import FoldFailed
from position_ledger.projection.verification import TableProof
from position_ledger.settings import Settings
from position_ledger.setup import Reached, masked
from position_ledger.store.audit import broken_links
from position_ledger.store.codec import Codec

__all__ = [
    "NoProgress",
    "Progress",
    "RebuildOptions",
    "RebuildReport",
    "VerifyReport",
    "check",
    "migrate_down",
    "migrate_up",
    "migrate_verify",
    "migration_status",
    "rebuild",
    "require_ledger",
    "roll_back",
    "set_mode",
    "verify",
]

Tell = Callable[[str], None]

HAS_TABLE = "SELECT to_regclass('projection_generations') IS NOT NULL"
HAS_GENERATION = "SELECT EXISTS (SELECT FROM projection_generations)"


def _release() -> str:
    try:
        return metadata.version("position-ledger")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unreleased"


RELEASE = _release()


class NoProgress:
    """Progress that nobody looks at."""

    def start(self, total: int, what: str) -> None:
        """Nothing."""

    def advance(self, done: int) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Whether the tables equal the log. ``broken_laws`` and ``broken_chain`` are sentences; empty and None if all holds.

    A table that cannot even be made from the log has no proof, and its sentence is among the broken laws.
    """

    tables: tuple[TableProof, ...]
    broken_laws: tuple[str, ...]
    broken_chain: str | None
    notes: tuple[str, ...] = ()  # what breaks no law: positions with shortfall, overdrawn accounts

    @property
    def holds(self) -> bool:
        """True if nothing at all is wrong."""
        return not self.broken_laws and self.broken_chain is None and all(t.difference is None for t in self.tables)

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, a sentence each."""
        differences = tuple(str(table.difference) for table in self.tables if table.difference is not None)
        return (*differences, *self.broken_laws, *((self.broken_chain,) if self.broken_chain else ()))


def migration_status(settings: Settings, reached: Reached) -> Status:
    """Which migrations are applied, pending or edited. Writes nothing."""
    with translated():
        return _migrator(settings, reached).status()


def migrate_verify(settings: Settings, reached: Reached) -> list[str]:
    """How the schema differs from what its applied migrations make, a sentence each; empty: it is exactly that."""
    with translated():
        return _migrator(settings, reached).differences()


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
        MigrationError, SchemaMismatch, VerificationFailed, SwapBlocked: the file that failed has left nothing behind.
    """
    migrator = _migrator(settings, reached, tell)
    with translated():
        strategy = partial(_rebuild_for, settings, reached, migrator, options or RebuildOptions(), progress, tell)
        _drop_without_table(settings, reached)
        outcome = migrator.up(target, rebuild=strategy)
        _set_up_tables(settings, reached, tell, is_complete=not migrator.status().pending)
        return outcome


def _set_up_tables(settings: Settings, reached: Reached, tell: Tell, *, is_complete: bool) -> None:
    """Give every new table its first generation; as long as migrations are pending, those that fit the code already."""
    with _owner(settings, reached) as connection:
        for projection in _projections(settings):
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


def _drop_without_table(settings: Settings, reached: Reached) -> None:
    """After a rollback, and before going up again, in case the rollback was interrupted in between."""
    with _owner(settings, reached) as connection:
        if connection.execute(HAS_TABLE).fetchone() == (True,):
            inline.drop_without_table(connection)


def require_ledger(settings: Settings, reached: Reached, tell: Tell) -> None:
    """Give an embedded database that is still empty its schema: a fresh data folder is not a mistake.

    A database that a URL names is left as it is. ``tell`` hears one sentence if anything is done.

    Raises:
        SchemaMismatch: a database that a URL names has no ledger; names the command.
    """
    with translated(), _owner(settings, reached) as connection:
        if all(connection.execute(question).fetchone() == (True,) for question in (HAS_TABLE, HAS_GENERATION)):
            return
    if settings.database_url is not None:
        msg = (
            f"the database at {masked(settings.database_url)} has no ledger in schema {settings.ledger_schema} that this "
            "user can see: run position-ledger migrate up"
        )
        raise SchemaMismatch(msg)
    tell("the embedded database is empty, so the migrations are applied first")
    migrate_up(settings, reached, None, lambda _message: None)


def migrate_down(settings: Settings, reached: Reached, number: int, tell: Tell) -> Outcome:
    """Roll back a migration and all later ones; a projected table goes back to its retired generation."""
    migrator = _migrator(settings, reached, tell)
    with translated():
        outcome = migrator.down(number, restore=partial(_restore_for, settings, reached, migrator, tell))
        _drop_without_table(settings, reached)
        return outcome


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
        projection = _projection(settings, table)
        migrator = _migrator(settings, reached, tell)
        change = _pending_change(migrator, table)
        if change is None:
            catalogue = migrator.targets.catalogue_at(_last_applied(settings, reached))
            return _run(settings, reached, projection, Target(catalogue, catalogue), options, progress, tell)
        reports: list[RebuildReport] = []
        strategy = partial(_rebuild_for, settings, reached, migrator, options, progress, tell, reports=reports)
        if options.dry_run or not options.swap:
            strategy(change)
        else:
            migrator.up(change.files[-1].number, rebuild=strategy)
        return reports[-1]


def roll_back(settings: Settings, reached: Reached, table: str, *, tell: Tell) -> RebuildReport:
    """Put the retired generation of a table back; migrations that became applied with the active one are rolled back.

    Raises:
        GenerationNotOurs, SwapBlocked, MigrationError: nothing was changed; says what to do.
    """
    with translated():
        _projection(settings, table)
        migrator = _migrator(settings, reached, tell)
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
    with translated(), _owner(settings, reached) as connection:
        projection = _projection(settings, table)
        with rebuilding.alone(connection, table):
            bring_up = partial(_catch_up, settings, reached, projection)
            changed = inline.set_mode(connection, projection, Codec(EVENTS), mode, catch_up=bring_up)
    tell(
        f"{table} is projected {'inline' if mode == 'inline' else 'by workers'}{' from now on' if changed else ' already'}"
    )
    return changed


def verify(
    settings: Settings, reached: Reached, tables: Sequence[str] | None, *, progress: Progress | None = None
) -> VerifyReport:
    """Prove that tables equal the log and that the laws hold; without naming any: all of them, and the log itself."""
    showing = progress or NoProgress()
    chosen = [_projection(settings, table) for table in tables] if tables else list(_projections(settings))
    proofs: list[TableProof] = []
    problems: list[str] = []
    known: dict[str, tuple[Projection[Any], Generation]] = {}
    chain = None
    with translated(), _owner(settings, reached) as connection:
        if not tables:
            showing.start(_log_size(connection), "verifying the log")
            with verification.snapshot(connection):
                link = next(broken_links(connection, showing.advance), None)
            chain = str(link) if link else None
            showing.finish()
        for projection in chosen:
            live = generations.active(connection, projection.table)
            if live is None:
                msg = f"table {projection.table} has never been set up in this database: run position-ledger migrate up"
                raise SchemaMismatch(msg)
            generations.check_columns(connection, live.schema, projection)
            showing.start(_log_size(connection), f"verifying {projection.table}")
            try:
                proofs.append(verification.table_equals_log(connection, projection, live, showing.advance))
            except (SchemaMismatch, FoldFailed, LogBroken) as error:
                if chain is None and isinstance(error, SchemaMismatch):
                    raise  # the log is as it was written, and this release cannot read it
                problems.append(f"{projection.table} cannot be made from the log: {error}")
            problems += filter(None, [verification.broken_law(connection, live.schema, projection)])
            showing.finish()
            known[projection.table] = (projection, live)
        problems += laws.broken_laws(connection, known)
        return VerifyReport(tuple(proofs), tuple(problems), chain, tuple(laws.notes(connection, known)))


def check(settings: Settings, reached: Reached) -> list[str]:
    """How code and schema disagree, a sentence each; empty: they agree."""
    problems = []
    with translated():
        try:
            _migrator(settings, reached).require_current()
        except (SchemaMismatch, MigrationError) as error:
            problems.append(str(error))
        with _owner(settings, reached) as connection:
            for projection in _projections(settings):
                try:
                    generations.check_start(connection, [projection])
                    generations.check_columns(connection, settings.ledger_schema, projection)
                except SchemaMismatch as error:
                    problems.append(str(error))
    return list(dict.fromkeys(problems))


# The parts


def _projections(settings: Settings) -> tuple[Projection[Any], ...]:
    return load_projections(settings.projections)


def _projection(settings: Settings, table: str) -> Projection[Any]:
    known = _projections(settings)
    found = next((projection for projection in known if projection.table == table), None)
    if found is None:
        msg = f"there is no projection {table!r}: there are {', '.join(projection.table for projection in known)}"
        raise ConfigurationError(msg)
    return found


def migrations_folder(settings: Settings) -> Traversable:
    """Where the migrations are: a folder, or a package by its dotted name.

    Raises:
        ConfigurationError: neither.
    """
    folder = Path(settings.migrations)
    if folder.is_dir():
        return folder
    try:
        return files(settings.migrations)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        msg = f"setting migrations: {settings.migrations!r} is neither a folder nor a package: {first_line(error)}"
        raise ConfigurationError(msg) from error


def _migrator(settings: Settings, reached: Reached, tell: Tell = lambda _message: None) -> Migrator:
    return Migrator(
        reached.database_url,
        migrations_folder(settings),
        settings.ledger_schema,
        projected=[projection.table for projection in _projections(settings)],
        scratch_url=settings.scratch_url,
        tell=tell,
    )


@contextmanager
def _owner(settings: Settings, reached: Reached) -> Iterator[psycopg.Connection[Any]]:
    connection = connect(reached.database_url, settings, as_app=False, name="position-ledger operator")
    try:
        yield connection
    finally:
        connection.close()


def _log_size(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT max(e.notification_id) FROM events AS e").fetchone()
    return int(row[0] or 0) if row else 0


def _last_applied(settings: Settings, reached: Reached) -> int:
    with _owner(settings, reached) as connection:
        return max((row.number for row in read_applied(connection, settings.ledger_schema)), default=0)


def _pending_change(migrator: Migrator, table: str) -> ProjectedChange | None:
    """The first pending change set that concerns the table."""
    pending = [row.number for row in migrator.status().pending]
    if not pending:
        return None
    sets = change_sets(migrator.targets.effects(pending))
    return next((one for one in sets if isinstance(one, ProjectedChange) and table in one.tables), None)


def _rebuild_for(
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
    report = _run(settings, reached, _projection(settings, table), target, options, progress, tell)
    if reports is not None:
        reports.append(report)


def _restore_for(settings: Settings, reached: Reached, migrator: Migrator, tell: Tell, change: ProjectedChange) -> None:
    _roll_back(settings, reached, migrator, _only_table(change), tell, change.files)


def _only_table(change: ProjectedChange) -> str:
    if len(change.tables) != 1:
        names, files_ = ", ".join(sorted(change.tables)), ", ".join(file.filename for file in change.files)
        msg = f"{files_} change the projected tables {names} at once: put each table into a migration of its own"
        raise MigrationError(msg)
    return next(iter(change.tables))


def _run(
    settings: Settings,
    reached: Reached,
    projection: Projection[Any],
    target: Target,
    options: RebuildOptions,
    progress: Progress | None,
    tell: Tell,
) -> RebuildReport:
    with _owner(settings, reached) as connection:
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
    applied = _last_applied(settings, reached)

    def target(live: Generation, old: Generation) -> Target:
        with _owner(settings, reached) as connection:
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

    with _owner(settings, reached) as connection:
        return rebuilding.roll_back(
            connection,
            settings,
            _projections(settings),
            table,
            Codec(EVENTS),
            target,
            tell=tell,
            bring_up=partial(_catch_up, settings, reached),
        )


def _catch_up(settings: Settings, reached: Reached, projection: Projection[Any], generation: Generation) -> None:
    with connect(reached.database_url, settings, as_app=True, name="position-ledger operator") as connection:
        catch_up(connection, projection, generation, Codec(EVENTS))
