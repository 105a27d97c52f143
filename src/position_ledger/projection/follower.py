"""Following the feed: hold a fair share of the shards, project what is new, give everything back at the end.

All tables are fed from one page: generations whose same shards stand at the same position move on together, in one
transaction. One that cannot go on is left behind and tried again alone; the others never wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from position_ledger.domain.errors import LedgerError
from position_ledger.projection import generations, leases
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import SHARDS, Generation
from position_ledger.projection.leases import Lease, LeaseLost
from position_ledger.projection.projector import Projector, Work, project_together
from position_ledger.projection.references import Resolver
from position_ledger.projection.seldom import Seldom
from position_ledger.store import feed
from position_ledger.store.codec import Codec

POLL_FIRST_S = 0.001
POLL_MAX_S = 0.008
"""How long an idle follower waits before it looks again; doubling from the first to the last."""

UPKEEP_S = 1.0
"""How often leases are renewed, shared out and the generations looked up; less than a third of a lease."""

SEEK_S = 0.2
"""How often a follower that holds less than its share looks for free shards."""


REST_FIRST_S = 0.05
REST_MAX_S = 2.0
"""How long a generation that failed is left alone before it is tried again; doubling from the first to the last."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Followed:
    """One generation that this follower writes."""

    generation: Generation
    projector: Projector
    held: list[Lease] = field(default_factory=list)
    failure: Exception | None = None
    """Why its last batch was not written; nothing else was held back by it."""
    rest_s: float = 0.0
    resting_until: float = 0.0


_Failed = tuple[_Followed, Exception]


@dataclass(frozen=True, slots=True)
class _Due:
    """What one generation has to do next: some shards at one position."""

    followed: _Followed
    leases: list[Lease]
    upto: int

    @property
    def page(self) -> tuple[int, int, tuple[int, ...]]:
        """Which page of the feed that is: equal ones are read once."""
        return self.leases[0].position, self.upto, tuple(lease.shard for lease in self.leases)


