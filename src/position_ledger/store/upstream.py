"""The one door to the eventsourcing library, which is imported here without what its import does to the whole process.

It would set the loggers of psycopg and its pool to ERROR and replace a function of the standard library's dataclasses,
which only aggregates declared with the library's own base classes need. Whoever declares such aggregates imports the
library first; then both stay as they are found.
"""

from __future__ import annotations

import dataclasses
import logging

import psycopg_pool  # noqa: F401 - with psycopg, which sets a level of its own when it is imported

_LOGGERS = {name: logging.getLogger(name) for name in ("psycopg", "psycopg.pool")}
_LEVELS = {name: logger.level for name, logger in _LOGGERS.items()}
_PROCESS_CLASS = vars(dataclasses)["_process_class"]

from eventsourcing.application import Application  # noqa: E402 - after what it changes was noted
from eventsourcing.persistence import (  # noqa: E402
    ApplicationRecorder,
    IntegrityError,
    Mapper,
    Notification,
    StoredEvent,
    Subscription,
    Transcoder,
)
from eventsourcing.postgres import (  # noqa: E402
    BasePostgresFactory,
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresFactory,
)
from eventsourcing.utils import Environment, EnvType  # noqa: E402

__all__ = [
    "Application",
    "ApplicationRecorder",
    "BasePostgresFactory",
    "EnvType",
    "Environment",
    "IntegrityError",
    "Mapper",
    "Notification",
    "PostgresApplicationRecorder",
    "PostgresDatastore",
    "PostgresFactory",
    "StoredEvent",
    "Subscription",
    "Transcoder",
]

for _name, _logger in _LOGGERS.items():
    _logger.setLevel(_LEVELS[_name])
vars(dataclasses)["_process_class"] = _PROCESS_CLASS
