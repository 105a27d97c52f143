"""Building one generation beside the live table: bare shadow, bulk load, constraints and indexes, catch-up, proof.

What is done is written down in the schema of the shadow, so that a build that was killed goes on where it was: each
chunk of the load in the transaction that copies it, the end of the load with the constraints and the checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.database import connect
from position_ledger.errors import SchemaMismatch, VerificationFailed
from position_ledger.migration.attached import attached_to
from position_ledger.migration.catalogue import Catalogue, Column, Table
from position_ledger.migration.ddl import create_table, finish_table, shadow_path
from position_ledger.migration.introspect import read_table
from position_ledger.projection import chunk_ledger, foreign_keys, generations, verification
from position_ledger.projection.catching_up import catch_up
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation
from position_ledger.projection.loading import CHUNKS, History, does_not_fit, load
from position_ledger.projection.swap import make_schema
from position_ledger.projection.verification import Difference
from position_ledger.settings import Settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec

MAINTENANCE_MEMORY = "256MB"


class Progress(Protocol):
    """How far something is; every method may do nothing."""

    def start(self, total: int, what: str) -> None:
        """Something begins that will take ``total`` steps."""

    def advance(self, done: int) -> None:
        """So many more steps are done."""

    def finish(self) -> None:
        """It is done."""


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did with one table, with figures; the swap's are those of all tables that it moved."""

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
class Where:
    """What every build of a run shares. ``connection`` is autocommit and owns the schema of the ledger."""

    connection: psycopg.Connection[Any]
    url: str
    settings: Settings
    codec: Codec
    release: str
    tell: Callable[[str], None]
    progress: Progress

    @property
    def schema(self) -> str:
        """Where the live tables are."""
        return self.settings.ledger_schema


