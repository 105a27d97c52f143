"""The position ledger: immutable events in PostgreSQL, SCD2 tables projected from them, rebuilt when they change."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec.structs import replace

    from position_ledger.domain.commands import (
        ClosePosition,
        Command,
        Handle,
        IncreasePosition,
        MarkPosition,
        OpenPosition,
        RecordFill,
        ReducePosition,
        SetExits,
        SettlePosition,
        TrailingStop,
    )
    from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason
    from position_ledger.errors import (
        ConcurrencyError,
        ConfigurationError,
        DatabaseUnavailable,
        GenerationNotOurs,
        LedgerError,
        MigrationError,
        NotYetVisible,
        SchemaMismatch,
        SwapBlocked,
        VerificationFailed,
    )
    from position_ledger.execution.executor import Executed
    from position_ledger.ledger import Ledger
    from position_ledger.projection.definition import Projection, Row
    from position_ledger.settings import Settings
    from position_ledger.store.envelope import Recorded

__all__ = [
    # the ledger
    "Executed",
    "Ledger",
    "Settings",
    # commands
    "ClosePosition",
    "Command",
    "Handle",
    "IncreasePosition",
    "MarkPosition",
    "OpenPosition",
    "RecordFill",
    "ReducePosition",
    "SetExits",
    "SettlePosition",
    "TrailingStop",
    # projected tables
    "Projection",
    "Recorded",
    "Row",
    "replace",
    # errors
    "CommandRejected",
    "ConcurrencyError",
    "ConfigurationError",
    "DatabaseUnavailable",
    "FloatRefused",
    "GenerationNotOurs",
    "LedgerError",
    "MigrationError",
    "NotYetVisible",
    "Reason",
    "SchemaMismatch",
    "SwapBlocked",
    "VerificationFailed",
]

_HOMES: Mapping[str, str] = {
    "msgspec.structs": "replace",
    "position_ledger.domain.commands": "ClosePosition Command Handle IncreasePosition MarkPosition OpenPosition "
    "RecordFill ReducePosition SetExits SettlePosition TrailingStop",
    "position_ledger.domain.rejections": "CommandRejected FloatRefused Reason",
    "position_ledger.errors": "ConcurrencyError ConfigurationError DatabaseUnavailable GenerationNotOurs LedgerError "
    "MigrationError NotYetVisible SchemaMismatch SwapBlocked VerificationFailed",
    "position_ledger.execution.executor": "Executed",
    "position_ledger.ledger": "Ledger",
    "position_ledger.projection.definition": "Projection Row",
    "position_ledger.settings": "Settings",
    "position_ledger.store.envelope": "Recorded",
}
"""Where each public name lives: loaded at its first use, so that `position-ledger --help` answers at once."""

if not TYPE_CHECKING:  # a checker sees the imports above, and refuses names that are none

    def __getattr__(name: str) -> object:
        """Load a public name from its module, and keep it."""
        home = next((module for module, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        """The public names, loaded or not."""
        return sorted({*globals(), *__all__})
