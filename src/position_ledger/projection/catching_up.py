"""Bringing one generation close to the end of the log while commands go on, beside whatever workers do."""

from __future__ import annotations

import time
import uuid
from typing import Any

import psycopg

from position_ledger.database import process_name
from position_ledger.projection.definition import Projection
from position_ledger.projection.follower import Follower
from position_ledger.projection.generations import Generation
from position_ledger.projection.snapshots import checkpoint
from position_ledger.store import feed
from position_ledger.store.codec import Codec

SHORT_TAIL_EVENTS = 200
"""The catch-up ends when no more than this is left: whoever asked for it projects the rest under a lock."""

ROUNDS_MAX = 200
PAUSE_S = 0.005


def catch_up(
    connection: psycopg.Connection[Any], projection: Projection[Any], generation: Generation, codec: Codec
) -> int:
    """Project until the tail is short, or for `ROUNDS_MAX` rounds; answers how many it took.

    Shards that workers hold are left to them. Ends in bounded time though the log grows meanwhile.
    """
    name = f"{process_name()}:{uuid.uuid4().hex[:6]}"
    follower = Follower(connection, [projection], codec, name=name, share=False, only=generation.generation_id)
    try:
        for rounds in range(1, ROUNDS_MAX + 1):
            worked = follower.step()
            if tail_events(connection, generation) <= SHORT_TAIL_EVENTS:
                return rounds
            if not worked:
                time.sleep(PAUSE_S)  # workers hold the shards
    finally:
        follower.close()
    return ROUNDS_MAX


def tail_events(connection: psycopg.Connection[Any], generation: Generation) -> int:
    """How many numbers the generation is behind the log."""
    return feed.mark(connection) - checkpoint(connection, generation.generation_id)
