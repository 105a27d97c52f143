"""Rebuilding a projection from the log, without downtime and provably right.

Shadow in its own schema, bulk load up to a frozen horizon, catch-up while commands go on, proof, polite swap. Ids are
the numbers of events, so they are the same as before. The old generation is kept for an instant rollback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.database import connect
from position_ledger.errors import GenerationNotOurs, MigrationError, SchemaMismatch, SwapBlocked, VerificationFailed
from position_ledger.migration.attached import attached_to
from position_ledger.migration.catalogue import Catalogue, Table
from position_ledger.migration.ddl import create_table, finish_table, shadow_path
from position_ledger.migration.introspect import read_table
from position_ledger.projection import foreign_keys, generations, leases, verification
from position_ledger.projection.catching_up import SHORT_TAIL_EVENTS, catch_up, tail_events
from position_ledger.projection.definition import Projection
from position_ledger.projection.exchange import SwapPlan
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation
from position_ledger.projection.loading import load
from position_ledger.projection.swap import BUDGET_S, make_schema, swap
from position_ledger.projection.verification import Difference
from position_ledger.settings import Settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec

REBUILD_LOCK = 0x504C52
"""First half of the advisory lock that keeps two rebuilds of one projection apart; the second half is its hash."""

MAINTENANCE_MEMORY = "256MB"


class Progress(Protocol):
    """How far something is; every method may do nothing."""

    def start(self, total: int, what: str) -> None:
        """Something begins that will take ``total`` steps."""

    def advance(self, done: int) -> None:
        """So many more steps are done."""

    def finish(self) -> None:
        """It is done."""


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """What a rebuild is to do.

    ``dry_run`` builds and verifies, reports the differences, and drops what it built. Without ``swap`` the shadow stays,
    kept current by workers with its code, and the next rebuild goes on from there.
    ``changed`` names columns whose values the new code means to change; ``accept_differences`` accepts any.
    """

    dry_run: bool = False
    swap: bool = True
    processes: int = 1
    accept_differences: bool = False
    changed: tuple[str, ...] = ()
    swap_budget_s: float = BUDGET_S


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did, with figures."""

    table: str
    generation_id: int | None = None
    events: int = 0
    versions: int = 0
    load_s: float = 0.0
    index_s: float = 0.0
    catch_up_rounds: int = 0
    verify_s: float = 0.0
    verified_up_to: int = 0
    swap_attempts: int = 0
    swap_lock_ms: float = 0.0
    swapped: bool = False
    differences: list[Difference] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """What the migrations make of the table: catalogues before and after the pending files, and how to record those."""

    before: Catalogue
    after: Catalogue
    numbers: tuple[int, ...] = ()
    verify: Callable[[psycopg.Cursor[Any], str], None] = lambda _cursor, _shadow: None
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
    key = (REBUILD_LOCK, table)
    row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone()
    if row is None or not row[0]:
        msg = f"another rebuild of {table} is running: wait for it, or see position-ledger status"
        raise MigrationError(msg)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)


