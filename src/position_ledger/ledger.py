"""The ledger: the one object that trading code opens. Composition root of the package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from position_ledger.as_of import AsOfReader
from position_ledger.as_of_rows import RowsAsOf
from position_ledger.database import Connections, Lent, open_pool, translated
from position_ledger.domain.commands import AmendMarket, Command, QuoteMarket, SettleMarket, VoidMarket
from position_ledger.domain.decisions import unknown_position
from position_ledger.domain.lots import Lots, Method, lots_of
from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.execution.executor import Admit, Executed, Executor, Refusal
from position_ledger.execution.streams import number_of
from position_ledger.operations import require_ledger
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.generations import check_start
from position_ledger.projection.inline import Appender
from position_ledger.projection.known_at import KnownAt, Settling
from position_ledger.projection.lag import Lag, lag_of_table
from position_ledger.projection.waiting import wait_for
from position_ledger.reading import Reader, TableReader, TableRow
from position_ledger.reference_data import ReferenceData
from position_ledger.reporting.exposure import exposure
from position_ledger.reporting.holdings import open_positions, version
from position_ledger.reporting.pnl import by_day, pnl_changes, zone_named
from position_ledger.reporting.snapshot import query_on, snapshot
from position_ledger.settings import Settings, load_settings
from position_ledger.settling.payer import Paid, Payer, Settlement
from position_ledger.settling.service import payer_of
from position_ledger.settling.work import TABLES
from position_ledger.setup import Reached, reach
from position_ledger.store import feed
from position_ledger.store.codec import Codec

POSITIONS = "positions"

log = logging.getLogger(__name__)


class Ledger:
    """One ledger in one database. Safe for threads; one per process is enough. Use it as a context manager."""

    def __init__(self, settings: Settings, reached: Reached) -> None:
        """Prefer `Ledger.open`."""
        self.settings = settings
        self._reached = reached
        self.projections: tuple[Projection[Any], ...] = load_projections(settings.projections)
        self.codec = Codec(EVENTS)
        self._connections = Connections(open_pool(reached.database_url, settings))
        try:
            with translated(), self._connection() as connection:
                if not settings.read_only:
                    feed.check_connection(connection)
                check_start(connection, self.projections)
        except BaseException:
            self._connections.close()
            raise
        self._tables = {
            one.table: TableReader(self._connection, settings.ledger_schema, one) for one in self.projections
        }
        if POSITIONS not in self._tables:
            msg = f"setting projections: {settings.projections!r} defines no table positions, which the ledger reads"
            raise ConfigurationError(msg)
        self._positions = next(one for one in self.projections if one.table == POSITIONS)
        self._reader = Reader(self._connection, self._tables[POSITIONS])
        self._settling = Settling(self._connection, self.projections, self.codec, read_only=settings.read_only)
        self._as_of = AsOfReader(self._connection, settings.ledger_schema, self._tables, self._positions, self.codec)
        self._rows_as_of = RowsAsOf(
            self._connection, settings.ledger_schema, self.projections, self._tables, self._as_of, self.codec
        )
        self._executor = Executor(
            self._connection,
            Appender(self._connection, self.projections, self.codec).append,
            self.codec,
            streams_cached_max=settings.streams_cached_max,
            retries_max=settings.conflict_retries_max,
        )
        self._payer = payer_of(self._connections, self._executor, settings, self.projections, self.codec)
        self.reference = ReferenceData(self._connection, self._executor.forget_references)
        """Strategies, probability models, platforms and market events."""

    @classmethod
    def open(cls, **settings: Any) -> Self:
        """Open the ledger with settings from keyword arguments or the environment; no URL means: embedded servers.

        Raises:
            ConfigurationError: a setting cannot be used.
            DatabaseUnavailable: no database answers there.
            SchemaMismatch: the database does not fit this code; names the gap and the command that closes it.
        """
        loaded = load_settings(**settings)
        reached = reach(loaded)
        try:
            if loaded.database_url is None:
                require_ledger(loaded, reached, log.info)
            return cls(loaded, reached)
        except BaseException:
            reached.close()
            raise

    # Commands

    def execute(self, command: Command, *, admit: Admit | None = None) -> Executed:
        """Execute one command; its result has the position and the token to wait for.

        ``admit`` is a further condition of the caller, see `position_ledger.execution.executor.Admit`.

        Raises:
            CommandRejected: refused, with an enumerated reason; nothing was written.
            ConcurrencyError, DatabaseUnavailable: see their docstrings; repeating with a command_id is safe.
            NotYetVisible: with strong consistency only; the command is committed.
        """
        return self.execute_many([command], admit=admit)[0]

    def execute_many(self, commands: Sequence[Command], *, admit: Admit | None = None) -> tuple[Executed, ...]:
        """Execute commands in order in one atomic append: all or none. Raises as `execute`."""
        if not commands:
            return ()
        with translated():
            done = self._executor.execute(self._completed(commands), admit)
        if self.settings.consistency == "strong":
            self.wait_for(max(one.token for one in done))
        return done

    def execute_each(
        self, commands: Sequence[Command], *, admit: Admit | None = None
    ) -> tuple[Executed | Refusal, ...]:
        """Execute those commands that are accepted in one atomic append; a refused one is returned in its place.

        ``admit`` is a further condition of the caller, see `position_ledger.execution.executor.Admit`. Raises as
        `execute`, but no `CommandRejected`.
        """
        if not commands:
            return ()
        with translated():
            outcomes = self._executor.execute_each(self._completed(commands), admit)
        tokens = [outcome.token for outcome in outcomes if isinstance(outcome, Executed)]
        if tokens and self.settings.consistency == "strong":
            self.wait_for(max(tokens))
        return outcomes

    def wait_for(self, token: int, timeout_s: float | None = None) -> None:
        """Return when the rows of everything up to the token are visible; projects itself when no worker does.

        Raises:
            NotYetVisible: not within ``timeout_s`` (default: the setting wait_timeout_s).
        """
        limit_s = self.settings.wait_timeout_s if timeout_s is None else timeout_s
        with translated():
            wait_for(self._connection, self.projections, self.codec, token, limit_s, read_only=self.settings.read_only)

    def catch_up(self, timeout_s: float | None = None) -> None:
        """Return when the rows of everything that was committed before this call are visible. Raises as `wait_for`."""
        with translated(), self._connection() as connection:
            feed.check_connection(connection)
            committed = feed.horizon(connection)
        self.wait_for(committed, timeout_s)

    def _completed(self, commands: Sequence[Command]) -> Sequence[Command]:
        """The commands with what the settings say where they say nothing."""
        self._require_writable()
        least = self.settings.quote_min_change
        if not least:
            return commands
        return [
            one.model_copy(update={"min_change": least})
            if isinstance(one, QuoteMarket) and one.min_change is None
            else one
            for one in commands
        ]

    # Markets

    def settle_market(
        self, environment: str, market: str, value: Decimal | int | str, *, fee: Decimal | int | str = 0, **about: Any
    ) -> Settlement:
        """Settle a market and pay all its positions: ``value`` per YES, ``1 - value`` per NO, elsewhere the price.

        ``fee`` is charged to each position; ``about``: effective_at, command_id, actor …, as in `SettleMarket`. When it
        is interrupted, workers pay the rest; so does the same call again.

        Raises:
            CommandRejected: refused, with an enumerated reason; nothing was written.
            NotYetVisible, ConcurrencyError, DatabaseUnavailable: what was paid stays paid.
        """
        command = SettleMarket(environment=environment, market=market, value=value, fee=fee, **about)
        return self._paid(command)

    def amend_market(self, environment: str, market: str, value: Decimal | int | str, **about: Any) -> Settlement:
        """Give a market another outcome; positions that were paid come to stand as if settled at it. As `settle_market`."""
        return self._paid(AmendMarket(environment=environment, market=market, value=value, **about))

    def void_market(
        self, environment: str, market: str, *, refund_fees: bool = False, unwind: bool = False, **about: Any
    ) -> Settlement:
        """Give back what the open positions of a market cost; ``unwind``: bust all its trades. As `settle_market`."""
        command = VoidMarket(
            environment=environment,
            market=market,
            refund_fees=refund_fees,
            unwind=unwind,
            **about,
        )
        return self._paid(command)

    def pay_markets(self, environment: str | None = None, market: str | None = None) -> Paid:
        """Pay whatever is still to be paid, as workers do; in one environment or market (ticker or MKT-n), or in all.

        Raises as `settle_market`.
        """
        with translated():
            return self._require_payer().pay(environment, market)

    def _paid(self, command: Command) -> Settlement:
        payer = self._require_payer()
        done = self.execute(command)
        with translated():
            return payer.pay_verdict(str(done.id), done.token)

    def _require_writable(self) -> None:
        if self.settings.read_only:
            msg = "this ledger is read_only: commands go to a ledger that is opened on the primary without that setting"
            raise ConfigurationError(msg)

    def _require_payer(self) -> Payer:
        self._require_writable()
        if self._payer is None:
            wanted = ", ".join(sorted(TABLES))
            msg = f"setting projections: {self.settings.projections!r} lacks a table that paying reads: {wanted}"
            raise ConfigurationError(msg)
        return self._payer

    # Reading

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

    # Where it is, and what it remembers

    @property
    def database_url(self) -> str:
        """The address of the database that this ledger has reached."""
        return self._reached.database_url

    @property
    def redis_url(self) -> str:
        """The address of the queue's server that this ledger has reached."""
        return self._reached.redis_url

    def forget(self) -> None:
        """Drop every state kept in memory: the next command reads the log. For when the log itself was replaced."""
        self._executor.forget()
        self._settling.forget()

    # Life

    def close(self) -> None:
        """Close every connection and leave the embedded servers, if any. Closing twice is fine."""
        self._connections.close()
        self._reached.close()

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _connection(self) -> Lent:
        return self._connections.lent()
