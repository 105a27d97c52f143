"""The swap: one short transaction in which other generations take the place and the names of the live tables.

It waits for a quiet moment instead of making one: while a transaction older than a few milliseconds holds a table it
does not even ask for the lock, and when it asks it gives up after 20 ms, so no reader ever queues behind it for longer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.database import first_line
from position_ledger.errors import GenerationNotOurs, SwapBlocked
from position_ledger.migration.attached import Attached, attached_to
from position_ledger.migration.catalogue import Catalogue, Constraint
from position_ledger.projection import foreign_keys, views
from position_ledger.projection.blockers import blockers
from position_ledger.projection.exchange import (
    Move,
    Statement,
    SwapPlan,
    aside,
    clear_away,
    give_back,
    grantee,
    hang_on,
    own_triggers,
    prepare,
    put_in_place,
    retired_schema,
    take_away,
)
from position_ledger.projection.generation_notes import keep, keep_for
from position_ledger.projection.generations import GENERATION_LOCK, Generation
from position_ledger.projection.quiet import BUSY, PAUSE_S, NotYet, Patience, named, telling, wait_for_quiet
from position_ledger.projection.tail import TailTooLong, project_tail
from position_ledger.store import feed
from position_ledger.store.codec import Codec

BATCH_TIMEOUT_MS = 2_000
"""How long the swap waits for a batch that is being projected: that keeps followers waiting, and no reader or writer."""

BUDGET_S = 60.0

SHADOW_ROLES = ("position_ledger_reader", "position_ledger_projector")

POSITIONS = "SELECT c.position FROM projection_checkpoints AS c WHERE c.generation_id = %s"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What runs while readers wait: statements, each with the view that it is about ("" for none), and all as a script."""

    steps: Sequence[tuple[Statement, str]]
    script: bytes


class _OneByOne(Exception):
    """A statement of many that were sent at once failed: sent one by one, they say which."""


@dataclass(frozen=True, slots=True)
class SwapResult:
    """How it went: attempts, time for which the table was locked exclusively, and events that the swap itself projected."""

    attempts: int
    lock_ms: float
    tail_events: int


