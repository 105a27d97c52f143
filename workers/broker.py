"""The broker: made from settings when a worker process boots, never at import."""

from __future__ import annotations

import dramatiq
from dramatiq import Middleware
from dramatiq.brokers.redis import RedisBroker

from position_ledger.worker import WorkerProcess, this_process

from .actors import ACTORS, LONG

RETRIES_MAX = 3
TIME_LIMIT_MS = 120_000


class Follows(Middleware):
    """Starts following when a process boots, before it needs Redis, and gives the shards back when it stops."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker

    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        """Begin to follow; the first message asks for the first turn."""
        self.worker.start(broker.get_actor("follow").send)

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        """Stop before the threads are waited for, so that a turn ends at once."""
        self.worker.stop()


def make_broker() -> RedisBroker:
    """The Redis broker with every actor: ``dramatiq position_ledger.reference.workers.broker:make_broker``."""
    worker = this_process()
    broker = RedisBroker(url=worker.reached.redis_url)  # type: ignore[no-untyped-call]
    broker.add_middleware(Follows(worker))
    dramatiq.set_broker(broker)
    for actor in ACTORS:
        queue = worker.load_queue if actor.__name__ in LONG else worker.queue
        register = dramatiq.actor(broker=broker, queue_name=queue, max_retries=RETRIES_MAX, time_limit=TIME_LIMIT_MS)
        register(actor)
    return broker
