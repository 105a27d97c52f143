"""What a ledger answers: positions and every other table now, as of a time and as known at one, and reports over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

from position_ledger.as_of import AsOfReader
from position_ledger.as_of_rows import RowsAsOf
from position_ledger.database import Lent, translated
from position_ledger.domain.decisions import unknown_position
from position_ledger.domain.lots import Lots, Method, lots_of
from position_ledger.errors import ConfigurationError
from position_ledger.execution.streams import number_of
from position_ledger.projection.definition import Projection
from position_ledger.projection.known_at import KnownAt, Settling
from position_ledger.projection.lag import Lag, lag_of_table
from position_ledger.reading import Reader, TableReader, TableRow
from position_ledger.reporting.exposure import exposure
from position_ledger.reporting.holdings import open_positions, version
from position_ledger.reporting.pnl import by_day, pnl_changes, zone_named
from position_ledger.reporting.snapshot import query_on, snapshot
from position_ledger.settings import Settings
from position_ledger.store.codec import Codec

POSITIONS = "positions"


class Answers:
    """The reading half of `position_ledger.Ledger`: changes nothing, and projects only what it has to wait for."""

    def __init__(
        self,
        connect: Callable[[], Lent],
        settings: Settings,
        projections: tuple[Projection[Any], ...],
        codec: Codec,
    ) -> None:
        """Prefer `position_ledger.Ledger.open`.

        Raises:
            ConfigurationError: nothing projects positions.
        """
        self.settings = settings
        self.projections = projections
        self.codec = codec
        self._connection = connect
        self._tables = {one.table: TableReader(connect, settings.ledger_schema, one) for one in projections}
        if POSITIONS not in self._tables:
            msg = f"setting projections: {settings.projections!r} defines no table positions, which the ledger reads"
            raise ConfigurationError(msg)
        self._positions = next(one for one in projections if one.table == POSITIONS)
        self._reader = Reader(connect, self._tables[POSITIONS])
        self._settling = Settling(connect, projections, codec, read_only=settings.read_only)
        self._as_of = AsOfReader(connect, settings.ledger_schema, self._tables, self._positions, codec)
        self._rows_as_of = RowsAsOf(connect, settings.ledger_schema, projections, self._tables, self._as_of, codec)

    def position(self, ref: str | int, *, as_of: datetime | None = None, known_at: KnownAt | None = None) -> TableRow:
        """The current row of a position, as of a time, or as it was known, by POS-n or any surrogate id.

        Raises:
            CommandRejected: there is none, or there was none then.
            KnownAtRefused: as `positions`.
        """
        with translated():
            self._settle(POSITIONS, known_at)
            if as_of is None:
                return self._reader.position(ref, known_at)
            row = self._as_of.position(self._reader.position_id(ref), as_of, known_at)
        if row is None:
            raise unknown_position(ref)
        return row

    def lots(self, ref: str | int, *, method: Method | str = Method.FIFO) -> Lots:
        """Which entries each exit of a position used up, by average cost, FIFO, LIFO or HIFO, and what is left.

        A report over the active facts of the log; the ledger itself books at average cost. Raises `CommandRejected` if
        there is no such position, ``ValueError`` for an unknown method.
        """
        with translated():
            number = number_of(self._reader.position_id(ref))
            return lots_of(self._as_of.events(number), Method(method))

    def trades(
        self,
        *,
        position: str | int | None = None,
        account: str | None = None,
        market: str | None = None,
        strategy: int | None = None,
        environment: str | None = None,
        as_of: datetime | None = None,
        known_at: KnownAt | None = None,
    ) -> list[TableRow]:
        """Trades that pass the filters, the last execution first; busted ones too, see their status.

        ``as_of``: executed by then, with the corrections that are known. ``known_at`` and errors as `positions`.
        """
        columns = {
            "account_id": account,
            "market_id": market,
            "strategy_id": strategy,
            "execution_environment": environment,
        }
        with translated():
            columns["position_id"] = None if position is None else self._reader.position_id(position)
            self._settle("trades", known_at)
            given = {name: value for name, value in columns.items() if value is not None}
            return self._as_of.trades(as_of, known_at, given)

    def history(self, ref: str | int) -> list[TableRow]:
        """All versions of a position, oldest first. Raises `CommandRejected` if there is none."""
        with translated():
            return self._reader.history(ref)

    def version(self, surrogate_id: int) -> TableRow:
        """One version of a position, by its surrogate id. Raises `CommandRejected` if no version has it."""
        with translated(), self._connection() as connection:
            row = version(query_on(connection), self.settings.ledger_schema, self._positions, surrogate_id)
        if row is None:
            raise unknown_position(surrogate_id)
        return row

    def events(self, ref: str | int) -> list[TableRow]:
        """The events of a position, oldest first. Raises `CommandRejected` if there is none."""
        with translated():
            return self._reader.events(ref)

    def positions(
        self,
        *,
        status: str | None = None,
        account: str | None = None,
        market: str | None = None,
        strategy: int | None = None,
        environment: str | None = None,
        side: str | None = None,
        as_of: datetime | None = None,
        known_at: KnownAt | None = None,
    ) -> list[TableRow]:
        """Positions that pass the filters, the newest entry first.

        ``as_of`` (aware): as of that effective time, by all that is known: late fills and corrections count at their
        own time; with ``known_at``, by what was known then. ``known_at``: as the ledger knew them at that recorded time
        (aware), or when the command that returned this token was done. Waits until the rows of then are there, as
        `wait_for` does.

        Raises:
            ConfigurationError: ``as_of`` has no time zone.
            KnownAtRefused: the time has not come, or its rows did not come within wait_timeout_s.
        """
        with translated():
            self._settle(POSITIONS, known_at)
            filters: dict[str, str | int | None] = {
                "status": status,
                "account": account,
                "market": market,
                "strategy": strategy,
                "environment": environment,
                "side": side,
            }
            if as_of is None:
                return self._reader.positions(known_at=known_at, **filters)
            return self._as_of.positions(as_of, known_at, filters)

    def open_positions(
        self, *, environment: str, market: str | None = None, strategy: int | None = None
    ) -> list[TableRow]:
        """What is open in one environment, with its market's current ticker, yes_price and no_price; newest entry first.

        A position whose market has no row shows with None in their place.
        """
        with translated(), self._connection() as connection:
            return open_positions(
                query_on(connection),
                self.settings.ledger_schema,
                self._positions,
                environment=environment,
                market=market,
                strategy=strategy,
            )

    # Reports

    def exposure(self, *, environment: str | Iterable[str], by: str = "market") -> list[TableRow]:
        """Open positions by market, strategy, account or environment: cost, value, unrealized, and what they can lose.

        One row for each environment, currency and group, the largest cost first: nothing is summed over currencies or
        environments. Columns: `position_ledger.reporting.exposure`.

        Raises:
            ConfigurationError: no environment, or one or a grouping that does not exist.
        """
        with translated(), snapshot(self._connection) as query:
            return exposure(query, self.settings.ledger_schema, environment, by)

    def pnl(
        self,
        *,
        environment: str | Iterable[str],
        by: str = "effective",
        zone: str = "UTC",
        since: date | None = None,
        until: date | None = None,
        account: str | None = None,
        market: str | None = None,
        strategy: int | None = None,
    ) -> list[TableRow]:
        """Realized P&L by the day on which it happened (effective) or was booked (recorded), and what was restated.

        One row for each day, environment and currency; days are those of the time zone ``zone``, ``since`` and
        ``until`` included. Columns: `position_ledger.reporting.pnl`.

        Raises:
            ConfigurationError: no environment, or an environment, axis or zone that does not exist.
        """
        days = zone_named(zone)
        with translated(), snapshot(self._connection) as query:
            changes = pnl_changes(
                query,
                self.settings.ledger_schema,
                self.codec,
                environment,
                account=account,
                market=market,
                strategy=strategy,
            )
            return by_day(changes, by, days, since=since, until=until)

    def row(self, table: str, key: str, *, known_at: KnownAt | None = None) -> TableRow | None:
        """The current row of a business key in any projected table, or as it was known; None if there is none.

        Raises:
            KnownAtRefused: as `positions`.
            ConfigurationError: no such table.
        """
        with translated():
            reader = self._table(table)
            self._settle(table, known_at)
            return reader.current(key) if known_at is None else reader.known(key, known_at)

    def versions(self, table: str, key: str) -> list[TableRow]:
        """All versions of a business key in any projected table, oldest first; empty if there is none."""
        with translated():
            return self._table(table).history(key)

    def rows(
        self, table: str, *, as_of: datetime | None = None, known_at: KnownAt | None = None, **columns: Any
    ) -> list[TableRow]:
        """One row of each business key of any projected table that has these values, newest first.

        The current ones, as of an effective time, as known, or both: as `positions`.

        Raises:
            KnownAtRefused: as `positions`.
            ConfigurationError: no such table, or no such column.
        """
        with translated():
            reader = self._table(table)
            self._settle(table, known_at)
            if as_of is not None:
                return self._rows_as_of.rows(table, as_of, known_at, columns)
            return reader.rows(columns, known_at=known_at)

    def _table(self, table: str) -> TableReader:
        if table not in self._tables:
            msg = f"there is no projected table {table!r}: there are {', '.join(self._tables)}"
            raise ConfigurationError(msg)
        return self._tables[table]

    def _settle(self, table: str, known_at: KnownAt | None) -> None:
        if known_at is not None:
            self._settling.through(known_at, [table], self.settings.wait_timeout_s)

    def lag(self, table: str = "positions") -> Lag:
        """How far a table is behind the log: events that are not in it yet, and the age of the oldest in seconds."""
        with translated(), self._connection() as connection:
            return lag_of_table(connection, table)
