"""`migrate plan` of one file, with many migrations there and a log with history."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line
from bench.seeding import lives, seed
from position_ledger.demo.team import add_migration
from position_ledger.operations import migrate_plan, migrate_up, migrations_folder
from position_ledger.settings import Settings

PLAN_S_MAX = 5.0
EVENTS = 10_000
TEAM = "position_ledger.demo.team.projections"
EARLIER = """-- Migration: {number:03}
-- Description: notes of month {number}
-- Date: 2026-01-31
-- Author: bench
-- Related: none
-- Summary: A table with an index and a few columns, as a team adds one now and then.
-- Rollback: Drops it.

-- forward

CREATE TABLE notes_{number} (
    note_id bigint PRIMARY KEY,
    text    text NOT NULL CHECK (text <> ''),
    made_at timestamptz NOT NULL
);
CREATE INDEX notes_{number}_by_time ON notes_{number} (made_at);
COMMENT ON TABLE notes_{number} IS 'Notes.';
GRANT SELECT ON notes_{number} TO position_ledger_reader;

-- verify

SELECT to_regclass('notes_{number}') IS NOT NULL;

-- rollback

DROP TABLE notes_{number};
"""


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """Plan a column of positions that history fills: the trace, the sample, the way back, squawk."""
    with servers.arena() as arena, tempfile.TemporaryDirectory() as name:
        settings = _with_migrations(arena, Path(name), plan.planned_migrations)
        with arena.ledger() as ledger:
            models = lives(arena, ledger)
        seed(arena, models, EVENTS - sum(len(life) for life in models))
        took_s = [_planned_s(arena, settings) for _ in range(plan.rounds)]
    what = f"{plan.planned_migrations} migrations there, {EVENTS:,} events"
    return [Line("migrate plan of one file", took_s, what, "at most", PLAN_S_MAX, "s")], {"took_s": took_s}


def _planned_s(arena: Arena, settings: Settings) -> float:
    began = time.perf_counter()
    found = migrate_plan(settings, arena.reached)
    took_s = time.perf_counter() - began
    if not found.is_safe or [one.need for one in found.projections if one.table == "positions"] != ["rebuild"]:
        raise RuntimeError(f"the plan is not what it should be: {found.findings}")
    return took_s


def _with_migrations(arena: Arena, folder: Path, count: int) -> Settings:
    """Shipped ones, then those of a team, all applied; the last one is pending."""
    for source in migrations_folder(arena.settings).iterdir():
        if source.name.endswith(".sql"):
            (folder / source.name).write_bytes(source.read_bytes())
    first = len(list(folder.iterdir())) + 1
    for number in range(first, count):
        (folder / f"{number:03}_notes.sql").write_text(EARLIER.format(number=number), encoding="utf-8")
    migrate_up(
        arena.settings.model_copy(update={"migrations": str(folder)}), arena.reached, None, lambda _message: None
    )
    add_migration(folder)
    return arena.settings.model_copy(update={"migrations": str(folder), "projections": TEAM})