class Building:
    """One build of one projection, up to the moment at which it could take the place of the live table."""

    def __init__(self, where: Where, projection: Projection[Any], after: Catalogue) -> None:
        """``after`` has the table as it is to be.

        Raises:
            SchemaMismatch: it has no such table, or one that the definition does not fit.
        """
        self._where = where
        self._connection = where.connection
        self.projection = projection
        self.report = RebuildReport(projection.table)
        self._table = _target_table(projection, after)
        self.live = generations.active(where.connection, projection.table)
        self._new: Generation | None = None
        self.goes_on = False
        """Whether it was built already when the run began: nothing of it is to be loaded."""

    @property
    def new(self) -> Generation:
        """The generation that is built; known after `build`."""
        if self._new is None:
            msg = f"table {self.projection.table} is not built yet"
            raise AssertionError(msg)
        return self._new

    def tell(self, message: str) -> None:
        """Say what is done, now and in the report."""
        self.report.messages.append(message)
        self._where.tell(message)

    def build(self, *, processes: int, history: History | None = None) -> None:
        """Make the shadow and fill it, or go on with one that a killed run left; it is current when this ends.

        With a ``history`` it is filled from there up to the last number that it has, and from the log after it.
        """
        self._new = self._waiting() or self._half_built(history)
        self.goes_on = self._new is not None and not chunk_ledger.exists(self._connection, self._new.schema)
        self._drop_leftovers()
        foreign_keys.validate_pending(self._connection, self.projection.table)
        if self._new is None:
            self._new = self._begin(feed.horizon(self._connection) if history is None else history.upto)
        self.report.generation_id = self._new.generation_id
        if not self.goes_on:
            self._load(processes, history)
        self._statistics()
        self.catch_up()

    def _waiting(self) -> Generation | None:
        """A shadow that was built by this code, for this table, and not swapped yet: it only has to catch up."""
        table = self._table
        for generation in generations.followed(self._connection, [self.projection]):
            if generation.state != "building":
                continue
            made = read_table(self._connection, generation.schema, table.name, beside=self._where.schema)
            if (made.columns, made.constraints, made.indexes) == (table.columns, table.constraints, table.indexes):
                self.tell(
                    f"generation {generation.generation_id} of {table.name} is built already and goes on from there"
                )
                return generation
        return None

    def _half_built(self, history: History | None) -> Generation | None:
        """A shadow of this code and these columns whose load was interrupted: only what is missing is loaded.

        None if the history does not go as far as that load.
        """
        for generation in generations.kept(self._connection, self.projection.table):
            if generation.state != "building" or generation.fingerprint != fingerprint_of(self.projection):
                continue
            if not chunk_ledger.exists(self._connection, generation.schema):
                continue
            if history is not None and chunk_ledger.horizon(self._connection, generation.schema) > history.upto:
                continue
            made = read_table(self._connection, generation.schema, self._table.name, beside=self._where.schema)
            if _bare(made) == _bare(self._table):
                done, parts, _ = chunk_ledger.progress(self._connection, generation.schema)
                self.tell(
                    f"generation {generation.generation_id} of {self._table.name} was interrupted: {done} of {parts} "
                    "parts are loaded already"
                )
                return generation
        return None

    def _drop_leftovers(self) -> None:
        """The shadow of a rebuild that was killed, unless it is the one that this one goes on with."""
        for generation in generations.kept(self._connection, self.projection.table):
            if generation.state == "building" and generation != self._new:
                self.tell(f"dropping what a killed rebuild left (generation {generation.generation_id})")
                drop(self._connection, generation)

    def _begin(self, upto: int) -> Generation:
        """Make the generation, its bare table, and the list of what is to be loaded."""
        table, schema = self._table, self._where.schema
        with self._connection.transaction():
            generation_id = generations.create(
                self._connection,
                self.projection,
                schema="?",
                state="building",
                release=self._where.release,
                mode=self.live.mode if self.live is not None else "worker",
            )
            shadow = f"{schema}_g{generation_id}"
            self._connection.execute(
                "UPDATE projection_generations SET schema_name = %s WHERE generation_id = %s", (shadow, generation_id)
            )
            make_schema(self._connection, shadow)
            self._connection.execute(shadow_path(shadow, schema))
            self._connection.execute(create_table(table, shadow))
            self._connection.execute(_no_vacuum(shadow, table.name))
            chunk_ledger.create(self._connection, shadow, upto, CHUNKS)
        self.tell(f"building generation {generation_id} of {table.name} in schema {shadow}")
        return next(g for g in generations.kept(self._connection, table.name) if g.generation_id == generation_id)

    def _load(self, processes: int, history: History | None) -> None:
        started = time.perf_counter()
        progress, new = self._where.progress, self.new
        upto = chunk_ledger.horizon(self._connection, new.schema)
        progress.start(upto, f"loading {self._table.name}{f' from {history}' if history else ''}")
        progress.advance(chunk_ledger.progress(self._connection, new.schema)[2])
        loaded = load(
            self._where.url,
            self._where.settings,
            self.projection,
            new.schema,
            processes=processes,
            advance=progress.advance,
            history=history,
        )
        progress.finish()
        self.report.events, self.report.versions = loaded.events, loaded.versions
        self.report.load_s = time.perf_counter() - started
        source = f" of {history}, up to event {upto}," if history else ""
        self.tell(
            f"loaded {loaded.versions:,} versions from {loaded.events:,} events{source} in {self.report.load_s:.2f} s"
        )
        self._finish(upto)

    def _finish(self, upto: int) -> None:
        """Constraints, indexes, triggers, grants, comments and checkpoints: from here on followers keep it current."""
        started = time.perf_counter()
        shadow = self.new.schema
        with self._connection.transaction():
            self._connection.execute("SET LOCAL statement_timeout = 0")
            self._connection.execute(SQL("SET LOCAL maintenance_work_mem = {}").format(MAINTENANCE_MEMORY))
            self._connection.execute(shadow_path(shadow, self._where.schema))
            try:
                for statement in finish_table(self._table, shadow):
                    self._connection.execute(statement)
            except psycopg.errors.IntegrityError as error:
                raise VerificationFailed(does_not_fit(self._table.name, error)) from error
            self._connection.execute(_no_vacuum(shadow, self._table.name))
            self._connection.execute(SQL("SET LOCAL search_path = {}").format(Identifier(self._where.schema)))
            generations.create_checkpoints(self._connection, self.new.generation_id, upto)
            chunk_ledger.drop(self._connection, shadow)
        self.report.index_s = time.perf_counter() - started

    def _statistics(self) -> None:
        """What the first reader will need, after the load and once more when somebody goes on with a shadow."""
        started = time.perf_counter()
        self._connection.execute("SET statement_timeout = 0")
        name = Identifier(self.new.schema, self._table.name)
        self._connection.execute(SQL("VACUUM (FREEZE, ANALYZE) {}").format(name))
        self.report.index_s += time.perf_counter() - started
        if not self.goes_on:
            self.tell(f"indexes, constraints and statistics of {self._table.name} in {self.report.index_s:.2f} s")

    def catch_up(self) -> None:
        """Project what came meanwhile, beside any worker that has the code already."""
        where = self._where
        with connect(where.url, where.settings, as_app=True, name="position-ledger rebuild") as connection:
            self.report.catch_up_rounds += catch_up(connection, self.projection, self.new, where.codec)

    def prove(self, before: Catalogue, after: Catalogue, *, changed: Sequence[str], must_equal: bool) -> None:
        """The shadow keeps the laws and equals the live table where it should.

        Raises:
            VerificationFailed: it does not; says where, and what to say if the new code means to.
        """
        started = time.perf_counter()
        broken = verification.broken_law(self._connection, self.new.schema, self.projection)
        if broken is not None:
            msg = f"the rebuilt table breaks a law: {broken}; it was dropped, the live table is unchanged"
            raise VerificationFailed(msg)
        if self.live is not None:
            self._compare(self.live, self._comparable(before, after, changed), must_equal=must_equal)
        self.report.verify_s = time.perf_counter() - started
        if self.live is not None:
            self.tell(
                f"verified {self._table.name} against the live table up to event {self.report.verified_up_to} "
                f"in {self.report.verify_s:.2f} s"
            )

    def _compare(self, live: Generation, columns: Sequence[str], *, must_equal: bool) -> None:
        upto, differences = verification.generations_differ(
            self._connection, live, self.new, columns, self.projection.key_column
        )
        self.report.verified_up_to, self.report.differences = upto, differences
        if differences and must_equal:
            names = sorted({difference.column for difference in differences})
            msg = (
                f"the rebuilt table differs from the live one, first at {differences[0]}; if the new code means to change "
                f"it, run again with --changed {','.join(names)} (or --accept-differences to repair a table that was "
                "changed by hand); the live table is unchanged"
            )
            raise VerificationFailed(msg)
        attached = attached_to(self._connection, self._where.schema, live.projection)
        foreign_keys.require_kept(
            self._connection, attached.foreign_keys, live.projection, live.schema, self.new.schema, upto
        )

    def _comparable(self, before: Catalogue, after: Catalogue, changed: Sequence[str]) -> list[str]:
        """Columns that both tables have, of one type, and that nobody said would change."""
        old, new = before.tables[self._table.name].columns, after.tables[self._table.name].columns
        return [
            column
            for column in self.projection.columns
            if column in old and old[column].type == new[column].type and column not in changed
        ]

    def drop(self) -> None:
        """Drop what was built, if anything was."""
        if self._new is not None:
            drop(self._connection, self._new)


