"""The ledger: the one object that trading code opens. Composition root of the package."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from position_ledger.answers import Answers
from position_ledger.database import Connections, open_pool, translated
from position_ledger.domain.commands import AmendMarket, Command, QuoteMarket, SettleMarket, VoidMarket
from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.execution.executor import Admit, Executed, Executor, Refusal
from position_ledger.operations import require_ledger
from position_ledger.projection.definition import load_projections
from position_ledger.projection.generations import check_start
from position_ledger.projection.inline import Appender
from position_ledger.projection.waiting import wait_for
from position_ledger.reference_data import ReferenceData
from position_ledger.settings import Settings, load_settings
from position_ledger.settling.payer import Paid, Payer, Settlement
from position_ledger.settling.service import payer_of
from position_ledger.settling.work import TABLES
from position_ledger.setup import Reached, reach
from position_ledger.store import feed
from position_ledger.store.codec import Codec

log = logging.getLogger(__name__)


class Ledger(Answers):
    """One ledger in one database. Safe for threads; one per process is enough. Use it as a context manager."""

    def __init__(self, settings: Settings, reached: Reached) -> None:
        """Prefer `Ledger.open`."""
        self._reached = reached
        projections = load_projections(settings.projections)
        self._connections = Connections(open_pool(reached.database_url, settings))
        try:
            super().__init__(self._connections.lent, settings, projections, Codec(EVENTS))
            with translated(), self._connection() as connection:
                if not settings.read_only:
                    feed.check_connection(connection)
                check_start(connection, self.projections)
        except BaseException:
            self._connections.close()
            raise
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
        self._require_writable()
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
        self._require_writable()
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
