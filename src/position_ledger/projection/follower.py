"""Following the feed: hold a fair share of the shards, project what is new, give everything back at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from position_ledger.projection import generations, leases
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import SHARDS, Generation
from position_ledger.projection.leases import Lease, LeaseLost
from position_ledger.projection.projector import Projector
from position_ledger.store import feed
from position_ledger.store.codec import Codec

POLL_FIRST_S = 0.001
POLL_MAX_S = 0.008
"""How long an idle follower waits before it looks again; doubling from the first to the last."""

UPKEEP_S = 1.0
"""How often leases are renewed, shared out and the generations looked up; less than a third of a lease."""

SEEK_S = 0.2
"""How often a follower that holds less than its share looks for free shards."""


@dataclass(slots=True)
class _Followed:
    """One generation that this follower writes."""

    generation: Generation
    projector: Projector
    held: list[Lease] = field(default_factory=list)


class Follower:
    """Projects every generation that this code may write, over one connection. One thread at a time.

    ``name`` must be unique among all workers; without ``share`` it takes every free shard, for work that ends soon;
    ``only`` restricts it to one generation. Whatever happens to the connection or the process, nothing is lost and
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
    ) -> None:
        self._connection = connection
        self._projections = {projection.table: projection for projection in projections}
        self._codec = codec
        self._name = name
        self._share = share
        self._only = only
        self._followed: dict[int, _Followed] = {}
        self._upkeep_due = 0.0
        self._seek_due = 0.0

    @property
    def held(self) -> int:
        """How many shards this follower holds."""
        return sum(len(one.held) for one in self._followed.values())

    def follow(self, stop: threading.Event, *, until: Callable[[], bool] = lambda: False) -> None:
        """Follow until told to stop (or ``until`` says so). Keeps its shards: `close` gives them back.

        Raises:
            FoldFailed, WriteMismatch, psycopg.Error: nothing was written; close, and begin again with a new follower.
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
            if generation_id not in self._followed:
                projection = self._projections[generation.projection]
                projector = Projector(self._connection, generation, projection, self._codec)
                self._followed[generation_id] = _Followed(generation, projector)
        if self._share:
            fingerprints = [fingerprint_of(projection) for projection in self._projections.values()]
            leases.heartbeat(self._connection, self._name, fingerprints)
        for one in self._followed.values():
            self._renew(one)

    def _renew(self, one: _Followed) -> None:
        still = leases.renew(self._connection, one.held)
        surplus = still[self._fair_share(one) :]
        if surplus:
            leases.release(self._connection, surplus)
        if len(still) != len(one.held) or surplus:
            one.projector.forget()
        one.held = still[: len(still) - len(surplus)]

    def _seek(self) -> None:
        for one in self._followed.values():
            wanted = self._fair_share(one) - len(one.held)
            taken = leases.acquire(self._connection, one.generation.generation_id, self._name, limit=wanted)
            if taken:
                one.held = sorted([*one.held, *taken], key=lambda lease: lease.shard)

    def _fair_share(self, one: _Followed) -> int:
        if not self._share:
            return SHARDS
        return leases.fair_share(self._connection, one.generation.fingerprint, SHARDS)

    def _project(self) -> bool:
        """One batch for each generation that is behind the horizon."""
        mark = feed.mark(self._connection)
        behind = [one for one in self._followed.values() if one.held and min_position(one.held) < mark]
        if not behind:
            return False
        horizon = feed.horizon(self._connection, known_mark=mark)
        worked = False
        for one in behind:
            worked = self._project_one(one, horizon) or worked
        return worked

    def _project_one(self, one: _Followed, horizon: int) -> bool:
        lowest = min_position(one.held)
        group = [lease for lease in one.held if lease.position == lowest]
        if lowest >= horizon:
            return False
        ahead = [lease.position for lease in one.held if lease.position > lowest]
        try:
            one.projector.project(group, min([horizon, *ahead]))
        except LeaseLost:
            self._let_go(one, group)
        return True

    def _let_go(self, one: _Followed, group: Sequence[Lease]) -> None:
        """Give back what was refused, even what may still be ours: it is acquired again with a checkpoint read afresh."""
        leases.release(self._connection, group)
        one.held = [lease for lease in one.held if lease not in group]
        self._upkeep_due = 0.0


def min_position(held: Sequence[Lease]) -> int:
    """The lowest checkpoint of some shards."""
    return min(lease.position for lease in held)
