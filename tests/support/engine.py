"""Ledgers as an operator sets them up, random trading, and what a projected table holds: for tests of the engine."""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from position_ledger import (
    ClosePosition,
    Command,
    CommandRejected,
    IncreasePosition,
    Ledger,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SetExits,
    SettlePosition,
    operations,
)
from position_ledger.database import connect, only_row
from position_ledger.events import EVENTS
from position_ledger.projection import generations
from position_ledger.projection.definition import Projection, load_projections
from position_ledger.projection.follower import Follower
from position_ledger.projection.generations import SHARDS
from position_ledger.setup import Reached
from position_ledger.store.codec import Codec
from position_ledger.testing.databases import create_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from position_ledger.settings import Settings

Connection = psycopg.Connection[Any]
CODEC = Codec(EVENTS)
TICK = Decimal("0.01")


def quiet(_message: str) -> None:
    """Hear what an operation tells, and say nothing."""


def reached(settings: Settings) -> Reached:
    """The servers that the settings name."""
    return Reached(str(settings.database_url), str(settings.redis_url), None)


def shards(settings: Settings) -> int:
    """How many shards all tables of the settings' code have together."""
    return SHARDS * len(load_projections(settings.projections))


def positions_of(settings: Settings) -> Projection[Any]:
    """The definition of positions that the settings name."""
    return next(one for one in load_projections(settings.projections) if one.table == "positions")


@contextmanager
def connected(settings: Settings, *, as_app: bool = True) -> Iterator[Connection]:
    """A connection of a worker, or of the owner."""
    connection = connect(str(settings.database_url), settings, as_app=as_app, name="engine test")
    try:
        yield connection
    finally:
        connection.close()


def clock(settings: Settings) -> datetime:
    """What the clock of the database says."""
    with connected(settings) as connection:
        now: datetime = only_row(connection.execute("SELECT clock_timestamp()"))[0]
    return now


@contextmanager
def following(
    settings: Settings, name: str = "test", *, share: bool = True, only: int | None = None
) -> Iterator[Follower]:
    """A follower of every table of the settings' code, or of one generation, over a connection of its own."""
    with connected(settings) as connection:
        projections = load_projections(settings.projections)
        follower = Follower(connection, projections, CODEC, name=name, share=share, only=only)
        try:
            yield follower
        finally:
            follower.close()


def drain(follower: Follower) -> None:
    """Project until nothing is left."""
    while follower.step():
        pass


def project_all(settings: Settings) -> None:
    """Project everything with a follower that takes every free shard."""
    with following(settings, "drain", share=False) as follower:
        drain(follower)


def new_database(server_url: str, name: str, template: str | None = None) -> str:
    """Create a database; answers its address."""
    create_database(server_url, name, template=template)
    return make_conninfo(server_url, dbname=name)


def drop_database(server_url: str, name: str) -> None:
    """Drop a database, whoever is connected."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def migrate(settings: Settings) -> None:
    """What `position-ledger migrate up` does."""
    operations.migrate_up(settings, reached(settings), None, quiet)


def table_rows(connection: Connection, projection: Projection[Any], schema: str = "ledger") -> list[tuple[str, ...]]:
    """Every row as the bytes that the server writes for it, by id."""
    columns = ", ".join(f"t.{column}::text" for column in projection.columns)
    rows = connection.execute(f"SELECT {columns} FROM {schema}.{projection.table} AS t ORDER BY t.id".encode())
    return rows.fetchall()


def positions_rows(settings: Settings, schema: str = "ledger") -> list[tuple[str, ...]]:
    """Every row of positions as text, by id."""
    with connected(settings, as_app=False) as connection:
        return table_rows(connection, positions_of(settings), schema)


def proven(settings: Settings) -> None:
    """Everything equals the log, and the laws hold."""
    report = operations.verify(settings, reached(settings), None)
    assert report.holds, report.problems


def active(settings: Settings, table: str = "positions") -> generations.Generation:
    """The active generation of a table."""
    with connected(settings, as_app=False) as connection:
        found = generations.active(connection, table)
    assert found is not None
    return found


class Traffic:
    """A trader whose commands are drawn with a seed: several positions per key, partial exits, flips, marks, exits."""

    def __init__(self, ledger: Ledger, seed: int, *, accounts: int = 2, markets: int = 2) -> None:
        self.ledger = ledger
        self.random = random.Random(seed)
        self.accounts = [f"account-{seed}-{number}" for number in range(accounts)]
        self.markets = markets
        self.open: list[str] = []
        self.token = 0
        self.accepted = 0

    def run(self, commands: int) -> int:
        """Send so many commands; the token of the last one that was accepted."""
        for _ in range(commands):
            self.once()
        return self.token

    def once(self) -> None:
        """Send one command; a refusal is the ledger's right and no failure."""
        command = self.command()
        try:
            executed = self.ledger.execute(command)
        except CommandRejected:
            with suppress(ValueError):
                self.open.remove(str(getattr(command, "position_id", "")))
            return
        self.accepted += 1
        self.token = max(self.token, executed.token)
        self.open.extend(one for one in executed.positions if one not in self.open)

    def command(self) -> Command:
        """Draw the next command."""
        dice, price = self.random.random(), self.random.randrange(5, 96) * TICK
        if not self.open or dice < 0.12:
            return OpenPosition(**self._key(), quantity=self._quantity(), entry_price=price, fee="0.03")
        if dice < 0.40:
            action = self.random.choice(("buy", "sell"))
            fields = {"action": action, "quantity": self._quantity(), "price": price, "fee": "0.01"}
            return RecordFill(**self._key(), **fields, on_excess=self.random.choice(("refuse", "flip")))
        chosen = self.random.choice(self.open)
        if dice < 0.70:
            return MarkPosition(position_id=chosen, price=price, source="walk")
        if dice < 0.78:
            return SetExits(position_id=chosen, target_price="0.90", stop_loss_price="0.10")
        if dice < 0.84:
            return IncreasePosition(position_id=chosen, quantity=self._quantity(), price=price)
        if dice < 0.92:
            return ReducePosition(position_id=chosen, quantity=1, price=price, fee="0.02")
        self.open.remove(chosen)
        if dice < 0.97:
            return ClosePosition(position_id=chosen, price=price, reason="manual")
        return SettlePosition(position_id=chosen, value=self.random.choice(("0", "1")))

    def _key(self) -> dict[str, Any]:
        return {
            "environment": "paper",
            "account": self.random.choice(self.accounts),
            "market": f"MARKET-{self.random.randrange(self.markets)}",
            "side": self.random.choice(("YES", "NO")),
            "strategy": self.random.choice((1, 2)),
        }

    def _quantity(self) -> int:
        return self.random.randrange(1, 30)
