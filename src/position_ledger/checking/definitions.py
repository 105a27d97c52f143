"""Definitions against the generations that the database keeps: may this code write the table, and if not, why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from position_ledger.checking.findings import Mismatch
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation, column_gap

__all__ = ["State", "mismatch_of", "state_of"]

EVERY = """
SELECT g.generation_id, g.projection, g.fingerprint, g.columns, g.schema_name, g.state, g.mode, g.release
  FROM projection_generations AS g WHERE g.projection = %s ORDER BY g.generation_id
"""


@dataclass(frozen=True, slots=True)
class State:
    """How one definition stands to its table; ``schemas`` are those in which a kept table of this code lies."""

    table: str
    state: Literal["current", "kept", "needs rebuild", "only newer code may write it", "never set up"]
    why: str
    schemas: tuple[str, ...]


def state_of(connection: psycopg.Connection[Any], projection: Projection[Any]) -> State:
    """Compare one definition with all generations of its table, dropped ones too."""
    rows = connection.execute(EVERY, (projection.table,)).fetchall()
    return judged(projection, [Generation(*row) for row in rows])


def judged(projection: Projection[Any], generations: Sequence[Generation]) -> State:
    """The state of a definition, given the generations of its table by age."""
    table, ours = projection.table, fingerprint_of(projection)
    kept = [one for one in generations if one.state != "dropped"]
    mine = [one for one in kept if one.fingerprint == ours]
    schemas = tuple(one.schema for one in mine)
    current = next((one for one in kept if one.state == "active"), None)
    if current is None and not mine:
        return State(table, "never set up", "this database has never had it", ())
    if current is not None and current.fingerprint == ours:
        return State(table, "current", "", schemas)
    if mine:
        other = f"readers see the one of release {current.release}" if current else "readers see none yet"
        return State(table, "kept", f"this code writes the {mine[-1].state} generation; {other}", schemas)
    assert current is not None, "without a kept generation of ours there is an active one"  # noqa: S101
    why = f"it was built by other code (release {current.release}){_difference(projection, current)}"
    if any(one.fingerprint == ours for one in generations):
        return State(table, "only newer code may write it", why, ())
    return State(table, "needs rebuild", why, ())


def _difference(projection: Projection[Any], current: Generation) -> str:
    gap = column_gap(projection.columns, current.columns)
    return (
        gap
        or "; its columns are the same, so the code of a fold, a constant that it uses or the shape of an event is not"
    )


def mismatch_of(state: State) -> Mismatch | None:
    """What a state has to say, with the command that helps; None for one in which this code may write."""
    if state.state == "never set up":
        what = f"table {state.table} has never been set up in this database: run position-ledger migrate up"
    elif state.state == "needs rebuild":
        what = f"table {state.table} needs a rebuild, {state.why}: run rebuild-projection {state.table}"
    elif state.state == "only newer code may write it":
        what = (
            f"only newer code may write table {state.table}, {state.why}, and the table of this code is dropped: "
            f"install that release, or run rebuild-projection {state.table} to go back"
        )
    else:
        return None
    return Mismatch("definition", what)
