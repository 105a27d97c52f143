"""The swap: one short transaction in which another generation takes the place and the name of the live table.

It waits for a quiet moment instead of making one: while a transaction older than a few milliseconds holds the table it
does not even ask for the lock, and when it asks it gives up after 20 ms, so no reader ever queues behind it for longer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.database import first_line
from position_ledger.errors import GenerationNotOurs, SwapBlocked
from position_ledger.migration.attached import Attached, attached_to
from position_ledger.migration.catalogue import Catalogue
from position_ledger.projection import foreign_keys
from position_ledger.projection.exchange import SwapPlan, exchange, own_triggers, retired_schema
from position_ledger.projection.generations import GENERATION_LOCK
from position_ledger.projection.tail import TailTooLong, project_tail
from position_ledger.store import feed
from position_ledger.store.codec import Codec

LOCK_TIMEOUT_MS = 20
BATCH_TIMEOUT_MS = 2_000
"""How long the swap waits for a batch that is being projected: that keeps followers waiting, and no reader or writer."""

QUIET_MS = 5
"""Transactions younger than this are let pass; older ones that hold the table are waited for, without asking for it."""

QUIET_MAX_MS = 200
LOCK_TIMEOUT_MAX_MS = 100
"""On a machine that is short of time every transaction looks old: the longer the swap waits, the less choosy it is."""

BUDGET_S = 60.0
PAUSE_S = 0.01

SHADOW_ROLES = ("position_ledger_reader", "position_ledger_projector")

POSITIONS = "SELECT c.position FROM projection_checkpoints AS c WHERE c.generation_id = %s"


BUSY = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), '?'), extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80)
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.relation = ANY(%s::regclass[]) AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND a.pid <> pg_backend_pid() AND a.xact_start < clock_timestamp() - make_interval(secs => %s)
 ORDER BY a.xact_start LIMIT 5
"""


@dataclass(frozen=True, slots=True)
class _Patience:
    """How choosy the swap is, by the share of its budget that is spent."""

    started: float
    budget_s: float

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() > self.started + self.budget_s

    @property
    def quiet_ms(self) -> float:
        """Transactions younger than this are let pass."""
        return min(QUIET_MAX_MS, QUIET_MS * (1 + 10 * self._spent**2 * QUIET_MAX_MS / QUIET_MS))

    @property
    def lock_timeout_ms(self) -> int:
        """How long readers may queue behind the swap."""
        return round(min(LOCK_TIMEOUT_MAX_MS, max(LOCK_TIMEOUT_MS, LOCK_TIMEOUT_MAX_MS * 2 * self._spent)))

    @property
    def _spent(self) -> float:
        return (time.monotonic() - self.started) / self.budget_s


class _TryAgain(Exception):
    """This attempt came at a bad moment; nothing was changed."""


@dataclass(frozen=True, slots=True)
class SwapResult:
    """How it went: attempts, time for which the table was locked exclusively, and events that the swap itself projected."""

    attempts: int
    lock_ms: float
    tail_events: int


def blockers(attached: Attached, before: Catalogue) -> list[str]:
    """What hangs on the live table and cannot be moved to another one, each in words with the remedy."""
    made = before.tables.get(attached.live.name, attached.live)
    words = [
        f"materialized view {v.schema}.{v.name} (drop it, and create it again after the swap)"
        for v in attached.views
        if v.materialized
    ]
    words += [
        f"function {f.schema}.{f.signature} is bound to its {f.reason} (drop it for the swap)"
        for f in attached.functions
    ]
    words += [f"rule {r.name} on {r.schema}.{r.relation} (drop it for the swap)" for r in attached.rules]
    words += [f"column {c.schema}.{c.relation}.{c.column} has its row type" for c in attached.row_type_columns]
    words += [f"sequence {name} is owned by it" for name in attached.owned_sequences]
    words += [f"index {name} is not in the migrations (add it by a migration)" for name in attached.extra_indexes]
    words += [
        f"constraint {name} is not in the migrations (add it by a migration)" for name in attached.extra_constraints
    ]
    words += [
        f"statistics {name} are not in the migrations (add them by a migration)"
        for name in attached.live.statistics
        if name not in made.statistics
    ]
    words += [
        f"it has {feature}, which is not in the migrations"
        for feature in attached.live.unsupported
        if feature not in made.unsupported
    ]
    return words


