"""The arithmetic of a position: what an entry, an exit and a mark make of its figures. Average cost, fees at once.

sign is +1 for YES, NO and LONG, -1 for SHORT. Entry: quantity += q, cost += amount. Exit: released =
round18(cost * q / quantity), realized_gross += sign * (amount - released), cost -= released, quantity -= q.
realized_pnl = realized_gross - open_fees - close_fees; realized_pnl_closed = realized_gross - close_fees -
open_fees_released; unrealized_pnl = sign * (quantity * current_price - cost), null when flat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from position_ledger.domain.events import Figures
from position_ledger.domain.numbers import (
    CONTEXT,
    LIMIT,
    ONE,
    ZERO,
    amount_of,
    fits,
    mean_of,
    minus,
    plus,
    pro_rata,
    round18,
)
from position_ledger.domain.rejections import CommandRejected, Reason

if TYPE_CHECKING:
    from decimal import Decimal

    from position_ledger.domain.position import Position
    from position_ledger.domain.vocabulary import Side

__all__ = [
    "FIGURE_NAMES",
    "Booking",
    "charged",
    "checked",
    "entered",
    "exited",
    "figures_of",
    "opened",
    "refunded",
    "short",
    "unrealized",
    "valued",
]

FIGURE_NAMES: Final = tuple(Figures.model_fields)


class Booking(NamedTuple):
    """What moves the figures: contracts, own-side price of one, amount of all, and the fee in the same currency."""

    quantity: Decimal
    price: Decimal
    amount: Decimal
    fee: Decimal


def opened(side: Side, booking: Booking, multiplier: Decimal = ONE) -> Figures:
    """Figures of a new position; its current price is its entry price."""
    quantity, price, amount, fee = booking
    profit, fraction = unrealized(side, quantity, amount, price, multiplier)
    return checked(
        Figures(
            quantity=quantity,
            entry_quantity=quantity,
            peak_quantity=quantity,
            entry_amount=amount,
            cost=amount,
            open_fees=fee,
            entry_price=price,
            average_entry_price=mean_of(amount, quantity, multiplier),
            current_price=price,
            realized_pnl=minus(ZERO, fee),
            unrealized_pnl=profit,
            unrealized_pnl_pct=fraction,
        )
    )


def entered(before: Position, booking: Booking) -> Figures:
    """Figures after more of the same side was entered; the current price stays what the last mark said."""
    quantity = plus(before.quantity, booking.quantity)
    cost = plus(before.cost, booking.amount)
    entry_quantity = plus(before.entry_quantity, booking.quantity)
    entry_amount = plus(before.entry_amount, booking.amount)
    profit, fraction = unrealized(before.side, quantity, cost, before.current_price, before.multiplier)
    return checked(
        Figures(
            quantity=quantity,
            entry_quantity=entry_quantity,
            exit_quantity=before.exit_quantity,
            peak_quantity=max(before.peak_quantity, quantity),
            entry_amount=entry_amount,
            exit_amount=before.exit_amount,
            cost=cost,
            realized_gross=before.realized_gross,
            open_fees=plus(before.open_fees, booking.fee),
            close_fees=before.close_fees,
            open_fees_released=before.open_fees_released,
            entry_price=_mean_entry(before, booking, entry_amount, entry_quantity),
            average_entry_price=mean_of(cost, quantity, before.multiplier),
            exit_price=before.exit_price,
            current_price=before.current_price,
            realized_pnl=minus(before.realized_pnl, booking.fee),
            realized_pnl_closed=before.realized_pnl_closed,
            shortfall_quantity=before.shortfall_quantity,
            shortfall_amount=before.shortfall_amount,
            transferred_quantity=before.transferred_quantity,
            unrealized_pnl=profit,
            unrealized_pnl_pct=fraction,
        )
    )


def exited(before: Position, booking: Booking) -> tuple[Figures, Decimal]:
    """Figures after an exit of at most what is held, and what this exit alone realized before fees.

    The last exit releases all cost and all open fees exactly, and leaves the mean exit price as current price.
    """
    held = before.quantity
    released = pro_rata(before.cost, booking.quantity, held)
    open_fees_left = minus(before.open_fees, before.open_fees_released)
    gain = _signed(before.side, minus(booking.amount, released))
    quantity, cost = minus(held, booking.quantity), minus(before.cost, released)
    exit_quantity = plus(before.exit_quantity, booking.quantity)
    exit_amount = plus(before.exit_amount, booking.amount)
    exit_price = _mean_exit(before, booking, exit_amount, exit_quantity)
    current_price = before.current_price if quantity else exit_price
    realized_gross = plus(before.realized_gross, gain)
    close_fees = plus(before.close_fees, booking.fee)
    open_fees_released = plus(before.open_fees_released, pro_rata(open_fees_left, booking.quantity, held))
    profit = fraction = None
    if quantity:
        profit, fraction = unrealized(before.side, quantity, cost, current_price, before.multiplier)
    after = Figures(
        quantity=quantity,
        entry_quantity=before.entry_quantity,
        exit_quantity=exit_quantity,
        peak_quantity=before.peak_quantity,
        entry_amount=before.entry_amount,
        exit_amount=exit_amount,
        cost=cost,
        realized_gross=realized_gross,
        open_fees=before.open_fees,
        close_fees=close_fees,
        open_fees_released=open_fees_released,
        entry_price=before.entry_price,
        average_entry_price=mean_of(cost, quantity, before.multiplier),
        exit_price=exit_price,
        current_price=current_price,
        realized_pnl=minus(minus(realized_gross, before.open_fees), close_fees),
        realized_pnl_closed=minus(minus(realized_gross, close_fees), open_fees_released),
        shortfall_quantity=before.shortfall_quantity,
        shortfall_amount=before.shortfall_amount,
        transferred_quantity=before.transferred_quantity,
        unrealized_pnl=profit,
        unrealized_pnl_pct=fraction,
    )
    return checked(after), gain


def short(before: Position, quantity: Decimal, amount: Decimal) -> Figures:
    """Figures after an exit of contracts that were not held: it is told apart and moves nothing else."""
    return figures_of(before).model_copy(
        update={
            "shortfall_quantity": plus(before.shortfall_quantity, quantity),
            "shortfall_amount": plus(before.shortfall_amount, amount),
        }
    )


def charged(before: Position, fee: Decimal, *, is_entry: bool) -> Figures:
    """Figures after a fee without contracts: of a trade that was busted, or of an exit that met nothing."""
    open_fees = plus(before.open_fees, fee) if is_entry else before.open_fees
    close_fees = before.close_fees if is_entry else plus(before.close_fees, fee)
    released = before.open_fees_released if before.quantity else open_fees
    return _with_fees(before, open_fees, close_fees, released)


def refunded(before: Position) -> Figures:
    """Figures after all fees of a flat position were given back."""
    return _with_fees(before, ZERO, ZERO, ZERO)


def _with_fees(before: Position, open_fees: Decimal, close_fees: Decimal, released: Decimal) -> Figures:
    gross = before.realized_gross
    return checked(
        figures_of(before).model_copy(
            update={
                "open_fees": open_fees,
                "close_fees": close_fees,
                "open_fees_released": released,
                "realized_pnl": minus(minus(gross, open_fees), close_fees),
                "realized_pnl_closed": minus(minus(gross, close_fees), released),
            }
        )
    )


def valued(before: Position, price: Decimal) -> Figures:
    """Figures with another current price; unrealized follows it while anything is held."""
    profit = fraction = None
    if before.quantity:
        profit, fraction = unrealized(before.side, before.quantity, before.cost, price, before.multiplier)
    return figures_of(before).model_copy(
        update={"current_price": price, "unrealized_pnl": profit, "unrealized_pnl_pct": fraction}
    )


def figures_of(position: Position) -> Figures:
    """Take the figures of a position as an event carries them."""
    return Figures.model_construct(**{name: getattr(position, name) for name in FIGURE_NAMES})


def _mean_entry(before: Position, booking: Booking, entry_amount: Decimal, entry_quantity: Decimal) -> Decimal:
    """Mean of all entries; of a single one it is its price, which the rounding of its amount must not change."""
    mean = mean_of(entry_amount, entry_quantity, before.multiplier) if before.entry_quantity else None
    return booking.price if mean is None else mean


def _mean_exit(before: Position, booking: Booking, exit_amount: Decimal, exit_quantity: Decimal) -> Decimal:
    """Mean of all exits; of a single one it is its price, which the rounding of its amount must not change."""
    mean = mean_of(exit_amount, exit_quantity, before.multiplier) if before.exit_quantity else None
    return booking.price if mean is None else mean


def unrealized(
    side: Side, quantity: Decimal, cost: Decimal, price: Decimal, multiplier: Decimal = ONE
) -> tuple[Decimal, Decimal | None]:
    """P&L of what is held at ``price``, and the same as a fraction of its cost.

    The fraction is None at cost 0, and when its column cannot hold it: a fact is not refused for a ratio.
    """
    profit = _signed(side, minus(amount_of(quantity, price, multiplier), cost))
    require_fits("unrealized_pnl", profit)
    fraction = round18(CONTEXT.divide(profit, cost)) if cost else None
    return profit, fraction if fraction is None or fits(fraction) else None


def require_fits(field: str, value: Decimal | None) -> None:
    """Refuse a figure that its column cannot hold, before anything is appended."""
    if value is not None and not -LIMIT < value < LIMIT:
        raise CommandRejected(Reason.FIGURE_TOO_LARGE, field=field, value=f"{value:.6e}")


def _signed(side: Side, gain: Decimal) -> Decimal:
    return gain if side.sign > 0 else minus(ZERO, gain)


def checked(figures: Figures) -> Figures:
    """Refuse figures that their columns cannot hold."""
    for field, value in figures.__dict__.items():
        if value is not None and not -LIMIT < value < LIMIT:
            require_fits(field, value)
    return figures