OLDER = """
SELECT g.generation_id FROM projection_generations AS g WHERE g.projection = %s AND g.state = 'retired'
 ORDER BY g.retired_at DESC, g.generation_id DESC OFFSET 1
"""


def drop_older(connection: psycopg.Connection[Any], table: str) -> None:
    """Keep one retired generation to go back to; drop those before it."""
    older = {row[0] for row in connection.execute(OLDER, (table,)).fetchall()}
    for generation in generations.kept(connection, table) if older else ():
        if generation.generation_id in older:
            drop(connection, generation)


def drop(connection: psycopg.Connection[Any], generation: Generation) -> None:
    """Drop a generation that is not live, with its table. Nothing happens if it has become the live one."""
    if connection.closed:
        return
    with connection.transaction():
        row = connection.execute(
            "UPDATE projection_generations SET state = 'dropped' "
            "WHERE generation_id = %s AND state IN ('building', 'retired') RETURNING schema_name",
            (generation.generation_id,),
        ).fetchone()
        if row is not None:
            connection.execute(
                "DELETE FROM projection_checkpoints WHERE generation_id = %s", (generation.generation_id,)
            )
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(row[0])))


def _target_table(projection: Projection[Any], after: Catalogue) -> Table:
    table = after.tables.get(projection.table)
    if table is None:
        msg = f"no migration makes table {projection.table}: add one, then run position-ledger migrate up"
        raise SchemaMismatch(msg)
    gap = generations.column_gap(projection.columns, list(table.columns))
    if gap:
        msg = (
            f"table {table.name} as the migrations make it and row type {projection.row.__name__} differ{gap}: "
            "add the field to the row type or the column in a migration"
        )
        raise SchemaMismatch(msg)
    return table


def _bare(table: Table) -> dict[str, Column]:
    """Its columns as they are before what only the finished table gets."""
    return {
        name: replace(column, comment=None, statistics_target=None, options=(), grants=())
        for name, column in table.columns.items()
    }


def _no_vacuum(schema: str, table: str) -> Any:
    return SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(Identifier(schema, table))
