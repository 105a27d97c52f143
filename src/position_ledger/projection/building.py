"""Building one generation beside the live table: bare shadow, bulk load, constraints and indexes, catch-up, proof.

What is done is written down in the schema of the shadow, so that a build that was killed goes on where it was: each
part of the load in the transaction that copies it, the end of the load with the constraints and the checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from position_ledger.errors import MigrationError, RebuildCancelled, SchemaMismatch, VerificationFailed
from position_ledger.migration.attached import attached_to
from position_ledger.migration.catalogue import Catalogue, Column, Table
from position_ledger.migration.introspect import read_table
from position_ledger.projection import (
    chunk_ledger,
    comparing,
    estimate,
    foreign_keys,
    generations,
    rebuilds,
    shadow,
    verification,
)
from position_ledger.projection.catching_up import bring_up
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import Difference
from position_ledger.projection.digests import Digest
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation
from position_ledger.projection.load_crew import load
from position_ledger.projection.loading import History, does_not_fit
from position_ledger.projection.provers import provers
from position_ledger.projection.watching import Progress, Watch
from position_ledger.settings import Settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did with one table, with figures; the swap's are those of all tables that it moved."""

    table: str
    generation_id: int | None = None
    events: int = 0
    versions: int = 0
    load_s: float = 0.0
    helped_events: int = 0
    """Of the events, those that workers loaded."""
    expected_s: float | None = None
    """How long all of it was said to take when a tenth was loaded; None if it was too short for that."""
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
    call_workers: Callable[[int], None] = lambda _generation_id: None
    """Asks worker machines to help with the load of a generation; they may or may not come."""

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
        self._watch: Watch | None = None
        self._loaded: tuple[int, Digest] | None = None
        """What this run has loaded, from the first part to the last, and up to which number."""
        self._processes = 1

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

    @property
    def watch(self) -> Watch:
        """What looks on while it is built; there is one from `build` on."""
        if self._watch is None:
            where = self._where
            self._watch = Watch(
                where.url, where.settings, self.projection.table, tell=where.tell, progress=where.progress
            )
        return self._watch

    def build(self, *, processes: int, throttle_per_s: float | None = None, history: History | None = None) -> None:
        """Make the shadow and fill it, or go on with one that a killed run left; it is current when this ends.

        With a ``history`` it is filled from there up to the last number that it has, and from the log after it.

        Raises:
            RebuildCancelled: another command has cancelled it.
        """
        self._new = self._waiting() or self._half_built(history)
        self.goes_on = self._new is not None and not chunk_ledger.exists(self._connection, self._new.schema)
        self._drop_leftovers()
        foreign_keys.validate_pending(self._connection, self.projection.table)
        self._processes = processes
        total = 0
        if not self.goes_on:
            total = self._begin(throttle_per_s, history)
        self.report.generation_id = self.new.generation_id
        state = "catching up" if self.goes_on else "loading"
        self.watch.open(self.new.generation_id, state, processes=processes, throttle_per_s=throttle_per_s, total=total)
        if not self.goes_on:
            self._load(processes, total, history)
            self._finish()
        self._statistics()
        self.watch.enter("catching up")
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
                load = chunk_ledger.progress(self._connection, generation.schema)
                self.tell(
                    f"generation {generation.generation_id} of {self._table.name} was interrupted: {load.done} of "
                    f"{load.parts} parts are loaded already"
                )
                return generation
        return None

    def _drop_leftovers(self) -> None:
        """The shadow of a rebuild that was killed, unless it is the one that this one goes on with."""
        for generation in generations.kept(self._connection, self.projection.table):
            if generation.state == "building" and generation != self._new:
                self.tell(f"dropping what a killed rebuild left (generation {generation.generation_id})")
                shadow.drop(self._connection, generation)

    def _begin(self, throttle_per_s: float | None, history: History | None) -> int:
        """Make the generation, its bare table and the list of what is to be loaded, unless a killed run has.

        Answers how many events there are to load.
        """
        if throttle_per_s is not None and not rebuilds.exist(self._connection):
            msg = (
                "a rebuild keeps no pace before migration 014 is applied: leave --throttle out, or run position-ledger "
                "migrate up first"
            )
            raise MigrationError(msg)
        if self._new is not None:
            return self._to_load(chunk_ledger.horizon(self._connection, self._new.schema), history)
        upto = feed.horizon(self._connection) if history is None else history.upto
        events = self._to_load(upto, history)
        with self._connection.transaction():
            generation_id = generations.create(
                self._connection,
                self.projection,
                schema="?",
                state="building",
                release=self._where.release,
                mode=self.live.mode if self.live is not None else "worker",
            )
            schema = f"{self._where.schema}_g{generation_id}"
            self._connection.execute(
                "UPDATE projection_generations SET schema_name = %s WHERE generation_id = %s", (schema, generation_id)
            )
            parts = estimate.parts_for(events, throttle_per_s)
            shadow.make(self._connection, self._table, schema, self._where.schema, upto, parts)
        self.tell(f"building generation {generation_id} of {self._table.name} in schema {schema}")
        kept = generations.kept(self._connection, self._table.name)
        self._new = next(one for one in kept if one.generation_id == generation_id)
        return events

    def _to_load(self, upto: int, history: History | None) -> int:
        if history is not None:
            return history.events_of(self.projection, upto)
        return rebuilds.to_load(self._connection, self.projection, upto)

    def _load(self, processes: int, total: int, history: History | None) -> None:
        started = time.perf_counter()
        where, new = self._where, self.new
        where.progress.start(total, f"loading {self._table.name}")
        before = chunk_ledger.progress(self._connection, new.schema)
        where.progress.advance(before.events)
        self.watch.wait()
        own = 0
        if before.done < before.parts:
            if history is None:  # workers read the log
                where.call_workers(new.generation_id)
            own = load(
                where.url,
                where.settings,
                self.projection,
                new.schema,
                processes=processes,
                generation_id=self.watch.generation_id,
                history=history,
                tick=lambda: self.watch.look_at_load(new.schema),
            ).events
        loaded = chunk_ledger.progress(self._connection, new.schema)
        if loaded.done < loaded.parts:
            self.watch.wait()  # the loading processes have heard of it first
            msg = f"the load of {self._table.name} ended with {loaded.done} of {loaded.parts} parts: run the same command again"
            raise MigrationError(msg)
        if before.done == 0:
            upto = chunk_ledger.horizon(self._connection, new.schema)
            self._loaded = upto, comparing.loaded(self._connection, new.schema, self.projection, upto)
        where.progress.advance(loaded.events)
        where.progress.finish()
        self.watch.loaded(loaded.events)
        self.report.events, self.report.versions = loaded.events, loaded.versions
        self.report.helped_events = max(0, loaded.events - before.events - own)
        self.report.load_s = time.perf_counter() - started
        self.report.expected_s = self.watch.expected_s
        source = f" of {history}" if history else ""
        self.tell(
            f"loaded {loaded.versions:,} versions from {loaded.events:,} events{source} in {self.report.load_s:.2f} s"
        )

    def _finish(self) -> None:
        """Indexes side by side, then what followers need to keep the table current."""
        self.watch.enter("indexing")
        started = time.perf_counter()
        where, schema = self._where, self.new.schema
        upto = chunk_ledger.horizon(self._connection, schema)
        try:
            shadow.build_indexes(self._connection, where.url, where.settings, self._table, schema, self.watch.look)
            shadow.finish(self._connection, self._table, schema, where.schema, self.new.generation_id, upto)
        except psycopg.errors.IntegrityError as error:
            raise VerificationFailed(does_not_fit(self._table.name, error)) from error
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
        """Project what came meanwhile, beside any worker that has the code already.

        Raises:
            RebuildCancelled: another command has cancelled it.
        """
        where = self._where
        self.report.catch_up_rounds += bring_up(
            where.url,
            where.settings,
            self.projection,
            self.new,
            processes=self._processes,
            tell=self.tell,
            progress=where.progress,
            look=self.watch.look,
        )

    def prove(self, before: Catalogue, after: Catalogue, *, changed: Sequence[str], must_equal: bool) -> None:
        """The shadow keeps the laws and equals the live table where it should.

        Raises:
            VerificationFailed: it does not; says where, and what to say if the new code means to.
        """
        self.watch.enter("verifying")
        started = time.perf_counter()
        broken = verification.broken_law(self._connection, self.new.schema, self.projection)
        if broken is not None:
            msg = f"the rebuilt table breaks a law: {broken}; it was dropped, the live table is unchanged"
            raise VerificationFailed(msg)
        if self.live is None:
            self._require_replay()
        else:
            self._compare(self.live, self._comparable(before, after, changed), must_equal=must_equal)
        self.report.verify_s = time.perf_counter() - started
        if self.live is not None:
            self.tell(
                f"verified {self._table.name} against the live table up to event {self.report.verified_up_to} "
                f"in {self.report.verify_s:.2f} s"
            )

    def _require_replay(self) -> None:
        """The shadow still is what was loaded; one that lay about since, or has parts of a killed run, is what the log gives.

        Raises:
            VerificationFailed: somebody has written to it; names the first cell.
        """
        if self._loaded is not None:
            upto, was = self._loaded
            difference = comparing.differs_from_loaded(self._connection, self.new, self.projection, upto, was)
            if difference is None:
                self._require_sample(upto)
        else:
            with provers(self._where.url, self._where.settings, self._processes) as crew:
                proof = verification.table_equals_log(self._connection, self.projection, self.new, crew)
            difference = proof.difference
        if difference is not None:
            msg = (
                f"the rebuilt table is not what the log gives, first at {difference}; something has written to it, and it "
                "was dropped: the live table is unchanged, run again"
            )
            raise VerificationFailed(msg)

    def _require_sample(self, upto: int) -> None:
        """The load made the rows that folding event by event makes, in a sample of the streams.

        Raises:
            VerificationFailed: it did not; names the first cell.
        """
        events = self.report.events
        difference = comparing.differs_from_sample(self._connection, self.new, self.projection, upto, events)
        if difference is not None:
            msg = (
                f"the load made another row than folding the same events once more, first at {difference}: a fold that does "
                "not give the same row each time, or an error of the ledger's own about amounts that stay text (with "
                "POSITION_LEDGER_REBUILD_LEAVES_TEXT=false none does); the table was dropped, the live table is unchanged"
            )
            raise VerificationFailed(msg)

    def _compare(self, live: Generation, columns: Sequence[str], *, must_equal: bool) -> None:
        upto, differences = comparing.generations_differ(
            self._connection, live, self.new, columns, self.projection.key_column
        )
        self.report.verified_up_to, self.report.differences = upto, differences
        if differences or set(columns) != set(self.projection.columns):
            self._require_replay()  # otherwise nobody has written to the one and not to the other
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

    def finish(self, *, is_dropped: bool) -> None:
        """Write down that it is done; drop it if it was only to be looked at."""
        self.watch.finish("done" if self.report.swapped or is_dropped else "built")
        if is_dropped:
            self.drop()

    def fail(self, error: BaseException, *, is_kept: bool) -> None:
        """Write down why it ended; drop what was built, or say that it stays."""
        if self._new is None:
            return
        self.watch.finish("cancelled" if isinstance(error, RebuildCancelled) else "failed", error)
        if not is_kept:
            self.drop()
        elif not self._connection.closed:
            table = self._table.name
            self.tell(
                f"generation {self._new.generation_id} of {table} stays as it is: rebuild-projection {table} goes on from "
                f"there, rebuild-projection {table} --cancel drops it"
            )

    def drop(self) -> None:
        """Drop what was built, if anything was."""
        if self._new is not None:
            shadow.drop(self._connection, self._new)

    def close(self) -> None:
        """Close what was opened for it."""
        if self._watch is not None:
            self._watch.close()


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
