"""How long one can go back: a retired generation is dropped when its time is over, or when another one retires.

The time stands in its row since it retired, by the clock of the database (setting ``retired_kept_hours`` of whoever
swapped). Commands of the owner drop what is over; workers, which may drop nothing, call a function of the owner.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

import psycopg

from position_ledger.projection import generations
from position_ledger.projection.generations import Generation
from position_ledger.projection.shadow import drop

OVER = """
SELECT r.generation_id FROM (
       SELECT g.generation_id, (to_jsonb(g) ->> 'kept_until')::timestamptz AS kept_until,
              row_number() OVER (ORDER BY g.retired_at DESC, g.generation_id DESC) AS place
         FROM projection_generations AS g WHERE g.projection = %s AND g.state = 'retired') AS r
 WHERE r.place > 1 OR (%s AND r.kept_until <= clock_timestamp())
"""
LAST_DROPPED = """
SELECT g.release, (to_jsonb(g) ->> 'kept_until')::timestamptz FROM projection_generations AS g
 WHERE g.projection = %s AND g.state = 'dropped' AND g.retired_at IS NOT NULL
 ORDER BY g.retired_at DESC, g.generation_id DESC LIMIT 1
"""
MIGRATIONS = "SELECT g.migrations FROM projection_generations AS g WHERE g.projection = %s AND g.state = 'active'"


def drop_older(connection: psycopg.Connection[Any], table: str, *, expired: bool = True) -> None:
    """Keep one retired generation to go back to, as long as its time is not over; drop the others.

    Without ``expired`` the last one stays whatever the time, for somebody who is about to go back to it.
    """
    over = {row[0] for row in connection.execute(OVER, (table, expired)).fetchall()}
    for generation in generations.kept(connection, table) if over else ():
        if generation.generation_id in over:
            drop(connection, generation)


def drop_retired(connection: psycopg.Connection[Any], table: str) -> Generation | None:
    """Drop every retired generation of a table, whatever its time; answers the last one, None if there was none."""
    retired = [one for one in generations.kept(connection, table) if one.state == "retired"]
    for generation in retired:
        drop(connection, generation)
    return retired[-1] if retired else None


def nothing_to_go_back_to(connection: psycopg.Connection[Any], table: str) -> str:
    """Why a table cannot be rolled back, and what leads there instead."""
    dropped = connection.execute(LAST_DROPPED, (table,)).fetchone()
    live = connection.execute(MIGRATIONS, (table,)).fetchone()
    if dropped is None:
        return f"table {table} has no retired generation to go back to: only the last one before a swap is kept"
    release, until = dropped
    kept = f" until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
    numbers = list(live[0]) if live else []
    remedy = (
        f"write a migration that undoes {', '.join(f'{number:03}' for number in numbers)} and run position-ledger migrate up "
        "with the code that fits it"
        if numbers
        else f"run rebuild-projection {table} with the code of before"
    )
    return (
        f"table {table} has no retired generation to go back to: that of release {release} was kept{kept} and is dropped "
        f"(setting retired_kept_hours); its rows are in the log: {remedy}"
    )