def swap(
    connection: psycopg.Connection[Any],
    plan: SwapPlan,
    codec: Codec,
    *,
    schema: str,
    tell: Callable[[str], None],
    catch_up: Callable[[], None],
    budget_s: float,
) -> SwapResult:
    """Make the new generation of every move the active one. ``catch_up`` runs before each attempt to shorten the tails.

    The budget is that of the attempts: how long the first catch-up takes is a matter of what has come meanwhile.

    Raises:
        SwapBlocked: something that cannot be moved hangs on a table, or no quiet moment came within the budget; names
            what is in the way. The live tables are as before.
        MigrationError: a verification of the plan does not hold; likewise.
    """
    attempts, is_apart = 0, False
    tables = ", ".join(plan.tables)
    catch_up()
    patience = Patience(time.monotonic(), budget_s)
    waiting = telling(tell, plan.tables, budget_s)
    while True:
        attempts += 1
        if attempts > 1:
            catch_up()
        attached = _movable(connection, plan, schema)
        try:
            wait_for_quiet(connection, _relations(connection, attached, schema), patience, waiting)
            lock_ms, tail = _attempt(connection, plan, codec, attached, schema, patience, is_apart=is_apart)
        except _OneByOne:
            is_apart = True
        except (NotYet, TailTooLong, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if patience.is_over:
                raise SwapBlocked(_who(connection, attached, schema, tables, error)) from error
            time.sleep(PAUSE_S * random.uniform(0.5, 2.0))  # noqa: S311 - jitter
        except views.DOES_NOT_FIT as error:
            msg = (
                f"table {schema}.{tables} cannot be swapped with what hangs on it: {first_line(error)}; "
                "the live table is unchanged"
            )
            raise SwapBlocked(msg) from error
        else:
            for move in plan.moves:
                foreign_keys.validate_pending(connection, move.table)
            tell(f"swapped {tables} in attempt {attempts}, locked for {lock_ms:.1f} ms")
            return SwapResult(attempts, lock_ms, tail)


def _movable(connection: psycopg.Connection[Any], plan: SwapPlan, schema: str) -> dict[str, Attached]:
    """What hangs on each live table that there is now, all of which can be moved."""
    attached: dict[str, Attached] = {}
    for table in plan.tables:
        if not _exists(connection, schema, table):
            continue
        attached[table] = movable(connection, schema, table, plan.before)
        words = []
        if any(move.table == table and move.new is None for move in plan.moves):
            words += [
                f"foreign key {fk.name} of {fk.schema}.{fk.table} refers to it" for fk in attached[table].foreign_keys
            ]
        if words:
            msg = f"table {schema}.{table} cannot be swapped: {'; '.join(words)}"
            raise SwapBlocked(msg)
    return attached


def movable(connection: psycopg.Connection[Any], schema: str, table: str, before: Catalogue) -> Attached:
    """What hangs on one live table, all of which can be moved.

    Raises:
        SwapBlocked: names what cannot, with the remedy.
    """
    attached = attached_to(connection, schema, table, before.tables.get(table))
    words = blockers(attached, before)
    if words:
        msg = f"table {schema}.{table} cannot be swapped: {'; '.join(words)}"
        raise SwapBlocked(msg)
    return attached


def _exists(connection: psycopg.Connection[Any], schema: str, table: str) -> bool:
    name = Identifier(schema, table).as_string(connection)
    return connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() != (None,)


def _who(
    connection: psycopg.Connection[Any], attached: Mapping[str, Attached], schema: str, tables: str, error: Exception
) -> str:
    busy = connection.execute(BUSY, (_relations(connection, attached, schema), 0.0)).fetchall()
    ending = f" (SELECT pg_terminate_backend({busy[0][0]}) does)" if busy else ""
    return (
        f"no quiet moment came to swap {tables}: {named(busy) or error}; the live table is unchanged, end what "
        f"blocks it{ending} and run the same command again"
    )


def _relations(connection: psycopg.Connection[Any], attached: Mapping[str, Attached], schema: str) -> list[str]:
    named = [(schema, table) for table in attached] + _children(attached)
    return [Identifier(*parts).as_string(connection) for parts in dict.fromkeys(named)]


def _children(attached: Mapping[str, Attached]) -> list[tuple[str, str]]:
    """The tables whose foreign keys reference one that moves, each once, in one order for all."""
    return sorted({(fk.schema, fk.table) for hanging in attached.values() for fk in hanging.foreign_keys})


def _attempt(
    connection: psycopg.Connection[Any],
    plan: SwapPlan,
    codec: Codec,
    attached: Mapping[str, Attached],
    schema: str,
    patience: Patience,
    *,
    is_apart: bool,
) -> tuple[float, int]:
    """One try. Order of locks: generations (stops projecting), the feed's tail, views, children, then the tables.

    Whatever does not need the tables comes before them: readers wait from their lock to the commit. What does need them
    is written before and sent in one message, unless ``is_apart``.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{BATCH_TIMEOUT_MS}ms")))
        for generation_id in sorted(one.generation_id for move in plan.moves for one in move.generations):
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (GENERATION_LOCK, generation_id))
        tail = sum(_project_tail(connection, move, codec) for move in plan.moves)
        cursor.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{patience.lock_timeout_ms}ms")))
        hanging = _prepare(cursor, plan, attached, schema)
        to_drop = views.to_drop(plan, attached, schema)
        ready = None if to_drop else _exchange(cursor, plan, attached, schema, hanging, ())
        locks = _locks(cursor, plan, attached, schema)
        cursor.execute(locks, prepare=False)
        started = time.perf_counter()
        _run(
            cursor,
            ready or _exchange(cursor, plan, attached, schema, hanging, views.drop(cursor, to_drop)),
            is_apart=is_apart,
        )
        _require_nothing_left(cursor, plan, attached, schema)
        for statement in clear_away(plan, attached, schema):
            cursor.execute(statement)
        plan.verify(cursor)
    return (time.perf_counter() - started) * 1000, tail


def _locks(cursor: psycopg.Cursor[Any], plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> sql.Composed:
    """One script that locks all; none of it is locked yet."""
    names = [Identifier(schema, table) for table in plan.tables if table in attached]
    names += [Identifier(move.new.schema, move.table) for move in plan.moves if move.new is not None]
    tables = [Identifier(*relation) for relation in _children(attached)]
    return _script(
        [
            *_locking_views(cursor, attached),
            *(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name) for name in (*tables, SQL(", ").join(names))),
        ]
    )


@dataclass(frozen=True, slots=True)
class _Hanging:
    """What the new tables are given once they are in place, by table."""

    triggers: Mapping[str, Sequence[Statement]]
    constraints: Mapping[str, Sequence[Constraint]]


def _prepare(cursor: psycopg.Cursor[Any], plan: SwapPlan, attached: Mapping[str, Attached], schema: str) -> _Hanging:
    """Record the swap, and give the new tables all they can have before they are in place; answers the rest."""
    hanging = _Hanging(
        {move.table: own_triggers(cursor, move, attached[move.table]) for move in plan.moves if move.table in attached},
        {move.table: _lost_constraints(cursor, plan, move) for move in plan.moves},
    )
    for move in plan.moves:
        if move.table in attached:
            make_schema(cursor.connection, aside(schema, move))
        _record(cursor, move, schema, plan.retired_kept_hours)
        if move.new is not None and move.table in attached:
            foreign_keys.note(cursor, move.new.generation_id, attached[move.table].foreign_keys)
        if move.new is not None:
            names = [(schema, move.table, one.name) for one in hanging.constraints[move.table]]
            foreign_keys.note_names(cursor, move.new.generation_id, names)
    plan.record(cursor)
    for statement in prepare(plan, attached):
        cursor.execute(statement)
    cursor.execute(SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(schema)))
    for move in plan.moves:
        if move.table in attached:
            _revoke_surplus(cursor, plan, move, schema)
    return hanging


CONSTRAINTS_OF = "SELECT k.conname::text FROM pg_constraint AS k WHERE k.conrelid = %s::regclass"


def _lost_constraints(cursor: psycopg.Cursor[Any], plan: SwapPlan, move: Move) -> list[Constraint]:
    """What a table lost when it retired and gets back: for new rows in the swap, for those it has by a validation."""
    regained = plan.regained_constraints(move.table)
    if not regained or move.new is None:
        return []
    name = Identifier(move.new.schema, move.table).as_string(cursor)
    there = {row[0] for row in cursor.execute(CONSTRAINTS_OF, (name,))}
    return [one for one in regained if one.name not in there]


def _exchange(
    cursor: psycopg.Cursor[Any],
    plan: SwapPlan,
    attached: Mapping[str, Attached],
    schema: str,
    hanging: _Hanging,
    dropped: Sequence[views.Kept],
) -> _Exchange:
    """All tables first, then each view once, then what hangs on the tables; ready to be sent."""
    steps: list[tuple[Statement, str]] = [
        (one, "") for one in (*take_away(plan, attached, schema), *put_in_place(plan, schema))
    ]
    steps += [(one, "") for one in give_back(hanging.constraints, schema)]
    steps += views.bind(plan, attached, schema, dropped)
    steps += [(one, "") for one in hang_on(plan, attached, schema, hanging.triggers)]
    return _Exchange(steps, _script([statement for statement, _ in steps]).as_bytes(cursor))


SURPLUS = """
WITH granted AS (
    SELECT c.oid, a.attname::text AS "column", x.privilege_type AS privilege,
           CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS grantee
      FROM pg_class AS c
      CROSS JOIN LATERAL (SELECT NULL::name AS attname, c.relacl AS acl UNION ALL
                          SELECT t.attname, t.attacl FROM pg_attribute AS t WHERE t.attrelid = c.oid AND NOT t.attisdropped) AS a
      CROSS JOIN LATERAL aclexplode(a.acl) AS x
     WHERE c.oid IN (%(new)s::regclass, %(old)s::regclass) AND x.grantee <> c.relowner)
SELECT n."column", n.privilege, n.grantee FROM granted AS n WHERE n.oid = %(new)s::regclass
   AND (n."column" IS NULL OR EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = %(old)s::regclass
                                         AND a.attname = n."column" AND NOT a.attisdropped))
