"""given … when … then: what it accepts, and what it says when the outcome is another."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import CommandRejected, FloatRefused, Handle, Reason
from position_ledger.events import (
    BookPositionClosed,
    BookPositionOpened,
    PositionClosed,
    PositionMarked,
    PositionOpened,
    PositionReduced,
)
from position_ledger.testing import given, like
from projections.positions import POSITIONS
from tests.support.commands import closing, marking, opening, reducing

if TYPE_CHECKING:
    from position_ledger.testing import Outcome


def reduced() -> Outcome:
    return given(opening()).when(reducing("POS-1", 40, "0.60"))


# What holds


def test_events_can_be_told_by_type_by_values_and_whole() -> None:
    outcome = reduced()
    outcome.then(PositionReduced)
    outcome.then(like(PositionReduced, quantity=60, realized_gross=Decimal("7.2"), price=Decimal("0.6")))
    outcome.then(*outcome.events)
    outcome.then([PositionReduced])
    outcome.then(list(outcome.events)).then(PositionReduced)


def test_books_are_left_out_unless_they_are_asked_for() -> None:
    outcome = given(opening()).when(closing("POS-1", "0.70"))
    outcome.then(PositionClosed)
    outcome.then(PositionClosed, BookPositionClosed)
    given().when(opening()).then(like(PositionOpened, account="main"), BookPositionOpened)


def test_history_can_be_events_or_commands_or_both() -> None:
    events = given().when(opening()).events
    for history in ([opening()], list(events), [event for event in events if isinstance(event, PositionOpened)]):
        given(history).when(reducing("POS-1", 40, "0.60")).then(like(PositionReduced, quantity=60))
        given(*history, marking("POS-1", "0.50")).when(closing("POS-1", "0.70")).then(PositionClosed)


def test_closing_events_in_the_history_close_the_book_too() -> None:
    happened = [*given().when(opening()).events, *given(opening()).when(closing("POS-1", "0.5")).events]
    given(happened).when(closing("POS-1", "0.5")).then(Reason.POSITION_NOT_OPEN)
    assert given(happened).when(opening()).then(PositionOpened).rejection is None


def test_nothing_expected_means_no_event() -> None:
    given(opening(), marking("POS-1", "0.5", effective_at="2026-06-01T00:00:00Z")).when(
        marking("POS-1", "0.6", effective_at="2026-05-01T00:00:00Z")
    ).then()


@pytest.mark.parametrize(
    "told",
    [Reason.QUANTITY_EXCEEDS_HELD, CommandRejected(Reason.QUANTITY_EXCEEDS_HELD, value=1, held=1), CommandRejected],
)
def test_a_rejection_can_be_told_by_reason_by_error_and_by_type(told: Any) -> None:
    given(opening()).when(reducing("POS-1", 101, "0.5")).then(told)


def test_a_command_that_cannot_be_made_is_an_outcome_if_it_is_made_when_it_is_due() -> None:
    given().when(lambda: opening(quantity=1.5)).then(FloatRefused)
    given().when(lambda: opening(side="UP")).then(Reason.SIDE_UNKNOWN)


def test_commands_of_one_scenario_address_positions_by_handle_and_number() -> None:
    outcome = given(opening(handle="a"), opening(handle="b", market="OTHER")).when(
        marking(Handle("b"), "0.5"), marking("POS-4", "0.6"), marking(1, "0.7")
    )
    outcome.then(PositionMarked, PositionMarked, PositionMarked)
    assert outcome.position(Handle("b")).market == "OTHER"
    assert outcome.position("POS-4").mark_time is not None


def test_an_outcome_becomes_the_history_of_the_next() -> None:
    reduced().when(reducing("POS-1", 60, "0.70")).then(like(PositionClosed, quantity=0, exit_reason="manual"))


def test_the_history_can_be_used_again() -> None:
    history = given(opening())
    for _ in range(2):
        history.when(reducing("POS-1", 70, "0.5")).then(PositionReduced)


def test_a_scenario_runs_the_same_way_every_time() -> None:
    assert reduced().rows(POSITIONS) == reduced().rows(POSITIONS)


def test_the_rows_of_a_projection_follow_the_whole_history() -> None:
    rows = reduced().rows(POSITIONS)
    assert [(row["id"], row["position_id"], row["quantity"], row["row_current_ind"]) for row in rows] == [
        (1, "POS-1", 100, False),
        (4, "POS-1", 60, True),
    ]
    assert rows[0]["row_expiration_date"] == rows[1]["row_effective_date"]


# What does not hold is an AssertionError that says what is different


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        ([], "expected no event, but there were PositionReduced"),
        ([PositionClosed], "event 1, PositionReduced: it is PositionReduced, expected PositionClosed"),
        ([PositionReduced, PositionClosed], "expected PositionReduced, PositionClosed, but there were PositionReduced"),
        ([like(PositionReduced, quantity=61)], r"quantity is Decimal\('60'\), expected 61"),
        ([like(PositionReduced, quanity=60)], "PositionReduced has no field 'quanity'"),
        ([like(PositionMarked, price=1)], "it is PositionReduced, expected PositionMarked"),
        ([Reason.TOO_LATE], "expected too_late, but it was accepted: PositionReduced"),
        ([CommandRejected], "expected CommandRejected, but it was accepted"),
        ([Reason.TOO_LATE, PositionReduced], "refused for one reason"),
    ],
    ids=str,
)
def test_another_outcome_is_named(expected: list[Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        reduced().then(*expected)


def test_a_whole_event_that_differs_names_the_field() -> None:
    other = given(opening()).when(reducing("POS-1", 40, "0.61")).events
    with pytest.raises(AssertionError, match=r"PositionReduced: fill is .*0\.6.*expected .*0\.61.*; figures is"):
        reduced().then(*other)


def test_a_refusal_where_events_were_expected_says_why() -> None:
    outcome = given(opening()).when(reducing("POS-1", 101, "0.5"))
    with pytest.raises(AssertionError, match="expected PositionReduced, but it was refused: quantity 101 exceeds"):
        outcome.then(PositionReduced)
    with pytest.raises(AssertionError, match="expected too_late, but it was quantity_exceeds_held"):
        outcome.then(Reason.TOO_LATE)


def test_an_event_without_a_position_is_no_history() -> None:
    mark = PositionMarked(price=Decimal(1), unrealized_pnl=Decimal(1))
    with pytest.raises(AssertionError, match="no position was opened before it"):
        given(mark)


def test_a_history_that_could_not_happen_is_the_callers_error() -> None:
    with pytest.raises(CommandRejected):
        given(opening(), reducing("POS-1", 101, "0.5"))
