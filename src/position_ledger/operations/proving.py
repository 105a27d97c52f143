"""Proofs: that tables equal the log and the laws hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from position_ledger.database import translated
from position_ledger.errors import SchemaMismatch
from position_ledger.operations.common import NoProgress, owner, projection_named, projections
from position_ledger.projection import generations, laws, verification
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.provers import Hands, Provers, provers
from position_ledger.projection.rebuild import Progress
from position_ledger.projection.references import LogBroken
from position_ledger.projection.scd2 import FoldFailed
from position_ledger.projection.snapshots import snapshot
from position_ledger.projection.verification import TableProof
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from position_ledger.store.audit import BrokenLink, broken_links

CHAIN_PARTS: Final = 64
"""Ranges of streams in which the hashes of the log are followed."""

PROCESSES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Whether the tables equal the log. ``broken_laws`` and ``broken_chain`` are sentences; empty and None if all holds.

    A table that cannot even be made from the log has no proof, and its sentence is among the broken laws.
    """

    tables: tuple[TableProof, ...]
    broken_laws: tuple[str, ...]
    broken_chain: str | None
    notes: tuple[str, ...] = ()  # what breaks no law: positions with shortfall, overdrawn accounts

    @property
    def holds(self) -> bool:
        """True if nothing at all is wrong."""
        return not self.broken_laws and self.broken_chain is None and all(t.difference is None for t in self.tables)

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, a sentence each."""
        differences = tuple(str(table.difference) for table in self.tables if table.difference is not None)
        return (*differences, *self.broken_laws, *((self.broken_chain,) if self.broken_chain else ()))


def verify(
    settings: Settings,
    reached: Reached,
    tables: Sequence[str] | None,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> VerifyReport:
    """Prove that tables equal the log and that the laws hold; without naming any: all of them, and the log itself.

    ``processes`` share the work of each table, all of them in one snapshot.
    """
    chosen = [projection_named(settings, table) for table in tables] if tables else list(projections(settings))
    url = reached.database_url
    with (
        translated(),
        owner(settings, reached) as connection,
        provers(url, settings, min(processes, PROCESSES_MAX)) as crew,
    ):
        proving = _Proving(connection, crew, progress or NoProgress())
        chain = None if tables else proving.chain()
        for projection in chosen:
            proving.table(projection, is_log_whole=chain is None)
        proving.problems += laws.broken_laws(connection, proving.known)
        notes = tuple(laws.notes(connection, proving.known))
        return VerifyReport(tuple(proving.proofs), tuple(proving.problems), chain, notes)


class _Proving:
    """One run over the log and its tables, one after the other."""

    def __init__(self, connection: psycopg.Connection[Any], crew: Provers, progress: Progress) -> None:
        self._connection, self._crew, self._progress = connection, crew, progress
        self.proofs: list[TableProof] = []
        self.problems: list[str] = []
        self.known: dict[str, tuple[Projection[Any], Generation]] = {}

    def chain(self) -> str | None:
        """The first event that does not follow from its stream, in words."""
        ranges = [(low, high) for _, low, high in generations.shard_ranges(CHAIN_PARTS)]
        broken: list[BrokenLink] = []
        with self._shown("verifying the log") as advance, snapshot(self._connection):
            for done, link in enumerate(self._crew.each(self._connection, _broken_link, ranges), start=1):
                broken += [link] if link is not None else []
                advance(done, len(ranges))
        return str(min(broken, key=lambda link: (link.stream, link.version))) if broken else None

    def table(self, projection: Projection[Any], *, is_log_whole: bool) -> None:
        """Compare one table with the log, and look at its laws.

        Raises:
            SchemaMismatch: it was never set up, or this release cannot read the log.
        """
        live = generations.active(self._connection, projection.table)
        if live is None:
            msg = f"table {projection.table} has never been set up in this database: run position-ledger migrate up"
            raise SchemaMismatch(msg)
        generations.check_columns(self._connection, live.schema, projection)
        self.known[projection.table] = (projection, live)
        try:
            with self._shown(f"verifying {projection.table}") as advance:
                proof = verification.table_equals_log(self._connection, projection, live, self._crew, advance)
            self.proofs.append(proof)
        except (SchemaMismatch, FoldFailed, LogBroken) as error:
            if is_log_whole and isinstance(error, SchemaMismatch):
                raise  # the log is as it was written, and this release cannot read it
            self.problems.append(f"{projection.table} cannot be made from the log: {error}")
        self.problems += filter(None, [verification.broken_law(self._connection, live.schema, projection)])

    @contextmanager
    def _shown(self, what: str) -> Iterator[verification.Advance]:
        """A bar of parts, as they are done."""
        is_begun = False

        def advance(done: int, of: int) -> None:
            nonlocal is_begun
            if not is_begun:
                self._progress.start(of, what)
                is_begun = True
            self._progress.advance(done)

        yield advance
        self._progress.finish()


def _broken_link(hands: Hands, streams: tuple[UUID, UUID]) -> BrokenLink | None:
    """The first event of a range of streams that does not follow."""
    return next(broken_links(hands.reading, *streams), None)
