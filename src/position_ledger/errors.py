"""Every error of the ledger in one place: one base, each docstring the cause and the remedy."""

from __future__ import annotations

from position_ledger.domain.errors import LedgerError

__all__ = [
    "ArchiveError",
    "ConcurrencyError",
    "ConfigurationError",
    "DatabaseUnavailable",
    "GenerationNotOurs",
    "InsufficientMarginError",
    "KnownAtRefused",
    "LedgerError",
    "MigrationError",
    "NotYetVisible",
    "RebuildCancelled",
    "ReferenceRefused",
    "SchemaMismatch",
    "SwapBlocked",
    "VerificationFailed",
]


class ArchiveError(LedgerError):
    """An archive cannot be used or written; the message names it and what is wrong, nothing in the ledger was changed."""


class ConfigurationError(LedgerError):
    """A setting, mapping file or definition cannot be used; the message names it and its value."""


class DatabaseUnavailable(LedgerError):
    """The database did not answer, or refused the connection; nothing is half done, repeat when it is back."""


class SchemaMismatch(LedgerError):
    """Code and database do not fit; the message names the gap and the command that closes it."""


class MigrationError(LedgerError):
    """A migration file or step was refused or failed; the database is as it was before the step."""


class ConcurrencyError(LedgerError):
    """Other writers kept changing the same streams for every retry; nothing was written, repeating is safe."""


class NotYetVisible(LedgerError):
    """The command is committed but its rows were not visible in time; do not repeat it, wait for the token."""

    def __init__(self, token: int, timeout_s: float) -> None:
        super().__init__(
            f"token {token} is committed but was not visible after {timeout_s:g} s; "
            f"do not repeat the command, call wait_for({token}) or start a worker"
        )
        self.token = token


class ProjectionStuck(LedgerError):
    """A table refuses a row of the log, so it does not go on; what is committed stays committed, repeat no command."""


class InsufficientMarginError(LedgerError):
    """The position would cost more than the margin that is available; nothing was written, lower the quantity."""


class KnownAtRefused(LedgerError):
    """A time in the past of the ledger that cannot be read: it has not come, or its rows did not come in time."""


class ReferenceRefused(LedgerError):
    """A reference table does not take what it was given; nothing was changed, the message names field and value."""


class GenerationNotOurs(LedgerError):
    """The active generation of a projection belongs to other code; use the release it names, or rebuild."""


class SwapBlocked(LedgerError):
    """The swap found no quiet moment within its budget; the message names what blocked it, live rows are unchanged."""


class RebuildCancelled(LedgerError):
    """Somebody has cancelled the rebuild while it ran; what it had built was dropped, live rows are unchanged."""


class VerificationFailed(LedgerError):
    """Rows do not equal what the event log says; the message names table, key and column."""
