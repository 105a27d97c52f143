"""The columns of an archive, and pyarrow, which is loaded here and nowhere else: an extra, and slow to load."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

from position_ledger.errors import ConfigurationError

LOG_COLUMNS = (
    "notification_id",
    "originator_id",
    "originator_version",
    "topic",
    "state",
    "event_id",
    "recorded_at",
    "effective_at",
    "stream_hash",
    "metadata",
)
"""Columns of the table events, all of them."""

OPENED, REFS = "opened_number", "refs"
"""What the archive adds: the number of each stream's first event, and of the events that a body refers to."""

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970-01-01: where the server's binary timestamps begin."""

DELTAS = dict.fromkeys(
    ("notification_id", "originator_version", "recorded_at", "effective_at", OPENED), "DELTA_BINARY_PACKED"
)
REPEATED = ("topic", "metadata", "originator_id")
"""Columns whose values repeat, so that a dictionary pays; all others are random or rising."""

COMPRESSION = "zstd"
PAGE_BYTES = 256 * 1024
_FIXED = struct.Struct(">16sqq16sqq32s")

Ref = tuple[bytes, int, int]
"""Stream, version and number of an event that another one refers to."""


class Row(NamedTuple):
    """One event as archived: ids as bytes, times in microseconds since 1970 UTC, metadata as JSON text."""

    number: int
    stream: bytes
    version: int
    topic: str
    state: bytes
    event_id: bytes
    recorded_us: int
    effective_us: int
    stream_hash: bytes
    metadata: str
    opened: int
    refs: tuple[Ref, ...]


@cache
def pyarrow() -> ModuleType:
    """Pyarrow.

    Raises:
        ConfigurationError: it is not installed; says how to.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to load
        import pyarrow.compute  # noqa: PLC0415 - likewise
        import pyarrow.parquet  # noqa: PLC0415 - likewise
    except ImportError as error:
        msg = "an archive needs pyarrow, which is not installed: pip install 'position-ledger[archive]'"
        raise ConfigurationError(msg) from error
    module: ModuleType = pa
    return module


@cache
def schema() -> Any:
    """The columns with their types; none is ever null."""
    pa = pyarrow()
    number, stream, moment = pa.int64(), pa.binary(16), pa.timestamp("us", tz="UTC")
    ref = pa.struct([pa.field(name, kind, nullable=False) for name, kind in _ref_fields(number, stream)])
    kinds = (number, stream, number, pa.string(), pa.binary(), stream, moment, moment, pa.binary(32), pa.string())
    columns = [*zip(LOG_COLUMNS, kinds, strict=True), (OPENED, number), (REFS, pa.list_(ref))]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def _ref_fields(number: Any, stream: Any) -> list[tuple[str, Any]]:
    return [("stream", stream), ("version", number), ("number", number)]


def batch_of(rows: Sequence[Row]) -> Any:
    """Rows as a record batch."""
    pa, columns = pyarrow(), schema()
    values = list(zip(*rows, strict=True))
    refs = [
        [{"stream": stream, "version": version, "number": number} for stream, version, number in some]
        for some in values.pop()
    ]
    arrays = [pa.array(one, type=_storage(field)) for one, field in zip((*values, refs), columns, strict=True)]
    return pa.record_batch([_typed(array, field) for array, field in zip(arrays, columns, strict=True)], schema=columns)


def _storage(field: Any) -> Any:
    """Times come as integers."""
    pa = pyarrow()
    return pa.int64() if pa.types.is_timestamp(field.type) else field.type


def _typed(array: Any, field: Any) -> Any:
    return array if array.type == field.type else array.view(field.type)


def integers(array: Any) -> list[int]:
    """The values of a column of numbers or times, as they are stored."""
    return memoryview(array.buffers()[1]).cast("q")[array.offset : array.offset + len(array)].tolist()


def fixed(array: Any) -> list[bytes]:
    """The values of a column of bytes of one length."""
    width = array.type.byte_width
    data = array.buffers()[1].slice(array.offset * width, len(array) * width).to_pybytes()
    return [data[start : start + width] for start in range(0, len(data), width)]


def binaries(array: Any) -> list[bytes]:
    """The values of a column of bytes."""
    _, offsets, data = array.buffers()
    ends = memoryview(offsets).cast("i")[array.offset : array.offset + len(array) + 1].tolist()
    if data is None or not ends:
        return [b""] * len(array)
    first = ends[0]
    raw = data.slice(first, ends[-1] - first).to_pybytes()
    return [raw[low - first : high - first] for low, high in pairwise(ends)]


def texts(array: Any) -> list[str]:
    """The values of a column of text; each value that repeats is one object."""
    known: dict[bytes, str] = {}
    return [known[raw] if raw in known else known.setdefault(raw, raw.decode()) for raw in binaries(array)]


def references(array: Any) -> list[tuple[Ref, ...]]:
    """The values of the column of references."""
    ends = memoryview(array.buffers()[1]).cast("i")[array.offset : array.offset + len(array) + 1].tolist()
    first = ends[0]
    inner = array.values.slice(first, ends[-1] - first).flatten()
    all_of_them = list(zip(fixed(inner[0]), integers(inner[1]), integers(inner[2]), strict=True))
    return [tuple(all_of_them[low - first : high - first]) if high > low else () for low, high in pairwise(ends)]


READERS: dict[str, Callable[[Any], list[Any]]] = {
    "notification_id": integers,
    "originator_id": fixed,
    "originator_version": integers,
    "topic": texts,
    "state": binaries,
    "event_id": fixed,
    "recorded_at": integers,
    "effective_at": integers,
    "stream_hash": fixed,
    "metadata": texts,
    OPENED: integers,
    REFS: references,
}
"""How a column becomes a list: straight from its buffers, a tenth of what pyarrow's own conversion costs."""


def columns_of(batch: Any, names: Iterable[str]) -> list[list[Any]]:
    """Columns of a record batch as lists."""
    return [READERS[name](batch.column(name)) for name in names]


DIGEST_SQL = r"""
bit_xor(('x' || encode(substr(sha256(
    uuid_send(e.originator_id) || int8send(e.originator_version) || int8send(e.notification_id) || uuid_send(e.event_id)
    || timestamptz_send(e.recorded_at) || timestamptz_send(e.effective_at) || e.stream_hash
    || convert_to(e.topic, 'UTF8') || '\x00'::bytea || convert_to(e.metadata::text, 'UTF8') || '\x00'::bytea || e.state
), 1, 8), 'hex'))::bit(64)::bigint)
"""
"""What `row_digest` computes, by the server, over rows: every column counts, by itself."""


def row_digest(row: Row) -> int:
    """Sixty-four bits that depend on every column of the log: the beginning of a SHA-256, as `DIGEST_SQL` has it."""
    head = _FIXED.pack(
        row.stream,
        row.version,
        row.number,
        row.event_id,
        row.recorded_us - POSTGRES_EPOCH_US,
        row.effective_us - POSTGRES_EPOCH_US,
        row.stream_hash,
    )
    body = b"\0".join((row.topic.encode(), row.metadata.encode(), row.state))
    return int.from_bytes(hashlib.sha256(head + body).digest()[:8], "big")
