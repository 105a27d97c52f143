"""What the supervisor tells the processes that use the servers, in one small file that always is whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from position_ledger.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from pathlib import Path


class Phase(StrEnum):
    """How far the servers are."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class State:
    """One report of the supervisor; `at_s` is the machine's monotonic clock in seconds, equal for all processes."""

    phase: Phase
    at_s: float
    supervisor_pid: int
    socket_folder: str = ""
    postgres_pid: int = 0
    valkey_pid: int = 0
    problem: str = ""
    is_configuration: bool = False

    def error(self) -> ConfigurationError | DatabaseUnavailable:
        """Return the failure as the error to raise."""
        return (ConfigurationError if self.is_configuration else DatabaseUnavailable)(self.problem)


def write_state(path: Path, state: State) -> None:
    """Replace the report; a reader sees the old one or the new one, never a part."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(state)), encoding="utf-8")
    draft.replace(path)


def read_state(path: Path) -> State | None:
    """Return the last report, or None when there is none that this release understands."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return State(**{**values, "phase": Phase(values["phase"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
