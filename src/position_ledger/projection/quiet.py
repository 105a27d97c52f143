"""When a swap asks for the lock: in a quiet moment, and the longer it has waited, the less choosy it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

LOCK_TIMEOUT_MS = 20
"""How long readers may queue behind a swap that asks for the lock, at first."""

QUIET_MS = 5
"""Transactions younger than this are let pass; older ones that hold the table are waited for, without asking for it."""

QUIET_MAX_MS = 200
LOCK_TIMEOUT_MAX_MS = 100
"""On a machine that is short of time every transaction looks old: the longer the swap waits, the less choosy it is."""

PAUSE_S = 0.01
"""Between two attempts, about; half of it between two looks."""

BUSY = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), '?'), coalesce(a.state, '?'),
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8, left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80)
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.relation = ANY(%s::regclass[]) AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND a.pid <> pg_backend_pid() AND a.xact_start < clock_timestamp() - make_interval(secs => %s)
 ORDER BY a.xact_start LIMIT 5
"""

TOLD_AFTER_S = 3.0
"""A swap that has waited so long says for whom."""


class NotYet(Exception):
    """This attempt came at a bad moment; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Patience:
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


def telling(tell: Callable[[str], None], tables: Sequence[str], budget_s: float) -> Callable[[Sequence[Any]], None]:
    """Make what says once for whom the swap waits, when it has done so for a while."""
    due = time.monotonic() + TOLD_AFTER_S

    def say(busy: Sequence[Any]) -> None:
        nonlocal due
        if time.monotonic() > due:
            due = math.inf
            tell(f"waiting up to {budget_s:g} s for a quiet moment to swap {', '.join(tables)}: {named(busy)}")

    return say


def wait_for_quiet(
    connection: psycopg.Connection[Any],
    relations: Sequence[str],
    patience: Patience,
    waiting: Callable[[Sequence[Any]], None],
) -> None:
    """Wait until no transaction older than the patience allows holds one of the relations; ``waiting`` hears of those.

    Raises:
        NotYet: the budget is spent.
    """
    while True:
        busy = connection.execute(BUSY, (list(relations), patience.quiet_ms / 1000)).fetchall()
        if not busy:
            return
        if patience.is_over:
            msg = "transactions hold the table"
            raise NotYet(msg)
        waiting(busy)
        time.sleep(PAUSE_S / 2)


def named(busy: Sequence[Any]) -> str:
    """Rows of `BUSY` in words."""
    return "; ".join(
        f"pid {pid} ({application}, {state}, in a transaction for {age:.1f} s): {query.rstrip('; ')}"
        for pid, application, state, age, query in busy
    )
