"""Exact numbers: one decimal context, one rounding, and the field types that let nothing inexact in.

All figures of the ledger are multiples of 1e-18 below 1e20 in size, the range of numeric(38,18). Given numbers are
rounded half-even to 18 places when a command is constructed, computed ones when it is decided, and never afterwards.
Every value has one representation (no trailing zeros, no positive exponent, no negative zero), so that equal content
is equal text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import reduce
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason

__all__ = [
    "CONTEXT",
    "ONE",
    "ZERO",
    "Figure",
    "Money",
    "NotNegative",
    "Price",
    "Probability",
    "Quantity",
    "allocate",
    "amount_of",
    "fits",
    "mean_of",
    "minus",
    "plus",
    "pro_rata",
    "round18",
]

CONTEXT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX)
ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
LIMIT: Final = Decimal(10) ** 20
"""First size that numeric(38,18) cannot hold."""

_QUANTUM: Final = Decimal("1e-18")
_DIGITS_MAX: Final = 200
"""Longest text that is read as a number; nothing meaningful is longer."""


def round18(value: Decimal) -> Decimal:
    """Round half-even to 18 places, in the one representation of the result.

    Raises ``decimal.InvalidOperation`` for a value of 1e62 or more, which no checked field can hold.
    """
    rounded = CONTEXT.quantize(value, _QUANTUM)
    whole = rounded.to_integral_value()
    if whole != rounded:
        return rounded.normalize(CONTEXT)
    return whole or ZERO


def fits(value: Decimal) -> bool:
    """Whether numeric(38,18) holds the value."""
    return -LIMIT < value < LIMIT


def amount_of(quantity: Decimal, price: Decimal, multiplier: Decimal = ONE) -> Decimal:
    """``round18(quantity * price * multiplier)``: fixed once per fill, for cost and cash alike."""
    return round18(CONTEXT.multiply(CONTEXT.multiply(quantity, price), multiplier))


def plus(left: Decimal, right: Decimal) -> Decimal:
    """Add exactly, whatever decimal context the calling thread has."""
    return round18(CONTEXT.add(left, right))


def minus(left: Decimal, right: Decimal) -> Decimal:
    """Subtract exactly, whatever decimal context the calling thread has."""
    return round18(CONTEXT.subtract(left, right))


def pro_rata(total: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """``round18(total * part / whole)``, and exactly ``total`` when the part is the whole."""
    if part == whole:
        return total
    return round18(CONTEXT.divide(CONTEXT.multiply(total, part), whole))


def mean_of(amount: Decimal, quantity: Decimal, multiplier: Decimal = ONE) -> Decimal | None:
    """Price per contract: ``round18(amount / (quantity * multiplier))``; None for no quantity."""
    return round18(CONTEXT.divide(amount, CONTEXT.multiply(quantity, multiplier))) if quantity else None


def allocate(total: Decimal, weights: Iterable[Decimal]) -> tuple[Decimal, ...]:
    """Split ``total`` in proportion to positive weights; the parts sum to it exactly, each within 1e-18 of its share.

    Cumulative shares are rounded, so no part collects the rounding of all others.
    """
    parts = tuple(weights)
    if len(parts) == 1:
        return (total,)
    whole = reduce(plus, parts, ZERO)
    allocated, so_far, result = ZERO, ZERO, []
    for weight in parts:
        so_far = plus(so_far, weight)
        upto = pro_rata(total, so_far, whole)
        result.append(minus(upto, allocated))
        allocated = upto
    return tuple(result)


def exact(value: object) -> Decimal:
    """Turn what a caller gave into an exact number of the ledger.

    Accepts Decimal, int and numeric text. Raises ``PydanticCustomError`` with the code of a `Reason` for bool, float,
    anything that is not a finite number, and 1e20 or more.
    """
    if type(value) is not Decimal:
        value = _parsed(value)
    if not value.is_finite():
        raise refusal(Reason.NOT_A_NUMBER, value)
    if not fits(value):
        raise refusal(Reason.NUMBER_TOO_LARGE, value)
    rounded = round18(value)
    if not fits(rounded):
        raise refusal(Reason.NUMBER_TOO_LARGE, value)
    return rounded


def _parsed(value: object) -> Decimal:
    if isinstance(value, float):
        raise refusal(Reason.FLOAT_NOT_ALLOWED, value)
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refusal(Reason.NOT_A_NUMBER, value)
    if isinstance(value, int):
        if abs(value) >= LIMIT:
            raise refusal(Reason.NUMBER_TOO_LARGE, value)
        return Decimal(value)
    if len(value) > _DIGITS_MAX or "_" in value:
        raise refusal(Reason.NOT_A_NUMBER, value)
    try:
        return Decimal(value)
    except InvalidOperation:
        raise refusal(Reason.NOT_A_NUMBER, value) from None


def _quantity(value: object) -> Decimal:
    number = exact(value)
    if number <= 0:
        raise refusal(Reason.QUANTITY_NOT_POSITIVE, value)
    return number


def _not_negative(value: object) -> Decimal:
    number = exact(value)
    if number < 0:
        raise refusal(Reason.NUMBER_NEGATIVE, value)
    return number


def _probability(value: object) -> Decimal:
    number = exact(value)
    if not 0 <= number <= 1:
        raise refusal(Reason.PROBABILITY_OUT_OF_RANGE, value)
    return number


@dataclass(frozen=True, slots=True)
class _Exactly:
    """Validate with one Python function and write as text; faster than pydantic's own Decimal with a validator."""

    check: Callable[[object], Decimal]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check,
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


Money = Annotated[Decimal, _Exactly(exact)]
"""Any amount; a fee below zero is a rebate."""

NotNegative = Annotated[Decimal, _Exactly(_not_negative)]
"""An amount that cannot be below zero."""

Price = Annotated[Decimal, _Exactly(_not_negative)]
"""Price of one contract, own side. 0 is a legal price; the upper bound depends on the side and is checked with it."""

Probability = Annotated[Decimal, _Exactly(_probability)]
"""A number in [0, 1]."""

Quantity = Annotated[Decimal, _Exactly(_quantity)]
"""Number of contracts, greater than 0."""

Figure = Decimal
"""A booked number in an event: exact already, so only its form is checked when it is read."""
