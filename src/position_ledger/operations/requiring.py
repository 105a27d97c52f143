"""That there is a ledger: what every command asks first, so nothing is imported for it but what it needs."""

from __future__ import annotations

from position_ledger import operations
from position_ledger.database import translated
from position_ledger.errors import SchemaMismatch
from position_ledger.operations.common import Tell, owner
from position_ledger.settings import Settings
from position_ledger.setup import Reached, masked

HAS_TABLE = "SELECT to_regclass('projection_generations') IS NOT NULL"
HAS_GENERATION = "SELECT EXISTS (SELECT FROM projection_generations)"


def require_ledger(settings: Settings, reached: Reached, tell: Tell) -> None:
    """Give an embedded database that is still empty its schema: a fresh data folder is not a mistake.

    A database that a URL names is left as it is. ``tell`` hears one sentence if anything is done.

    Raises:
        SchemaMismatch: a database that a URL names has no ledger; names the command.
    """
    with translated(), owner(settings, reached) as connection:
        if all(connection.execute(question).fetchone() == (True,) for question in (HAS_TABLE, HAS_GENERATION)):
            return
    if settings.database_url is not None:
        msg = (
            f"the database at {masked(settings.database_url)} has no ledger in schema {settings.ledger_schema} that this "
            "user can see: run position-ledger migrate up"
        )
        raise SchemaMismatch(msg)
    tell("the embedded database is empty, so the migrations are applied first")
    operations.migrate_up(settings, reached, None, lambda _message: None)