class Follower:
    """Projects every generation that this code may write, over one connection. One thread at a time.

    ``name`` must be unique among all workers; without ``share`` it takes every free one of ``shards``, for work that ends
    soon; ``only`` restricts it to one generation. Whatever happens to the connection or the process, nothing is lost and
    nothing is written twice: leases run out and others go on from the checkpoints.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        projections: Iterable[Projection[Any]],
        codec: Codec,
        *,
        name: str,
        share: bool = True,
        only: int | None = None,
        shards: Iterable[int] = range(SHARDS),
    ) -> None:
        self._connection = connection
        self._projections = {projection.table: projection for projection in projections}
        self._codec = codec
        self._name = name
        self._share = share
        self._only = only
        self._shards = frozenset(shards)
        self._resolver = Resolver(codec, {event for one in self._projections.values() for event in one.folds})
        self._followed: dict[int, _Followed] = {}
        self._upkeep_due = 0.0
        self._seek_due = 0.0
        self._seldom = Seldom()

    @property
    def held(self) -> int:
        """How many shards this follower holds."""
        return sum(len(one.held) for one in self._followed.values())

    @property
    def position(self) -> int:
        """The lowest checkpoint of what it holds; 0 while it holds nothing."""
        return min((min_position(one.held) for one in self._followed.values() if one.held), default=0)

    @property
    def failures(self) -> Mapping[str, Exception]:
        """Why the live rows of a table are not going on, by table."""
        return {
            one.generation.projection: one.failure
            for one in self._followed.values()
            if one.failure is not None and one.generation.state == "active"
        }

    def follow(self, stop: threading.Event, *, until: Callable[[], bool] = lambda: False) -> None:
        """Follow until told to stop (or ``until`` says so). Keeps its shards: `close` gives them back.

        Raises:
            FoldFailed, WriteMismatch, psycopg.Error: none of the generations can go on; close, and begin again with a
                new follower. As long as one can, the others are tried again and again, and `failures` has why.
        """
        idle_s = POLL_FIRST_S
        while not stop.is_set() and not until():
            if self.step():
                idle_s = POLL_FIRST_S
            else:
                stop.wait(idle_s)
                idle_s = min(2 * idle_s, POLL_MAX_S)

    def step(self) -> bool:
        """Do what is due; true if there was something to project."""
        now = time.monotonic()
        if now >= self._upkeep_due:
            self._upkeep_due = now + UPKEEP_S
            self._keep_up()
        if now >= self._seek_due:
            self._seek_due = now + SEEK_S
            self._seek()
        return self._project()

    def close(self) -> None:
        """Give every shard back and sign off."""
        with contextlib.suppress(psycopg.Error):
            leases.release(self._connection, [lease for one in self._followed.values() for lease in one.held])
            if self._share:
                leases.leave(self._connection, self._name)
        self._followed.clear()

    def _keep_up(self) -> None:
        """Look up the generations, say that we live, renew what we hold, give back what is more than our share."""
        followed = generations.followed(self._connection, self._projections.values())
        current = {g.generation_id: g for g in followed if self._only in (None, g.generation_id)}
        for gone in self._followed.keys() - current.keys():
            del self._followed[gone]
        for generation_id, generation in current.items():
            if generation_id in self._followed:
                self._followed[generation_id].generation = generation
            else:
                self._followed[generation_id] = _Followed(generation, self._projector(generation))
        if self._share:
            fingerprints = [fingerprint_of(projection) for projection in self._projections.values()]
            leases.heartbeat(self._connection, self._name, fingerprints)
        self._renew()

    def _projector(self, generation: Generation) -> Projector:
        projection = self._projections[generation.projection]
        return Projector(self._connection, generation, projection, self._codec, resolver=self._resolver)

    def _renew(self) -> None:
        shares = self._shares()
        held = [lease for one in self._followed.values() for lease in one.held]
        ours = {(lease.generation_id, lease.shard) for lease in leases.renew(self._connection, held)}
        surplus: list[Lease] = []
        for generation_id, one in self._followed.items():
            still = [lease for lease in one.held if (generation_id, lease.shard) in ours]
            kept = [lease for lease in still if lease.shard in shares[generation_id]]
            surplus += [lease for lease in still if lease not in kept]
            if len(kept) != len(one.held):
                one.projector.forget()
            one.held = kept
        leases.release(self._connection, surplus)

    def _seek(self) -> None:
        shares = self._shares()
        for generation_id, one in self._followed.items():
            lacking = shares[generation_id] - {lease.shard for lease in one.held}
            taken = leases.acquire(self._connection, generation_id, self._name, limit=SHARDS, shards=lacking)
            if taken:
                one.held = sorted([*one.held, *taken], key=lambda lease: lease.shard)

    def _shares(self) -> dict[int, frozenset[int]]:
        """Which shards of each generation should be ours."""
        if not self._share:
            return dict.fromkeys(self._followed, self._shards)
        alive = leases.workers_alive(self._connection)
        return {
            generation_id: leases.fair_share(self._name, alive.get(one.generation.fingerprint, ()), SHARDS)
            for generation_id, one in self._followed.items()
        }

    def _project(self) -> bool:
        """One batch for each page of the feed that some generations behind the horizon have to read."""
        mark = feed.mark(self._connection)
        now = time.monotonic()
        behind = [
            one
            for one in self._followed.values()
            if one.held and min_position(one.held) < mark and one.resting_until <= now
        ]
        if not behind:
            return False
        horizon = feed.horizon(self._connection, known_mark=mark)
        pages: dict[tuple[int, int, tuple[int, ...]], list[_Due]] = {}
        for due in _due(behind, horizon):
            pages.setdefault(due.page, []).append(due)
        failed = [one for some in pages.values() for one in self._project_page(some)]
        if failed and all(one.failure is not None for one in self._followed.values() if one.held):
            raise failed[0][1]
        for one, error in failed:
            words = "table %s (%s generation %d) is not going on: %s: %s; trying again in %.2f s"
            table, number, state = one.generation.projection, one.generation.generation_id, one.generation.state
            if self._seldom.may_say(f"{number} {error}"):
                log.warning(words, table, state, number, type(error).__name__, error, one.rest_s)
        return bool(pages)

    def _project_page(self, dues: Sequence[_Due]) -> list[_Failed]:
        """Move some generations on together; when that fails, each alone, so that the healthy go on; answers the others."""
        try:
            project_together([Work(due.followed.projector, due.leases) for due in dues], dues[0].upto)
        except (LedgerError, psycopg.Error) as error:
            if self._connection.closed:
                raise
            if len(dues) > 1:
                return [failed for due in dues for failed in self._project_page([due])]
            return self._set_back(dues[0], error)
        for due in dues:
            due.followed.failure, due.followed.rest_s = None, 0.0
        return []

    def _set_back(self, due: _Due, error: Exception) -> list[_Failed]:
        one = due.followed
        if isinstance(error, LeaseLost):
            self._let_go(one, due.leases)
            return []
        one.failure = error
        one.rest_s = min(max(2 * one.rest_s, REST_FIRST_S), REST_MAX_S)
        one.resting_until = time.monotonic() + one.rest_s
        return [(one, error)]

    def _let_go(self, one: _Followed, group: Sequence[Lease]) -> None:
        """Give back what was refused, even what may still be ours: it is acquired again with a checkpoint read afresh."""
        leases.release(self._connection, group)
        one.held = [lease for lease in one.held if lease not in group]
        self._upkeep_due = 0.0


def _due(behind: Sequence[_Followed], horizon: int) -> list[_Due]:
    """What each generation has to do: its shards that are furthest behind, up to where others of anybody's stand.

    Stopping there is what brings shards and generations that stand at different positions together.
    """
    positions = {lease.position for one in behind for lease in one.held}
    dues = []
    for one in behind:
        lowest = min_position(one.held)
        if lowest < horizon:
            upto = min([horizon, *(position for position in positions if position > lowest)])
            dues.append(_Due(one, [lease for lease in one.held if lease.position == lowest], upto))
    return dues


def min_position(held: Sequence[Lease]) -> int:
    """The lowest checkpoint of some shards."""
    return min(lease.position for lease in held)
