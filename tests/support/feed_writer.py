"""A process that appends at random and stops at random places. ``python -m tests.support.feed_writer URL SEED KIND``.

KIND: ``right`` and ``late-lock`` take the steps one by one (the second takes the lock after the number), ``function``
calls the ledger's own. It writes until its input ends. Whatever happens to its connection, it goes on.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from typing import Any
from uuid import UUID, uuid4

import psycopg

from position_ledger.store.append import Key, append
from position_ledger.store.envelope import NewEvent
from tests.support.feed_steps import LOCK_AFTER_NUMBER, RIGHT, TOPIC, SteppedAppend

Connection = psycopg.Connection[Any]

PAUSE_CHANCE = 0.15
PAUSE_MAX_S = 0.02
EVENTS_MAX = 12
ORDERS = {"right": RIGHT, "late-lock": LOCK_AFTER_NUMBER}
APPLICATION = "feed writer"


def connect(url: str, application: str = APPLICATION) -> Connection:
    """A connection of the owner, who may take the steps one by one."""
    connection = psycopg.connect(url, autocommit=True, application_name=application)
    connection.execute("SET search_path = ledger, pg_catalog, pg_temp")
    return connection


def input_has_ended() -> bool:
    """Whether whoever started this process wants it to end."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def pause(chance: random.Random) -> None:
    """Stand still for a moment, or not."""
    if chance.random() < PAUSE_CHANCE:
        time.sleep(chance.uniform(0, PAUSE_MAX_S))


# One by one


def append_in_steps(connection: Connection, chance: random.Random, kind: str) -> None:
    """One append with pauses between its steps, ended in one of the ways that a transaction can end."""
    connection.execute("BEGIN")
    one = SteppedAppend(connection, chance.randint(1, EVENTS_MAX))
    for step in ORDERS[kind]:
        pause(chance)
        one.do(step)
    pause(chance)
    ending = chance.random()
    if ending < 0.10:
        connection.execute("ROLLBACK")
    elif ending < 0.15:
        end_in_two_phases(connection, chance)
    elif ending < 0.17:
        connection.close()  # the client has gone without a word
    else:
        connection.execute("COMMIT")


def end_in_two_phases(connection: Connection, chance: random.Random) -> None:
    """Prepare, stand still, and end it."""
    name = f"feed-{os.getpid()}-{uuid4().hex}"
    connection.execute(f"PREPARE TRANSACTION '{name}'")
    pause(chance)
    connection.execute(f"{chance.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'")


def end_own_prepared(connection: Connection) -> None:
    """End what a connection that was killed between its two phases has left."""
    left = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE %s", (f"feed-{os.getpid()}-%",))
    for (name,) in left.fetchall():
        connection.execute(f"COMMIT PREPARED '{name}'")


# Through the ledger's own functions


def events_of(stream: UUID, count: int) -> list[NewEvent]:
    """Events of a new stream."""
    return [NewEvent(stream, version, TOPIC, b"{}", uuid4(), None, bytes(32), {}) for version in range(1, count + 1)]


def append_by_function(connection: Connection, chance: random.Random, _: str) -> None:
    """One append as the ledger makes it, or as a careless caller could."""
    way = chance.random()
    if way < 0.05:
        append_around_a_savepoint(connection, chance)
    elif way < 0.10:
        append_and_roll_back(connection, chance)
    else:
        streams = [uuid4() for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        events = [event for stream in streams for event in events_of(stream, chance.choice([1, 1, 2, 5]))]
        append(connection, events, [Key(f"command:{streams[0]}", bytes(32), {})])


CALL = (
    "SELECT seq FROM append_event(%s, 1, %s, '{}', %s, NULL, decode(repeat('00', 32), 'hex'), '{}', NULL, NULL, NULL)"
)


def call(connection: Connection) -> None:
    """One event by the function, inside whatever transaction is open."""
    connection.execute(CALL, (uuid4(), TOPIC, uuid4()), prepare=True)


def append_around_a_savepoint(connection: Connection, chance: random.Random) -> None:
    """A rollback to a savepoint drops the locks that were taken since; those of what stays must stay."""
    with connection.transaction():
        call(connection)
        connection.execute("SAVEPOINT inside")
        call(connection)
        pause(chance)
        connection.execute("ROLLBACK TO SAVEPOINT inside")
        pause(chance)
        call(connection)
        pause(chance)


def append_and_roll_back(connection: Connection, chance: random.Random) -> None:
    """Numbers that never become events."""
    connection.execute("BEGIN")
    call(connection)
    pause(chance)
    connection.execute("ROLLBACK")


def main(url: str, seed: str, kind: str) -> None:
    """Append until the input ends."""
    chance = random.Random(seed)
    one_append = append_by_function if kind == "function" else append_in_steps
    connection: Connection | None = None
    while not input_has_ended():
        try:
            if connection is None or connection.closed:
                connection = connect(url)
                end_own_prepared(connection)
            one_append(connection, chance, kind)
        except (psycopg.OperationalError, psycopg.InterfaceError):  # its backend was ended
            if connection is not None:
                connection.close()
    if connection is not None:
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
