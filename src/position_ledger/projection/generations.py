"""Generations: which physical table belongs to which code, and the rule by which a process may start.

A generation is one build of a projection. The active one is what readers see; a retired one is kept for an instant
rollback, and stays current as long as workers with its code run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.database import only_row
from position_ledger.errors import SchemaMismatch
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generation_notes import note_parts
from position_ledger.projection.reasons import differences

SHARDS = 16
"""Shards of a generation: an upper limit for the workers that can project it side by side."""

GENERATION_LOCK = 0x504C47
"""First half of the two-integer advisory lock of a generation; the second half is its id."""

_COLUMNS = (
    "g.generation_id, g.projection, g.fingerprint, g.columns, g.schema_name, g.state, g.mode, g.release, "
    "coalesce(to_jsonb(g) -> 'fingerprint_parts', '{}'), (to_jsonb(g) ->> 'kept_until')::timestamptz"
)
"""The last two by way of JSON: a database to which their migration has not come yet does not have them."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One row of projection_generations."""

    generation_id: int
    projection: str
    fingerprint: str
    columns: Sequence[str]
    schema: str
    state: str
    mode: str
    release: str
    parts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """As `parts_of`; empty if the release that built it did not tell."""
    kept_until: datetime | None = field(default=None, compare=False)
    """Of a retired one: until when one can go back to it."""


