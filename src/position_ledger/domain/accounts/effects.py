"""What a position does to the money of its account: the difference of two pure functions of its figures.

binary: cash = realized_pnl, locked = cost (opening moves the amount from free to locked; only fees leave).
LONG: cash = realized_pnl - cost, nothing is locked. SHORT: cash = realized_pnl + cost (the proceeds), locked =
cost * (1 + margin_rate): the proceeds and the margin. free = cash - locked. Whatever changes a position, a trade, a
settlement, a bust or an amendment, changes its account by the difference, so corrections need no code of their own.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from position_ledger.domain.accounts.events import Postings
from position_ledger.domain.numbers import ONE, ZERO, amount_of, minus, plus
from position_ledger.domain.vocabulary import Side

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

__all__ = ["Effect", "Held", "Holding", "effect", "effect_of_return", "holding"]


class Holding(NamedTuple):
    """What a position has done to its account since it was opened, in its currency."""

    cash: Decimal = ZERO
    locked: Decimal = ZERO
    holdings: Decimal = ZERO
    realized: Decimal = ZERO
    """Before fees."""
    fees: Decimal = ZERO


NOTHING: Final = Holding()


class Held(Protocol):
    """What the money of a position is computed from; a state of it, or a row."""

    @property
    def side(self) -> Side:
        """What it holds."""

    @property
    def cost(self) -> Decimal:
        """Of what is open."""

    @property
    def realized_gross(self) -> Decimal:
        """Before fees."""

    @property
    def realized_pnl(self) -> Decimal:
        """Net of all fees."""

    @property
    def open_fees(self) -> Decimal:
        """On entries."""

    @property
    def close_fees(self) -> Decimal:
        """On exits."""

    @property
    def margin_rate(self) -> Decimal:
        """Share of the cost that a SHORT locks beside its proceeds."""


class Effect(NamedTuple):
    """What one event of a position does to its account."""

    cash: Decimal
    locked: Decimal
    postings: Postings


def holding(position: Held) -> Holding:
    """Add up what a position has done to the money of its account."""
    side, cost = position.side, position.cost
    fees = plus(position.open_fees, position.close_fees)
    if side.is_binary:
        return Holding(position.realized_pnl, cost, ZERO, position.realized_gross, fees)
    if side is Side.LONG:
        return Holding(minus(position.realized_pnl, cost), ZERO, cost, position.realized_gross, fees)
    locked = amount_of(cost, plus(ONE, position.margin_rate))
    return Holding(plus(position.realized_pnl, cost), locked, minus(ZERO, cost), position.realized_gross, fees)


def effect(before: Position | None, after: Position, *, brought: Decimal = ZERO) -> Effect | None:
    """Say what an event that made ``after`` of ``before`` does to the account; None: nothing.

    ``brought`` is what of the position's cost and fees was paid elsewhere (a transfer, an opening balance): it comes
    from outside, or goes there if it is below zero.
    """
    old, new = holding(before) if before else NOTHING, holding(after)
    if old == new and not brought:
        return None
    change = Holding(*(minus(right, left) for left, right in zip(old, new, strict=True)))
    cash = plus(change.cash, brought)
    return Effect(
        cash,
        change.locked,
        Postings(
            free=minus(cash, change.locked),
            locked=change.locked,
            holdings=change.holdings,
            realized=minus(ZERO, change.realized),
            fees=change.fees,
            external=minus(ZERO, brought),
        ),
    )


def effect_of_return(brought: Decimal) -> Effect:
    """Say what it does to an account that a part which went elsewhere took ``brought`` less along than was told."""
    return Effect(brought, ZERO, Postings(free=brought, external=minus(ZERO, brought)))
