"""Rebuilding projections from the log, without downtime and provably right.

For each table: shadow in its own schema, bulk load up to a frozen horizon, catch-up while commands go on, proof. Then one
polite swap for all of them. Ids are the numbers of events, so they are the same as before. The old generations are kept
for an instant rollback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from position_ledger.database import only_row
from position_ledger.errors import DatabaseUnavailable, MigrationError, SwapBlocked
from position_ledger.migration.catalogue import Catalogue
from position_ledger.projection import generations
from position_ledger.projection.building import Building, RebuildReport, Where
from position_ledger.projection.definition import Projection
from position_ledger.projection.exchange import Move, SwapPlan
from position_ledger.projection.generations import Generation
from position_ledger.projection.load_crew import LoadInterrupted
from position_ledger.projection.loading import History
from position_ledger.projection.rebuilds import REBUILD_LOCK
from position_ledger.projection.retention import drop_older
from position_ledger.projection.shadow import drop
from position_ledger.projection.swap import BUDGET_S, movable, swap
from position_ledger.projection.watching import Progress

__all__ = [
    "Progress",
    "RebuildOptions",
    "RebuildReport",
    "Target",
    "Where",
    "abandon",
    "alone",
    "drop_older",
    "rebuild",
    "require_worker_mode",
]

GOES_ON_AFTER = (SwapBlocked, LoadInterrupted, DatabaseUnavailable, psycopg.OperationalError, KeyboardInterrupt)
"""What says nothing against the rows that were made: the next run goes on with them."""

LET_GO_S = 5.0
"""So long a rebuild waits for another one of its table: the server lets go of what a killed one held within two seconds."""

LET_GO_POLL_S = 0.1

Again = Callable[[psycopg.Cursor[Any]], None]
"""What is left to verify when the tables are in their places."""


def _nothing_left(_cursor: psycopg.Cursor[Any]) -> None:
    """All of it has held."""


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """What a rebuild is to do.

    ``dry_run`` builds and verifies, reports the differences, and drops what it built. Without ``swap`` the shadow stays,
    kept current by workers with its code, and the next rebuild goes on from there.
    ``history`` is where events are loaded from, if not from the log; what came after it is read from the log.
    ``changed`` names columns whose values the new code means to change; ``accept_differences`` accepts any.
    ``throttle_per_s`` is how many events a second may be read by all who load together; ``workers`` how many worker
    processes are asked to help. What is built ``is_kept`` for the next run when this one is interrupted or blocked.
    """

    dry_run: bool = False
    swap: bool = True
    processes: int = 1
    accept_differences: bool = False
    changed: tuple[str, ...] = ()
    swap_budget_s: float = BUDGET_S
    throttle_per_s: float | None = None
    workers: int = 0
    is_kept: bool = True
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What the migrations make of the tables: catalogues before and after the pending files, and how to record those.

    ``verify`` looks at the shadows, whose schemas it is given, and answers what is to be verified in the swap.
    """

    before: Catalogue
    after: Catalogue
    numbers: tuple[int, ...] = ()
    verify: Callable[[psycopg.Cursor[Any], Sequence[str]], Again] = lambda _cursor, _shadows: _nothing_left
    record: Callable[[psycopg.Cursor[Any]], None] = lambda _cursor: None


def require_worker_mode(live: Generation) -> None:
    """Refuse what replaces an inline generation: its writers would have to follow in the middle of an append.

    Raises:
        SwapBlocked: says what to do instead.
    """
    if live.mode == "inline":
        msg = (
            f"table {live.projection} is projected inline, and only a table in worker mode can be replaced: set it to "
            "worker mode, do this again, and set it back to inline"
        )
        raise SwapBlocked(msg)


@contextmanager
def alone(connection: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """Keep other rebuilds, rollbacks and changes of mode of the table away; a killed process leaves no lock behind.

    Raises:
        MigrationError: another one is going on.
    """
    key, end = (REBUILD_LOCK, table), time.monotonic() + LET_GO_S
    while only_row(connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key)) != (True,):
        if time.monotonic() > end:
            msg = (
                f"another rebuild of {table} is running: wait for it (position-ledger status shows how far it is), or end it "
                f"with rebuild-projection {table} --cancel"
            )
            raise MigrationError(msg)
        time.sleep(LET_GO_POLL_S)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)


