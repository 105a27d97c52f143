"""Inline projecting: events and the rows they make in one transaction, so that a committed command is visible at once.

A generation is either inline or projected by workers, never both. Which ones are inline stands in ``feed.inline``, which
every append reads: an append that projects other generations than those is refused by the database, so a process may
keep what it knows in memory. A change of mode takes ``feed`` exclusively, and so happens while nobody is in an append.

Order of locks, the same for all: generations, then ``feed``, then rows. Nobody waits for the horizon under a lock.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL
from psycopg.sql import Literal as SqlLiteral

from position_ledger.errors import GenerationNotOurs, LedgerError, SwapBlocked
from position_ledger.projection import generations
from position_ledger.projection.definition import Projection
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.projection.generations import GENERATION_LOCK, Generation
from position_ledger.projection.projector import Target, apply_all, concerning
from position_ledger.projection.references import Resolver
from position_ledger.projection.tail import TailTooLong, project_tail
from position_ledger.store import feed
from position_ledger.store.append import Key, ModeChanged, Read, append, append_here
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import NewEvent, Receipt
from position_ledger.store.feed import StoredRow

Mode = Literal["inline", "worker"]
Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

TRIES_MAX = 10
"""How often one append follows a change of mode before it gives up."""

LOCK_TIMEOUT_MS = 20
"""How long a change of mode asks for the feed at a time: appends queue behind it for no longer."""

BATCH_TIMEOUT_MS = 1_000
"""How long it waits for a batch that is being projected, or for inline appends that have begun."""

CHANGE_BUDGET_S = 30.0
PAUSE_S = 0.01

SAY = "SELECT set_config('position_ledger.inline', %s, true)"
LOCK_SHARED = "SELECT pg_advisory_xact_lock_shared(%s, %s)"
LIST = """
UPDATE feed SET inline = (SELECT coalesce(string_agg(g.generation_id::text, ',' ORDER BY g.generation_id), '')
                            FROM projection_generations AS g WHERE g.state = 'active' AND g.mode = 'inline')
