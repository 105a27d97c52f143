"""Fees in whatever they are charged: what they are in the currency of the position, and what they take of its quantity.

A fee in the base asset is paid in contracts: an entry of q with a fee of f holds q - f, an exit of q takes q + f of
what is held. What is held is booked at its price, and the fee is the rest of what was paid or is received, so that
cash changes by exactly ``round18(q * p)``. Any other foreign fee needs its rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from position_ledger.domain.figures import Booking
from position_ledger.domain.numbers import amount_of, minus, plus
from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from decimal import Decimal

    from position_ledger.domain.markets.market import Market

__all__ = ["Charge", "charge_of"]


class Charge(NamedTuple):
    """An execution with its fee as booked."""

    quantity: Decimal
    """Contracts that the position gains or loses."""
    fee: Decimal
    """In the currency of the position."""
    charged: Decimal | None = None
    """What the venue charged, in the fee's own currency; None: that of the position."""

    def booking(self, price: Decimal, multiplier: Decimal) -> Booking:
        """Give what moves the figures."""
        return Booking(self.quantity, price, amount_of(self.quantity, price, multiplier), self.fee)


def charge_of(
    command: Any,
    market: Market | None,
    currency: str,
    *,
    price: Decimal,
    multiplier: Decimal,
    is_entry: bool,
    leaves: Decimal | None = None,
) -> Charge:
    """Value the fee of a command. ``leaves``: an exit of all of these contracts, of which the fee is a part.

    Raises `CommandRejected` for a foreign fee without a rate, and for one that takes all of the quantity.
    """
    fee, fee_currency = command.fee, command.fee_currency
    executed = command.quantity if leaves is None else leaves
    if not fee or fee_currency in {None, currency}:
        return Charge(executed, fee)
    if market is not None and fee_currency == market.base_asset:
        if leaves is not None:
            executed = minus(leaves, fee)
        held = minus(executed, fee) if is_entry else plus(executed, fee)
        if min(executed, held) <= 0:
            raise CommandRejected(Reason.FEE_TAKES_ALL, command, value=fee, held=leaves or command.quantity)
        paid, booked = amount_of(executed, price, multiplier), amount_of(held, price, multiplier)
        return Charge(held, minus(paid, booked) if is_entry else minus(booked, paid), fee)
    if command.fee_rate is None:
        raise CommandRejected(Reason.FEE_CURRENCY_UNSUPPORTED, command, value=fee_currency, held=currency)
    return Charge(executed, amount_of(fee, command.fee_rate), fee)