def rebuild(
    where: Where, projections: Sequence[Projection[Any]], target: Target, options: RebuildOptions
) -> list[RebuildReport]:
    """Rebuild tables one after the other and, unless told otherwise, swap them together; a report for each.

    Raises:
        MigrationError: another rebuild of one of the tables is running.
        SchemaMismatch: the target table and the definition differ.
        VerificationFailed: a shadow is not what it should be; all were dropped, the live tables are unchanged.
        SwapBlocked: no quiet moment, or something that cannot be moved; the live tables are unchanged.
        RebuildCancelled: another command has cancelled it; all were dropped.
    """
    with ExitStack() as stack:
        for table in sorted(projection.table for projection in projections):
            stack.enter_context(alone(where.connection, table))
        builds = [Building(where, projection, target.after) for projection in projections]
        for build in builds:
            stack.callback(build.close)
        _require_movable(where, builds, target, options)
        try:
            _build(where, builds, target, options)
        except BaseException as error:
            is_kept = options.is_kept and _goes_on_after(error)
            for build in builds:
                build.fail(error, is_kept=is_kept)
            raise
        for build in builds:
            build.finish(is_dropped=options.dry_run and not build.goes_on)
            if build.report.swapped:
                drop_older(where.connection, build.projection.table)
    return [build.report for build in builds]


def _require_movable(where: Where, builds: Sequence[Building], target: Target, options: RebuildOptions) -> None:
    """Refuse at once what the swap would refuse after hours of loading."""
    for live in (build.live for build in builds):
        if live is not None:
            require_worker_mode(live)
            if options.swap and not options.dry_run:
                movable(where.connection, where.schema, live.projection, target.before)


def _goes_on_after(error: BaseException) -> bool:
    """Whether what was built is worth keeping; not on a full disk, which it helps to fill."""
    return isinstance(error, GOES_ON_AFTER) and not isinstance(error, psycopg.errors.DiskFull)


def _build(where: Where, builds: Sequence[Building], target: Target, options: RebuildOptions) -> None:
    for build in builds:
        build.build(processes=options.processes, throttle_per_s=options.throttle_per_s, history=options.history)
    must_equal = not options.accept_differences and not options.dry_run
    for build in builds:
        build.prove(target.before, target.after, changed=options.changed, must_equal=must_equal)
    with where.connection.transaction(), where.connection.cursor() as cursor:
        again = target.verify(cursor, [build.new.schema for build in builds])
    if options.swap and not options.dry_run:
        _swap(where, builds, target, again, options)


def _swap(where: Where, builds: Sequence[Building], target: Target, again: Again, options: RebuildOptions) -> None:
    plan = SwapPlan(
        tuple(Move(one.projection.table, one.live, one.new, one.projection) for one in builds),
        target.before,
        target.after,
        record=partial(_record, [one.new for one in builds], target),
        verify=again,
        retired_kept_hours=where.settings.retired_kept_hours,
    )

    for build in builds:
        build.watch.enter("swapping")

    def catch_up() -> None:
        for build in builds:
            build.watch.wait()
            build.catch_up()

    result = swap(
        where.connection,
        plan,
        where.codec,
        schema=where.schema,
        tell=builds[0].tell,
        catch_up=catch_up,
        budget_s=options.swap_budget_s,
    )
    for build in builds:
        build.report.swap_attempts, build.report.swap_lock_ms = result.attempts, result.lock_ms
        build.report.swapped = True


def _record(news: Iterable[Generation], target: Target, cursor: psycopg.Cursor[Any]) -> None:
    target.record(cursor)
    cursor.execute(
        "UPDATE projection_generations SET migrations = %s WHERE generation_id = ANY(%s)",
        (list(target.numbers), [new.generation_id for new in news]),
    )


def abandon(connection: psycopg.Connection[Any], tables: Iterable[str]) -> list[str]:
    """Drop what is being built of the tables, as nobody goes on with it; answers the tables of which there was something.

    Raises:
        MigrationError: a rebuild of one of them is running.
    """
    dropped = []
    for table in sorted(tables):
        with alone(connection, table):
            for generation in generations.kept(connection, table):
                if generation.state == "building":
                    drop(connection, generation)
                    dropped.append(table)
    return dropped
