"""What a command refers to must exist: rows of reference tables, and edges. Asked before anything else of the ledger."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from position_ledger.domain.edges.decisions import require_edge
from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.domain.draft import Streams

__all__ = ["REFERENCE_TABLES", "require_references"]

REFERENCE_TABLES: Final = {
    "strategy": "strategies",
    "model": "probability_models",
    "platform": "platforms",
    "market_event": "market_events",
}
"""Field of a command to the table whose rows it names. A command that has such a field is checked."""


def require_references(command: Command, streams: Streams) -> None:
    """Refuse a command that names what does not exist, in the order of the table above, edges last.

    A reference table without any row is not in use, and its ids are not checked.
    """
    for field in _fields_of(type(command)):
        value = getattr(command, field)
        if value is not None and not streams.reference(field, value):
            table = REFERENCE_TABLES[field]
            raise CommandRejected(Reason.REFERENCE_UNKNOWN, command, field=field, value=value, table=table)
    if _names_edge(type(command)):
        require_edge(command, streams)


@cache  # one entry for each type of command
def _fields_of(kind: type[Command]) -> tuple[str, ...]:
    return tuple(field for field in REFERENCE_TABLES if field in kind.model_fields)


@cache
def _names_edge(kind: type[Command]) -> bool:
    """Whether a command of a position says on which edge it acts; those about edges find theirs themselves."""
    return {"edge", "market"} <= kind.model_fields.keys()
