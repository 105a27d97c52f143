"""The append: one round trip, one transaction, and typed answers when somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.pq import TransactionStatus

from position_ledger.domain.errors import LedgerError
from position_ledger.store import direct
from position_ledger.store.envelope import NewEvent, Receipt

EVENTS_IN_APPEND_MAX = 10_000
"""One append takes one lock, whatever its size; this bounds its memory and the time it holds the feed."""

MODE_CHANGED = "PL001"
"""What the database answers to an append that projects other generations inline than it must."""

APPEND_MANY = "SELECT stream, version, seq, recorded FROM append_events(%s::json, %s::json, %s::json)"

_UUID, _INT8, _TEXT, _BYTEA, _TIMESTAMPTZ, _JSON, _JSONB = 2950, 20, 25, 17, 1184, 114, 3802
"""Types of PostgreSQL by their fixed numbers."""

ONE_DIRECTLY = direct.statement(
    "position_ledger_append_event",
    "SELECT seq, recorded FROM append_event($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    (_UUID, _INT8, _TEXT, _BYTEA, _UUID, _TIMESTAMPTZ, _BYTEA, _JSONB, _TEXT, _BYTEA, _JSONB),
)
MANY_DIRECTLY = direct.statement(
    "position_ledger_append_events",
    "SELECT stream, version, seq, recorded FROM append_events($1, $2, $3)",
    (_JSON, _JSON, _JSON),
)


Read = tuple[UUID, int]
"""A stream and the version up to which a decision has read it; 0: it had not begun."""


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
    connection: psycopg.Connection[Any],
    events: Sequence[NewEvent],
    keys: Sequence[Key] = (),
    reads: Sequence[Read] = (),
) -> tuple[Receipt, ...]:
    """Append the events and the keys, all or none, in a transaction of its own; receipts in the order of the events.

    ``reads``: streams that were read to decide on the events, and are not appended to: with a later version of one of
    them nothing is written. For streams of markets the numbers of two such appends tell which came first.

    Raises:
        VersionConflict: a stream has the version already, lacks the one before it, or was read and has moved on.
        KeyTaken: one of the keys is there already.
        ModeChanged: a table is projected inline; see `position_ledger.projection.inline`.
        LedgerError: called inside a transaction of the caller, whose rollback to a savepoint would drop the feed lock.
    """
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        msg = "append refused: the connection is inside a transaction, and only a transaction of its own keeps the feed whole"
        raise LedgerError(msg)
    return _append(connection, events, keys, reads, _one_directly, _many_directly)


def append_here(
    connection: psycopg.Connection[Any],
    events: Sequence[NewEvent],
    keys: Sequence[Key] = (),
    reads: Sequence[Read] = (),
) -> tuple[Receipt, ...]:
    """As `append`, for the engine's own inline transactions, which take no savepoints."""
    return _append(connection, events, keys, reads, _one_by_cursor, _many_by_cursor)


def _append(
    connection: psycopg.Connection[Any],
    events: Sequence[NewEvent],
    keys: Sequence[Key],
    reads: Sequence[Read],
    append_one: Callable[[psycopg.Connection[Any], NewEvent, Key | None], Receipt],
    append_many: Callable[
        [psycopg.Connection[Any], Sequence[NewEvent], Sequence[Key], Sequence[Read]], Iterable[Receipt]
    ],
) -> tuple[Receipt, ...]:
    if not 0 < len(events) <= EVENTS_IN_APPEND_MAX:
        msg = f"append refused: {len(events)} events, it takes 1 to {EVENTS_IN_APPEND_MAX}; split the batch"
        raise LedgerError(msg)
    try:
        if len(events) == 1 and len(keys) <= 1 and not reads:
            return (append_one(connection, events[0], keys[0] if keys else None),)
        receipts = {(one.stream, one.version): one for one in append_many(connection, events, keys, reads)}
        return tuple(receipts[event.stream, event.version] for event in events)
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


def _one_directly(connection: psycopg.Connection[Any], event: NewEvent, key: Key | None) -> Receipt:
    result = direct.run(
        connection,
        ONE_DIRECTLY,
        (
            event.stream.bytes,
            direct.int8(event.version),
            event.topic.encode(),
            event.state,
            event.event_id.bytes,
            direct.timestamptz(event.effective_at) if event.effective_at else None,
            event.stream_hash,
            direct.JSONB_VERSION + (msgspec.json.encode(event.metadata) if event.metadata else b"{}"),
            key.key.encode() if key else None,
            key.digest if key else None,
            direct.JSONB_VERSION + msgspec.json.encode(key.appended) if key else None,
        ),
    )
    seq, recorded = result.get_value(0, 0), result.get_value(0, 1)
    return Receipt(event.stream, event.version, direct.read_int8(seq), direct.read_timestamptz(recorded))


def _many_directly(
    connection: psycopg.Connection[Any], events: Sequence[NewEvent], keys: Sequence[Key], reads: Sequence[Read]
) -> Iterator[Receipt]:
    result = direct.run(
        connection, MANY_DIRECTLY, [one.encode() if one else None for one in _as_parameters(events, keys, reads)]
    )
    for row in range(result.ntuples):
        stream, version, seq, recorded = (result.get_value(row, column) for column in range(4))
        yield Receipt(
            UUID(bytes=stream), direct.read_int8(version), direct.read_int8(seq), direct.read_timestamptz(recorded)
        )


def _one_by_cursor(connection: psycopg.Connection[Any], event: NewEvent, key: Key | None) -> Receipt:
    return next(iter(_many_by_cursor(connection, [event], [key] if key else [], ())))


def _many_by_cursor(
    connection: psycopg.Connection[Any], events: Sequence[NewEvent], keys: Sequence[Key], reads: Sequence[Read]
) -> Iterator[Receipt]:
    for row in connection.execute(APPEND_MANY, _as_parameters(events, keys, reads), prepare=True).fetchall():
        yield Receipt(*row)


def _as_parameters(
    events: Sequence[NewEvent], keys: Sequence[Key], reads: Sequence[Read]
) -> tuple[str, str | None, str | None]:
    return (
        _json([_as_json(event) for event in events]),
        _json([_key_json(key) for key in keys]) if keys else None,
        _json([{"stream": stream, "version": version} for stream, version in reads]) if reads else None,
    )


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
