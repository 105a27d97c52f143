"""Numbers for what events refer to: each stream's opening, and (stream, version) pairs inside bodies."""

from __future__ import annotations

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
        self._paths = {event.TOPIC: reference_paths(event) for event in folds}
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
        bodies = [self._codec.decode_struct(row.topic, row.state) for row in rows]
        pairs = [tuple(self._pairs(row.topic, body)) for row, body in zip(rows, bodies, strict=True)]
        self._openings.update((row.stream, row.seq) for row in rows if row.version == 1)
        numbers = self._look_up(connection, rows, pairs)
        self._require_all(rows, pairs, numbers)
        return [
            Recorded(
                row.seq,
                row.stream,
                row.version,
                row.topic,
                body,
                row.recorded_at,
                row.effective_at,
                self._openings[row.stream],
                {pair: numbers[pair] for pair in wanted} if wanted else NOTHING,
            )
            for row, body, wanted in zip(rows, bodies, pairs, strict=True)
        ]

    def _require_all(
        self, rows: Sequence[StoredRow], pairs: Sequence[Sequence[Pair]], numbers: Mapping[Pair, int]
    ) -> None:
        for row, wanted in zip(rows, pairs, strict=True):
            needed = wanted if row.stream in self._openings else (*wanted, (row.stream, 1))
            for stream, version in needed:
                if (stream, version) not in numbers:
                    msg = (
                        f"event {row.seq} ({row.topic}) refers to version {version} of stream {stream}, which the log "
                        "does not have: run position-ledger verify"
                    )
                    raise LogBroken(msg)

    def _pairs(self, topic: str, body: Any) -> Iterator[Pair]:
        for path in self._paths.get(topic, ()):
            reference = _follow(body, path)
            if reference is not None:
                yield reference.stream, reference.version

    def _look_up(
        self, connection: psycopg.Connection[Any], rows: Sequence[StoredRow], pairs: Sequence[Sequence[Pair]]
    ) -> dict[Pair, int]:
        wanted: set[Pair] = {pair for some in pairs for pair in some}
        wanted.update((row.stream, 1) for row in rows if row.stream not in self._openings)
        if not wanted:
            return {}
        found: dict[Pair, int] = {}
        parameters = ([stream for stream, _ in wanted], [version for _, version in wanted])
        for stream, version, seq in connection.execute(NUMBERS, parameters, prepare=True):
            found[stream, version] = seq
            if version == 1:
                self._openings[stream] = seq
        return found


def _follow(body: Any, path: Sequence[str]) -> Any:
    for name in path:
        body = getattr(body, name)
        if body is None:
            return None
    return body


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
