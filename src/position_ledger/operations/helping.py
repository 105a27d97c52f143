"""Calling worker machines to help with a load: a few messages, which are hints. Lost, late or doubled ones change nothing."""

from __future__ import annotations

from contextlib import closing

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis import RedisError

from position_ledger.operations.common import Tell
from position_ledger.settings import Settings
from position_ledger.setup import Reached

LOAD_ACTOR = "load"
"""The actor that takes parts; workers/actors.py has it."""


def queue_of(settings: Settings) -> str:
    """The queue of the workers of this ledger."""
    return f"position-ledger.{settings.ledger_schema}"


def load_queue_of(settings: Settings) -> str:
    """A queue of its own for what takes long, so that a message for followers never stands behind it."""
    return f"{queue_of(settings)}.load"


def call_workers(settings: Settings, reached: Reached, generation_id: int, workers: int, tell: Tell) -> None:
    """Ask so many worker processes to take parts of a load. Without Redis the load goes on alone, and says so."""
    if workers <= 0:
        return
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name=load_queue_of(settings), actor_name=LOAD_ACTOR, args=(generation_id,), kwargs={}, options={}
    )
    try:
        with closing(RedisBroker(url=reached.redis_url, middleware=[])) as broker:  # type: ignore[no-untyped-call]
            broker.declare_queue(message.queue_name)
            for _ in range(workers):
                broker.enqueue(message.copy(message_id=dramatiq.message.generate_unique_id()))
    except (RedisError, OSError, dramatiq.errors.BrokerConnectionError) as error:
        tell(f"no worker could be called ({error}): this process loads alone")
        return
    tell(f"called {workers} worker processes to help with the load")
