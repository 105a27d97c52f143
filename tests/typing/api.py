"""The public names, used as a team would: a file for the type checker, never run.

A line that must not type-check ends in ``type: ignore[code]``: strict mode reports the ignore when the line becomes
legal, so both directions are tests. `make lint` checks this file against the source, tests/packaging against the wheel.
"""

from __future__ import annotations

from position_ledger.errors import LedgerError, NotYetVisible


def errors_share_one_base(error: NotYetVisible) -> LedgerError:
    return error


def a_late_row_says_which_token_to_wait_for(error: NotYetVisible) -> int:
    return error.token


def a_token_is_a_number() -> NotYetVisible:
    return NotYetVisible("17", timeout_s=5.0)  # type: ignore[arg-type]
