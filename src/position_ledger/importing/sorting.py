"""Bringing rows into the order of the venue with little memory, however long the file is and however ordered."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Final, Self

from position_ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

__all__ = ["Sorter"]

CACHE_KIB: Final = 32_000
SCHEMA: Final = """
CREATE TABLE rows (at_us INTEGER NOT NULL, tie INTEGER NOT NULL, number INTEGER NOT NULL, cells TEXT NOT NULL);
CREATE TABLE refused (number INTEGER PRIMARY KEY, code TEXT NOT NULL, sentence TEXT NOT NULL, cells TEXT NOT NULL);
"""


class Sorter:
    """Rows and refusals of one import, in a private temporary file that vanishes with the process.

    An external sort: SQLite spills to disk beyond its cache. It keeps nothing that outlives the import.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA temp_store = FILE")
        self._database.executescript(SCHEMA)

    def add_all(self, rows: Iterable[tuple[int, int, int, list[str]]]) -> None:
        """Keep rows: time in microseconds since 1970, what decides among equal times, number, cells."""
        written = ((at_us, tie, number, json.dumps(cells)) for at_us, tie, number, cells in rows)
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", written)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            message = f"the import has no room for its temporary file ({error}); free some, or set SQLITE_TMPDIR"
            raise LedgerError(message) from error

    def in_venue_order(self) -> Iterator[tuple[int, int, list[str]]]:
        """Time in microseconds, number and cells of every row, the oldest first."""
        for at_us, number, cells in self._database.execute("SELECT at_us, number, cells FROM rows ORDER BY at_us, tie"):
            yield at_us, number, json.loads(cells)

    def refuse(self, number: int, code: str, sentence: str, cells: list[str]) -> None:
        """Keep a refused row."""
        self._database.execute("INSERT INTO refused VALUES (?, ?, ?, ?)", (number, code, sentence, json.dumps(cells)))

    def refused(self) -> Iterator[tuple[int, str, str, list[str]]]:
        """Number, code, sentence and cells of every refused row, in the order of the file."""
        for number, code, sentence, cells in self._database.execute(
            "SELECT number, code, sentence, cells FROM refused ORDER BY number"
        ):
            yield number, code, sentence, json.loads(cells)

    def refused_by_code(self) -> dict[str, int]:
        """How many rows were refused for which reason, the most frequent first."""
        found = self._database.execute("SELECT code, count(*) FROM refused GROUP BY code ORDER BY count(*) DESC, code")
        return dict(found.fetchall())

    def close(self) -> None:
        """Throw everything away."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
