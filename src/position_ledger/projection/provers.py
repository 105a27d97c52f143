"""Doing a proof in parts, in this process or over several that all see one snapshot: flat memory, whatever the table.

A part is a range of streams, folded, or some pages of the table. Of either the server makes a digest: what was folded is
sent to it as live projecting sends rows, so that it becomes the values that the columns would hold.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from position_ledger.database import connect, only_row
from position_ledger.events import EVENTS
from position_ledger.projection import digests, statements
from position_ledger.projection.crews import end_with_parent, projection_of
from position_ledger.projection.definition import Projection
from position_ledger.projection.differences import folded
from position_ledger.projection.loading import Chunk, no_collecting, replayed
from position_ledger.projection.references import Resolver
from position_ledger.projection.snapshots import exported, snapshot
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec

PAGES_AT_ONCE: Final = 8_192
"""Pages of a table (64 MB) that one part reads."""

PAGES_MAX: Final = 2**32 - 1
"""A table has fewer."""

WAITING_MAX: Final = 2
"""Pages of rows that wait for the server while the next ones are folded."""

NAME: Final = "position-ledger verify"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of one table: streams to fold, or pages to read, from the first to before the last.

    Ids are put into buckets by ``shift`` (`digests.shift_of`).
    """

    table: str
    schema: str
    shift: int
    chunk: Chunk | None = None
    pages: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """What a part came to: events that were folded, and rows and hash by bucket."""

    is_of_log: bool
    events: int
    digest: Sequence[tuple[int, int, int]]


def parts_of_table(connection: psycopg.Connection[Any], schema: str, table: str, shift: int) -> list[Part]:
    """Every page of a table; what a snapshot sees is in those that there are after it was taken."""
    name = Identifier(schema, table).as_string(connection)
    size = "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::bigint"
    count = int(only_row(connection.execute(size, (name,)))[0])
    edges = (*range(0, max(count, 1), PAGES_AT_ONCE), PAGES_MAX)
    return [Part(table, schema, shift, pages=pages) for pages in pairwise(edges)]


def parts_of_log(schema: str, table: str, shift: int, chunks: Sequence[Chunk]) -> list[Part]:
    """The rows of a table as the log gives them."""
    return [Part(table, schema, shift, chunk=chunk) for chunk in chunks]


def stored(schema: str, table: str, columns: Sequence[digests.Column]) -> Composed:
    """Rows and hash by bucket of some pages of a table (parameters: shift, first, last)."""
    pages = SQL("{} AS t WHERE t.ctid >= %(first)s::tid AND t.ctid < %(last)s::tid").format(Identifier(schema, table))
    return digests.digest(pages, columns)


@dataclass(frozen=True, slots=True)
class Hands:
    """What a process proves with: a connection that reads in the snapshot, another that hashes what was folded."""

    settings: Settings
    reading: psycopg.Connection[Any]
    hashing: psycopg.Connection[Any]


def do(hands: Hands, part: Part) -> Found:
    """One part, inside the snapshot of the reading connection.

    Raises:
        FoldFailed, LogBroken, SchemaMismatch: the log does not give rows.
    """
    projection = projection_of(hands.settings, part.table)
    columns = digests.columns_of(hands.reading, part.schema, part.table, projection.columns)
    if part.chunk is not None:
        return _folded(hands, projection, part, part.chunk, columns)
    first, last = (f"({page},0)" for page in part.pages)
    statement = stored(part.schema, part.table, columns)
    found = digests.taken(hands.reading, statement, {"shift": part.shift, "first": first, "last": last})
    return Found(is_of_log=False, events=0, digest=found)


Digested = list[tuple[int, int, int]]


def _folded(
    hands: Hands, projection: Projection[Any], part: Part, chunk: Chunk, columns: Sequence[digests.Column]
) -> Found:
    """The server hashes the rows of a page while the next one is folded."""
    statement = digests.digest(folded(Identifier(part.schema, part.table)), columns).as_bytes(None)

    def hashed(rows: str) -> Digested:
        return hands.hashing.execute(statement, {"shift": part.shift, "rows": rows}, prepare=True).fetchall()

    events, digest, resolver = 0, digests.Digest(), Resolver(Codec(EVENTS), projection.folds)
    waiting: deque[Future[Digested]] = deque()
    with no_collecting(), ThreadPoolExecutor(1, "hashing rows") as sending:
        for batch in replayed(hands.reading, projection, resolver, chunk):
            events += batch.events
            if not batch.versions:
                continue
            if len(waiting) == WAITING_MAX:
                digest.add(waiting.popleft().result())
            waiting.append(sending.submit(hashed, statements.encode_rows(projection, batch.versions)))
        for answer in waiting:
            digest.add(answer.result())
    return Found(is_of_log=True, events=events, digest=digest.found)


Task = TypeVar("Task")
Answer = TypeVar("Answer")


class Provers:
    """Whoever proves: this process, or several; made once for any number of tables."""

    def __init__(self, settings: Settings, hashing: psycopg.Connection[Any], pool: ProcessPoolExecutor | None) -> None:
        self._settings, self._hashing, self._pool = settings, hashing, pool

    def each(
        self, connection: psycopg.Connection[Any], work: Callable[[Hands, Task], Answer], tasks: Sequence[Task]
    ) -> Iterator[Answer]:
        """The answers of all tasks as they come, in the snapshot of the connection, which the caller keeps meanwhile.

        ``work`` is a function of a module, and raises what this raises.
        """
        if self._pool is None:
            hands = Hands(self._settings, connection, self._hashing)
            yield from (work(hands, task) for task in tasks)
            return
        name = exported(connection)
        running = [self._pool.submit(_in_process, name, work, task) for task in tasks]
        try:
            for one in as_completed(running):
                yield one.result()
        finally:
            for one in running:
                one.cancel()


@contextmanager
def provers(url: str, settings: Settings, processes: int) -> Iterator[Provers]:
    """So many processes that prove; with one it is this process itself."""
    with ExitStack() as stack:
        pool = None
        if processes > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(
                ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up, initargs=(url, settings))
            )
        yield Provers(settings, stack.enter_context(closing(_connected(url, settings))), pool)


def _connected(url: str, settings: Settings) -> psycopg.Connection[Any]:
    connection = connect(url, settings, as_app=False, name=NAME)
    connection.execute("SELECT set_config('statement_timeout', '0', false)")
    return connection


_hands: list[Hands] = []
"""Of a process of the pool; they end with the process."""


def _set_up(url: str, settings: Settings) -> None:
    end_with_parent()
    _hands.append(Hands(settings, _connected(url, settings), _connected(url, settings)))


def _in_process(of: str, work: Callable[[Hands, Task], Answer], task: Task) -> Answer:
    with snapshot(_hands[0].reading, of=of):
        return work(_hands[0], task)
