"""Why a row does not become an event, beside the reasons that the domain has for a command."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from position_ledger.domain.rejections import CommandRejected, shown
from position_ledger.execution.executor import NotAdmitted

__all__ = ["REFUSALS", "RowReason", "RowRefused", "why_not"]


class RowReason(Enum):
    """(code, sentence)."""

    RAGGED = (
        "row_ragged",
        "the row has {value} cells but the header has {held}; is a delimiter inside an unquoted cell?",
    )
    DAMAGED = ("row_damaged", "the row has a NUL character, so it is damaged or of another encoding")
    NUMBER_UNREADABLE = (
        "number_unreadable",
        "{field} is {value}, which is no number as [numbers] of the mapping describes",
    )
    TIME_UNREADABLE = ("time_unreadable", "time is {value}, which fits none of time.formats: {held}")
    TIME_WITHOUT_ZONE = (
        "time_without_zone",
        "time is {value} without an offset from UTC; give time.zone in the mapping",
    )
    TIME_NOT_IN_ZONE = (
        "time_not_in_zone",
        "time is {value}, which did not exist in {held}; correct time.zone or the row",
    )
    TIME_AMBIGUOUS = ("time_ambiguous", "time is {value}, which was twice in {held}; set time.ambiguous in the mapping")
    TIME_IMPLAUSIBLE = ("time_implausible", "time is {value}, which means {held}; correct the unit in time.formats")
    AMOUNT_MISMATCH = (
        "amount_mismatch",
        "amount is {value} but quantity * price is {held}; correct the row or the mapping",
    )
    CLOCK_UNREADABLE = (
        "clock_unreadable",
        "start, period and clock are {value}, which [clock] of the mapping gives no time for",
    )
    TEAM_UNKNOWN = ("team_unknown", "team is {value}, but the game is between {held}; correct [values] or [constants]")
    ORDER_UNKNOWN = (
        "order_unknown",
        "the file does not have all entries before this row that the ledger has at {value}; only {held} is surely held",
    )

    KIND_UNKNOWN = ("kind_unknown", "the row is of kind {value}; [kinds] of the mapping knows {held}")
    STATUS_UNKNOWN = ("status_unknown", "status is {value}, which [values.status] of the mapping does not explain")
    ODDS_BELOW_1 = ("odds_below_1", "{field} is {value}; decimal odds are at least 1, and prices have another space")

    def __init__(self, code: str, sentence: str) -> None:
        """Name the parts of the row."""
        self.code = code
        self.sentence = sentence


class RowRefused(NotAdmitted):
    """The row was refused and nothing of it was written; ``reason`` says why, the message what to do."""

    def __init__(self, reason: RowReason, **details: Any) -> None:
        """Build the sentence of ``reason`` from ``details``; values are shown shortened."""
        self.reason = reason
        super().__init__(reason.sentence.format(**{name: shown(value) for name, value in details.items()}))


REFUSALS: Final = (RowRefused, CommandRejected)
"""Every error that refuses one row and no more."""


def why_not(refusal: Exception) -> tuple[str, str]:
    """The enumerated code and the sentence of a refused row, as the rejects file has them; raises any other error."""
    if not isinstance(refusal, REFUSALS):
        raise refusal
    return refusal.reason.code, str(refusal)
