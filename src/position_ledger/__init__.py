"""The position ledger: immutable events in PostgreSQL, SCD2 tables projected from them, rebuilt when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.lazily import lazily

if TYPE_CHECKING:
    from msgspec.structs import replace

    from position_ledger.domain.commands import (
        AdjustCash,
        AdjustFee,
        AmendMarket,
        AmendSettlement,
        BustTrade,
        ChangeMarket,
        ClosePosition,
        Command,
        CorrectTrade,
        Deposit,
        DetermineMarket,
        DisputeMarket,
        Handle,
        IncreasePosition,
        MarkPosition,
        MergePair,
        OpenPosition,
        QuoteMarket,
        RecordCash,
        RecordFill,
        RecordOpeningPosition,
        ReducePosition,
        RegisterMarket,
        SetExits,
        SetMarketStatus,
        SetOpeningBalance,
        SettleMarket,
        SettlePosition,
        SplitPair,
        SplitShares,
        TrailingStop,
        TransferPosition,
        VoidMarket,
        VoidPosition,
        Withdraw,
    )
    from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge, ReviseEdge
    from position_ledger.domain.games.commands import RecordGameState
    from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason
    from position_ledger.errors import (
        ConcurrencyError,
        ConfigurationError,
        DatabaseUnavailable,
        GenerationNotOurs,
        InsufficientMarginError,
        KnownAtRefused,
        LedgerError,
        MigrationError,
        NotYetVisible,
        ProjectionStuck,
        ReferenceRefused,
        SchemaMismatch,
        SwapBlocked,
        VerificationFailed,
    )
    from position_ledger.execution.executor import Executed
    from position_ledger.ledger import Ledger
    from position_ledger.manager import PositionManager
    from position_ledger.projection.definition import Projection, Row
    from position_ledger.settings import Settings
    from position_ledger.settling.payer import Paid, Settlement
    from position_ledger.store.envelope import Recorded

__all__ = [  # noqa: RUF022 - grouped, not sorted
    # the ledger
    "Executed",
    "Ledger",
    "Paid",
    "PositionManager",
    "Settings",
    "Settlement",
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
    # commands beside executions
    "MergePair",
    "RecordOpeningPosition",
    "SplitPair",
    "SplitShares",
    "TransferPosition",
    # commands that correct what was recorded
    "AdjustFee",
    "AmendSettlement",
    "BustTrade",
    "CorrectTrade",
    "VoidPosition",
    # commands on accounts
    "AdjustCash",
    "Deposit",
    "RecordCash",
    "SetOpeningBalance",
    "Withdraw",
    # commands about markets
    "AmendMarket",
    "ChangeMarket",
    "DetermineMarket",
    "DisputeMarket",
    "QuoteMarket",
    "RegisterMarket",
    "SetMarketStatus",
    "SettleMarket",
    "VoidMarket",
    # edges and games
    "ChangeEdgeStatus",
    "DetectEdge",
    "RecordGameState",
    "ReviseEdge",
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
    "InsufficientMarginError",
    "KnownAtRefused",
    "LedgerError",
    "MigrationError",
    "NotYetVisible",
    "ProjectionStuck",
    "Reason",
    "ReferenceRefused",
    "SchemaMismatch",
    "SwapBlocked",
    "VerificationFailed",
]

# Where each name comes from: imported when it is first used, so that a process pays for what it needs. The command
# line answers at once, and the pytest plugin costs nothing in a run that does not use it.
_HOMES = {
    "msgspec.structs": "replace",
    "position_ledger.domain.commands": (
        "AdjustCash AdjustFee AmendMarket AmendSettlement BustTrade ChangeMarket ClosePosition Command "
        "CorrectTrade Deposit DetermineMarket DisputeMarket Handle IncreasePosition MarkPosition MergePair "
        "OpenPosition QuoteMarket RecordCash RecordFill RecordOpeningPosition ReducePosition RegisterMarket "
        "SetExits SetMarketStatus SetOpeningBalance SettleMarket SettlePosition SplitPair SplitShares "
        "TrailingStop TransferPosition VoidMarket VoidPosition Withdraw"
    ),
    "position_ledger.domain.edges.commands": "ChangeEdgeStatus DetectEdge ReviseEdge",
    "position_ledger.domain.games.commands": "RecordGameState",
    "position_ledger.domain.rejections": "CommandRejected FloatRefused Reason",
    "position_ledger.errors": (
        "ConcurrencyError ConfigurationError DatabaseUnavailable GenerationNotOurs InsufficientMarginError "
        "KnownAtRefused LedgerError MigrationError NotYetVisible ProjectionStuck ReferenceRefused SchemaMismatch SwapBlocked "
        "VerificationFailed"
    ),
    "position_ledger.execution.executor": "Executed",
    "position_ledger.ledger": "Ledger",
    "position_ledger.manager": "PositionManager",
    "position_ledger.projection.definition": "Projection Row",
    "position_ledger.settings": "Settings",
    "position_ledger.settling.payer": "Paid Settlement",
    "position_ledger.store.envelope": "Recorded",
}


__getattr__, __dir__ = lazily(__name__, _HOMES)
