"""How the definitions of the settings stand to the tables of the database: current, to be rebuilt and why, or too old."""

from __future__ import annotations

from typing import Any

import psycopg

from position_ledger.checking.definitions import Around, State, states_of
from position_ledger.migration.plan import Status
from position_ledger.operations.common import RELEASE, projections
from position_ledger.settings import Settings

__all__ = ["around_of", "definition_states"]


def around_of(status: Status) -> Around:
    """This release, and how its migrations stand to those of the database."""
    rows = status.rows
    pending = tuple(row.number for row in rows if row.state not in {"applied", "edited", "unknown"})
    return Around(RELEASE, pending, tuple(row.number for row in rows if row.state == "unknown"))


def definition_states(connection: psycopg.Connection[Any], settings: Settings, around: Around) -> tuple[State, ...]:
    """How each definition of the settings stands to its table."""
    known = projections(settings)
    if connection.execute("SELECT to_regclass('projection_generations') IS NULL").fetchone() == (True,):
        remedy = "run position-ledger migrate up"
        return tuple(State(one.table, "never set up", "there is no ledger", remedy, ()) for one in known)
    return states_of(connection, known, around)
