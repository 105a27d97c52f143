"""Dual-key SCD Type 2 as arithmetic: events in, new versions and expiries out. Pure.

An interval is half-open, [row_effective_date, row_expiration_date); that of the current version has no end. Recorded
time rises strictly within a stream, and each key is fed by one stream, so no interval is empty and none overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from position_ledger.domain.errors import LedgerError
from position_ledger.projection.definition import Projection, Row
from position_ledger.store.envelope import Recorded


class FoldFailed(LedgerError):
    """A fold raised, returned None for an existing row, or something that is no row; names event and table."""


class Version(msgspec.Struct, gc=False):
    """One row of a projected table. ``expires`` is None while it is current. Times are aware, UTC."""

    id: int
    key: str
    effective: datetime
    expires: datetime | None
    version: int
    effective_at: datetime
    row: Row


@dataclass(slots=True)
class Changes:
    """What a batch does to the table: rows to insert, in order, and stored rows that expire, by surrogate id."""

    inserted: list[Version] = field(default_factory=list)
    expired_ids: list[int] = field(default_factory=list)
    expired_at: list[datetime] = field(default_factory=list)


def fold_batch(
    projection: Projection[Any], events: Iterable[Recorded[Any]], current: MutableMapping[str, Version]
) -> Changes:
    """Fold events, in order, into the current versions by key; ``current`` is moved on to the state after them.

    ``current`` must hold the stored current version of every key that has one and that an event touches.

    Raises:
        FoldFailed: the definition cannot fold an event; ``current`` is then to be thrown away.
    """
    folds, key_of, row_type = projection.folds_by_topic, projection.key, projection.row
    changes = Changes()
    inserted, fresh = changes.inserted, set[int]()
    for event in events:
        fold = folds.get(event.topic)
        if fold is None:
            continue
        key = key_of(event)
        before = current.get(key)
        row_before = None if before is None else before.row
        try:
            row = fold(row_before, event)
        except Exception as error:
            raise _cannot_fold(projection, row_before, event, error) from error
        if row is row_before and row is not None:
            continue
        if not isinstance(row, row_type):
            raise _not_a_row(projection, row, event)
        at, version = event.recorded_at, 1
        if before is not None:
            before.expires, version = at, before.version + 1
            if before.id not in fresh:
                changes.expired_ids.append(before.id)
                changes.expired_at.append(at)
        fresh.add(event.seq)
        after = current[key] = Version(event.seq, key, at, None, version, event.effective_at, row)
        inserted.append(after)
    return changes


def _cannot_fold(projection: Projection[Any], row: Row | None, event: Recorded[Any], error: Exception) -> FoldFailed:
    msg = (
        f"projection {projection.table} cannot fold event {event.seq} ({event.topic}): {type(error).__name__}: {error}"
    )
    if row is None and event.version > 1:
        msg += f"; the table has no current row of {projection.key(event)}: is it what the log says? position-ledger verify tells"
    return FoldFailed(msg)


def _not_a_row(projection: Projection[Any], folded: Any, event: Recorded[Any]) -> FoldFailed:
    return FoldFailed(
        f"projection {projection.table} folded event {event.seq} ({event.topic}) into {type(folded).__name__}, "
        f"not into a {projection.row.__name__}"
    )
