"""Fees in whatever they are charged: what they are in the currency of the position, and what they take of its quantity.

A fee in the base asset is paid in contracts: an entry of q with a fee of f holds q - f, and of the amount q * p the
part f * p is the fee. An exit of q takes q + f of what is held, and of the amount (q + f) * p the part f * p is the
fee. Any other foreign fee needs its rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from position_ledger.domain.figures import Booking
from position_ledger.domain.numbers import ZERO, amount_of, minus, plus
from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["Charge", "booking_of", "charge_of", "exit_quantity_of"]


class Charge(NamedTuple):
    """A fee as booked."""

    value: Decimal
    """In the currency of the position."""
    contracts: Decimal = ZERO
    """What it takes of the quantity; not zero for a fee in the base asset only."""
    charged: Decimal | None = None
    """What the venue charged in the fee's own currency; None: that of the position."""


def charge_of(command: Any, *, currency: str, base_asset: str | None, price: Decimal, multiplier: Decimal) -> Charge:
    """Value the fee of a command. Raises `CommandRejected` for a foreign fee without a rate."""
    fee, fee_currency = command.fee, command.fee_currency
    if not fee or fee_currency in {None, currency}:
        return Charge(fee)
    if fee_currency == base_asset:
        return Charge(amount_of(fee, price, multiplier), fee, fee)
    if command.fee_rate is None:
        raise CommandRejected(Reason.FEE_CURRENCY_UNSUPPORTED, command, value=fee_currency, held=currency)
    return Charge(amount_of(fee, command.fee_rate), ZERO, fee)


def exit_quantity_of(quantity: Decimal, charge: Charge) -> Decimal:
    """Contracts that an exit takes of what is held: a fee in the base asset comes on top."""
    return plus(quantity, charge.contracts)


def booking_of(quantity: Decimal, price: Decimal, multiplier: Decimal, charge: Charge, *, is_entry: bool) -> Booking:
    """Book an execution of ``quantity`` with its fee, in contracts of the position and its currency."""
    amount = amount_of(quantity, price, multiplier)
    if not charge.contracts:
        return Booking(quantity, price, amount, charge.value)
    if is_entry:
        return Booking(minus(quantity, charge.contracts), price, minus(amount, charge.value), charge.value)
    return Booking(exit_quantity_of(quantity, charge), price, plus(amount, charge.value), charge.value)