EXCEPT SELECT o."column", o.privilege, o.grantee FROM granted AS o WHERE o.oid = %(old)s::regclass
"""


def _revoke_surplus(cursor: psycopg.Cursor[Any], plan: SwapPlan, move: Move, schema: str) -> None:
    """Take back what default privileges, or times long past, have granted on the new table and nobody on the live one.

    Of a column that the live one does not have, a rollback brings the rights back that it had.
    """
    if move.new is None:
        return
    target = plan.after.tables[move.table]
    parts = [(None, target.grants), *((column.name, column.grants) for column in target.columns.values())]
    wanted = {
        (column, grant.privilege, grantee(grant.grantee).as_string(None))
        for column, grants in parts
        for grant in grants
    }
    new, old = Identifier(move.new.schema, move.table), Identifier(schema, move.table)
    names = {"new": new.as_string(cursor), "old": old.as_string(cursor)}
    for column, privilege, role in cursor.execute(SURPLUS, names).fetchall():
        if (column, privilege, role) not in wanted:
            on = SQL(" ({})").format(Identifier(column)) if column else SQL("")
            cursor.execute(SQL("REVOKE {}{} ON {} FROM {}").format(SQL(privilege), on, new, SQL(role)))


LEFT_BEHIND = """
SELECT k.conname::text FROM pg_constraint AS k WHERE k.contype = 'f' AND k.confrelid = %(table)s::regclass
 UNION ALL
SELECT r.ev_class::regclass::text FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::regclass
 LIMIT 1
