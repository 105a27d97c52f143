"""What every event is: a frozen model with a stable topic, a version and upcasters.

An event is stored as plain JSON under its topic, never under its module path, so that code may move.
When the shape of an event changes, raise ``VERSION`` and add an upcaster from the version before:
stored events are never edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the JSON object of one version into that of the next; pure, and never sees a newer one."""


class Event(BaseModel):
    """A fact that has happened to one stream. Immutable; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", defer_build=True)

    TOPIC: ClassVar[str]
    """Stable name in the log, such as ``position.opened``; unique over all events, never reused."""

    VERSION: ClassVar[int] = 1
    """Version of the shape of this event; stored beside it when greater than 1."""

    UPCASTERS: ClassVar[Mapping[int, Upcaster]] = {}
    """For each older version n, the function from n to n + 1; complete from 1 to ``VERSION - 1``."""
