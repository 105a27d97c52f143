"""One moment of the database for a proof, shared by any number of connections, and how far tables are at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from position_ledger.database import only_row
from position_ledger.projection.estimate import parts_for
from position_ledger.projection.generations import Generation, kept
from position_ledger.projection.loading import Chunk
from position_ledger.store.feed import HIGHEST_STREAM, LOWEST_STREAM


@contextmanager
def snapshot(connection: psycopg.Connection[Any], *, of: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """One REPEATABLE READ, read-only snapshot for everything inside the block; ``of`` is one that `exported` gave."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if of is not None:
            connection.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(of)))
        connection.execute(
            "SET LOCAL statement_timeout = 0"
        )  # no query: the snapshot is taken after the caller's locks
        yield connection


def exported(connection: psycopg.Connection[Any]) -> str:
    """The name under which others can see what this transaction sees, until it ends."""
    return str(only_row(connection.execute("SELECT pg_export_snapshot()"))[0])


def checkpoint(connection: psycopg.Connection[Any], generation_id: int) -> int:
    """The number up to which a generation is complete, in the snapshot of the connection."""
    row = connection.execute(
        "SELECT min(c.position) FROM projection_checkpoints AS c WHERE c.generation_id = %s", (generation_id,)
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def pinned(connection: psycopg.Connection[Any], generation: Generation) -> Generation:
    """The generation that has this table now: the lock, taken before the snapshot, keeps a swap from changing that."""
    table = Identifier(generation.schema, generation.projection)
    connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
    return next(one for one in kept(connection, generation.projection) if one.schema == generation.schema)


@dataclass(frozen=True, slots=True)
class Reach:
    """Ranges of streams, which cover all without overlap, each with the number up to which its rows are in the table."""

    shards: Sequence[tuple[UUID, UUID, int]]

    @property
    def lowest(self) -> int:
        """Every event up to here is in the table."""
        return min((upto for _, _, upto in self.shards), default=0)

    @property
    def highest(self) -> int:
        """No event after this one is."""
        return max((upto for _, _, upto in self.shards), default=0)

    def chunks(self) -> list[Chunk]:
        """All streams in as many ranges as a load of them has, or one for each shard, each up to the number of its shard."""
        each = max(1, parts_for(self.highest, None) // max(1, len(self.shards)))
        ranges = [part for shard in self.shards for part in _cut(*shard, each)]
        return [Chunk(number, low, high, upto) for number, (low, high, upto) in enumerate(ranges)]

    def of_stream(self, stream: UUID) -> Chunk:
        """One stream alone."""
        upto = next((upto for low, high, upto in self.shards if low <= stream <= high), 0)
        return Chunk(0, stream, stream, upto)


def _cut(low: UUID, high: UUID, upto: int, parts: int) -> Iterator[tuple[UUID, UUID, int]]:
    width = high.int - low.int + 1
    edges = [low.int + width * part // parts for part in range(parts + 1)]
    for begin, end in pairwise(edges):
        if begin < end:
            yield UUID(int=begin), UUID(int=end - 1), upto


def reach(connection: psycopg.Connection[Any], generation: Generation) -> Reach:
    """How far a generation is, in the snapshot of the connection: an inline one has every event that can be seen."""
    if generation.mode == "inline":
        last = connection.execute("SELECT coalesce(max(e.notification_id), 0) FROM events AS e").fetchone()
        return Reach([(LOWEST_STREAM, HIGHEST_STREAM, last[0] if last else 0)])
    rows = connection.execute(
        "SELECT c.stream_from, c.stream_to, c.position FROM projection_checkpoints AS c WHERE c.generation_id = %s"
        " ORDER BY c.stream_from",
        (generation.generation_id,),
    ).fetchall()
    return Reach(rows)
