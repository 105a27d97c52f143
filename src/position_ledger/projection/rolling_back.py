"""Going back: the retired generations in the places of the active ones, all in one swap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg

from position_ledger.errors import GenerationNotOurs
from position_ledger.projection import foreign_keys, generations, leases
from position_ledger.projection.building import RebuildReport, Where
from position_ledger.projection.catching_up import SHORT_TAIL_EVENTS, bring_up, tail_events
from position_ledger.projection.definition import Projection
from position_ledger.projection.exchange import Move, SwapPlan
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import Generation
from position_ledger.projection.rebuild import Target, alone, require_worker_mode
from position_ledger.projection.retention import drop_older, nothing_to_go_back_to
from position_ledger.projection.swap import BUDGET_S, SwapResult, swap


def roll_back(
    where: Where,
    projections: Sequence[Projection[Any]],
    tables: Sequence[str],
    target: Callable[[Sequence[Generation], Sequence[Generation]], Target],
    *,
    processes: int = 1,
) -> list[RebuildReport]:
    """Put the retired generations back in place of the active ones, all in one swap; a report for each table.

    ``target`` is asked with the active and the retired generations; a table that it does not have after the rollback
    goes away. A retired one that is behind is brought up first, by so many ``processes`` if it is far behind.

    Raises:
        GenerationNotOurs: there is none, or it is behind and this code cannot bring it up; names the release that can.
        SwapBlocked: no quiet moment; nothing was changed.
    """
    with ExitStack() as stack:
        for table in sorted(tables):
            stack.enter_context(alone(where.connection, table))
        for table in tables:
            # A process that was killed behind its swap has left that to do.
            drop_older(where.connection, table, expired=False)
        kept = {table: generations.kept(where.connection, table) for table in tables}
        live = {table: one for table in tables for one in kept[table] if one.state == "active"}
        old = {table: one for table in tables for one in kept[table] if one.state == "retired"}
        back = target(list(live.values()), list(old.values()))
        moves = [_move(where, projections, table, live.get(table), old.get(table), back) for table in tables]
        for table in tables:
            foreign_keys.validate_pending(where.connection, table)

        def catch_up() -> None:
            for move in moves:
                if move.projection is not None and move.new is not None:
                    bring_up(
                        where.url,
                        where.settings,
                        move.projection,
                        move.new,
                        processes=processes,
                        tell=where.tell,
                        progress=where.progress,
                    )

        result = swap(
            where.connection,
            SwapPlan(
                tuple(moves),
                back.before,
                back.after,
                back.record,
                is_undo=True,
                retired_kept_hours=where.settings.retired_kept_hours,
            ),
            where.codec,
            schema=where.schema,
            tell=where.tell,
            catch_up=catch_up,
            budget_s=BUDGET_S,
        )
    return [_report(move, result) for move in moves]


def _move(
    where: Where,
    projections: Sequence[Projection[Any]],
    table: str,
    live: Generation | None,
    old: Generation | None,
    back: Target,
) -> Move:
    """The active generation, and the retired one that it is exchanged for, unless the table goes away."""
    if live is not None and table not in back.after.tables:
        require_worker_mode(live)
        return Move(table, live, None, None)
    if live is None or old is None:
        raise GenerationNotOurs(nothing_to_go_back_to(where.connection, table))
    require_worker_mode(live)
    ours = next((p for p in projections if p.table == table and fingerprint_of(p) == old.fingerprint), None)
    if ours is None:
        _require_followed(where.connection, live, old)
    return Move(table, live, old, ours)


def _report(move: Move, result: SwapResult) -> RebuildReport:
    if move.new is None:
        words = f"table {move.table} is gone"
    else:
        words = f"generation {move.new.generation_id} of {move.table} is active again"
    return RebuildReport(
        move.table,
        move.new.generation_id if move.new is not None else None,
        swap_attempts=result.attempts,
        swap_lock_ms=result.lock_ms,
        swapped=True,
        messages=[words],
    )


def _require_followed(connection: psycopg.Connection[Any], live: Generation, old: Generation) -> None:
    """Refuse a rollback to rows that nobody keeps current: this code cannot fold them."""
    behind = max(0, tail_events(connection, old))
    if not behind or (behind <= SHORT_TAIL_EVENTS and leases.workers_alive(connection).get(old.fingerprint)):
        return
    msg = (
        f"the retired generation of {live.projection} is {behind} events behind and was built by other code "
        f"({old.fingerprint[:8]} of release {old.release}, see position-ledger status): start a worker with that "
        "code, wait until it has caught up, and run the rollback again"
    )
    raise GenerationNotOurs(msg)