def kept(connection: psycopg.Connection[Any], projection: str | None = None) -> list[Generation]:
    """Every generation that still has its table (not dropped), by projection and age."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM projection_generations AS g WHERE g.state <> 'dropped' "
        "AND (%(projection)s::text IS NULL OR g.projection = %(projection)s) ORDER BY g.projection, g.generation_id",
        {"projection": projection},
    ).fetchall()
    return [Generation(*row) for row in rows]


def active(connection: psycopg.Connection[Any], projection: str) -> Generation | None:
    """The generation that readers see, or None before the first `migrate up`."""
    return next((g for g in kept(connection, projection) if g.state == "active"), None)


def once_active(connection: psycopg.Connection[Any]) -> dict[tuple[str, str], int]:
    """The last generation that readers have seen of each table and fingerprint, kept or dropped."""
    rows = connection.execute(
        "SELECT g.projection, g.fingerprint, max(g.generation_id) FROM projection_generations AS g "
        "WHERE g.activated_at IS NOT NULL GROUP BY g.projection, g.fingerprint"
    ).fetchall()
    return {(table, fingerprint): number for table, fingerprint, number in rows}


def followed(connection: psycopg.Connection[Any], projections: Iterable[Projection[Any]]) -> list[Generation]:
    """The generations that this code may write and workers follow: its fingerprint, and loaded up to a checkpoint."""
    ours = {projection.table: fingerprint_of(projection) for projection in projections}
    loaded = {
        row[0] for row in connection.execute("SELECT DISTINCT generation_id FROM projection_checkpoints").fetchall()
    }
    return [
        g
        for g in kept(connection)
        if g.mode == "worker" and g.generation_id in loaded and ours.get(g.projection) == g.fingerprint
    ]


def check_start(connection: psycopg.Connection[Any], projections: Iterable[Projection[Any]]) -> None:
    """The start rule: each definition has a kept generation, whose table has exactly its columns.

    Raises:
        SchemaMismatch: names every projection that does not fit, the gap and the command that closes it.
    """
    generations = kept(connection)
    new: list[str] = []
    gaps: list[str] = []
    for projection in projections:
        of_table = [g for g in generations if g.projection == projection.table]
        mine = [g for g in of_table if g.fingerprint == fingerprint_of(projection)]
        current = next((g for g in of_table if g.state == "active"), None)
        if current is None:
            new.append(projection.table)
            continue
        if not mine:
            gaps.append(of_other_code(projection, current))
        for generation in mine:
            check_columns(connection, generation.schema, projection)
    if new:
        gaps.append(_never_set_up(new))
    if gaps:
        raise SchemaMismatch("; ".join(gaps))


def _never_set_up(tables: Sequence[str]) -> str:
    named = f"table {tables[0]} has" if len(tables) == 1 else f"tables {', '.join(tables)} have"
    return f"{named} never been set up in this database: run position-ledger migrate up"


def of_other_code(projection: Projection[Any], current: Generation) -> str:
    """Why a process whose code did not make the active generation is refused, and what closes the gap."""
    told = [] if column_gap(projection.columns, current.columns) else why_other(projection, current)
    return (
        f"table {projection.table} was built by other code (release {current.release}), and this process may not write "
        f"it{column_gap(projection.columns, current.columns)}{''.join(f'; {clause}' for clause in told)}: "
        f"{remedy(projection, current)}"
    )


def why_other(projection: Projection[Any], current: Generation, *, is_older: bool = False) -> list[str]:
    """What differs between a definition and the code that made a generation, a clause each; empty if nobody can tell."""
    return differences(projection, current.columns, current.parts, is_older=is_older)


def remedy(projection: Projection[Any], current: Generation) -> str:
    """A column more in the code waits for its migration; a column more in the table is that of newer code."""
    is_ahead = bool(set(projection.columns) - set(current.columns))
    is_behind = bool(set(current.columns) - set(projection.columns))
    steps = ["run position-ledger migrate up"] if is_ahead else []
    steps += [f"start the code that has the columns of {projection.table}"] if is_behind else []
    return ", or ".join(steps) or f"run rebuild-projection {projection.table}"


def column_gap(code: Sequence[str], table: Sequence[str]) -> str:
    """The difference between the columns of code and table in words; empty if there is none."""
    missing = [column for column in code if column not in table]
    unknown = [column for column in table if column not in code]
    words = ""
    if missing:
        words += f"; the table lacks {', '.join(missing)}"
    if unknown:
        words += f"; the row type lacks {', '.join(unknown)}"
    return words


def check_columns(connection: psycopg.Connection[Any], schema: str, projection: Projection[Any]) -> None:
    """Refuse a table whose columns are not exactly those of the definition, in any order.

    Raises:
        SchemaMismatch: names the columns that one has and the other lacks.
    """
    rows = connection.execute(
        "SELECT a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        (schema, projection.table),
    ).fetchall()
    if not rows:
        msg = f"table {schema}.{projection.table} does not exist: run position-ledger migrate up"
        raise SchemaMismatch(msg)
    gap = column_gap(projection.columns, [row[0] for row in rows])
    if gap:
        msg = (
            f"table {schema}.{projection.table} and its row type {projection.row.__name__} differ{gap}: add the field to "
            f"the row type or the column in a migration, then run position-ledger migrate up"
        )
        raise SchemaMismatch(msg)


def shard_ranges(shards: int = SHARDS) -> list[tuple[int, UUID, UUID]]:
    """(shard, first stream, last stream) over all stream ids, equal in size, without gap or overlap."""
    return [(shard, *shard_range(shard, shards)) for shard in range(shards)]


def shard_range(shard: int, shards: int) -> tuple[UUID, UUID]:
    """First and last stream id of one of so many equal shards."""
    size = 2**128 // shards
    return UUID(int=shard * size), UUID(int=(shard + 1) * size - 1)


def create(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    *,
    schema: str,
    state: str,
    release: str,
    mode: str = "worker",
) -> int:
    """Insert a generation of this code, without checkpoints; answers its id. Inside the caller's transaction, if any."""
    row = only_row(
        connection.execute(
            "INSERT INTO projection_generations"
            " (projection, fingerprint, columns, schema_name, state, mode, release, activated_at) "
            "VALUES (%(projection)s, %(fingerprint)s, %(columns)s, %(schema)s, %(state)s, %(mode)s, %(release)s, "
            "CASE WHEN %(state)s = 'active' THEN clock_timestamp() END) RETURNING generation_id",
            {
                "projection": projection.table,
                "fingerprint": fingerprint_of(projection),
                "columns": list(projection.columns),
                "schema": schema,
                "state": state,
                "mode": mode,
                "release": release,
            },
        )
    )
    note_parts(connection, int(row[0]), projection)
    return int(row[0])


