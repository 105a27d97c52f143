"""How long a rebuild will take, and into how many parts a load is cut."""

from __future__ import annotations

import pytest

from position_ledger.projection.estimate import (
    PART_EVENTS_MAX,
    PART_S_MAX,
    PARTS_MAX,
    WINDOW_S,
    Rate,
    as_duration,
    left_s,
    parts_for,
)
from position_ledger.projection.pacing import ASK_EVENTS, REST_S_MAX, REST_SHARE, asked_every, rest_s
from position_ledger.projection.yielding import PATIENCE_S, TURN_S, Behind, Turn, furthest, stands_back, turn_after


def looked(*, total: int, per_s: float, until: float, every_s: float = 0.5) -> Rate:
    """What an even load looks like up to a share of it, after a start-up without an event."""
    rate, now = Rate(), 0.0
    while (done := max(0, round((now - 2.0) * per_s))) < total * until:
        rate.seen(now, done)
        now += every_s
    rate.seen(now, done)
    return rate


@pytest.mark.parametrize(("total", "per_s"), [(200_000, 60_000.0), (1_000_000, 60_000.0), (5_000_000, 7_000.0)])
def test_an_even_load_is_known_within_a_seventh_after_a_tenth(total: int, per_s: float) -> None:
    rate = looked(total=total, per_s=per_s, until=0.1)
    known_s_per_event = 0.4 / per_s
    left = left_s(total, round(0.1 * total), rate.per_s, known_s_per_event, is_paced=False)
    assert left is not None
    assert left == pytest.approx(1.3 * total / per_s, rel=0.15)


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = Rate()
    for second in range(200):  # helpers come after a hundred seconds
        rate.seen(second, second * 100 + max(0, second - 100) * 300)
    assert rate.per_s == pytest.approx(400.0)
    assert len(rate.samples) <= WINDOW_S + 2


def test_nothing_is_known_before_anything_was_read() -> None:
    rate = Rate()
    for second in range(5):
        rate.seen(second, 0)
        assert rate.per_s is None
    assert left_s(100, 0, rate.per_s, None, is_paced=False) is None
    # and the time in which processes started does not count
    rate.seen(5.0, 500)
    assert rate.per_s == 500.0


def test_a_part_that_was_given_back_does_not_make_a_negative_rate() -> None:
    rate = Rate()
    for now, done in ((0, 0), (1, 100), (2, 200), (3, 150), (4, 250)):
        rate.seen(now, done)
    assert rate.per_s == 100.0


def test_before_the_first_rebuild_the_rest_is_a_share_of_the_load_unless_that_keeps_a_pace() -> None:
    assert left_s(1_000, 500, 100.0, None, is_paced=False) == 5.0 + 5.0
    assert left_s(1_000, 500, 100.0, None, is_paced=True) == 5.0 + 0.01
    assert left_s(1_000, 500, 100.0, 0.002, is_paced=True) == 5.0 + 2.0
    assert left_s(1_000, 1_200, 100.0, 0.0, is_paced=False) == 0.0


@pytest.mark.parametrize(
    ("events", "throttle_per_s", "parts"),
    [
        (0, None, 8),
        (16_000, None, 8),
        (16_001, None, 16),
        (1_000_000, None, 64),
        (1_000, 1.0, 64),
        (5_000_000, None, 64),
        (10_000_000, None, 128),
        (5_000_000, 20_000.0, 64),
        (5_000_000, 1_000.0, 256),
        (10**12, 1.0, PARTS_MAX),
    ],
)
def test_no_part_keeps_a_transaction_open_for_long(events: int, throttle_per_s: float | None, parts: int) -> None:
    found = parts_for(events, throttle_per_s)
    assert found == parts
    assert found == PARTS_MAX or events / found <= min(PART_EVENTS_MAX, (throttle_per_s or 1e9) * PART_S_MAX)


@pytest.mark.parametrize(("throttle_per_s", "events"), [(None, ASK_EVENTS), (10.0, 5), (1.0, 1), (1e6, ASK_EVENTS)])
def test_a_slow_pace_is_asked_for_more_often(throttle_per_s: float | None, events: int) -> None:
    assert asked_every(throttle_per_s) == events


def test_a_load_rests_for_a_share_of_its_work_beside_commands_and_never_for_long() -> None:
    assert rest_s(0.2, is_appended=True) == 0.2 * REST_SHARE
    assert rest_s(0.2, is_appended=False) == 0.0
    assert rest_s(3_600.0, is_appended=True) == REST_S_MAX


@pytest.mark.parametrize(
    ("lag_s", "does_already", "stands"),
    [(0.9, False, False), (1.1, False, True), (0.9, True, True), (0.31, True, True), (0.29, True, False)],
)
def test_it_stands_back_above_the_limit_until_well_below(lag_s: float, *, does_already: bool, stands: bool) -> None:
    assert stands_back(Behind("table positions", lag_s), 1.0, does_already=does_already) is stands


def test_without_a_limit_or_without_a_lag_it_never_stands_back() -> None:
    assert not stands_back(Behind("table positions", 1e6), 0.0, does_already=True)
    assert not stands_back(None, 1.0, does_already=True)
    behind = [Behind("table positions", 0.2), Behind("replica far", 3.0), Behind("table edges", 1.0)]
    assert furthest(behind) == behind[1]


def test_a_load_that_stands_back_for_ever_gets_turns_of_its_own() -> None:
    behind = Behind("table positions", 5.0)
    turn, worked_s, step_s = Turn(0.0), 0.0, 0.5
    seconds = int(10 * (PATIENCE_S + TURN_S))
    for look in range(int(seconds / step_s)):
        turn = turn_after(turn, behind, 1.0, look * step_s)
        worked_s += 0.0 if turn.stands_back else step_s
    assert worked_s / seconds == pytest.approx(TURN_S / (PATIENCE_S + TURN_S), rel=0.1)


def test_a_turn_changes_only_when_it_should() -> None:
    behind, well = Behind("table positions", 5.0), Behind("table positions", 0.1)
    going = Turn(0.0)
    assert turn_after(going, well, 1.0, 7.0) is going
    standing = turn_after(going, behind, 1.0, 7.0)
    assert standing == Turn(7.0, stands_back=True)
    assert turn_after(standing, behind, 1.0, 7.0 + PATIENCE_S - 0.1) is standing
    assert turn_after(standing, well, 1.0, 8.0) == Turn(8.0)
    due = turn_after(standing, behind, 1.0, 7.0 + PATIENCE_S)
    assert due == Turn(7.0 + PATIENCE_S, is_due=True)
    assert turn_after(due, behind, 1.0, due.since + TURN_S - 0.1) is due
    assert turn_after(due, well, 1.0, due.since + TURN_S) == Turn(due.since + TURN_S)
    assert turn_after(due, behind, 1.0, due.since + TURN_S).stands_back


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3_723, "1:02:03")])
def test_a_duration_is_shown_as_people_write_it(seconds: float, shown: str) -> None:
    assert as_duration(seconds) == shown
