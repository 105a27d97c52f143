"""The append: one round trip, one transaction, and typed answers when somebody else was faster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg.pq import TransactionStatus

from position_ledger.database import only_row
from position_ledger.domain.errors import LedgerError
from position_ledger.store.envelope import NewEvent, Receipt

EVENTS_IN_APPEND_MAX = 10_000
"""One append takes one lock, whatever its size; this bounds its memory and the time it holds the feed."""

MODE_CHANGED = "PL001"
"""What the database answers to an append that projects other generations inline than it must."""

APPEND_ONE = """
SELECT seq, recorded
  FROM append_event(%s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s::jsonb)
"""
APPEND_MANY = "SELECT stream, version, seq, recorded FROM append_events(%s::json, %s::json)"


class VersionConflict(LedgerError):
    """Another writer appended to one of the streams first: load them again and decide anew."""


class ModeChanged(LedgerError):
    """Tables are projected inline that this append would not project, or the reverse: nothing was written."""

    def __init__(self, detail: str = "the mode of projecting was changed meanwhile") -> None:
        super().__init__(f"{detail}; append through position_ledger.Ledger, which follows the mode, and repeat it")


class KeyTaken(LedgerError):
    """A command id or fill identity is in the log already: look up what it appended."""


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a repeat harmless: identity, digest of the content, and which (stream, version) pairs it appended."""

    key: str
    digest: bytes
    appended: Mapping[str, Any]


def append(
    connection: psycopg.Connection[Any], events: Sequence[NewEvent], keys: Sequence[Key] = ()
) -> tuple[Receipt, ...]:
    """Append the events and the keys, all or none, in a transaction of its own; receipts in the order of the events.

    Raises:
        VersionConflict: a stream has the version already, or lacks the one before it.
        KeyTaken: one of the keys is there already.
        ModeChanged: a table is projected inline; see `position_ledger.projection.inline`.
        LedgerError: called inside a transaction of the caller, whose rollback to a savepoint would drop the feed lock.
    """
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        msg = "append refused: the connection is inside a transaction, and only a transaction of its own keeps the feed whole"
        raise LedgerError(msg)
    return append_here(connection, events, keys)


def append_here(
    connection: psycopg.Connection[Any], events: Sequence[NewEvent], keys: Sequence[Key] = ()
) -> tuple[Receipt, ...]:
    """As `append`, for the engine's own inline transactions, which take no savepoints."""
    if not 0 < len(events) <= EVENTS_IN_APPEND_MAX:
        msg = f"append refused: {len(events)} events, it takes 1 to {EVENTS_IN_APPEND_MAX}; split the batch"
        raise LedgerError(msg)
    try:
        if len(events) == 1 and len(keys) <= 1:
            return (_append_one(connection, events[0], keys[0] if keys else None),)
        return _append_many(connection, events, keys)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.table_name == "append_keys":
            raise KeyTaken(error.diag.message_detail or "") from error
        raise VersionConflict(error.diag.message_detail or "") from error
    except (psycopg.errors.IntegrityConstraintViolation, psycopg.errors.NotNullViolation) as error:
        raise VersionConflict(error.diag.message_primary or "") from error
    except psycopg.Error as error:
        if error.sqlstate == MODE_CHANGED:
            raise ModeChanged(error.diag.message_primary or "") from error
        raise


def _append_one(connection: psycopg.Connection[Any], event: NewEvent, key: Key | None) -> Receipt:
    row = only_row(
        connection.execute(
            APPEND_ONE,
            (
                event.stream,
                event.version,
                event.topic,
                event.state,
                event.event_id,
                event.effective_at,
                event.stream_hash,
                _json(event.metadata) if event.metadata else "{}",
                key and key.key,
                key and key.digest,
                key and _json(key.appended),
            ),
            prepare=True,
        )
    )
    return Receipt(event.stream, event.version, row[0], row[1])


def _append_many(
    connection: psycopg.Connection[Any], events: Sequence[NewEvent], keys: Sequence[Key]
) -> tuple[Receipt, ...]:
    rows = connection.execute(
        APPEND_MANY,
        (_json([_as_json(event) for event in events]), _json([_key_json(key) for key in keys]) if keys else None),
        prepare=True,
    ).fetchall()
    receipts = {(stream, version): Receipt(stream, version, seq, recorded) for stream, version, seq, recorded in rows}
    return tuple(receipts[event.stream, event.version] for event in events)


def _as_json(event: NewEvent) -> dict[str, Any]:
    return {
        "stream": event.stream,
        "version": event.version,
        "topic": event.topic,
        "state": event.state.decode(),
        "event_id": event.event_id,
        "effective_at": event.effective_at,
        "stream_hash": event.stream_hash.hex(),
        "metadata": event.metadata,
    }


def _key_json(key: Key) -> dict[str, Any]:
    return {"key": key.key, "digest": key.digest.hex(), "appended": key.appended}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def appended_pairs(events: Iterable[NewEvent]) -> list[list[Any]]:
    """The (stream, version) pairs of the events, as a key keeps them."""
    return [[str(event.stream), event.version] for event in events]
