"""From settings to an open ledger: servers reached, the schema of an embedded database made, errors in words."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC
from typing import TYPE_CHECKING

from position_ledger.cli.running import note
from position_ledger.database import connect, only_row, translated
from position_ledger.ledger import Ledger
from position_ledger.operations import require_ledger
from position_ledger.settings import Settings, load_settings
from position_ledger.setup import Reached, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLAYED = "SELECT pg_is_in_recovery(), pg_last_xact_replay_timestamp()"


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


@contextmanager
def open_for_reading() -> Iterator[Ledger]:
    """The ledger that the settings name, to read alone; on a standby what that has replayed, and a line that says so."""
    with open_servers() as (settings, reached):
        read_only = _is_standby(settings, reached) or settings.read_only
        with Ledger(settings.model_copy(update={"read_only": read_only}), reached) as ledger:
            yield ledger


def _is_standby(settings: Settings, reached: Reached) -> bool:
    with closing(connect(reached.database_url, settings, as_app=False)) as connection:
        is_standby, replayed = only_row(connection.execute(REPLAYED))
    if is_standby:
        upto = f", up to a commit of {replayed.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if replayed else ""
        note(f"this server is a standby: it shows what it has replayed{upto}")
    return bool(is_standby)
