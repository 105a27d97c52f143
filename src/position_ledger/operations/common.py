"""What every operation begins with: the owner's connection, the definitions, the migrations and the release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import psycopg

from position_ledger import migration
from position_ledger.database import connect, first_line
from position_ledger.errors import ConfigurationError
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.settings import Settings
from position_ledger.setup import Reached

Tell = Callable[[str], None]


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

    def advance(self, done: int, how: str = "") -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def projections(settings: Settings) -> tuple[Projection[Any], ...]:
    """Every definition of the package that the settings name, by table."""
    return load_projections(settings.projections)


def projection_named(settings: Settings, table: str) -> Projection[Any]:
    """The definition of a table; ConfigurationError, naming those that there are, if there is none."""
    known = projections(settings)
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


def migrator_of(
    settings: Settings, reached: Reached, tell: Tell = lambda _message: None, *, reason: str | None = None
) -> migration.Migrator:
    """The migrations of the settings against the database that was reached; ``reason`` goes into its history."""
    return migration.Migrator(
        reached.database_url,
        migrations_folder(settings),
        settings.ledger_schema,
        projected=[projection.table for projection in projections(settings)],
        scratch_url=settings.scratch_url,
        reason=reason,
        tell=tell,
    )


@contextmanager
def owner(settings: Settings, reached: Reached) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection as the owner of the schema, closed afterwards."""
    connection = connect(reached.database_url, settings, as_app=False, name="position-ledger operator")
    try:
        yield connection
    finally:
        connection.close()


def log_size(connection: psycopg.Connection[Any]) -> int:
    """The number of the last event; 0 for an empty log."""
    row = connection.execute("SELECT max(e.notification_id) FROM events AS e").fetchone()
    return int(row[0] or 0) if row else 0


def applied_numbers(settings: Settings, reached: Reached) -> list[int]:
    """The numbers of the migrations that are applied, in order. What a change set has begun with does not count."""
    with owner(settings, reached) as connection:
        rows = migration.read_applied(connection, settings.ledger_schema)
    return [row.number for row in rows if not row.is_begun]


def last_applied(settings: Settings, reached: Reached) -> int:
    """The number of the last migration that is applied; 0 for none."""
    return max(applied_numbers(settings, reached), default=0)
