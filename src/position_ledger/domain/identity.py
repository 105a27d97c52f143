"""What makes two requests the same: content of commands, ids of fills, ids derived for fills that have none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from position_ledger.domain.commands import Command
    from position_ledger.domain.vocabulary import Environment

__all__ = [
    "content_digest",
    "correction_digest",
    "derived_fill_id",
    "fill_key_of",
    "require_same_command",
    "require_same_correction",
    "require_same_fill",
    "row_text",
]

_NOT_CONTENT: Final = {
    "command_id",
    "actor",
    "correlation_id",
    "causation_id",
    "handle",
    "dust",
    "on_excess",
    "min_change",
    "skip_clock_only",
}
"""Who asks, on whose behalf, under which name, and what is tolerated or done about an excess, is no part of the fact."""


def content_digest(command: Command) -> bytes:
    """sha256 of what a command asks: its type and canonical JSON, fields at their default left out.

    So a field added later with a default changes no digest that was ever recorded.
    """
    return _digest(command, _NOT_CONTENT)


def correction_digest(command: Command) -> bytes:
    """sha256 of what a correction asks of a trade, whichever of its numbers and of the halves of a flip it names."""
    return _digest(command, _NOT_CONTENT | {"trade"})


def _digest(command: Command, without: set[str]) -> bytes:
    content = command.model_dump(mode="json", exclude=without, exclude_defaults=True)
    return sha256(_canonical([type(command).__name__, content])).digest()


def fill_key_of(environment: Environment, account: str, venue: str | None, venue_fill_id: str | None) -> str | None:
    """Canonical text under which a fill is unique for ever; None for a fill without an id of its venue."""
    if venue_fill_id is None:
        return None
    return _canonical([environment.value, account, venue, venue_fill_id]).decode()


def row_text(row: Mapping[str, str]) -> str:
    """Canonical text of an imported row, whatever the order of its columns."""
    return _canonical(dict(row)).decode()


def derived_fill_id(canonical_row: str, ordinal: int) -> str:
    """Id of a fill whose venue gave none: sha256 over the row and its ordinal among identical rows.

    ``ordinal`` counts from 0 in venue order, the oldest first, so that a longer export of the same history keeps the
    ids of what it repeats. ``canonical_row`` is `row_text` of the row as the venue wrote it.
    """
    return sha256(_canonical([canonical_row, ordinal])).hexdigest()


def require_same_command(command: Command, recorded_digest: bytes) -> None:
    """Refuse a repeat of a command id with other content than was recorded under it first."""
    if content_digest(command) != recorded_digest:
        raise CommandRejected(Reason.COMMAND_ID_REUSED, command, value=command.command_id)


def require_same_fill(command: Command, recorded_digest: bytes) -> None:
    """Refuse a repeat of a venue's fill id with other content than was recorded under it first."""
    if content_digest(command) != recorded_digest:
        raise CommandRejected(Reason.FILL_ID_REUSED, command, value=getattr(command, "venue_fill_id", None))


def require_same_correction(command: Command, recorded_digest: bytes) -> None:
    """Refuse a repeat of the id of a bust, correction or adjustment of a trade with other content."""
    if correction_digest(command) != recorded_digest:
        names = ("bust_id", "correction_id", "adjustment_id")
        field = next(name for name in names if hasattr(command, name))
        raise CommandRejected(Reason.CORRECTION_ID_REUSED, command, field=field, value=getattr(command, field))


def _canonical(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
