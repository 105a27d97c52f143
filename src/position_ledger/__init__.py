"""The position ledger: immutable events in PostgreSQL, SCD2 tables projected from them, rebuilt when they change."""

from __future__ import annotations

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
