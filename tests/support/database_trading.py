"""Random trading of the whole domain against a real database, with a tally of the money that came from outside."""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg

from position_ledger import (
    AdjustCash,
    CommandRejected,
    Deposit,
    Executed,
    RecordCash,
    RecordOpeningPosition,
    Withdraw,
)
from tests.support.whole_domain import WEIGHTED, Held, command_of, registrations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from position_ledger import Command, Ledger

SEEN_MAX = 60
EPOCH = 1_500
"""Commands after which other markets are traded, so that books stay as short as real ones."""
PAID_EVERY = 200
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)

SEEN = """
SELECT p.position_id, p.account_id, p.market_id, p.side, p.quantity FROM ledger.positions AS p
 WHERE p.row_current_ind AND (p.status = 'open') = %s AND p.market_id LIKE %s ORDER BY p.id DESC LIMIT %s
"""
TRADES = """
SELECT t.trade_id FROM ledger.trades AS t WHERE t.row_current_ind AND t.market_id LIKE %s ORDER BY t.id DESC LIMIT %s
"""
TABLES = {
    "positions": "position_id",
    "trades": "trade_id",
    "account_balance": "balance_id",
    "markets": "market_id",
    "edges": "edge_id",
    "game_states": "game_state_id",
}
NOT_ONE_CURRENT = """
SELECT t.{key} FROM ledger.{table} AS t GROUP BY t.{key} HAVING count(*) FILTER (WHERE t.row_current_ind) <> 1 LIMIT 1
"""


class DatabaseTrading:
    """Sends batches of random commands; a refusal is the ledger's right. It sees what the tables say."""

    def __init__(self, ledger: Ledger, url: str, seed: int) -> None:
        self.ledger = ledger
        self.dice = random.Random(seed)
        self.now = STARTED_AT
        self.suffix = ""
        self.open: list[Held] = []
        self.ended: list[Held] = []
        self.trades: list[str] = []
        self.sent = self.accepted = 0
        self.cash: dict[str, Decimal] = {}
        """By account: what came from outside less what went there, without opening positions."""
        self.openings: list[str] = []
        """Positions that were held before the ledger."""
        self._connection = psycopg.connect(url, autocommit=True)

    def run(self, commands: int) -> None:
        """Send so many, in atomic batches of 1 to 30, and pay what markets owe now and then."""
        while self.sent < commands:
            if self.suffix != f"@{self.sent // EPOCH}":
                self.suffix = f"@{self.sent // EPOCH}"
                self.ledger.execute_many(registrations(self.suffix))
            before = self.sent // PAID_EVERY
            self.look()
            self.batch(self.dice.randrange(1, 31))
            if self.sent // PAID_EVERY != before:
                self.ledger.pay_markets()
        self.ledger.pay_markets()
        self.ledger.catch_up(60)

    def close(self) -> None:
        self._connection.close()

    def look(self) -> None:
        """See what is there."""
        self.ledger.catch_up(60)
        ask = self._connection.execute
        for is_open, seen in ((True, self.open), (False, self.ended)):
            seen[:] = [Held(*row) for row in ask(SEEN, (is_open, f"%{self.suffix}", SEEN_MAX))]
        self.trades[:] = [row[0] for row in ask(TRADES, (f"%{self.suffix}", SEEN_MAX))]

    def batch(self, size: int) -> None:
        commands = []
        for _ in range(size):
            self.sent += 1
            self.now += timedelta(seconds=self.dice.choice((0, 1, 90)))
            command = command_of(self.dice.choice(WEIGHTED), self.dice, self, self.sent)
            if command is not None:
                commands.append(command)
        for command, outcome in zip(commands, self.outcomes(commands), strict=True):
            if isinstance(outcome, Executed):
                self.accepted += bool(outcome.events)
                self.note(command, outcome)

    def outcomes(self, commands: Sequence[Command]) -> Sequence[Any]:
        """All or none where they are few, so that both ways of sending a batch are used."""
        if len(commands) > 3:
            return self.ledger.execute_each(commands)
        try:
            return self.ledger.execute_many(commands)
        except CommandRejected as refusal:
            return [refusal] * len(commands)

    def note(self, command: Any, executed: Executed) -> None:
        if isinstance(command, RecordOpeningPosition):
            self.openings.append(str(executed.position_id))
        if executed.events and isinstance(command, Deposit | Withdraw | AdjustCash | RecordCash):
            amount = -command.amount if isinstance(command, Withdraw) else command.amount
            self.cash[command.account] = self.cash.get(command.account, Decimal(0)) + amount


@contextmanager
def watched(url: str, seed: int, *, pause_s: float = 0.05, tables: Mapping[str, str] = TABLES) -> Iterator[list[str]]:
    """Look at random instants, from another thread, whether each key has exactly one current row in every table.

    Answers what was seen; a sentence that does not begin with ``looked`` is a key that had none, or two.
    """
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        dice = random.Random(seed)
        with psycopg.connect(url, autocommit=True) as connection:
            while not over.wait(dice.uniform(0, pause_s)):
                table = dice.choice(sorted(tables))
                query = NOT_ONE_CURRENT.format(table=table, key=tables[table])
                wrong = connection.execute(query.encode()).fetchone()
                seen.append(f"{table} {wrong[0]}" if wrong else f"looked at {table}")

    thread = threading.Thread(target=look, name="watching")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(60)
