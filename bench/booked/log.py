"""A log of any length in which every event carries every column of `booked`: real fills under new streams, interleaved.

A few hundred positions are traded through the command API with prices, quantities and fees drawn from a seeded source.
Their bodies are repeated by the server under new streams: `OPEN_AT_ONCE` positions trade side by side, each event on
another page of the log than the one before it in its stream, as in a log that grew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg

from bench.arena import Arena
from position_ledger import Command, IncreasePosition, Ledger, OpenPosition, ReducePosition
from position_ledger.database import only_row
from position_ledger.store import feed

LIVES = 400
"""Positions that are really traded."""

LIFE_EVENTS = 50
OPEN_AT_ONCE = 2_000
SEED = 5
HELD_MIN = 100
TICKS = tuple(Decimal(cents) / 100 for cents in range(5, 96))

KEEP_LIVES = """
CREATE TABLE bench_lives AS
SELECT dense_rank() OVER (ORDER BY e.originator_id) - 1 AS life, e.originator_version AS version, e.topic, e.state
  FROM events AS e WHERE e.topic IN ('position.opened', 'position.increased', 'position.reduced');
ALTER TABLE bench_lives ADD PRIMARY KEY (life, version);
ANALYZE bench_lives
"""
# The hashes are of this event alone: nothing that is measured follows the chain.
REPEAT = """
INSERT INTO events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at, effective_at,
                    stream_hash, metadata)
SELECT n.stream, n.version, n.topic, n.state, %(first)s + n.place, gen_random_uuid(),
       timestamptz '2026-01-01' + (%(first)s + n.place) * interval '1 millisecond',
       timestamptz '2026-01-01' + (%(first)s + n.place) * interval '1 millisecond' - interval '40 milliseconds',
       sha256(n.state), '{}'
  FROM (SELECT s.stream, l.version, l.topic, l.state, row_number() OVER (ORDER BY l.version, s.stream) AS place
          FROM (SELECT gen_random_uuid() AS stream, p.number
                  FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS p (number)) AS s
          JOIN bench_lives AS l ON l.life = s.number %% %(lives)s) AS n
 ORDER BY n.place
"""


def make_log(arena: Arena, events: int) -> int:
    """Make a log of so many events of `booked` beside those of the traded positions; answers how many there are in all."""
    with arena.ledger() as ledger:
        _trade(ledger)
    with closing(arena.connect()) as connection:
        connection.execute(KEEP_LIVES)
        done = _count(connection)
        positions, at = max(0, events - done) // LIFE_EVENTS, 0
        while at < positions:
            upto = min(at + OPEN_AT_ONCE, positions)
            first = feed.mark(connection)
            made = connection.execute(REPEAT, {"first": first, "from": at, "to": upto - 1, "lives": LIVES}).rowcount
            connection.execute("SELECT setval('events_notification_id_seq', %s)", (first + made,))
            at, done = upto, done + made
        connection.execute("VACUUM (FREEZE, ANALYZE) events")
    return done


def _count(connection: psycopg.Connection[Any]) -> int:
    return int(only_row(connection.execute("SELECT count(*) FROM bench_lives"))[0])


def _trade(ledger: Ledger) -> None:
    chance = random.Random(SEED)  # noqa: S311 - reproducible, not secret
    opened = ledger.execute_many([_opening(chance, number) for number in range(LIVES)])
    ids = [result.position_id or "" for result in opened]
    held = [1_000] * LIVES
    for _ in range(LIFE_EVENTS - 1):
        for commands in _in_batches([_fill(chance, ids[n], held, n) for n in range(LIVES)]):
            ledger.execute_many(commands)


def _in_batches(commands: Sequence[Command]) -> Iterator[Sequence[Command]]:
    for start in range(0, len(commands), 100):
        yield commands[start : start + 100]


def _opening(chance: random.Random, number: int) -> OpenPosition:
    price = chance.choice(TICKS)
    return OpenPosition(
        account=f"account-{number % 7}",
        market=f"MARKET-{number:04}-YES",
        side="YES",
        quantity=1_000,
        entry_price=price,
        fee=_fee(1_000, price),
        liquidity="taker",
        environment="paper",
    )


def _fill(chance: random.Random, position_id: str, held: list[int], number: int) -> Command:
    """More or less of it; never all, so that it stays open."""
    price, quantity = chance.choice(TICKS), chance.randint(1, 400)
    is_entry = held[number] - quantity < HELD_MIN or chance.randint(0, 1) == 1
    held[number] += quantity if is_entry else -quantity
    kind = IncreasePosition if is_entry else ReducePosition
    return kind(position_id=position_id, quantity=quantity, price=price, fee=_fee(quantity, price), liquidity="taker")


def _fee(quantity: int, price: Decimal) -> Decimal:
    """The venue's quadratic fee: 7 percent of p(1 - p) for each contract, in whole cents, at least one."""
    return max(Decimal("0.01"), (Decimal("0.07") * quantity * price * (1 - price)).quantize(Decimal("0.01")))
