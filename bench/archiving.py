"""The archive: how fast events are exported and proven, how large they are, and a load from it beside one from the log."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from bench.seeding import lives, seed
from position_ledger.archive import open_archive
from position_ledger.database import only_row
from position_ledger.operations import archive_export, archive_verify
from position_ledger.projection import chunk_ledger
from position_ledger.projection.definition import load_projections
from position_ledger.projection.estimate import parts_for
from position_ledger.projection.load_crew import load

TABLE = "positions"
PROCESSES = 2
MEMORY_MB_MAX = 256.0

# The floor of an export: the same columns in the same order, written by nobody.
FLOOR = """
COPY (SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state, e.event_id, e.recorded_at,
             e.effective_at, e.stream_hash, e.metadata
        FROM events AS e ORDER BY e.originator_id, e.originator_version) TO STDOUT WITH (FORMAT binary)
"""
LOG_SIZE = "SELECT pg_table_size('events')::float8 / count(*) FROM events"
Run = dict[str, float]


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """One log, archived anew in each round."""
    with servers.arena() as arena:
        with arena.ledger() as ledger:
            models = lives(arena, ledger)
        seed(arena, models, plan.archived_events - sum(len(life) for life in models))
        with closing(arena.connect()) as connection:
            connection.execute("VACUUM (ANALYZE) events")
            events, log_bytes = (
                only_row(connection.execute(one))[0] for one in ("SELECT count(*) FROM events", LOG_SIZE)
            )
        runs = [_round(arena, events, is_odd=bool(number % 2)) for number in range(plan.archive_rounds)]
    return _lines(events, log_bytes, runs), {"events": events, "log_bytes_an_event": log_bytes, "rounds": runs}


def _round(arena: Arena, events: int, *, is_odd: bool) -> Run:
    with _folder() as folder:
        turn = -1 if is_odd else 1
        found: Run = {}
        for subject in (_floor, _export)[::turn]:
            found |= _apart(subject, arena, folder)
        found |= _apart(_verify, arena, folder)
        for subject in (_load_from_log, _load_from_archive)[::turn]:
            found |= _apart(subject, arena, folder)
        _require_equal(arena)
        return {**found, "bytes": found["bytes"] / events}


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="position-ledger-bench-archive-"))
    try:
        yield folder / "archive"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apart(what: Callable[[Arena, Path], Run], arena: Arena, folder: Path) -> Run:
    """In a process of its own, so that its memory is that of the work alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(what, arena, folder).result()


def _floor(arena: Arena, _folder: Path) -> Run:
    with closing(arena.connect()) as connection, connection.cursor() as cursor:
        connection.execute("SET statement_timeout = 0")
        began = time.perf_counter()
        with cursor.copy(FLOOR) as copy:
            for _block in copy:
                pass
        return {"floor_s": time.perf_counter() - began}


def _export(arena: Arena, folder: Path) -> Run:
    began = time.perf_counter()
    report = archive_export(arena.settings, arena.reached, folder, tell=lambda _message: None)
    return {"export_s": time.perf_counter() - began, "bytes": report.size, "export_mb": _peak_mb(resource.RUSAGE_SELF)}


def _verify(_arena: Arena, folder: Path) -> Run:
    began = time.perf_counter()
    report = archive_verify(folder)
    if not report.holds:
        raise RuntimeError(report.problems[0])
    return {"verify_s": time.perf_counter() - began, "verify_mb": _peak_mb(resource.RUSAGE_SELF)}


def _load_from_log(arena: Arena, _folder: Path) -> Run:
    return {"log_s": _load(arena, "logged", None), "log_mb": _peak_mb(resource.RUSAGE_CHILDREN)}


def _load_from_archive(arena: Arena, folder: Path) -> Run:
    return {"archive_s": _load(arena, "archived", folder), "archive_mb": _peak_mb(resource.RUSAGE_CHILDREN)}


def _load(arena: Arena, schema: str, folder: Path | None) -> float:
    projection = next(one for one in load_projections(arena.settings.projections) if one.table == TABLE)
    with closing(arena.connect()) as connection:
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        connection.execute(SQL("CREATE TABLE {} (LIKE positions)").format(Identifier(schema, TABLE)))
        connection.execute("CHECKPOINT")
        upto = only_row(connection.execute("SELECT max(e.notification_id) FROM events AS e"))[0]
        chunk_ledger.create(connection, schema, upto, parts_for(upto, None))
    history = open_archive(folder) if folder is not None else None
    began = time.perf_counter()
    load(
        arena.database_url,
        arena.settings,
        projection,
        schema,
        processes=PROCESSES,
        history=history,
    )
    return time.perf_counter() - began


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def _require_equal(arena: Arena) -> None:
    with closing(arena.connect()) as connection:
        logged, archived = (_digest(connection, schema) for schema in ("logged", "archived"))
    if logged != archived:
        raise RuntimeError(f"the log gives {logged[0]} rows, the archive {archived[0]}, and they are not the same")


def _digest(connection: psycopg.Connection[Any], schema: str) -> tuple[Any, ...]:
    table = Identifier(schema, TABLE)
    return only_row(
        connection.execute(SQL("SELECT count(*), bit_xor(hash_record_extended(t, 0)) FROM {} AS t").format(table))
    )


def _lines(events: int, log_bytes: float, runs: list[Run]) -> list[Line]:
    def rates(name: str) -> list[float]:
        return [events / run[name] for run in runs]

    def beside(name: str) -> str:
        return f"{shown(median(rates(name)))}/s"

    memory = [max(run[name] for name in ("export_mb", "verify_mb", "archive_mb")) for run in runs]
    return [
        Line(
            f"archive of {events:,} events, export, of COPY",
            [run["floor_s"] / run["export_s"] for run in runs],
            f"export: {beside('export_s')}; COPY … TO STDOUT of the same rows: {beside('floor_s')}",
        ),
        Line("archive, verified events a second", rates("verify_s"), "each row's chain and digest", unit="/s"),
        Line(
            "archive, size of an event", [run["bytes"] for run in runs], f"in the log: {log_bytes:.0f} bytes", unit="B"
        ),
        Line(
            "load from the archive, of the load from the log",
            [run["log_s"] / run["archive_s"] for run in runs],
            f"archive: {beside('archive_s')}, log: {beside('log_s')}, {PROCESSES} processes",
        ),
        Line(
            "archive, memory of the largest process",
            memory,
            f"load from the log: {shown(median(run['log_mb'] for run in runs), 'MB')}",
            "at most",
            MEMORY_MB_MAX,
            "MB",
        ),
    ]
