"""The public names, used as a team would: a file for the type checker, never run.

A line that must not type-check ends in ``type: ignore[code]``: strict mode reports the ignore when the line becomes
legal, so both directions are tests. `make lint` checks this file against the source, tests/packaging against the wheel.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from position_ledger import InsufficientMarginError, Ledger, PositionManager
from position_ledger.errors import LedgerError, NotYetVisible


def errors_share_one_base(error: NotYetVisible) -> LedgerError:
    return error


def a_late_row_says_which_token_to_wait_for(error: NotYetVisible) -> int:
    return error.token


def a_token_is_a_number() -> NotYetVisible:
    return NotYetVisible("17", timeout_s=5.0)  # type: ignore[arg-type]


def a_manager_answers_rows(ledger: Ledger) -> dict[str, Any]:
    manager = PositionManager(ledger, execution_environment="paper")
    return manager.open_position("M", 1, 2, "YES", 10, Decimal("0.5"), available_margin=Decimal(100))


def a_manager_lists_rows(manager: PositionManager) -> list[dict[str, Any]]:
    return manager.get_open_positions(market_id="M", strategy_id=1)


def a_trigger_is_yes_or_no(manager: PositionManager) -> bool:
    return manager.check_trailing_stop_trigger("POS-1")


def a_position_needs_a_price(manager: PositionManager) -> object:
    return manager.update_position("POS-1")  # type: ignore[call-arg]


def a_float_is_no_price(manager: PositionManager) -> object:
    return manager.update_position("POS-1", 0.5)  # type: ignore[arg-type]


def too_little_margin_is_an_error_of_the_ledger(error: InsufficientMarginError) -> LedgerError:
    return error
