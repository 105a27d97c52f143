"""Evidence against tampering: every stored event is chained to the one before it, and this follows the chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from position_ledger.store.envelope import NO_HASH, chain
from position_ledger.store.feed import HIGHEST_STREAM, LOWEST_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    import psycopg

FETCH_EVENTS = 2_000

IN_STREAM_ORDER = """
SELECT e.originator_id, e.originator_version, e.notification_id, e.topic, e.state, e.metadata, e.stream_hash
  FROM events AS e WHERE e.originator_id BETWEEN %s AND %s ORDER BY e.originator_id, e.originator_version
"""


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """An event that is not what was appended, or that does not follow the one before it in its stream."""

    stream: UUID
    version: int
    seq: int
    problem: str

    def __str__(self) -> str:
        """One sentence for people."""
        return f"event {self.seq} (version {self.version} of stream {self.stream}): {self.problem}"


def broken_links(
    connection: psycopg.Connection[Any], first: UUID = LOWEST_STREAM, last: UUID = HIGHEST_STREAM
) -> Iterator[BrokenLink]:
    """Every event whose hash or version does not follow from its stream so far; none: the log is as it was written.

    Reads the log of a range of streams once, in one snapshot, with a bounded memory. Whoever can remove the fences of the
    database can also remove the last events of a stream or write a whole chain anew: keep the hashes elsewhere against
    that.
    """
    stream: UUID | None = None
    version, previous = 0, NO_HASH
    with connection.transaction(), connection.cursor(name="broken_links") as cursor:
        cursor.itersize = FETCH_EVENTS
        for found, number, seq, topic, state, metadata, stored in cursor.execute(IN_STREAM_ORDER, (first, last)):
            if found != stream:
                stream, version, previous = found, 0, NO_HASH
            if number != version + 1:
                yield BrokenLink(found, number, seq, f"version {number} follows version {version}")
            elif chain(previous, found, number, topic, bytes(state), metadata) != bytes(stored):
                yield BrokenLink(found, number, seq, "topic, body or metadata is not what its hash was made of")
            version, previous = number, bytes(stored)
