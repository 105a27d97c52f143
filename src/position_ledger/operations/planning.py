"""`migrate plan`: what `up` would do, tried in a scratch database with live rows and a sample of the log.

Nothing is written to the live database: it is read in one REPEATABLE READ, read-only snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import psycopg
from psycopg import sql

from position_ledger.database import translated
from position_ledger.errors import MigrationError
from position_ledger.migration.bookkeeping import BOOKKEEPING, read_applied
from position_ledger.migration.catalogue import Catalogue, diff
from position_ledger.migration.classify import Effect, ProjectedChange, change_sets
from position_ledger.migration.files import SUM_FILE, MigrationFile
from position_ledger.migration.findings import Finding, by_weight
from position_ledger.migration.history_rules import LOG_TABLES
from position_ledger.migration.holding import Moment, look
from position_ledger.migration.introspect import read_catalogue
from position_ledger.migration.judging import Circumstances, concerns_projected, effect_of, judge
from position_ledger.migration.lint import LintFailed, Remark, lint
from position_ledger.migration.plan import check_fit, pending_files
from position_ledger.migration.rows import CopiedTable, clear_rows, copy_rows, table_sizes
from position_ledger.migration.runner import Migrator
from position_ledger.migration.scratch import scratch_database
from position_ledger.migration.session import Limits, open_session
from position_ledger.migration.sets import Step, announce, grouped, refuse_lasting
from position_ledger.migration.steps import Run
from position_ledger.migration.sums import check_sum
from position_ledger.migration.trace import Failure, TracedFile, Tracer
from position_ledger.operations import history
from position_ledger.operations.backup import look_for_backup
from position_ledger.operations.code_uses import still_used
from position_ledger.operations.common import log_size, migrations_folder, migrator_of, owner, projections
from position_ledger.operations.holding_findings import (
    functions_changed,
    in_the_way_of_swaps,
    used_by_others,
    used_by_retired,
)
from position_ledger.operations.plan_document import Plan, PlannedFile, planned_file
from position_ledger.operations.sampling import known_topics, sample
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation, kept
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from position_ledger.store.feed import StoredRow

LOG_TABLE = "events"
UNCOMMITTED_VALUE = "55P04"
"""A value of an enum type that another file makes: where files share a transaction, that says nothing of them."""


@dataclass(slots=True)
class Live:
    """What the live database has, as one snapshot shows it. Empty where there is no ledger yet."""

    catalogue: Catalogue | None = None
    generations: tuple[Generation, ...] = ()
    events: int = 0
    sampled: list[StoredRow] = field(default_factory=list)
    retired: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    tables: dict[str, CopiedTable] = field(default_factory=dict)


def migrate_plan(settings: Settings, reached: Reached, target: int | None = None) -> Plan:
    """What `up` (or `up` to a number) would do; of an applied number, what it did. Writes nothing that stays.

    Raises:
        MigrationError, SchemaMismatch: files and database do not fit, as `up` would say.
    """
    began = time.monotonic()
    migrator = migrator_of(settings, reached)
    with translated(), owner(settings, reached) as connection:
        applied = read_applied(connection, settings.ledger_schema)
        check_fit(migrator.files, applied)
        files = pending_files(migrator.files, applied, target)
        is_applied = not files and target is not None
        if is_applied and target is not None:
            files = (migrator.files[target - 1],)
        if not files:
            return Plan((), (), by_weight(_sum_file(settings, migrator.files)), took_s=time.monotonic() - began)
        begun = [row.name for row in applied if row.state != "done"]
        planner = _Planner(settings, reached, migrator.files, files, is_applied=is_applied, begun=begun)
        plan = planner.plan(connection)
    backup, refused = ((), ()) if is_applied else _backup(settings, reached, migrator, target)
    findings = by_weight([*plan.findings, *refused, *_sum_file(settings, migrator.files)])
    return replace(plan, findings=findings, backup=backup, took_s=time.monotonic() - began, is_applied=is_applied)


def _backup(
    settings: Settings, reached: Reached, migrator: Migrator, target: int | None
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """What `up` would say of the last backup (S6), or that it would refuse."""
    try:
        return look_for_backup(settings, reached, migrator, target, lambda _message: None), ()
    except MigrationError as error:
        return (), (Finding("error", "no-backup", "", 0, "", str(error)),)


def _lasting(change: ProjectedChange, failing: Mapping[int, str]) -> Iterator[Finding]:
    try:
        refuse_lasting(change, failing)
    except MigrationError as error:
        yield Finding("error", "lasting-in-set", change.whole[0].filename, 0, "", str(error))


def _needs_rows(failed: tuple[MigrationFile, Failure] | None, traced: Sequence[TracedFile]) -> Iterator[Finding]:
    """What fits the rows that are there and fails without any: it could make no new ledger, and no scratch database."""
    fits = {one.file.number for one in traced if one.failure is None}
    if failed is None or failed[0].number not in fits or failed[1].sqlstate == UNCOMMITTED_VALUE:
        return
    file, failure = failed
    cause = (
        f"it works with the rows that are there and fails on empty tables ({failure.cause}), as every new ledger has "
        "them, and every scratch database in which `up` and `check` replay the files"
    )
    yield Finding("error", "needs-rows", file.filename, failure.line, failure.statement, cause)


def _sum_file(settings: Settings, files: Sequence[MigrationFile]) -> Iterator[Finding]:
    """As `up` would refuse it."""
    sums = migrations_folder(settings) / SUM_FILE
    if not sums.is_file():
        return
    try:
        check_sum(files, sums.read_text(encoding="utf-8"))
    except MigrationError as error:
        yield Finding("error", "sum-file", SUM_FILE, 0, "", str(error), "-- position-ledger migrate sum")


@contextmanager
def _snapshot(connection: psycopg.Connection[Any]) -> Iterator[None]:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


class _Planner:
    """One plan."""

    def __init__(
        self,
        settings: Settings,
        reached: Reached,
        everything: Sequence[MigrationFile],
        files: Sequence[MigrationFile],
        *,
        is_applied: bool,
        begun: Sequence[str],
    ) -> None:
        """``begun`` names migrations that were begun and are not done: the live schema is between two states."""
        self._settings, self._reached = settings, reached
        self._schema = settings.ledger_schema
        self._everything, self._files, self._is_applied = everything, files, is_applied
        self._projections: tuple[Projection[Any], ...] = projections(settings)
        self._projected = frozenset(one.table for one in self._projections)
        self._findings: list[Finding] = []
        self._drift: list[str] = []
        self._begun = begun
        self._moments: dict[int, Moment] = {}
        self._tables: dict[str, CopiedTable] = {}
        self._filled: set[str] = set()

    def plan(self, connection: psycopg.Connection[Any]) -> Plan:
        limits = Limits()
        url = self._settings.scratch_url or self._reached.database_url
        with (
            scratch_database(url, limits) as scratch_url,
            open_session(scratch_url, limits) as scratch,
            _snapshot(connection),
        ):
            tracer = Tracer(scratch, self._schema)
            tracer.replay(self._everything[: self._files[0].number - 1])
            base = tracer.begin(self._files)
            live = self._look(connection)
            without_rows = tracer.first_failing(self._files) if live.catalogue else None
            with tracer.step():
                live.tables |= self._copy(connection, tracer, live)
            self._tables = live.tables
            self._compare(base, live)
            around = Circumstances(self._projected, live.events > 0, live.tables)
            traced = self._trace(tracer, around)
            self._findings += _needs_rows(without_rows, traced)
            planned = [self._planned(one, around) for one in traced]
            needs = history.needs(
                tracer,
                connection,
                self._settings,
                self._projections,
                live,
                [(one, effect_of(one, around)) for one in traced],
            )
            self._findings += needs.findings
            self._unproven(traced, needs.proven)
            if all(one.failure is None for one in traced):
                self._findings += still_used(tracer, self._settings, base, traced)
            grouped_steps, steps = self._steps(traced, around, live.retired)
            self._findings += self._not_movable(connection, tracer, grouped_steps, base, traced)
        return Plan(
            tuple(planned),
            needs.projections,
            tuple(self._findings),
            tuple(live.tables[name] for name in sorted(live.tables)),
            tuple(one.filename for one in self._files[len(traced) :]),
            live.events,
            steps=steps,
        )

    def _steps(
        self, traced: Sequence[TracedFile], around: Circumstances, retired: Mapping[str, AbstractSet[str]]
    ) -> tuple[Sequence[Step], tuple[str, ...]]:
        """The steps of `up`, and what it would announce; a finding where it would refuse the change sets of the files."""
        effects = [effect_of(one, around) for one in traced]
        known = [one for one in effects if isinstance(one, Effect)]
        if len(known) < len(self._files) or any(one.failure for one in traced):
            return (), ()
        steps = grouped(change_sets(known)) if around.has_events else list(self._files)
        failing = {one.file.number: one.rollback.reason for one in traced if one.rollback.state == "wrong"}
        for step in steps:
            if isinstance(step, ProjectedChange):
                self._findings += _lasting(step, failing)
        if around.has_events:
            self._findings += used_by_others(steps, self._moments, retired)
            self._findings += functions_changed(self._files, steps, self._moments)
        run = Run(lambda _message: None)
        announce(steps, run, None)
        return steps, tuple(run.messages)

    def _not_movable(
        self,
        connection: psycopg.Connection[Any],
        tracer: Tracer,
        steps: Sequence[Step],
        base: Catalogue,
        traced: Sequence[TracedFile],
    ) -> Iterator[Finding]:
        """What hangs on a live table that is to be swapped, and what the files themselves hang on it before that."""
        if self._is_applied or not steps:
            return
        yield from in_the_way_of_swaps(connection, self._schema, steps, base, tables=self._projected)
        with tracer.step(keep=False):
            after = traced[-1].after
            yield from in_the_way_of_swaps(
                tracer.connection, self._schema, steps, after, tables=self._projected & after.tables.keys()
            )

    def _look(self, connection: psycopg.Connection[Any]) -> Live:
        """Read what there is; a database without a ledger has nothing."""
        live = Live()
        if self._is_applied:
            return live
        sizes = table_sizes(connection, self._schema)
        live.tables = {
            name: CopiedTable(name, max(0, size.rows)) for name, size in sizes.items() if name not in BOOKKEEPING
        }
        if sizes:
            live.catalogue = read_catalogue(connection, self._schema)
        if "projection_generations" in sizes:
            live.generations = tuple(kept(connection))
            live.retired = used_by_retired(connection, live.generations)
        if LOG_TABLE in sizes:
            live.events = log_size(connection)
            live.sampled = sample(connection, live.events, known_topics(self._projections))
        return live

    def _copy(self, connection: psycopg.Connection[Any], tracer: Tracer, live: Live) -> dict[str, CopiedTable]:
        numbers = [row.seq for row in live.sampled]
        only = {LOG_TABLE: sql.SQL("notification_id = ANY ({})").format(sql.Literal(numbers))}
        plain = [name for name in live.tables if name not in self._projected]
        copied = copy_rows(connection, tracer.connection, self._schema, plain, only=only)
        # After the plain ones, so that none of those refers to a row that goes before a rebuild.
        copied |= copy_rows(connection, tracer.connection, self._schema, self._projected & live.tables.keys())
        self._filled = {name for name in self._projected if name in copied and copied[name].copied}
        if LOG_TABLE in copied:
            log = copied[LOG_TABLE]
            copied[LOG_TABLE] = CopiedTable(log.name, max(log.rows, live.events), log.copied, log.problem)
        for table in copied.values():
            if table.problem:
                cause = f"rows of {table.name}: {table.problem}; what the migrations do to them is not proven"
                self._findings.append(Finding("note", "rows-not-copied", "", 0, "", cause))
        return copied

    def _compare(self, base: Catalogue, live: Live) -> None:
        if self._begun:
            cause = f"{', '.join(self._begun)} was begun and is not done: the live schema is between two states"
            form = "-- position-ledger migrate up   goes on; position-ledger migrate up --abort   undoes it"
            self._findings.append(Finding("warning", "begun", "", 0, "", cause, form))
        if live.catalogue is None or self._begun:
            return
        self._drift = diff(base, live.catalogue)
        if self._drift:
            more = f" and {len(self._drift) - 5} more" if len(self._drift) > 5 else ""  # noqa: PLR2004
            cause = f"the schema is not what its applied migrations make: {'; '.join(self._drift[:5])}{more}"
            form = "-- position-ledger migrate verify   shows all of it"
            self._findings.append(Finding("warning", "drift", "", 0, "", cause, form))

    def _trace(self, tracer: Tracer, around: Circumstances) -> list[TracedFile]:
        """Every file in order, up to the first that fails: those behind it stand on it."""
        found = []
        for file in self._files:
            self._remember(tracer, file.number, around)
            is_new = not self._is_applied and file.name not in self._begun
            self._empty_before_rebuild(tracer, file, around, is_new=is_new)
            traced = tracer.trace(file, is_new=is_new, filled=self._plain_filled())
            found.append(traced)
            self._findings += judge(traced, self._lint(tracer, file), around)
            self._findings += self._in_the_way(traced)
            if traced.failure is not None:
                break
            self._remember(tracer, file.number + 1, around)
        return found

    def _plain_filled(self) -> list[str]:
        """The tables whose rows no event brings back."""
        kept = self._projected.union(LOG_TABLES)
        return [name for name, table in self._tables.items() if table.copied and name not in kept]

    def _empty_before_rebuild(
        self, tracer: Tracer, file: MigrationFile, around: Circumstances, *, is_new: bool
    ) -> None:
        """Take the rows of projected tables away before the first file that changes one: it will run on a shadow."""
        if not self._filled or not around.has_events:
            return
        with tracer.trial():
            is_for_shadow = concerns_projected(tracer.trace(file, is_new=is_new), around)
        if is_for_shadow:
            with tracer.step():
                clear_rows(tracer.connection, self._schema, self._filled)
            for name in self._filled:
                self._tables[name] = CopiedTable(name, max(1, self._tables[name].rows))
            self._filled = set()

    def _remember(self, tracer: Tracer, number: int, around: Circumstances) -> None:
        """What the projected tables hold before a file; without events no table ever retires."""
        if around.has_events and number not in self._moments:
            self._moments[number] = look(tracer.connection, dict.fromkeys(self._projected, self._schema))

    def _lint(self, tracer: Tracer, file: MigrationFile) -> Sequence[Remark]:
        try:
            return lint(file, tracer.connection.info.server_version)
        except LintFailed as error:
            self._findings.append(Finding("note", "no-lint", file.filename, 0, "", f"without squawk's look: {error}"))
            return ()

    def _in_the_way(self, traced: TracedFile) -> Iterator[Finding]:
        """What the file makes and somebody has made by hand already."""
        new = {line.removesuffix(" is new") for line in diff(traced.before, traced.after) if line.endswith(" is new")}
        there = {line.removesuffix(" is new") for line in self._drift if line.endswith(" is new")}
        for what in sorted(new & there):
            line = next((one.line for one in traced.statements if f"{what} is new" in one.differences), 0)
            cause = f"{what} is there already and no migration made it: find out who did, then drop or rename it"
            yield Finding("error", "already-there", traced.file.filename, line, "", cause)

    def _planned(self, traced: TracedFile, around: Circumstances) -> PlannedFile:
        effect = effect_of(traced, around)
        kind: Literal["plain", "projected", "unknown"] = "unknown"
        if isinstance(effect, Effect) and traced.failure is None:
            kind = effect.kind
        return planned_file(traced, kind, self._projected, around.tables, diff(traced.before, traced.after))

    def _unproven(self, traced: Sequence[TracedFile], proven: Mapping[int, tuple[Any, ...]]) -> None:
        """A verification of a projected file looks at rows that only history gives: what held then, holds."""
        for one in traced:
            if one.file.number not in proven:
                continue
            still = {failure.line for failure in proven[one.file.number]}
            self._findings = [
                finding
                for finding in self._findings
                if not finding.code.startswith("verification-")
                or finding.file != one.file.filename
                or finding.line in still
            ]
