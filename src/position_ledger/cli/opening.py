"""From settings to an open ledger: servers reached, the schema of an embedded database made, errors in words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from position_ledger.cli.running import note
from position_ledger.database import connect, translated
from position_ledger.ledger import Ledger
from position_ledger.settings import Settings, load_settings
from position_ledger.setup import Reached, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_TABLE = "SELECT to_regclass('projection_generations') IS NOT NULL"
HAS_GENERATION = "SELECT EXISTS (SELECT FROM projection_generations)"


@contextmanager
def open_servers(*, needs_schema: bool = True) -> Iterator[tuple[Settings, Reached]]:
    """The settings in force and where the servers answer.

    An embedded database that is still empty gets its schema first: a fresh data folder is not a mistake. One that was
    named by a URL is left as it is, and commands that need the schema refuse.
    """
    settings = load_settings()
    reached = reach(settings)
    try:
        if needs_schema and settings.database_url is None:
            _make_schema(settings, reached)
        with translated():
            yield settings, reached
    finally:
        reached.close()


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """The ledger that the settings name."""
    with open_servers() as (settings, reached), Ledger(settings, reached) as ledger:
        yield ledger


def _make_schema(settings: Settings, reached: Reached) -> None:
    with connect(reached.database_url, settings, as_app=False) as connection:
        if all(connection.execute(question).fetchone() == (True,) for question in (HAS_TABLE, HAS_GENERATION)):
            return
    from position_ledger.operations import migrate_up  # noqa: PLC0415 - needed once in the life of a data folder

    note("the embedded database is empty, so the migrations are applied first")
    migrate_up(settings, reached, None, _silence)


def _silence(message: str) -> None:
    """Seven lines about seven files would hide what the user asked for."""
