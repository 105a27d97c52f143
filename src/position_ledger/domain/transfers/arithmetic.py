"""Figures of what is no execution: taken over, given away, or counted in other contracts."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.events import Figures
from position_ledger.domain.exits import TrailingState
from position_ledger.domain.figures import checked, figures_of, unrealized
from position_ledger.domain.numbers import CONTEXT, ONE, ZERO, amount_of, mean_of, minus, plus, pro_rata, round18
from position_ledger.domain.vocabulary import Side

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

LEAST: Final = Decimal("1e-18")

__all__ = ["brought_with", "divided", "given", "split", "taken"]


def brought_with(side: Side, cost: Decimal, fees: Decimal) -> Decimal:
    """Say what goes along with a position that moves: the fees paid for it, and its cost.

    The cost of a binary is the cash that is locked behind it, that of LONG was paid. SHORT carries its proceeds itself.
    """
    return fees if side is Side.SHORT else plus(cost, fees)


def taken(
    side: Side, quantity: Decimal, cost: Decimal, fees: Decimal, price: Decimal, multiplier: Decimal = ONE
) -> Figures:
    """Figures of a position that comes with its cost and fees; ``price`` is what one contract is worth now."""
    profit, fraction = unrealized(side, quantity, cost, price, multiplier)
    average = mean_of(cost, quantity, multiplier)
    return checked(
        Figures(
            quantity=quantity,
            entry_quantity=quantity,
            peak_quantity=quantity,
            entry_amount=cost,
            cost=cost,
            open_fees=fees,
            entry_price=average or ZERO,
            average_entry_price=average,
            current_price=price,
            realized_pnl=minus(ZERO, fees),
            unrealized_pnl=profit,
            unrealized_pnl_pct=fraction,
        )
    )


def given(before: Position, quantity: Decimal) -> tuple[Figures, Decimal, Decimal]:
    """Figures after a part went elsewhere, its cost and its unreleased open fees, all in proportion."""
    cost = pro_rata(before.cost, quantity, before.quantity)
    fees = pro_rata(minus(before.open_fees, before.open_fees_released), quantity, before.quantity)
    left, cost_left = minus(before.quantity, quantity), minus(before.cost, cost)
    open_fees = minus(before.open_fees, fees)
    profit = fraction = None
    if left:
        profit, fraction = unrealized(before.side, left, cost_left, before.current_price, before.multiplier)
    after = figures_of(before).model_copy(
        update={
            "quantity": left,
            "cost": cost_left,
            "open_fees": open_fees,
            "average_entry_price": mean_of(cost_left, left, before.multiplier),
            "realized_pnl": minus(minus(before.realized_gross, open_fees), before.close_fees),
            "unrealized_pnl": profit,
            "unrealized_pnl_pct": fraction,
            "transferred_quantity": minus(before.transferred_quantity, quantity),
        }
    )
    return checked(after), cost, fees


def split(before: Position, ratio: Decimal) -> Figures:
    """Figures counted in contracts of which ``ratio`` were one before; amounts, cost and P&L stay.

    Each quantity is rounded, except what was entered: that is what is held and what went, so that they sum exactly.
    What is held stays held, be it the least that can be.
    """
    names = (
        "quantity",
        "exit_quantity",
        "peak_quantity",
        "shortfall_quantity",
        "transferred_quantity",
    )
    quantities = {name: amount_of(getattr(before, name), ratio) for name in names}
    if before.quantity and not quantities["quantity"]:
        quantities["quantity"] = LEAST
    gone = minus(quantities["exit_quantity"], quantities["transferred_quantity"])
    quantities["entry_quantity"] = plus(quantities["quantity"], gone)
    price = divided(before.current_price, ratio)
    profit = fraction = None
    if before.quantity:
        profit, fraction = unrealized(before.side, quantities["quantity"], before.cost, price, before.multiplier)
    prices: dict[str, Any] = {
        "entry_price": divided(before.entry_price, ratio),
        "average_entry_price": mean_of(before.cost, quantities["quantity"], before.multiplier),
        "exit_price": None if before.exit_price is None else divided(before.exit_price, ratio),
        "current_price": price,
        "unrealized_pnl": profit,
        "unrealized_pnl_pct": fraction,
    }
    return checked(figures_of(before).model_copy(update=quantities | prices))


def divided(price: Decimal, ratio: Decimal) -> Decimal:
    """Price of one contract after each became ``ratio``."""
    return round18(CONTEXT.divide(price, ratio))


def split_trailing(state: TrailingState, ratio: Decimal) -> TrailingState:
    """A trailing stop in the prices of the new contracts; a distance in percent stays."""
    names = ("trail_amount", "activation_price", "watermark", "stop_price")
    changed = {name: divided(value, ratio) for name in names if (value := getattr(state, name)) is not None}
    return state.model_copy(update=changed)