def create_checkpoints(connection: psycopg.Connection[Any], generation_id: int, position: int) -> None:
    """One checkpoint for each shard, at a position up to which the table is loaded: from now on workers follow it."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO projection_checkpoints (generation_id, shard, stream_from, stream_to, position) "
            "VALUES (%s, %s, %s, %s, %s)",
            [(generation_id, shard, low, high, position) for shard, low, high in shard_ranges()],
        )


def ensure_first(
    connection: psycopg.Connection[Any], projections: Iterable[Projection[Any]], *, schema: str, release: str
) -> list[str]:
    """While the log is empty: give every projection that has a table its first generation; answers their tables.

    Tables are changed in place then, and their generation goes over to the new code. With events in the log nothing is
    done but to see whether the table fits: who has no generation then is to be filled from the log.

    Runs as the owner of the schema, after migrations.

    Raises:
        SchemaMismatch: the columns of the table are not those of the definition.
    """
    made = []
    for projection in projections:
        with connection.transaction():
            connection.execute("LOCK TABLE projection_generations IN SHARE ROW EXCLUSIVE MODE")  # one at a time
            current = active(connection, projection.table)
            if current is not None and current.fingerprint == fingerprint_of(projection):
                continue
            is_empty = _log_is_empty(connection)
            if current is not None and not is_empty:
                continue
            check_columns(connection, schema, projection)
            if not is_empty:
                continue
            if current is not None:
                _relabel(connection, current, projection, release)
                continue
            generation_id = create(connection, projection, schema=schema, state="active", release=release)
            create_checkpoints(connection, generation_id, 0)
            made.append(projection.table)
    return made


def _log_is_empty(connection: psycopg.Connection[Any]) -> bool:
    """Whether there is no event, and none can come before the caller's transaction ends; nobody waits if there are."""
    if connection.execute("SELECT 1 FROM events LIMIT 1").fetchone() is not None:
        return False
    connection.execute("LOCK TABLE events IN SHARE MODE")
    return connection.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None


def _relabel(
    connection: psycopg.Connection[Any], current: Generation, projection: Projection[Any], release: str
) -> None:
    """Without events the table is empty and was changed in place: it belongs to the new code."""
    connection.execute(
        "UPDATE projection_generations SET fingerprint = %s, columns = %s, release = %s WHERE generation_id = %s",
        (fingerprint_of(projection), list(projection.columns), release, current.generation_id),
    )
    note_parts(connection, current.generation_id, projection)


def note_missing_parts(connection: psycopg.Connection[Any], projections: Iterable[Projection[Any]]) -> None:
    """Tell what the kept generations of this code are made of, where the release that built them did not."""
    ours = {projection.table: projection for projection in projections}
    for generation in kept(connection):
        projection = ours.get(generation.projection)
        if projection is not None and not generation.parts and generation.fingerprint == fingerprint_of(projection):
            note_parts(connection, generation.generation_id, projection)


def visible_up_to(connection: psycopg.Connection[Any], tables: Sequence[str]) -> int:
    """The number up to which every event is visible in all the tables; inline generations never lag."""
    row = connection.execute(
        "SELECT min(c.position) FROM projection_checkpoints AS c JOIN projection_generations AS g USING (generation_id) "
        "WHERE g.state = 'active' AND g.mode = 'worker' AND g.projection = ANY(%s)",
        (list(tables),),
        prepare=True,
    ).fetchone()
    return 2**63 - 1 if row is None or row[0] is None else int(row[0])