"""


class Appender:
    """The append of a ledger, in whatever mode its tables are projected. Safe for threads."""

    def __init__(self, connect: Connect, projections: Iterable[Projection[Any]], codec: Codec) -> None:
        self._connect = connect
        self._projections = {projection.table: projection for projection in projections}
        self._codec = codec
        self._inline: tuple[Generation, ...] | None = None
        """The inline generations as last seen; None: not looked up yet. The database refuses what is out of date."""

    def append(self, events: Sequence[NewEvent], keys: Sequence[Key], reads: Sequence[Read] = ()) -> Sequence[Receipt]:
        """Append, and project what is inline; one round trip when nothing is.

        Raises:
            GenerationNotOurs: a table is projected inline by other code; nothing was written.
            VersionConflict, KeyTaken: as `append`; nothing was written.
            FoldFailed, WriteMismatch: an inline table cannot take the rows; nothing was written.
            ModeChanged: the mode was changed again and again meanwhile; nothing was written.
        """
        for tries in range(TRIES_MAX):
            try:
                with self._connect() as connection:
                    if self._inline is None:
                        self._inline = _inline_now(connection)
                    if not self._inline:
                        return append(connection, events, keys, reads)
                    return self._append_inline(connection, self._inline, events, keys, reads)
            except ModeChanged:
                self._inline = None
                if tries == TRIES_MAX - 1:
                    raise
        raise AssertionError  # the last try has answered or raised

    def _append_inline(
        self,
        connection: psycopg.Connection[Any],
        inline: Sequence[Generation],
        events: Sequence[NewEvent],
        keys: Sequence[Key],
        reads: Sequence[Read],
    ) -> Sequence[Receipt]:
        with connection.transaction():
            connection.execute(SAY, (",".join(str(one.generation_id) for one in inline),), prepare=True)
            for one in inline:
                connection.execute(LOCK_SHARED, (GENERATION_LOCK, one.generation_id), prepare=True)
            held = _inline_now(connection)
            if [one.generation_id for one in held] != [one.generation_id for one in inline]:
                raise ModeChanged
            projections = [self._ours(one) for one in held]
            receipts = append_here(connection, events, keys, reads)
            rows = _stored(events, receipts)
            self._project(connection, held, projections, rows)
        return receipts

    def _ours(self, generation: Generation) -> Projection[Any]:
        projection = self._projections.get(generation.projection)
        if projection is None or fingerprint_of(projection) != generation.fingerprint:
            msg = (
                f"table {generation.projection} is projected inline by other code (release {generation.release}), so this "
                "process cannot append: run that release, or set the table to worker mode"
            )
            raise GenerationNotOurs(msg)
        return projection

    def _project(
        self,
        connection: psycopg.Connection[Any],
        inline: Sequence[Generation],
        projections: Sequence[Projection[Any]],
        rows: Sequence[StoredRow],
    ) -> None:
        # A resolver of its own: what it remembers of this transaction must not outlive a rollback.
        resolver = Resolver(self._codec, {event for projection in projections for event in projection.folds})
        topics = {topic for projection in projections for topic in projection.topics}
        events = resolver.resolve(connection, [row for row in rows if row.topic in topics])
        targets = [
            Target(one.schema, projection, concerning(projection, events))
            for one, projection in zip(inline, projections, strict=True)
        ]
        apply_all(connection, targets)


def _inline_now(connection: psycopg.Connection[Any]) -> tuple[Generation, ...]:
    """The active inline generations, in the order in which they are locked."""
    found = [one for one in generations.kept(connection) if one.state == "active" and one.mode == "inline"]
    return tuple(sorted(found, key=lambda one: one.generation_id))


def _stored(events: Sequence[NewEvent], receipts: Sequence[Receipt]) -> list[StoredRow]:
    """The events as the feed would give them, in the order of their numbers."""
    rows = [
        StoredRow(
            receipt.seq,
            event.stream,
            event.version,
            event.topic,
            event.state,
            receipt.recorded_at,
            event.effective_at or receipt.recorded_at,
        )
        for event, receipt in zip(events, receipts, strict=True)
    ]
    return sorted(rows, key=lambda row: row.seq)


# Changing the mode


def set_mode(
    connection: psycopg.Connection[Any],
    projection: Projection[Any],
    codec: Codec,
    mode: Mode,
    *,
    catch_up: Callable[[Generation], object],
    budget_s: float = CHANGE_BUDGET_S,
) -> bool:
    """Give the active generation another mode, as the owner of the schema; false if it has it already.

    ``catch_up`` is called before each attempt and projects what it can without the locks. Other rebuilds and changes of
    mode of the table must be kept away by the caller.

    Raises:
        GenerationNotOurs: the active generation belongs to other code, or there is none.
        SwapBlocked: the appends or followers left no gap within the budget; nothing was changed.
    """
    deadline = math.inf
    while True:
        generation = _ours_to_change(connection, projection, mode)
        if generation.mode == mode:
            return False
        if mode == "inline":
            catch_up(generation)
        deadline = min(deadline, time.monotonic() + budget_s)  # the first catch-up takes what it takes
        try:
            _change(connection, generation, projection, codec, mode)
        except (TailTooLong, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                msg = (
                    f"table {projection.table} could not be set to {mode} mode within {budget_s:g} s ({_reason(error)}): "
                    "nothing was changed, look at position-ledger status for long transactions and try again"
                )
                raise SwapBlocked(msg) from error
            time.sleep(PAUSE_S * random.uniform(0.5, 2.0))  # noqa: S311 - jitter
        else:
            return True


def _ours_to_change(connection: psycopg.Connection[Any], projection: Projection[Any], mode: Mode) -> Generation:
    generation = generations.active(connection, projection.table)
    if generation is None:
        msg = f"table {projection.table} has never been set up in this database: run position-ledger migrate up"
        raise GenerationNotOurs(msg)
    if mode == "inline" and generation.fingerprint != fingerprint_of(projection):
        msg = (
            f"the active generation of {projection.table} was built by other code (release {generation.release}): set it "
            "to inline mode with that release, or rebuild it first"
        )
        raise GenerationNotOurs(msg)
    return generation


def _change(
    connection: psycopg.Connection[Any], generation: Generation, projection: Projection[Any], codec: Codec, mode: Mode
) -> None:
    """One attempt. With both locks held nobody projects the generation and nobody is in an append."""
    with connection.transaction():
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(SqlLiteral(f"{BATCH_TIMEOUT_MS}ms")))
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (GENERATION_LOCK, generation.generation_id))
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(SqlLiteral(f"{LOCK_TIMEOUT_MS}ms")))
        connection.execute("LOCK TABLE feed IN ACCESS EXCLUSIVE MODE")
        # Nothing is in flight, so the horizon is the highest number: the table has its rows up to there.
        upto = feed.mark(connection)
        if mode == "inline":
            project_tail(connection, generation, projection, codec, upto)
        else:
            connection.execute(
                "UPDATE projection_checkpoints AS c SET position = %s, token = c.token + 1, holder = NULL, "
                "lease_until = '-infinity' WHERE c.generation_id = %s",
                (upto, generation.generation_id),
            )
        changed = connection.execute(
            "UPDATE projection_generations SET mode = %s WHERE generation_id = %s AND state = 'active' AND mode <> %s",
            (mode, generation.generation_id, mode),
        ).rowcount
        if changed != 1:
            msg = f"the generations of {projection.table} were changed by somebody else meanwhile: try again"
            raise GenerationNotOurs(msg)
        connection.execute(LIST)


def drop_without_table(connection: psycopg.Connection[Any]) -> list[str]:
    """Drop the generations whose table a rollback has taken away, as the owner of the schema; answers their tables.

    When the table is made again it is projected from the first event on: nothing may remember the rows of the old one.
    """
    gone = [one for one in generations.kept(connection) if not _has_table(connection, one)]
    for one in gone:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (GENERATION_LOCK, one.generation_id))
            connection.execute("LOCK TABLE feed IN ACCESS EXCLUSIVE MODE")
            connection.execute("DELETE FROM projection_checkpoints WHERE generation_id = %s", (one.generation_id,))
            connection.execute(
                "UPDATE projection_generations SET state = 'dropped' WHERE generation_id = %s", (one.generation_id,)
            )
            connection.execute(LIST)
    return sorted({one.projection for one in gone})


def _has_table(connection: psycopg.Connection[Any], generation: Generation) -> bool:
    row = connection.execute(
        "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text)) IS NOT NULL",
        (generation.schema, generation.projection),
    ).fetchone()
    return row == (True,)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, LedgerError) else "appends or followers held their locks"
