"""Read-your-writes: wait until a token is visible, and project in the caller when nobody else does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from position_ledger.database import first_line, only_row, process_name
from position_ledger.errors import NotYetVisible, ProjectionStuck
from position_ledger.projection.definition import Projection
from position_ledger.projection.follower import Follower
from position_ledger.projection.generations import visible_up_to
from position_ledger.store.codec import Codec

Connect = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]

POLL_FIRST_S = 0.0005
POLL_MAX_S = 0.01
HELP_AFTER_S = 0.05
"""A waiting caller looks for free shards after this time: with live workers it never gets any."""

HELP_AGAIN_S = 0.2
"""How long it lets others work before it looks again: many callers that wait must not keep the database busy."""

# What a command projects itself is visible with its last event. A primary that gave the token has it; a standby may not.
HAS_COME = "SELECT NOT pg_is_in_recovery() OR EXISTS (SELECT FROM events AS e WHERE e.notification_id = %s)"


def wait_for(
    connect: Connect,
    projections: Iterable[Projection[Any]],
    codec: Codec,
    token: int,
    timeout_s: float,
    *,
    read_only: bool = False,
) -> None:
    """Return when every event up to ``token`` is visible in all the tables. Works across processes.

    ``read_only``: on a standby too; the caller projects nothing.

    Raises:
        NotYetVisible: not in time. The command is committed all the same and must not be repeated.
        FoldFailed, WriteMismatch, ProjectionStuck: nobody else projects one of the tables, and the caller cannot.
    """
    definitions = tuple(projections)
    tables = [projection.table for projection in definitions]

    def is_visible(link: psycopg.Connection[Any]) -> bool:
        return visible_up_to(link, tables) >= token and (not read_only or _has_come(link, token))

    if not wait_until(connect, definitions, codec, is_visible, timeout_s, read_only=read_only):
        raise NotYetVisible(token, timeout_s)


def _has_come(connection: psycopg.Connection[Any], token: int) -> bool:
    return bool(only_row(connection.execute(HAS_COME, (token,), prepare=True))[0])


def wait_until(
    connect: Connect,
    projections: tuple[Projection[Any], ...],
    codec: Codec,
    is_done: Callable[[psycopg.Connection[Any]], bool],
    timeout_s: float,
    *,
    read_only: bool = False,
) -> bool:
    """Poll until something about the tables holds, and project what nobody else does; false: not in time.

    ``read_only``: project nothing.

    Raises:
        FoldFailed, WriteMismatch, ProjectionStuck: nobody else projects one of the tables, and the caller cannot.
    """
    started = time.monotonic()
    poll_s, help_due_s = POLL_FIRST_S, HELP_AFTER_S
    with connect() as connection:
        while not is_done(connection):
            waited_s = time.monotonic() - started
            if waited_s >= timeout_s:
                return False
            if waited_s >= help_due_s and not read_only:
                _help(connection, projections, codec, is_done, started + timeout_s)
                help_due_s = time.monotonic() - started + HELP_AGAIN_S
            time.sleep(poll_s)
            poll_s = min(2 * poll_s, POLL_MAX_S)
    return True


def _help(
    connection: psycopg.Connection[Any],
    projections: tuple[Projection[Any], ...],
    codec: Codec,
    is_done: Callable[[psycopg.Connection[Any]], bool],
    deadline: float,
) -> None:
    """Take what shards are free and project them until it is done; at once over if all are held."""
    name = f"{process_name()}:{threading.get_ident()}:waiting"
    follower = Follower(connection, projections, codec, name=name, share=False)
    try:
        follower.step()
        _raise_first(follower.failures)
        while follower.held and time.monotonic() < deadline and not is_done(connection):
            if not follower.step():
                time.sleep(POLL_FIRST_S)
            _raise_first(follower.failures)
    finally:
        follower.close()


def _raise_first(failures: Mapping[str, Exception]) -> None:
    for table, error in failures.items():
        if isinstance(error, psycopg.IntegrityError | psycopg.DataError):
            msg = (
                f"table {table} does not take the next row that the log gives: {first_line(error)}; every command stays "
                f"committed and is not to be repeated, the table goes on when the row fits it, see position-ledger status"
            )
            raise ProjectionStuck(msg) from error
        raise error
