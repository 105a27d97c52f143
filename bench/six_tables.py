"""All tables from one feed, against positions alone: what an event that is read costs, over the same kind of log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

from bench.arena import Arena, Servers
from bench.plan import Plan
from bench.report import Line, shown
from bench.writers import PRICES, open_positions
from position_ledger import (
    Command,
    IncreasePosition,
    Ledger,
    MarkPosition,
    Projection,
    ReducePosition,
)
from position_ledger.database import connect, only_row
from position_ledger.domain.accounts.commands import Deposit
from position_ledger.domain.edges.commands import DetectEdge
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.markets.commands import QuoteMarket, RegisterMarket
from position_ledger.projection.follower import Follower
from position_ledger.store import feed

OF_POSITIONS_MAX = 2.5
BATCH_COMMANDS = 500
POSITIONS = 100
ENVIRONMENT = "paper"

READ = "SELECT count(*) FROM events AS e WHERE e.notification_id > %s AND e.notification_id <= %s AND e.topic = ANY(%s)"


@dataclass(slots=True)
class Subject:
    """A log of its own, and a follower that holds every shard of some tables and nothing else to do."""

    ledger: Ledger
    connection: Any
    follower: Follower
    topics: list[str]
    positions: list[str]
    markets: list[str]

    def append(self, events: int) -> None:
        """Append at least so many more events, of every family in turn."""
        begin = feed.mark(self.connection)
        turn = 0
        while feed.mark(self.connection) < begin + events:
            self.ledger.execute_many(_commands(self.positions, self.markets, turn))
            turn += 1

    def drain(self) -> float:
        """Project what is there; microseconds for each event that was read."""
        begin, end = self.follower.position, feed.mark(self.connection)
        began = time.perf_counter()
        while self.follower.position < end:
            self.follower.step()
        took_s = time.perf_counter() - began
        read = int(only_row(self.connection.execute(READ, (begin, end, self.topics)))[0])
        return took_s / read * 1e6


def measure(servers: Servers, plan: Plan) -> tuple[list[Line], dict[str, Any]]:
    """In each round the same commands into two logs; one has positions projected, the other every table."""
    rounds: list[dict[str, float]] = []
    with (
        servers.arena() as one,
        servers.arena() as other,
        _subject(one, ["positions"]) as alone,
        _subject(other, None) as together,
    ):
        for round_number in range(plan.rounds + 1):
            found = {}
            for name, subject in (("alone", alone), ("together", together))[:: 1 if round_number % 2 else -1]:
                subject.append(plan.backlog_events)
                found[name] = subject.drain()
            if round_number:  # the first one warms up
                rounds.append(found)
        tables = len(together.ledger.projections)
    return [_line(rounds, tables)], {"rounds_us_an_event": rounds, "tables": tables}


def _line(rounds: Sequence[dict[str, float]], tables: int) -> Line:
    return Line(
        f"an event into {tables} tables, of positions alone",
        [one["together"] / one["alone"] for one in rounds],
        f"positions: {shown(median(one['alone'] for one in rounds))} us an event read",
        direction="at most",
        target=OF_POSITIONS_MAX,
    )


@contextmanager
def _subject(arena: Arena, tables: Sequence[str] | None) -> Iterator[Subject]:
    with arena.ledger() as ledger, closing(connect(arena.database_url, arena.settings, as_app=True)) as connection:
        chosen: list[Projection[Any]] = [one for one in ledger.projections if tables is None or one.table in tables]
        positions, markets = open_positions(ledger, "bench", POSITIONS), _markets(ledger)
        follower = Follower(connection, chosen, ledger.codec, name="bench", share=False)
        while follower.step():
            pass
        topics = sorted({topic for one in chosen for topic in one.topics})
        yield Subject(ledger, connection, follower, topics, positions, markets)
        follower.close()


def _markets(ledger: Ledger) -> list[str]:
    names = [f"QUOTED-{number}" for number in range(POSITIONS)]
    ledger.execute_many([RegisterMarket(environment=ENVIRONMENT, market=name, kind="binary") for name in names])
    return names


def _commands(positions: Sequence[str], markets: Sequence[str], turn: int) -> list[Command]:
    """A batch: for each position in its turn a mark, a fill or cash, and beside it what a feed tells."""
    commands: list[Command] = []
    for place in range(BATCH_COMMANDS // 2):
        position, price = positions[place % len(positions)], PRICES[(turn + place) % len(PRICES)]
        commands.append(_told(markets[place % len(markets)], price, turn, place))
        match (turn + place) % 5:
            case 0:
                commands.append(IncreasePosition(position_id=position, quantity=2, price=price))
            case 1:
                commands.append(ReducePosition(position_id=position, quantity=1, price=price))
            case 2:
                commands.append(Deposit(environment=ENVIRONMENT, account="bench", currency="USD", amount=10))
            case _:
                commands.append(MarkPosition(position_id=position, price=price))
    return commands


def _told(market: str, price: Decimal, turn: int, place: int) -> Command:
    """A quote of the market, an estimate of its edge, or the score of its game, in turn."""
    match (turn + place) % 3:
        case 0:
            quote = {"yes_price": price, "no_price": Decimal("0.99") - price}
            return QuoteMarket(environment=ENVIRONMENT, market=market, **quote)
        case 1:
            return DetectEdge(environment=ENVIRONMENT, name=market, market=market, true_win_probability=price)
        case _:
            score = turn * BATCH_COMMANDS + place
            return RecordGameState(environment=ENVIRONMENT, game_id=market, home_score=score)
