"""A stream as far as it has been read, and the snapshots that keep reading long ones short.

Whoever had to fold many events leaves the state behind, so the next process reads the rest only. A snapshot is an
optimisation and nothing else: without it, or with one of another shape, the events are read from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from position_ledger.domain.families import family_of_state, state_from_json, state_json
from position_ledger.store.envelope import NO_HASH

READ = """
SELECT s.originator_version, s.shape, s.state, s.stream_hash, s.opened_seq, s.last_seq
  FROM stream_snapshots AS s WHERE s.originator_id = %s
"""
LEAVE = """
INSERT INTO stream_snapshots AS s (originator_id, originator_version, shape, state, stream_hash, opened_seq, last_seq)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (originator_id) DO UPDATE
   SET originator_version = excluded.originator_version, shape = excluded.shape, state = excluded.state,
       stream_hash = excluded.stream_hash, opened_seq = excluded.opened_seq, last_seq = excluded.last_seq
 WHERE s.originator_version < excluded.originator_version OR s.shape <> excluded.shape
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream as far as it has been read: state, version, hash of the last event, first and last global number."""

    state: Any | None = None
    version: int = 0
    stream_hash: bytes = NO_HASH
    opened_seq: int = 0
    last_seq: int = 0


NOT_BEGUN = Loaded()


def read_snapshot(connection: psycopg.Connection[Any], stream: UUID) -> Loaded | None:
    """The state that somebody left for a stream, if this code can read it."""
    row = connection.execute(READ, (stream,), binary=True).fetchone()
    return None if row is None else from_snapshot(*row)


def from_snapshot(
    version: int, shape: str, state: bytes, stream_hash: bytes, opened_seq: int, last_seq: int
) -> Loaded | None:
    """A stream as a row of the snapshots has it, if this code can read it."""
    try:
        return Loaded(state_from_json(shape, bytes(state)), version, bytes(stream_hash), opened_seq, last_seq)
    except msgspec.DecodeError:
        return None


def leave_snapshot(connection: psycopg.Connection[Any], stream: UUID, loaded: Loaded) -> None:
    """Keep a state for others. A later one of the same shape stays."""
    shape, state = family_of_state(loaded.state).shape_name, state_json(loaded.state)
    connection.execute(
        LEAVE, (stream, loaded.version, shape, state, loaded.stream_hash, loaded.opened_seq, loaded.last_seq)
    )