def swap(
    connection: psycopg.Connection[Any],
    plan: SwapPlan,
    codec: Codec,
    *,
    schema: str,
    tell: Callable[[str], None],
    catch_up: Callable[[], None],
    budget_s: float = BUDGET_S,
) -> SwapResult:
    """Make ``plan.new`` the active generation. ``catch_up`` is called before each attempt to shorten the tail.

    Raises:
        SwapBlocked: something that cannot be moved hangs on the table, or no quiet moment came within the budget; names
            what is in the way. The live table is as before.
    """
    patience = _Patience(time.monotonic(), budget_s)
    attempts = 0
    while True:
        attempts += 1
        catch_up()
        attached = _movable(connection, plan, schema)
        try:
            _wait_for_quiet(connection, _relations(connection, attached, schema), patience)
            lock_ms, tail = _attempt(connection, plan, codec, attached, schema, patience)
        except (_TryAgain, TailTooLong, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if patience.is_over:
                raise SwapBlocked(_who(connection, attached, schema, error)) from error
            time.sleep(PAUSE_S * random.uniform(0.5, 2.0))  # noqa: S311 - jitter
        except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
            msg = (
                f"table {schema}.{plan.live.projection} cannot be swapped with what hangs on it: {first_line(error)}; "
                "the live table is unchanged"
            )
            raise SwapBlocked(msg) from error
        else:
            foreign_keys.validate_pending(connection, plan.live.projection)
            tell(f"swapped {plan.live.projection} in attempt {attempts}, locked for {lock_ms:.1f} ms")
            return SwapResult(attempts, lock_ms, tail)


def _movable(connection: psycopg.Connection[Any], plan: SwapPlan, schema: str) -> Attached:
    """What hangs on the live table now, all of which can be moved."""
    attached = attached_to(connection, schema, plan.live.projection, plan.before.tables.get(plan.live.projection))
    if blockers(attached, plan.before):
        msg = f"table {schema}.{plan.live.projection} cannot be swapped: {'; '.join(blockers(attached, plan.before))}"
        raise SwapBlocked(msg)
    return attached


def _wait_for_quiet(connection: psycopg.Connection[Any], relations: Sequence[str], patience: _Patience) -> None:
    while True:
        busy = connection.execute(BUSY, (list(relations), patience.quiet_ms / 1000)).fetchall()
        if not busy:
            return
        if patience.is_over:
            msg = "transactions hold the table"
            raise _TryAgain(msg)
        time.sleep(PAUSE_S / 2)


def _who(connection: psycopg.Connection[Any], attached: Attached, schema: str, error: Exception) -> str:
    busy = connection.execute(BUSY, (_relations(connection, attached, schema), 0.0)).fetchall()
    names = "; ".join(f"pid {pid} ({application}, {age:.1f} s): {query}" for pid, application, age, query in busy)
    return (
        f"no quiet moment came to swap {attached.live.name}: {names or error}; the live table is unchanged, end what "
        f"blocks it and run rebuild-projection {attached.live.name} again"
    )


def _relations(connection: psycopg.Connection[Any], attached: Attached, schema: str) -> list[str]:
    named = [(schema, attached.live.name), *((fk.schema, fk.table) for fk in attached.foreign_keys)]
    return [Identifier(*parts).as_string(connection) for parts in dict.fromkeys(named)]


def _attempt(
    connection: psycopg.Connection[Any],
    plan: SwapPlan,
    codec: Codec,
    attached: Attached,
    schema: str,
    patience: _Patience,
) -> tuple[float, int]:
    """One try. Order of locks: generations (stops projecting), the feed's tail, views, children, then the tables."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{BATCH_TIMEOUT_MS}ms")))
        for generation in sorted((plan.live, plan.new), key=lambda one: one.generation_id):
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (GENERATION_LOCK, generation.generation_id))
        tail = _project_tail(connection, plan, codec)
        cursor.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{patience.lock_timeout_ms}ms")))
        _lock_views(cursor, attached)
        for relation in dict.fromkeys((fk.schema, fk.table) for fk in attached.foreign_keys):
            cursor.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(Identifier(*relation)))
        cursor.execute(
            SQL("LOCK TABLE {}, {} IN ACCESS EXCLUSIVE MODE").format(
                Identifier(schema, plan.live.projection), Identifier(plan.new.schema, plan.new.projection)
            )
        )
        triggers = own_triggers(cursor, plan, attached)
        started = time.perf_counter()
        make_schema(connection, retired_schema(schema, plan.live))
        for statement in exchange(plan, attached, schema, triggers):
            cursor.execute(statement)
        _require_nothing_left(cursor, plan, schema)
        _record(cursor, plan, schema)
        foreign_keys.note(cursor, plan.new.generation_id, attached.foreign_keys)
        plan.record(cursor)
    return (time.perf_counter() - started) * 1000, tail


LEFT_BEHIND = """
SELECT k.conname::text FROM pg_constraint AS k WHERE k.contype = 'f' AND k.confrelid = %(table)s::regclass
 UNION ALL
SELECT r.ev_class::regclass::text FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::regclass
 LIMIT 1
"""


def _require_nothing_left(cursor: psycopg.Cursor[Any], plan: SwapPlan, schema: str) -> None:
    """Begin again when a view or foreign key came after we had looked: it would go on with the retired table."""
    aside = Identifier(retired_schema(schema, plan.live), plan.live.projection).as_string(cursor)
    left = cursor.execute(LEFT_BEHIND, {"table": aside}).fetchone()
    if left is not None:
        msg = f"{left[0]} was created while the table was swapped"
        raise _TryAgain(msg)


OWNERS_OF_VIEWS = """
SELECT n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'v' AND (n.nspname, c.relname) IN (SELECT u.s, u.v FROM unnest(%s::text[], %s::text[]) AS u (s, v))
"""


def _lock_views(cursor: psycopg.Cursor[Any], attached: Attached) -> None:
    """Lock the views before the table, as their readers do: who has a view and waits for the table would never let go.

    LOCK TABLE would go on to the table beneath the first view; giving a view to its owner locks that view alone.
    """
    depths = {(view.schema, view.name): view.depth for view in attached.views}
    found = cursor.execute(OWNERS_OF_VIEWS, ([s for s, _ in depths], [v for _, v in depths])).fetchall()
    for schema, view, owner in sorted(found, key=lambda row: -depths[row[0], row[1]]):
        cursor.execute(SQL("ALTER VIEW {} OWNER TO {}").format(Identifier(schema, view), Identifier(owner)))


def _project_tail(connection: psycopg.Connection[Any], plan: SwapPlan, codec: Codec) -> int:
    """Bring the new generation to the horizon, so that what becomes active is never behind what was live.

    The horizon may step back a little, when an append begins with an old number; what the live table has reached was a
    horizon once, so it is whole up to there.
    """
    live = [row[0] for row in connection.execute(POSITIONS, (plan.live.generation_id,))]
    if plan.projection is None:
        new = [row[0] for row in connection.execute(POSITIONS, (plan.new.generation_id,))]
        if min(new) < max(live):
            msg = f"the workers of release {plan.new.release} have not projected what the live table has"
            raise _TryAgain(msg)
        return 0
    upto = max(feed.horizon(connection), *live)
    return project_tail(connection, plan.new, plan.projection, codec, upto)


def make_schema(connection: psycopg.Connection[Any], name: str) -> None:
    """The schema of a generation that is not live, for the roles that read and project it."""
    connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(name)))
    for role in SHADOW_ROLES:
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(name), Identifier(role)))


def _record(cursor: psycopg.Cursor[Any], plan: SwapPlan, schema: str) -> None:
    """Exchange the states of the two generations; exactly one row each, or the swap does not happen."""
    retired = cursor.execute(
        "UPDATE projection_generations SET state = 'retired', schema_name = %s, retired_at = clock_timestamp() "
        "WHERE generation_id = %s AND state = 'active'",
        (retired_schema(schema, plan.live), plan.live.generation_id),
    ).rowcount
    activated = cursor.execute(
        "UPDATE projection_generations SET state = 'active', schema_name = %s, activated_at = clock_timestamp(), "
        "retired_at = NULL WHERE generation_id = %s AND state IN ('building', 'retired')",
        (schema, plan.new.generation_id),
    ).rowcount
    if (retired, activated) != (1, 1):
        msg = f"the generations of {plan.live.projection} were changed by somebody else meanwhile: look at position-ledger status"
        raise GenerationNotOurs(msg)
