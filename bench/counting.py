"""What a connection really sends: statements and round trips, read from libpq's own trace of the protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import Trace

STATEMENTS = frozenset({"Execute", "Query"})
"""Messages that run a statement; BEGIN and COMMIT are statements too."""


@dataclass(slots=True)
class Count:
    """Counted so far; complete after the block."""

    statements: int = 0
    round_trips: int = 0
    """Answers that were waited for: each ends with ReadyForQuery."""


@contextmanager
def counted(connection: psycopg.Connection[Any]) -> Iterator[Count]:
    """Count what the connection sends in the block."""
    count = Count()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        connection.pgconn.trace(file.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield count
        finally:
            connection.pgconn.untrace()
            file.seek(0)
            _add(count, file)


def _add(count: Count, lines: Iterator[str]) -> None:
    for line in lines:
        sender, _, rest = line.partition("\t")
        message = rest.split("\t")[1] if "\t" in rest else ""
        count.statements += sender == "F" and message.split(" ")[0] in STATEMENTS
        count.round_trips += sender == "B" and message.startswith("ReadyForQuery")
