"""How fast the audit goes, and how far it says it is: pure."""

from __future__ import annotations

from uuid import UUID

import pytest

from position_ledger.auditing.service import IDLE_S, PAUSE_MIN_S, ROUND_PAUSE_S, pause_s
from position_ledger.auditing.state import share


@pytest.mark.parametrize(
    ("events", "rate", "took_s", "is_round", "rest_s"),
    [
        (500, 500, 0.1, False, 0.9),
        (50, 50, 0.25, False, 0.75),
        (500, 100, 0.0, True, 5.0),
        (10, 500, 0.1, True, ROUND_PAUSE_S),
        (500, 100_000, 0.3, False, PAUSE_MIN_S),
        (0, 500, 0.1, False, IDLE_S),
        (0, 500, 0.1, True, IDLE_S),
    ],
)
def test_no_more_than_the_rate_is_read(events: int, rate: int, took_s: float, is_round: bool, rest_s: float) -> None:  # noqa: FBT001 - a column of the table
    assert pause_s(events, rate, took_s, is_round=is_round) == pytest.approx(rest_s)


@pytest.mark.parametrize(
    ("begun", "at", "done"),
    [(0, 0, 0.0), (0, 2**127, 0.5), (2**127, 2**126 * 3, 0.25), (2**127, 0, 0.5), (2**127, 2**126, 0.75)],
)
def test_the_share_of_a_round_goes_past_the_last_stream(begun: int, at: int, done: float) -> None:
    assert share(UUID(int=begun), UUID(int=at)) == done
