"""A worker process: composed once from the environment, driven by the actors in `workers`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from redis import RedisError

from position_ledger.auditing.service import AuditService
from position_ledger.errors import ConfigurationError
from position_ledger.events import EVENTS
from position_ledger.operations.helping import load_queue_of, queue_of
from position_ledger.packages import import_part, import_told
from position_ledger.projection.definition import load_projections
from position_ledger.projection.load_help import LoadHelper
from position_ledger.projection.service import FollowerService
from position_ledger.settings import Settings, load_settings
from position_ledger.settling.service import SettlingService
from position_ledger.setup import Reached, reach
from position_ledger.store.codec import Codec

TURN_S = 20.0
"""How long one message holds the feed before it hands over to the next: bounds what one message can take."""

BROKER_OF_FOLDER = f"{__name__}:make_broker"
"""The dramatiq address for workers in a folder, which has no name that another process could import."""

log = logging.getLogger(__name__)


class WorkerProcess:
    """What the actors of one process share."""

    def __init__(self, settings: Settings, reached: Reached) -> None:
        self.settings = settings
        self.reached = reached
        self.queue = queue_of(settings)
        self.load_queue = load_queue_of(settings)
        projections = load_projections(settings.projections)
        self.service = FollowerService(reached.database_url, settings, projections, Codec(EVENTS))
        self.settling = SettlingService(reached.database_url, settings, projections, Codec(EVENTS))
        self.audit = AuditService(reached.database_url, settings, projections, Codec(EVENTS))
        self.helper = LoadHelper(reached.database_url, settings, projections)

    def follow(self, send_again: Callable[[], object], turn_s: float = TURN_S) -> None:
        """Hold the feed for a turn. Ends only after the next message is in the queue; without Redis it goes on."""
        self.service.follow_for(turn_s, lambda: _sent(send_again))

    def load(self, generation_id: int, send_again: Callable[[int], object]) -> None:
        """Help to load a generation for a turn, and ask for the next one while parts are missing."""
        if self.helper.help(generation_id):
            _sent(lambda: send_again(generation_id))

    def start(self, send_first: Callable[[], object]) -> None:
        """Follow from now on, and put the first message into the queue if Redis answers."""
        self.service.start()
        self.settling.start()
        self.audit.start()
        _sent(send_first)

    def stop(self) -> None:
        """Give every shard back and leave the embedded servers, if any."""
        self.audit.stop()
        self.helper.stop()
        self.settling.stop()
        self.service.stop()
        self.reached.close()


def _sent(send: Callable[[], object]) -> bool:
    try:
        send()
    except (RedisError, OSError) as error:
        log.warning("no message could be sent (%s): following goes on without", error)
        return False
    return True


@lru_cache(maxsize=1)
def this_process() -> WorkerProcess:
    """The worker of this process, made from the environment at the first call."""
    settings = load_settings()
    return WorkerProcess(settings, reach(settings))


def broker_maker(workers: str) -> Callable[[], Any]:
    """The function ``make_broker`` in the module ``broker`` of a workers package or folder.

    Raises:
        ConfigurationError: it cannot be imported, or there is no such function.
    """
    try:
        module = import_part(import_told(workers), "broker")
    except ImportError as error:
        msg = f"setting workers: cannot import the module broker of {workers} ({error}); name a package that has one"
        raise ConfigurationError(msg) from error
    make: Callable[[], Any] | None = getattr(module, "make_broker", None)
    if not callable(make):
        msg = f"setting workers: the module broker of {workers} has no function make_broker; add it or name another"
        raise ConfigurationError(msg)
    return make


def make_broker() -> Any:
    """The broker of the workers that the settings of this process name."""
    return broker_maker(load_settings().workers)()