"""


def _require_nothing_left(
    cursor: psycopg.Cursor[Any], plan: SwapPlan, attached: Mapping[str, Attached], schema: str
) -> None:
    """Begin again when a view or foreign key came after we had looked: it would go on with the retired table."""
    for move in plan.moves:
        if move.table not in attached:
            continue
        name = Identifier(aside(schema, move), move.table).as_string(cursor)
        left = cursor.execute(LEFT_BEHIND, {"table": name}).fetchone()
        if left is not None:
            msg = f"{left[0]} was created while the table was swapped"
            raise NotYet(msg)


def _script(statements: Sequence[Statement]) -> sql.Composed:
    """Statements without parameters as one message: under a lock each that goes to and fro is a wait."""
    return SQL("\n;\n").join(statements)


def _run(cursor: psycopg.Cursor[Any], exchange: _Exchange, *, is_apart: bool) -> None:
    if not is_apart:
        try:
            cursor.execute(exchange.script, prepare=False)
        except views.DOES_NOT_FIT as error:
            raise _OneByOne from error
        return
    for statement, view in exchange.steps:
        if view:
            views.run(cursor, statement, view)
        else:
            cursor.execute(statement)


OWNERS_OF_VIEWS = """
SELECT n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'v' AND (n.nspname, c.relname) IN (SELECT u.s, u.v FROM unnest(%s::text[], %s::text[]) AS u (s, v))
"""


def _locking_views(cursor: psycopg.Cursor[Any], attached: Mapping[str, Attached]) -> list[Statement]:
    """Lock the views before the table, as their readers do: who has a view and waits for the table would never let go.

    LOCK TABLE would go on to the table beneath the first view; giving a view to its owner locks that view alone.
    """
    depths: dict[tuple[str, str], int] = {}
    for view in (view for hanging in attached.values() for view in hanging.views):
        depths[view.schema, view.name] = max(view.depth, depths.get((view.schema, view.name), 0))
    found = cursor.execute(OWNERS_OF_VIEWS, ([s for s, _ in depths], [v for _, v in depths])).fetchall()
    return [
        SQL("ALTER VIEW {} OWNER TO {}").format(Identifier(schema, view), Identifier(owner))
        for schema, view, owner in sorted(found, key=lambda row: (-depths[row[0], row[1]], row[0], row[1]))
    ]


def _project_tail(connection: psycopg.Connection[Any], move: Move, codec: Codec) -> int:
    """Bring the new generation to the horizon, so that what becomes active is never behind what was live.

    The horizon may step back a little, when an append begins with an old number; what the live table has reached was a
    horizon once, so it is whole up to there.
    """
    if move.new is None:
        return 0
    live = _reached(connection, move.live) if move.live is not None else []
    if move.projection is None:
        if min(_reached(connection, move.new)) < max(live):
            msg = f"the workers of release {move.new.release} have not projected what the live table has"
            raise NotYet(msg)
        return 0
    upto = max(feed.horizon(connection), *live, *_reached(connection, move.new))
    return project_tail(connection, move.new, move.projection, codec, upto)


def _reached(connection: psycopg.Connection[Any], generation: Generation) -> list[int]:
    return [row[0] for row in connection.execute(POSITIONS, (generation.generation_id,))]


def make_schema(connection: psycopg.Connection[Any], name: str) -> None:
    """The schema of a generation that is not live, for the roles that read and project it."""
    connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(name)))
    for role in SHADOW_ROLES:
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(name), Identifier(role)))


RETIRE = """
UPDATE projection_generations SET state = 'retired', schema_name = %s, retired_at = clock_timestamp()
 WHERE generation_id = %s AND state = 'active'
"""
DROP = """
UPDATE projection_generations SET state = 'dropped', schema_name = %s, retired_at = clock_timestamp()
 WHERE generation_id = %s AND state = 'active'
"""
ACTIVATE = """
UPDATE projection_generations
   SET state = 'active', schema_name = %s, activated_at = coalesce(activated_at, clock_timestamp()), retired_at = NULL
 WHERE generation_id = %s AND state IN ('building', 'retired')
"""
FORGET = "DELETE FROM projection_checkpoints WHERE generation_id = %s"


def _record(cursor: psycopg.Cursor[Any], move: Move, schema: str, kept_hours: float) -> None:
    """Exchange the states of the generations; exactly one row each, or the swap does not happen."""
    done = []
    if move.live is not None:
        away = RETIRE if move.new is not None else DROP
        done.append(cursor.execute(away, (retired_schema(schema, move.live), move.live.generation_id)).rowcount)
        if move.new is None:
            cursor.execute(FORGET, (move.live.generation_id,))
        else:
            keep_for(cursor.connection, move.live.generation_id, kept_hours)
    if move.new is not None:
        keep(cursor.connection, move.new.generation_id)
        done.append(cursor.execute(ACTIVATE, (schema, move.new.generation_id)).rowcount)
    if done != [1] * len(done):
        msg = f"the generations of {move.table} were changed by somebody else meanwhile: look at position-ledger status"
        raise GenerationNotOurs(msg)
