"""Saying so when what is read is old: nobody should trade on rows that no worker keeps up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from position_ledger.cli.running import note

if TYPE_CHECKING:
    from position_ledger.ledger import Ledger

STALE_S = 5.0
"""Rows that are further behind the log than this are no longer just on their way."""


def warn_if_stale(ledger: Ledger, table: str) -> None:
    """A line on standard error when a table is far behind the log."""
    lag = ledger.lag(table)
    if lag.age_s > STALE_S:
        note(
            f"the tables are {lag.events:,} events ({lag.age_s:.0f} s) behind the log: start position-ledger worker, "
            "or see position-ledger status"
        )
