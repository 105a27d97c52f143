"""Replay-based tests: record the events of a ledger, fold them with any projection code, compare the rows.

A recording is a file of JSON lines, one event each: ``seq, stream, version, topic, body, recorded_at, effective_at``,
and ``opened_seq`` and ``refs`` (``[stream, version, seq]``), the numbers of what the event refers to, so that a
recording of one position can be replayed on its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from position_ledger.database import connect
from position_ledger.domain.decisions import unknown_position
from position_ledger.domain.event import Event
from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.execution.streams import number_of
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.references import Pair, Resolver, reference_paths
from position_ledger.projection.scd2 import Version, fold_batch
from position_ledger.projection.statements import load_all_rows, values_of
from position_ledger.settings import load_settings
from position_ledger.store import feed
from position_ledger.store.codec import Codec
from position_ledger.store.envelope import Recorded
from position_ledger.store.feed import StoredRow

if TYPE_CHECKING:
    import psycopg

    from position_ledger.ledger import Ledger

TableRow = dict[str, Any]
"""One version by column name: Decimal, aware datetime, str, int, bool, None, or what JSON holds."""

PAGE_EVENTS = 1_000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first of bare events is taken to be recorded and effective; each next one a second later."""

OWN_STREAM = UUID(int=1)
"""The stream of bare events."""

