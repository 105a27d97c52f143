"""Proofs: that tables equal the log and the laws hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from position_ledger.database import translated
from position_ledger.errors import SchemaMismatch
from position_ledger.operations.common import NoProgress, log_size, owner, projection_named, projections
from position_ledger.projection import generations, laws, verification
from position_ledger.projection.definition import Projection
from position_ledger.projection.generations import Generation
from position_ledger.projection.rebuild import Progress
from position_ledger.projection.references import LogBroken
from position_ledger.projection.scd2 import FoldFailed
from position_ledger.projection.verification import TableProof
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from position_ledger.store.audit import broken_links


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
    settings: Settings, reached: Reached, tables: Sequence[str] | None, *, progress: Progress | None = None
) -> VerifyReport:
    """Prove that tables equal the log and that the laws hold; without naming any: all of them, and the log itself."""
    showing = progress or NoProgress()
    chosen = [projection_named(settings, table) for table in tables] if tables else list(projections(settings))
    proofs: list[TableProof] = []
    problems: list[str] = []
    known: dict[str, tuple[Projection[Any], Generation]] = {}
    chain = None
    with translated(), owner(settings, reached) as connection:
        if not tables:
            showing.start(log_size(connection), "verifying the log")
            with verification.snapshot(connection):
                link = next(broken_links(connection, showing.advance), None)
            chain = str(link) if link else None
            showing.finish()
        for projection in chosen:
            live = generations.active(connection, projection.table)
            if live is None:
                msg = f"table {projection.table} has never been set up in this database: run position-ledger migrate up"
                raise SchemaMismatch(msg)
            generations.check_columns(connection, live.schema, projection)
            showing.start(log_size(connection), f"verifying {projection.table}")
            try:
                proofs.append(verification.table_equals_log(connection, projection, live, showing.advance))
            except (SchemaMismatch, FoldFailed, LogBroken) as error:
                if chain is None and isinstance(error, SchemaMismatch):
                    raise  # the log is as it was written, and this release cannot read it
                problems.append(f"{projection.table} cannot be made from the log: {error}")
            problems += filter(None, [verification.broken_law(connection, live.schema, projection)])
            showing.finish()
            known[projection.table] = (projection, live)
        problems += laws.broken_laws(connection, known)
        return VerifyReport(tuple(proofs), tuple(problems), chain, tuple(laws.notes(connection, known)))
