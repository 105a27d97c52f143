"""Comparing what a rebuild made: with the live table, as far as both are, and with what was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.projection import digests
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import Difference, comparison, differing
from position_ledger.projection.digests import Digest
from position_ledger.projection.generations import Generation
from position_ledger.projection.snapshots import Reach, checkpoint, snapshot
from position_ledger.projection.verification import Place, difference_in_sample, first_difference
from position_ledger.store.feed import HIGHEST_STREAM, LOWEST_STREAM

DIFFERENCES_MAX = 10
ENDS = ("row_current_ind", "row_expiration_date")


def generations_differ(
    connection: psycopg.Connection[Any], live: Generation, shadow: Generation, columns: Sequence[str], key: str
) -> tuple[int, list[Difference]]:
    """Compare two generations column by column up to what both have; answers that number and the first differences.

    Both are looked at as they were at that number, so that current flags and ends of versions are compared too.
    """
    if key not in columns:  # it had another name: what comes after a version is not known then
        key, columns = "id", [column for column in columns if column not in ENDS]
    with snapshot(connection):
        upto = min(checkpoint(connection, one.generation_id) for one in (live, shadow))
        shift = digests.shift_of(upto)
        ours, theirs = (_digest(connection, one, key, columns, upto, shift) for one in (shadow, live))
        found: list[Difference] = []
        for bucket in ours.differs_from(theirs):
            parameters = {"upto": upto, "low": bucket << shift, "high": (bucket + 1) << shift}
            found.extend(_among(connection, live, shadow, key, columns, parameters))
            if len(found) >= DIFFERENCES_MAX:
                break
        return upto, found[:DIFFERENCES_MAX]


def rows_up_to(generation: Generation, key: str, columns: Sequence[str]) -> Composed:
    """The rows of a generation as they were at a number (parameter: upto), as ``t``."""
    return digests.up_to(Identifier(generation.schema, generation.projection), key, columns)


def _digest(
    connection: psycopg.Connection[Any], of: Generation, key: str, columns: Sequence[str], upto: int, shift: int
) -> Digest:
    names = list(dict.fromkeys(["id", *columns]))
    typed = digests.columns_of(connection, of.schema, of.projection, columns)
    statement = digests.digest(rows_up_to(of, key, names), typed)
    return Digest(digests.taken(connection, statement, {"upto": upto, "shift": shift}))


def _among(
    connection: psycopg.Connection[Any],
    live: Generation,
    shadow: Generation,
    key: str,
    columns: Sequence[str],
    parameters: Mapping[str, Any],
) -> Iterator[Difference]:
    names = list(dict.fromkeys(["id", key, *columns]))
    should, is_ = (
        SQL("{} WHERE t.id >= %(low)s AND t.id < %(high)s").format(rows_up_to(one, key, names))
        for one in (shadow, live)
    )
    statement = comparison(should, is_, key, columns, DIFFERENCES_MAX)
    return differing(connection, statement, parameters, live.projection, columns)


def loaded(connection: psycopg.Connection[Any], schema: str, projection: Projection[Any], upto: int) -> Digest:
    """What a load has put into its bare table, all of it up to a number."""
    with snapshot(connection):
        shift = digests.shift_of(upto)
        columns = digests.columns_of(connection, schema, projection.table, projection.columns)
        statement = digests.digest(SQL("{} AS t").format(Identifier(schema, projection.table)), columns)
        return Digest(digests.taken(connection, statement, {"shift": shift}))


def differs_from_loaded(
    connection: psycopg.Connection[Any], shadow: Generation, projection: Projection[Any], upto: int, was: Digest
) -> Difference | None:
    """The first cell of what was loaded that is not what it was then, against what the log gives for it."""
    with snapshot(connection):
        place = _loaded_rows(shadow, projection, upto)
        now = _digest(connection, shadow, projection.key_column, projection.columns, upto, place.shift)
        return first_difference(connection, place, now.differs_from(was))


def differs_from_sample(
    connection: psycopg.Connection[Any], shadow: Generation, projection: Projection[Any], upto: int, events: int
) -> Difference | None:
    """The first cell of what was loaded that folding event by event gives otherwise, in rows of streams all over the log."""
    with snapshot(connection):
        return difference_in_sample(connection, _loaded_rows(shadow, projection, upto), events)


def _loaded_rows(shadow: Generation, projection: Projection[Any], upto: int) -> Place:
    """The rows of a shadow as they were when it was loaded."""
    rows = rows_up_to(shadow, projection.key_column, projection.columns)
    reach = Reach([(LOWEST_STREAM, HIGHEST_STREAM, upto)])
    return Place(projection, shadow.schema, rows, reach, digests.shift_of(upto), {"upto": upto})