EVERY_STREAM = (feed.LOWEST_STREAM, feed.HIGHEST_STREAM)
STREAM_OF = "SELECT e.originator_id FROM events AS e WHERE e.notification_id = %s AND e.topic LIKE 'position.%%'"


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a recording. Other fields of a line are ignored."""

    seq: int
    stream: UUID
    version: int
    topic: str
    body: msgspec.Raw
    recorded_at: datetime
    effective_at: datetime
    opened_seq: int | None = None
    refs: tuple[tuple[UUID, int, int], ...] = ()

    @property
    def stored(self) -> StoredRow:
        """The event as the feed gives it."""
        state = bytes(self.body)
        return StoredRow(self.seq, self.stream, self.version, self.topic, state, self.recorded_at, self.effective_at)


Source = str | Path | Iterable[Line | Mapping[str, Any] | Recorded[Any] | Event]
"""A file of JSON lines or one JSON array of such objects, the objects themselves, events of the log, or bare events."""


# Recording


def record(ledger: Ledger, file: str | Path, *positions: str) -> int:
    """Write the ledger's events, or those of some positions, to a file of JSON lines; answers how many.

    Reads in pages, so a long log needs no memory. The file appears whole or not at all.
    """
    target = Path(file)
    draft = target.with_name(f"{target.name}.part")
    encoder = msgspec.json.Encoder()
    written = 0
    try:
        with draft.open("wb") as out:
            for line in _recorded_lines(ledger, positions):
                out.write(encoder.encode(line) + b"\n")
                written += 1
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return written


def _recorded_lines(ledger: Ledger, positions: Sequence[str]) -> Iterator[Line]:
    resolver = Resolver(ledger.codec, EVENTS)
    connection = connect(ledger.database_url, ledger.settings, as_app=True, name="position-ledger record")
    with contextlib.closing(connection):
        upto, after = feed.horizon(connection), 0
        ranges = [_range_of(connection, position) for position in positions] or [EVERY_STREAM]
        while after < upto:
            stored = feed.page(
                connection, after=after, upto=upto, topics=sorted(ledger.codec.topics), ranges=ranges, limit=PAGE_EVENTS
            )
            for row, event in zip(stored, resolver.resolve(connection, stored), strict=True):
                yield _line(row, event)
            after = stored[-1].seq if len(stored) == PAGE_EVENTS else upto


def _range_of(connection: psycopg.Connection[Any], position: str) -> tuple[UUID, UUID]:
    row = connection.execute(STREAM_OF, (number_of(position),)).fetchone()
    if row is None:
        raise unknown_position(position)
    return row[0], row[0]


def _line(row: StoredRow, event: Recorded[Any]) -> Line:
    refs = tuple((stream, version, seq) for (stream, version), seq in event.refs.items())
    return Line(
        row.seq,
        row.stream,
        row.version,
        row.topic,
        msgspec.Raw(row.state),
        row.recorded_at,
        row.effective_at,
        event.opened_seq,
        refs,
    )


# Replaying


def replay(
    source: Source,
    projections: Iterable[Projection[Any]] | Projection[Any] | None = None,
    *,
    events: Iterable[type[Event]] = EVENTS,
) -> dict[str, list[TableRow]]:
    """Fold recorded events with the given projections (None: those of the settings): the rows of each table, by id.

    The rows are those that the ledger would have written: every version, with its surrogate id and interval.
    ``events`` are the event types that the recording holds.

    Raises:
        SchemaMismatch: an event cannot be read by this code.
        FoldFailed: a projection cannot fold one.
        ConfigurationError: a line is no event, or refers to one that the recording neither holds nor numbers.
    """
    codec = Codec(events)
    recorded = list(recorded_events(source, codec))
    if projections is None:
        chosen: Iterable[Projection[Any]] = load_projections(load_settings().projections)
    else:
        chosen = (projections,) if isinstance(projections, Projection) else projections
    return {projection.table: _fold(projection, recorded) for projection in chosen}


def fold(projection: Projection[Any], events: Source) -> list[TableRow]:
    """The rows that one projection makes of events, by id; ``events`` as for `replay`.

    Bare events make one stream: numbers and versions 1, 2, 3 …, one second apart. Raises as `replay`.
    """
    types = {*EVENTS, *projection.folds}
    if not isinstance(events, str | Path):
        events = list(events)
        types |= {type(one) for one in events if isinstance(one, Event)}
    return replay(events, projection, events=sorted(types, key=lambda one: one.TOPIC))[projection.table]


def _fold(projection: Projection[Any], events: Sequence[Recorded[Any]]) -> list[TableRow]:
    changes = fold_batch(projection, events, {})
    return [row_of(projection, version) for version in sorted(changes.inserted, key=lambda version: version.id)]


def row_of(projection: Projection[Any], version: Version) -> TableRow:
    """A version as a row of its table, with JSON columns as the database would give them."""
    return dict(zip(projection.columns, map(_plain, values_of(version)), strict=True))


def _plain(value: Any) -> Any:
    """Values as the database driver gives them: enumerated ones as text, structures as plain JSON."""
    if value is None or isinstance(value, Decimal | datetime | bool | int) or type(value) is str:
        return value
    if isinstance(value, UUID):
        return value
    return msgspec.to_builtins(value)


def recorded_events(source: Source, codec: Codec) -> Iterator[Recorded[Any]]:
    """Events as a fold sees them, in the order of their numbers. Raises as `replay`."""
    if isinstance(source, str | Path):
        yield from _resolved(_lines_of(Path(source)), codec)
        return
    given = list(source)
    recorded = [one for one in given if isinstance(one, Recorded)]
    bare = [one for one in given if isinstance(one, Event)]
    if recorded and len(recorded) == len(given):
        yield from sorted(recorded, key=lambda one: one.seq)
    elif bare and len(bare) == len(given):
        yield from _resolved([_bare(number, one, codec) for number, one in enumerate(bare, 1)], codec)
    else:
        yield from _resolved([_converted(one) for one in given], codec)


def _lines_of(file: Path) -> list[Line]:
    data = file.read_bytes()
    try:
        if data.lstrip()[:1] == b"[":
            return msgspec.json.decode(data, type=list[Line])
        return msgspec.json.Decoder(Line).decode_lines(data)
    except msgspec.DecodeError as error:
        msg = f"{file} is not a recording: {error}; write it with position_ledger.testing.record"
        raise ConfigurationError(msg) from error


def _converted(one: Any) -> Line:
    if isinstance(one, Line):
        return one
    try:
        return msgspec.json.decode(msgspec.json.encode(one), type=Line)
    except (msgspec.DecodeError, TypeError) as error:
        msg = f"{one!r} is not a recorded event: {error}; give recorded lines, or bare events alone"
        raise ConfigurationError(msg) from error


def _bare(number: int, event: Event, codec: Codec) -> Line:
    moment = EPOCH + timedelta(seconds=number - 1)
    return Line(number, OWN_STREAM, number, event.TOPIC, msgspec.Raw(codec.encode(event)), moment, moment)


def _resolved(lines: Sequence[Line], codec: Codec) -> Iterator[Recorded[Any]]:
    ordered = sorted(lines, key=lambda line: line.seq)
    numbers: dict[Pair, int] = {(line.stream, line.version): line.seq for line in ordered}
    for line in ordered:
        numbers.update({(stream, version): seq for stream, version, seq in line.refs})
        if line.opened_seq is not None:
            numbers[line.stream, 1] = line.opened_seq
    for line in ordered:
        yield _recorded(line, codec, numbers)


def _recorded(line: Line, codec: Codec, numbers: Mapping[Pair, int]) -> Recorded[Any]:
    body = codec.decode_struct(line.topic, bytes(line.body))
    wanted = {(line.stream, 1), *_references(line.topic, body, codec)}
    missing = sorted(f"{stream} version {version}" for stream, version in wanted - numbers.keys())
    if missing:
        msg = (
            f"event {line.seq} refers to {missing[0]}, which the recording does not hold: record the whole ledger, or "
            "use position_ledger.testing.record, which writes such numbers beside the events"
        )
        raise ConfigurationError(msg)
    return Recorded(
        line.seq,
        line.stream,
        line.version,
        line.topic,
        body,
        line.recorded_at,
        line.effective_at,
        numbers[line.stream, 1],
        {pair: numbers[pair] for pair in wanted},
    )


def _references(topic: str, body: Any, codec: Codec) -> Iterator[Pair]:
    for path in reference_paths(codec.event_type(topic)):
        value = body
        for name in path:
            value = None if value is None else getattr(value, name)
        if value is not None:
            yield value.stream, value.version


# Comparing


@dataclass(frozen=True, slots=True)
class Difference:
    """One column of one version that differs; ``column`` None: only one side has the version at all."""

    table: str
    id: int
    key: str
    column: str | None
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.column is None:
            return f"{self.table} {self.key} id {self.id}: only {'after' if self.before is None else 'before'}"
        return f"{self.table} {self.key} id {self.id}: {self.column} was {self.before!r}, is {self.after!r}"


def rows(ledger: Ledger, projection: Projection[Any]) -> list[TableRow]:
    """Every version that the ledger's table holds, by id: what `replay` is compared with."""
    with contextlib.closing(
        connect(ledger.database_url, ledger.settings, as_app=True, name="position-ledger rows")
    ) as connection:
        found = connection.execute(load_all_rows(ledger.settings.ledger_schema, projection)).fetchall()
    return [dict(zip(projection.columns, values, strict=True)) for values in found]


def differences(
    projection: Projection[Any],
    before: Iterable[TableRow],
    after: Iterable[TableRow],
    *,
    ignoring: Iterable[str] = (),
) -> list[Difference]:
    """Where two lists of rows of one table differ, by id and column; columns that only one side has count as None."""
    old, new = ({row["id"]: row for row in side} for side in (before, after))
    skipped = set(ignoring)
    found = []
    for number in sorted(old.keys() | new.keys()):
        one, other = old.get(number), new.get(number)
        key = (one or other or {})[projection.key_column]
        if one is None or other is None:
            found.append(Difference(projection.table, number, key, None, one, other))
            continue
        columns = [column for column in {**one, **other} if column not in skipped]
        found += [
            Difference(projection.table, number, key, column, one.get(column), other.get(column))
            for column in columns
            if one.get(column) != other.get(column)
        ]
    return found
