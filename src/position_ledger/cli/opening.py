"""From settings to an open ledger: servers reached, the schema of an embedded database made, errors in words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from position_ledger.cli.running import note
from position_ledger.database import translated
from position_ledger.ledger import Ledger
from position_ledger.operations import require_ledger
from position_ledger.settings import Settings, load_settings
from position_ledger.setup import Reached, reach

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def open_servers(*, needs_schema: bool = True) -> Iterator[tuple[Settings, Reached]]:
    """The settings in force and where the servers answer.

    An embedded database that is still empty gets its schema first: a fresh data folder is not a mistake. One that was
    named by a URL is left as it is.

    Raises:
        SchemaMismatch: the command needs the schema, and the database that was named has none.
    """
    settings = load_settings()
    reached = reach(settings)
    try:
        with translated():
            if needs_schema:
                require_ledger(settings, reached, note)
            yield settings, reached
    finally:
        reached.close()


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """The ledger that the settings name."""
    with open_servers() as (settings, reached), Ledger(settings, reached) as ledger:
        yield ledger
