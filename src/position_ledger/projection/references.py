"""Numbers for what events refer to: each stream's opening, and (stream, version) pairs inside bodies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args
from uuid import UUID

import psycopg
from pydantic import BaseModel

from position_ledger.domain.errors import LedgerError
from position_ledger.domain.event import Event
from position_ledger.domain.events import StreamRef
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

Pair = tuple[UUID, int]

OPENINGS_KEPT_MAX = 200_000
NOTHING: Mapping[Pair, int] = {}

NUMBERS = """
SELECT e.originator_id, e.originator_version, e.notification_id
  FROM unnest(%s::uuid[], %s::bigint[]) AS w (stream, version)
  JOIN events AS e ON e.originator_id = w.stream AND e.originator_version = w.version
"""


class LogBroken(LedgerError):
    """An event that another one refers to is gone from the log; verify names the place, a backup has the event."""


class Resolver:
    """Decodes stored rows into `Recorded` events with their numbers. Keeps a bounded memory of openings."""

    def __init__(self, codec: Codec, folds: Iterable[type[Event]]) -> None:
        self._codec = codec
        self._paths = paths_of(folds)
        self._openings: dict[UUID, int] = {}

    def forget(self) -> None:
        """Drop the openings kept in memory; they are looked up again."""
        self._openings.clear()

    def resolve(self, connection: psycopg.Connection[Any], rows: Sequence[StoredRow]) -> list[Recorded[Any]]:
        """The rows as events, in order; at most one query, whatever the number of rows.

        Raises:
            SchemaMismatch: an event cannot be read by this release.
            LogBroken: an event that is referred to is not there.
        """
        if len(self._openings) > OPENINGS_KEPT_MAX:
            self._openings.clear()
        bodies = self._codec.decode_structs([(row.topic, row.state) for row in rows])
        paths = self._paths
        pairs = [pairs_of(paths[row.topic], body) for row, body in zip(rows, bodies, strict=True)]
        self._openings.update((row.stream, row.seq) for row in rows if row.version == 1)
        numbers = self._look_up(connection, rows, {pair for some in pairs for pair in some})
        refs = [{pair: numbers[pair] for pair in some} if some else NOTHING for some in pairs]
        return [
            Recorded(
                row.seq,
                row.stream,
                row.version,
                row.topic,
                body,
                row.recorded_at,
                row.effective_at,
                opened_seq,
                numbered,
            )
            for row, body, opened_seq, numbered in zip(rows, bodies, self._opened(rows), refs, strict=True)
        ]

    def _opened(self, rows: Sequence[StoredRow]) -> Iterator[int]:
        """The number of each row's opening; rows of one stream in a row share its object in a replay."""
        openings, stream, number = self._openings, None, 0
        for row in rows:
            if row.stream is not stream:
                stream = row.stream
                number = openings[stream]
            yield number

    def _look_up(
        self, connection: psycopg.Connection[Any], rows: Sequence[StoredRow], pairs: set[Pair]
    ) -> Mapping[Pair, int]:
        """Numbers of the pairs, and of openings that are not known yet, which are kept."""
        streams = {id(row.stream): row.stream for row in rows}.values()
        wanted = pairs | {(stream, 1) for stream in streams if stream not in self._openings}
        if not wanted:
            return NOTHING
        found: dict[Pair, int] = {}
        parameters = ([stream for stream, _ in wanted], [version for _, version in wanted])
        for stream, version, seq in connection.execute(NUMBERS, parameters, prepare=True):
            found[stream, version] = seq
            if version == 1:
                self._openings[stream] = seq
        missing = wanted - found.keys()
        if missing:
            raise self._broken(rows, missing)
        return found

    def _broken(self, rows: Sequence[StoredRow], missing: set[Pair]) -> LogBroken:
        """Name the first event that refers to something that is not there."""
        for row in rows:
            body = self._codec.decode_struct(row.topic, row.state)
            for stream, version in (*pairs_of(self._paths[row.topic], body), (row.stream, 1)):
                if (stream, version) in missing:
                    return LogBroken(
                        f"event {row.seq} ({row.topic}) refers to version {version} of stream {stream}, which the log "
                        "does not have: run position-ledger verify"
                    )
        return LogBroken(
            f"the log does not have {len(missing)} events that others refer to: run position-ledger verify"
        )


def pairs_of(paths: Iterable[Sequence[str]], body: Any) -> tuple[Pair, ...]:
    """What a body refers to: stream and version of each reference that it has."""
    found: tuple[Pair, ...] = ()
    for path in paths:
        part = body
        for name in path:
            part = getattr(part, name)
            if part is None:
                break
        else:
            found = (*found, (part.stream, part.version))
    return found


def paths_of(folds: Iterable[type[Event]]) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """Attribute paths to what events refer to, by topic; none for any other topic."""
    return defaultdict(tuple, {event.TOPIC: reference_paths(event) for event in folds})


@lru_cache(maxsize=256)
def reference_paths(model: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    """Attribute paths to every `StreamRef` inside a model, nested models included."""
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if part is StreamRef:
                paths.append((name,))
            elif isinstance(part, type) and issubclass(part, BaseModel):
                paths.extend((name, *path) for path in reference_paths(part))
    return tuple(sorted(set(paths)))
