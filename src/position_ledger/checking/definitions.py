"""Definitions against the generations that the database keeps: may this code write the table, and if not, why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Literal

import psycopg

from position_ledger.checking.findings import Mismatch
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation, kept, once_active, why_other

__all__ = ["Around", "State", "judged", "mismatch_of", "states_of"]


@dataclass(frozen=True, slots=True)
class Around:
    """What else decides who is newer: the release that asks, and how its migrations stand to those of the database."""

    release: str
    pending: tuple[int, ...] = ()
    """Migrations of the folder that are not applied."""
    unknown: tuple[int, ...] = ()
    """Applied migrations that the folder does not have."""


@dataclass(frozen=True, slots=True)
class State:
    """How one definition stands to its table; ``schemas`` are those in which a kept table of this code lies.

    ``why`` says what differs, ``remedy`` what to do about it; both are empty for one that is current.
    """

    table: str
    state: Literal["current", "kept", "needs rebuild", "only newer code may write it", "never set up"]
    why: str
    remedy: str
    schemas: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence."""
        said = "" if self.state == "current" else f" ({self.why})"
        return f"{self.table}: {self.state}{said}" + (f": {self.remedy}" if self.remedy else "")


def states_of(
    connection: psycopg.Connection[Any], projections: Sequence[Projection[Any]], around: Around
) -> tuple[State, ...]:
    """Compare definitions with the generations of their tables, those that were dropped too."""
    generations, earlier = kept(connection), once_active(connection)
    return tuple(
        judged(
            one,
            [each for each in generations if each.projection == one.table],
            around,
            earlier.get((one.table, fingerprint_of(one))),
        )
        for one in projections
    )


def judged(
    projection: Projection[Any], generations: Sequence[Generation], around: Around, earlier: int | None = None
) -> State:
    """The state of a definition, given the kept generations of its table by age.

    ``earlier`` is the last generation of this code that readers have seen, kept or dropped; None for none.
    """
    table, ours = projection.table, fingerprint_of(projection)
    mine = [one for one in generations if one.fingerprint == ours]
    schemas = tuple(one.schema for one in mine)
    current = next((one for one in generations if one.state == "active"), None)
    if current is None and not mine:
        return State(table, "never set up", "this database has never had it", "run position-ledger migrate up", ())
    if current is not None and current.fingerprint == ours:
        return State(table, "current", "", "", schemas)
    if current is None or mine:
        other = f"readers see the one of release {current.release}" if current else "readers see none yet"
        until = mine[-1].kept_until
        kept_until = f", which is kept until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
        why = f"this code writes the {mine[-1].state} generation{kept_until}; {other}"
        return State(table, "kept", why, "", schemas)
    if is_newer(projection, current, around, earlier):
        remedy = f"start release {current.release}, or the code that has its columns and migrations"
        if earlier is not None and not around.unknown:
            remedy += f"; run rebuild-projection {table} with this code to go back to it"
        why = f"release {current.release} made its rows; {_why(projection, current, is_older=True)}"
        return State(table, "only newer code may write it", why, remedy, ())
    return State(table, "needs rebuild", _why(projection, current), _remedy(projection, current, around), ())


def is_newer(projection: Projection[Any], current: Generation, around: Around, earlier: int | None) -> bool:
    """Whether the code that made the rows is newer than this one, not the other way round."""
    lacking = set(current.columns) - set(projection.columns)
    return bool(
        around.unknown
        or (lacking and not around.pending)
        or _is_later(current.release, around.release)
        or (earlier is not None and earlier < current.generation_id)
    )


def _is_later(release: str, other: str) -> bool:
    """Whether the one release has a higher number; false where one of them has none."""
    one, two = ([int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]] for text in (release, other))
    return bool(one and two) and one > two


def _why(projection: Projection[Any], current: Generation, *, is_older: bool = False) -> str:
    clauses = why_other(projection, current, is_older=is_older)
    if clauses:
        return "; ".join(clauses)
    untold = "" if current.parts else ", which did not tell what it is made of"
    return f"it was built by other code (release {current.release}){untold}"


def _remedy(projection: Projection[Any], current: Generation, around: Around) -> str:
    if set(projection.columns) == set(current.columns):
        return f"run rebuild-projection {projection.table}"
    if around.pending:
        return "run position-ledger migrate up"
    return f"write a migration (position-ledger migrate new) that changes the columns of {projection.table}"


def mismatch_of(state: State) -> Mismatch | None:
    """What a state has to say, with the command that helps; None for one in which this code may write."""
    if state.state == "never set up":
        what = f"table {state.table} has never been set up in this database"
    elif state.state == "needs rebuild":
        what = f"table {state.table} needs a rebuild: {state.why}"
    elif state.state == "only newer code may write it":
        what = f"table {state.table} can only be written by newer code: {state.why}"
    else:
        return None
    return Mismatch("definition", f"{what}: {state.remedy}")
