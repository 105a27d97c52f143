"""What was known of one key at a time, in a table of many versions, against a look-up by primary key in the same rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from bench.writers import open_positions
from position_ledger import Ledger, Projection
from position_ledger.database import only_row
from position_ledger.projection.statements import names
from position_ledger.reading import TableReader

OF_PRIMARY_KEY_MAX = 1.5
SCHEMA = "bench_known_at"
KEYS = 1_000
"""The first one has half of all versions; the others share the rest."""

INDEX = Identifier("positions_position_id_row_effective_date_idx")
"""The name that the copy of an index on these columns gets."""

FIRST_MOMENT = datetime(2020, 1, 1, tzinfo=UTC)

FILL = """
INSERT INTO {table} ({columns})
SELECT {values} FROM {live} AS p CROSS JOIN LATERAL (
    SELECT n.id, CASE WHEN n.id %% 2 = 0 THEN 1 ELSE 2 + n.id / 2 %% {others} END AS key,
           CASE WHEN n.id %% 2 = 0 THEN n.id / 2 ELSE 1 + n.id / 2 / {others} END AS version
      FROM generate_series(1, {versions}) AS n (id)) AS n
 WHERE p.position_id = %(template)s AND p.row_current_ind
"""


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Fill a table of the shape of positions, and look up single rows in both ways by turns."""
    rounds: list[dict[str, float]] = []
    with (
        servers.arena() as arena,
        arena.ledger() as ledger,
        _table(arena, ledger, plan.known_at_versions) as connection,
    ):
        projection = next(one for one in ledger.projections if one.table == "positions")
        subjects = _subjects(connection, projection, plan.known_at_versions)
        for round_number in range(plan.rounds + 1):
            found = {name: _median_us(look_up, plan.known_at_lookups) for name, look_up in subjects.items()}
            if round_number:  # the first one warms up
                rounds.append(found)
    line = Line(
        f"known at a time, one key, {plan.known_at_versions:,} versions, of a primary key",
        [one["known_at"] / one["primary_key"] for one in rounds],
        f"by primary key: {shown(median(one['primary_key'] for one in rounds))} us",
        direction="at most",
        target=OF_PRIMARY_KEY_MAX,
    )
    return [line], {"rounds_us": rounds, "versions": plan.known_at_versions}


def _subjects(
    connection: psycopg.Connection[Any], projection: Projection[Any], versions: int
) -> dict[str, Callable[[], None]]:
    """One row each: the same columns, prepared, at random places; half of the look-ups hit the key with most versions."""
    chance = random.Random(1)  # noqa: S311 - places to look at
    reader = TableReader(lambda: closing(connection), SCHEMA, projection)
    known_at = reader.known_query(FIRST_MOMENT).as_bytes(connection)
    columns, table = names(projection.columns, of="p"), Identifier(SCHEMA, projection.table)
    by_id = SQL("SELECT {} FROM {} AS p WHERE p.id = %s").format(columns, table).as_bytes(connection)

    def look_up_known() -> None:
        key = f"POS-{chance.choice((1, chance.randrange(2, KEYS)))}"
        moment = FIRST_MOMENT + timedelta(seconds=chance.randrange(versions // 2, versions))
        only_row(connection.execute(known_at, {"key": key, "at": moment}, prepare=True))

    def look_up_id() -> None:
        only_row(connection.execute(by_id, (chance.randrange(1, versions),), prepare=True))

    return {"primary_key": look_up_id, "known_at": look_up_known}


def _median_us(look_up: Callable[[], None], lookups: int) -> float:
    took = []
    for _ in range(lookups):
        began = time.perf_counter()
        look_up()
        took.append(time.perf_counter() - began)
    return median(took) * 1e6


@contextmanager
def _table(arena: Arena, ledger: Ledger, versions: int) -> Iterator[psycopg.Connection[Any]]:
    """A table like positions, indexes and all, filled by the server from one row of it."""
    projection = next(one for one in ledger.projections if one.table == "positions")
    (template,) = open_positions(ledger, "template", 1)
    ledger.wait_for(int(template.removeprefix("POS-")))
    table, live = Identifier(SCHEMA, projection.table), Identifier(arena.settings.ledger_schema, projection.table)
    with closing(arena.connect()) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(SCHEMA)))
        connection.execute(SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING CONSTRAINTS)").format(table, live))
        connection.execute(
            SQL("CREATE INDEX IF NOT EXISTS {} ON {} (position_id, row_effective_date)").format(INDEX, table)
        )
        connection.execute(
            SQL(FILL).format(
                table=table,
                live=live,
                columns=names(projection.columns),
                values=SQL(", ").join(_value(column) for column in projection.columns),
                others=SQL(str(KEYS - 1)),
                versions=SQL(str(versions)),
            ),
            {"template": template},
        )
        connection.execute(SQL("VACUUM (ANALYZE) {}").format(table))
        yield connection


def _value(column: str) -> SQL | Any:
    """Each version a second after the one before it in the table; the last one of a key is not marked as such."""
    own = {
        "id": "n.id",
        "row_current_ind": "false",
        "row_effective_date": "timestamptz '2020-01-01 00:00:00Z' + n.id * interval '1 second'",
        "row_expiration_date": "timestamptz '2020-01-01 00:00:01Z' + n.id * interval '1 second'",
        "version": "n.version",
        "position_id": "'POS-' || n.key",
    }
    return SQL(own[column]) if column in own else Identifier("p", column)