class Rebuild:
    """One rebuild of one projection. ``connection`` is autocommit and owns the schema of the ledger."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        url: str,
        settings: Settings,
        projection: Projection[Any],
        codec: Codec,
        *,
        release: str,
        tell: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._url = url
        self._settings = settings
        self._projection = projection
        self._codec = codec
        self._release = release
        self._progress = progress
        self._report = RebuildReport(projection.table)
        self._tell_more = tell

    def _tell(self, message: str) -> None:
        self._report.messages.append(message)
        self._tell_more(message)

    def run(self, target: Target, options: RebuildOptions) -> RebuildReport:
        """Rebuild and, unless told otherwise, swap.

        Raises:
            MigrationError: another rebuild of the table is running.
            SchemaMismatch: the target table and the definition differ.
            VerificationFailed: the shadow is not what it should be; it was dropped, the live table is unchanged.
            SwapBlocked: no quiet moment; the shadow was dropped, the live table is unchanged.
        """
        table = self._target_table(target)
        with alone(self._connection, self._projection.table):
            live = self._live()
            waiting = self._waiting_shadow(table)
            self._drop_leftovers(waiting)
            foreign_keys.validate_pending(self._connection, self._projection.table)
            upto = feed.horizon(self._connection)
            new = waiting or self._begin(table, live)
            try:
                if waiting is None:
                    self._load(table, new, upto, options)
                self._catch_up(new)
                self._prove(live, new, target, options)
                if options.swap and not options.dry_run:
                    self._swap(live, new, target, options)
            except BaseException:
                self._drop(new)
                raise
            if options.dry_run and waiting is None:
                self._drop(new)
            if self._report.swapped:
                self._drop_older_than(live)
        return self._report

    def _waiting_shadow(self, table: Table) -> Generation | None:
        """A shadow that was built by this code, for this table, and not swapped yet: it only has to catch up."""
        for generation in generations.followed(self._connection, [self._projection]):
            if generation.state != "building":
                continue
            made = read_table(self._connection, generation.schema, table.name, beside=self._settings.ledger_schema)
            if (made.columns, made.constraints, made.indexes) == (table.columns, table.constraints, table.indexes):
                self._report.generation_id = generation.generation_id
                self._tell(
                    f"generation {generation.generation_id} of {table.name} is built already and goes on from there"
                )
                return generation
        return None

    def _target_table(self, target: Target) -> Table:
        table = target.after.tables.get(self._projection.table)
        if table is None:
            msg = f"no migration makes table {self._projection.table}: add one, then run position-ledger migrate up"
            raise SchemaMismatch(msg)
        gap = generations.column_gap(self._projection.columns, list(table.columns))
        if gap:
            msg = (
                f"table {table.name} as the migrations make it and row type {self._projection.row.__name__} differ{gap}: "
                "add the field to the row type or the column in a migration"
            )
            raise SchemaMismatch(msg)
        return table

    def _live(self) -> Generation:
        live = generations.active(self._connection, self._projection.table)
        if live is None:
            msg = (
                f"table {self._projection.table} has never been set up in this database: run position-ledger migrate up"
            )
            raise SchemaMismatch(msg)
        require_worker_mode(live)
        return live

    def _drop_leftovers(self, waiting: Generation | None) -> None:
        """The shadow of a rebuild that was killed, unless it is the one that is waited for."""
        for generation in generations.kept(self._connection, self._projection.table):
            if generation.state == "building" and generation != waiting:
                self._tell(f"dropping what a killed rebuild left (generation {generation.generation_id})")
                self._drop(generation)

    def _begin(self, table: Table, live: Generation) -> Generation:
        """Make the generation and its bare table."""
        with self._connection.transaction():
            generation_id = generations.create(
                self._connection, self._projection, schema="?", state="building", release=self._release, mode=live.mode
            )
            schema = f"{self._settings.ledger_schema}_g{generation_id}"
            self._connection.execute(
                "UPDATE projection_generations SET schema_name = %s WHERE generation_id = %s", (schema, generation_id)
            )
            make_schema(self._connection, schema)
            self._connection.execute(shadow_path(schema, self._settings.ledger_schema))
            self._connection.execute(create_table(table, schema))
            self._connection.execute(
                SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(Identifier(schema, table.name))
            )
        self._report.generation_id = generation_id
        self._tell(f"building generation {generation_id} of {table.name} in schema {schema}")
        return next(g for g in generations.kept(self._connection, table.name) if g.generation_id == generation_id)

    def _load(self, table: Table, new: Generation, upto: int, options: RebuildOptions) -> None:
        started = time.perf_counter()
        self._progress.start(upto, f"loading {table.name}")
        loaded = load(
            self._url,
            self._settings,
            self._projection,
            new.schema,
            upto,
            processes=options.processes,
            advance=self._progress.advance,
        )
        self._progress.finish()
        self._report.events, self._report.versions = loaded.events, loaded.versions
        self._report.load_s = time.perf_counter() - started
        self._tell(f"loaded {loaded.versions:,} versions from {loaded.events:,} events in {self._report.load_s:.2f} s")
        self._finish(table, new)
        with self._connection.transaction():
            generations.create_checkpoints(self._connection, new.generation_id, upto)

    def _finish(self, table: Table, new: Generation) -> None:
        """Constraints, indexes, triggers, grants and comments, then the statistics that the first reader will need."""
        started = time.perf_counter()
        name = Identifier(new.schema, table.name)
        with self._connection.transaction():
            self._connection.execute("SET LOCAL statement_timeout = 0")
            self._connection.execute(SQL("SET LOCAL maintenance_work_mem = {}").format(MAINTENANCE_MEMORY))
            self._connection.execute(shadow_path(new.schema, self._settings.ledger_schema))
            for statement in finish_table(table, new.schema):
                self._connection.execute(statement)
            self._connection.execute(SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(name))
        self._connection.execute("SET statement_timeout = 0")
        self._connection.execute(SQL("VACUUM (FREEZE, ANALYZE) {}").format(name))
        self._report.index_s = time.perf_counter() - started
        self._tell(f"indexes, constraints and statistics in {self._report.index_s:.2f} s")

    def _catch_up(self, new: Generation) -> None:
        """Project what came meanwhile, beside any worker that has the code already."""
        with connect(self._url, self._settings, as_app=True, name="position-ledger rebuild") as connection:
            self._report.catch_up_rounds += catch_up(connection, self._projection, new, self._codec)

    def _prove(self, live: Generation, new: Generation, target: Target, options: RebuildOptions) -> None:
        """The shadow keeps the laws, holds what the migrations verify, and equals the live table where it should."""
        started = time.perf_counter()
        broken = verification.broken_law(self._connection, new.schema, self._projection)
        if broken is not None:
            msg = f"the rebuilt table breaks a law: {broken}; it was dropped, the live table is unchanged"
            raise VerificationFailed(msg)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            target.verify(cursor, new.schema)
        columns = self._comparable(live, target, options)
        upto, differences = verification.generations_differ(
            self._connection, live, new, columns, self._projection.key_column
        )
        self._report.verified_up_to, self._report.differences = upto, differences
        self._report.verify_s = time.perf_counter() - started
        if differences and not options.accept_differences and not options.dry_run:
            names = sorted({difference.column for difference in differences})
            msg = (
                f"the rebuilt table differs from the live one, first at {differences[0]}; if the new code means to change "
                f"it, run again with --changed {','.join(names)} (or --accept-differences to repair a table that was "
                "changed by hand); the live table is unchanged"
            )
            raise VerificationFailed(msg)
        attached = attached_to(self._connection, self._settings.ledger_schema, live.projection)
        foreign_keys.require_kept(
            self._connection, attached.foreign_keys, live.projection, live.schema, new.schema, upto
        )
        self._tell(
            f"verified {len(columns)} columns against the live table up to event {upto} in {self._report.verify_s:.2f} s"
        )

    def _comparable(self, live: Generation, target: Target, options: RebuildOptions) -> list[str]:
        """Columns that both tables have, of one type, and that nobody said would change."""
        before, after = target.before.tables[live.projection].columns, target.after.tables[live.projection].columns
        return [
            column
            for column in self._projection.columns
            if column in before and before[column].type == after[column].type and column not in options.changed
        ]

    def _swap(self, live: Generation, new: Generation, target: Target, options: RebuildOptions) -> None:
        plan = SwapPlan(live, new, self._projection, target.before, target.after, partial(self._record, new, target))
        result = swap(
            self._connection,
            plan,
            self._codec,
            schema=self._settings.ledger_schema,
            tell=self._tell,
            catch_up=partial(self._catch_up, new),
            budget_s=options.swap_budget_s,
        )
        self._report.swap_attempts, self._report.swap_lock_ms = result.attempts, result.lock_ms
        self._report.swapped = True

    @staticmethod
    def _record(new: Generation, target: Target, cursor: psycopg.Cursor[Any]) -> None:
        target.record(cursor)
        cursor.execute(
            "UPDATE projection_generations SET migrations = %s WHERE generation_id = %s",
            (list(target.numbers), new.generation_id),
        )

    def _drop_older_than(self, retired: Generation) -> None:
        """Keep one generation to go back to; drop those before it."""
        for generation in generations.kept(self._connection, self._projection.table):
            if generation.state == "retired" and generation.generation_id != retired.generation_id:
                self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        """Drop a generation that is not live, with its table. Nothing happens if it has become the live one."""
        if self._connection.closed:
            return
        with self._connection.transaction():
            row = self._connection.execute(
                "UPDATE projection_generations SET state = 'dropped' "
                "WHERE generation_id = %s AND state IN ('building', 'retired') RETURNING schema_name",
                (generation.generation_id,),
            ).fetchone()
            if row is not None:
                self._connection.execute(
                    "DELETE FROM projection_checkpoints WHERE generation_id = %s", (generation.generation_id,)
                )
                self._connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(row[0])))


def roll_back(
    connection: psycopg.Connection[Any],
    settings: Settings,
    projections: Sequence[Projection[Any]],
    table: str,
    codec: Codec,
    target: Callable[[Generation, Generation], Target],
    *,
    tell: Callable[[str], None],
    bring_up: Callable[[Projection[Any], Generation], None],
) -> RebuildReport:
    """Put the retired generation back in place of the active one.

    Raises:
        GenerationNotOurs: there is none, or it is behind and this code cannot bring it up; names the release that can.
        SwapBlocked: no quiet moment; nothing was changed.
    """
    with alone(connection, table):
        live, old = _to_exchange(connection, table)
        ours = next((p for p in projections if p.table == table and fingerprint_of(p) == old.fingerprint), None)
        if ours is None:
            _require_followed(connection, live, old)
        foreign_keys.validate_pending(connection, table)
        back = target(live, old)
        plan = SwapPlan(live, old, ours, back.before, back.after, back.record)
        result = swap(
            connection,
            plan,
            codec,
            schema=settings.ledger_schema,
            tell=tell,
            catch_up=partial(bring_up, ours, old) if ours else lambda: None,
        )
    return RebuildReport(
        table,
        old.generation_id,
        swap_attempts=result.attempts,
        swap_lock_ms=result.lock_ms,
        swapped=True,
        messages=[f"generation {old.generation_id} of {table} is active again"],
    )


def _to_exchange(connection: psycopg.Connection[Any], table: str) -> tuple[Generation, Generation]:
    """The active generation, and the retired one that it can be exchanged for."""
    kept = generations.kept(connection, table)
    live = next((g for g in kept if g.state == "active"), None)
    retired = [g for g in kept if g.state == "retired"]
    if live is None or not retired:
        msg = f"table {table} has no retired generation to go back to: only the last one before a swap is kept"
        raise GenerationNotOurs(msg)
    require_worker_mode(live)
    return live, retired[-1]


def _require_followed(connection: psycopg.Connection[Any], live: Generation, old: Generation) -> None:
    """Refuse a rollback to rows that nobody keeps current: this code cannot fold them."""
    behind = max(0, tail_events(connection, old))
    if not behind or (behind <= SHORT_TAIL_EVENTS and leases.workers_alive(connection).get(old.fingerprint)):
        return
    msg = (
        f"the retired generation of {live.projection} is {behind} events behind and was built by other code (release "
        f"{old.release}): start a worker of that release, wait until it has caught up, and run the rollback again"
    )
    raise GenerationNotOurs(msg)
