"""Exact numbers: one rounding, one representation, no help from the thread's decimal context."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import ReducePosition
from position_ledger.domain.numbers import (
    ZERO,
    allocate,
    amount_of,
    exact,
    fits,
    mean_of,
    minus,
    plus,
    pro_rata,
    round18,
)
from position_ledger.domain.vocabulary import Side
from tests.unit.domain.oracle import r18
from tests.unit.domain.world import D, World, examples

if TYPE_CHECKING:
    from collections.abc import Iterator

F = Fraction
ledger_numbers = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda digits: exact(f"{digits}e-18"))
positive = st.integers(1, 10**38 - 1).map(lambda digits: exact(f"{digits}e-18"))


@pytest.fixture(autouse=True)
def careless_context() -> Iterator[None]:
    """Callers set what decimal context they like; the ledger's numbers do not depend on it."""
    with localcontext(Context(prec=6)):
        yield


@pytest.mark.parametrize(
    ("given_", "rounded"),
    [
        ("0.4000", "0.4"),
        ("100", "100"),
        ("1E+2", "100"),
        ("-0", "0"),
        ("-0.0000000000000000004", "0"),
        ("0.0000000000000000005", "0"),
        ("0.0000000000000000015", "2E-18"),
        ("0.0000000000000000025", "2E-18"),
        ("-1.2345678901234567895", "-1.23456789012345679"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_round18_is_half_even_and_writes_each_value_in_one_way(given_: str, rounded: str) -> None:
    assert str(round18(D(given_))) == rounded


@examples(200)
@given(digits=st.integers(-(10**60), 10**60), places=st.integers(0, 40))
def test_round18_equals_rounding_of_fractions(digits: int, places: int) -> None:
    value = D(f"{digits}e-{places}")
    assert F(round18(value)) == r18(F(value))


@examples(200)
@given(left=ledger_numbers, right=ledger_numbers)
def test_sums_are_exact(left: Decimal, right: Decimal) -> None:
    assert F(plus(left, right)) == F(left) + F(right)
    assert F(minus(left, right)) == F(left) - F(right)
    assert F(amount_of(left, right)) == r18(F(left) * F(right))


@examples(200)
@given(total=ledger_numbers, part=positive, whole=positive)
def test_shares_are_rounded_once(total: Decimal, part: Decimal, whole: Decimal) -> None:
    assert F(pro_rata(total, part, whole)) == r18(F(total) * F(part) / F(whole))
    assert pro_rata(total, whole, whole) is total
    assert F(mean_of(total, whole) or 0) == r18(F(total) / F(whole))


def test_there_is_no_mean_of_nothing() -> None:
    assert mean_of(ZERO, ZERO) is None


@examples(200)
@given(total=ledger_numbers, weights=st.lists(positive, min_size=1, max_size=6))
def test_allocated_parts_sum_exactly_and_are_within_the_last_place(total: Decimal, weights: list[Decimal]) -> None:
    parts = allocate(total, weights)

    assert sum(map(F, parts)) == F(total)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(F(part) - F(total) * F(weight) / sum(map(F, weights))) <= F(1, 10**18)


@pytest.mark.parametrize(
    "value", [D("0.42"), 42, "0.42", " 0.42 ", "4.2e-1", D("1e-18"), type("Mine", (Decimal,), {})(7)]
)
def test_what_is_taken_as_a_number(value: object) -> None:
    number = exact(value)
    assert type(number) is Decimal
    assert number == D(str(value).strip())


def test_a_given_number_is_rounded_to_18_places() -> None:
    command = ReducePosition(position_id=1, quantity="1.0000000000000000005", price=D(1) / D("3.0"))
    assert str(command.quantity) == "1"


def test_what_the_column_holds() -> None:
    assert fits(D("99999999999999999999.999999999999999999"))
    assert not fits(D("1e20"))
    assert not fits(D("-1e20"))


def test_prices_change_their_space_in_one_place() -> None:
    assert Side.YES.price_on_other(D("0.123456789012345678")) == D("0.876543210987654322")
    assert Side.SHORT.price_on_other(D("123456.789")) == D("123456.789")


def test_figures_do_not_depend_on_the_context_of_the_caller() -> None:
    world = World()
    world.open(side="LONG", quantity="12345678901.123456789", entry_price="98765.987654321")
    world.do(ReducePosition(position_id="POS-1", quantity="2345678901.000000001", price="98765.987654322"))
    reduced = world.at("POS-1")
    assert F(reduced.cost) + F("2345678901.000000001") * F("98765.987654321") == F(reduced.entry_amount)
