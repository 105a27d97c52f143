"""Numbers that a fold needs and an event does not have: resolved while the log is at hand, kept beside the event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from position_ledger.archive.arrow import POSTGRES_EPOCH_US, Ref, Row
from position_ledger.events import EVENTS
from position_ledger.projection.references import NUMBERS, LogBroken, Pair, pairs_of, reference_paths
from position_ledger.store.codec import Codec


class Numbering:
    """Makes archived rows of fetched ones. Rows must come in order of stream and version."""

    def __init__(self) -> None:
        self._codec = Codec(EVENTS)
        self._paths = _Paths(self._codec)
        self._stream, self._opened = b"", 0

    def numbered(self, connection: psycopg.Connection[Any], fetched: Sequence[Sequence[Any]]) -> list[Row]:
        """The rows with the numbers of their openings and of what they refer to; at most one query.

        Raises:
            SchemaMismatch: an event was written by newer code.
            LogBroken: an event that is referred to is not there.
        """
        paths, decode = self._paths, self._codec.decode_struct
        pairs = [pairs_of(paths[row[3]], decode(row[3], row[4])) if paths[row[3]] else () for row in fetched]
        numbers = _numbers(connection, {pair for some in pairs for pair in some} | self._unopened(fetched))
        return [self._row(row, some, numbers) for row, some in zip(fetched, pairs, strict=True)]

    def _unopened(self, fetched: Sequence[Sequence[Any]]) -> set[Pair]:
        """First events of streams that go on here and began before."""
        last, wanted = self._stream, set()
        for row in fetched:
            if row[1] != last:
                last = row[1]
                if row[2] != 1:
                    wanted.add((UUID(bytes=last), 1))
        return wanted

    def _row(self, row: Sequence[Any], pairs: Sequence[Pair], numbers: dict[Pair, int]) -> Row:
        number, stream, version, topic, state, event_id, recorded, effective, stream_hash, metadata = row
        if stream != self._stream:
            self._stream = stream
            self._opened = number if version == 1 else self._found((UUID(bytes=stream), 1), row, numbers)
        refs = tuple(self._ref(pair, row, numbers) for pair in dict.fromkeys(pairs))
        return Row(
            number,
            stream,
            version,
            topic,
            state,
            event_id,
            recorded + POSTGRES_EPOCH_US,
            effective + POSTGRES_EPOCH_US,
            stream_hash,
            metadata,
            self._opened,
            refs,
        )

    def _ref(self, pair: Pair, row: Sequence[Any], numbers: dict[Pair, int]) -> Ref:
        return pair[0].bytes, pair[1], self._found(pair, row, numbers)

    def _found(self, pair: Pair, row: Sequence[Any], numbers: dict[Pair, int]) -> int:
        if pair not in numbers:
            msg = (
                f"event {row[0]} ({row[3]}) refers to version {pair[1]} of stream {pair[0]}, which the log does not have: "
                "run position-ledger verify"
            )
            raise LogBroken(msg)
        return numbers[pair]


class _Paths(dict[str, tuple[tuple[str, ...], ...]]):
    """Where the bodies of a topic refer to other events, found when first asked for; nowhere, if no table reads them."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def __missing__(self, topic: str) -> tuple[tuple[str, ...], ...]:
        known = topic in self._codec.topics
        paths = self[topic] = reference_paths(self._codec.event_type(topic)) if known else ()
        return paths


def _numbers(connection: psycopg.Connection[Any], wanted: set[Pair]) -> dict[Pair, int]:
    if not wanted:
        return {}
    parameters = ([stream for stream, _ in wanted], [version for _, version in wanted])
    rows = connection.execute(NUMBERS, parameters, prepare=True)
    return {(stream, version): number for stream, version, number in rows}
