"""What the trades, transfers and payouts of a position add up to, counted from its events one by one, as fractions.

Law 1 and law 2 from the bottom: figures are not believed but counted again from executions and their corrections.
"""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any

from tests.unit.domain.oracle import r18

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from position_ledger.domain.decisions import Append
    from position_ledger.domain.position import Position

F = Fraction
ZERO = F(0)
SMALL = F(1, 10**15)
"""Beyond what roundings of 18 places can sum up to in one history; only contracts that were split need it."""


@dataclass(frozen=True)
class Sum:
    """What one event adds or takes, as it counts now."""

    at: datetime
    version: int
    quantity: Fraction
    amount: Fraction
    fee: Fraction
    is_entry: bool = True


@dataclass
class Counted:
    """Sums over the events of one position. Each counts in the contracts of its own time, and in those of now."""

    is_entry_action: str
    trades: dict[int, Sum] = field(default_factory=dict)
    """Executions by version of their event."""
    came: Sum | None = None
    went: dict[int, Sum] = field(default_factory=dict)
    """What each transfer took along, by version of its event."""
    splits: list[tuple[datetime, int, Fraction]] = field(default_factory=list)
    verdict_fee: Fraction = ZERO
    value: Fraction | None = None
    refunds: bool = False

    def hear(self, append: Append) -> None:
        """Count one more event."""
        event: Any = append.event
        getattr(self, f"_{event.TOPIC.partition('.')[2]}", self._fill)(append, event)
        for part in getattr(getattr(event, "restated", None), "handed_on", ()):
            self.went[part.version] = Sum(part.at, part.version, F(part.quantity), F(part.cost), F(part.fees))

    def _fill(self, append: Append, event: Any) -> None:
        fill = getattr(event, "fill", None)
        if fill is not None:
            numbers = (F(fill.quantity), F(fill.amount), F(fill.fee))
            is_entry = fill.action == self.is_entry_action
            self.trades[append.version] = Sum(append.effective_at, append.version, *numbers, is_entry)

    def _corrected(self, _append: Append, event: Any) -> None:
        before, now = self.trades[event.trade.version], event.now
        left = (F(now.quantity) - F(now.busted_quantity), F(now.amount) - F(now.busted_amount), F(now.fee))
        self.trades[before.version] = Sum(now.execution_time, before.version, *left, before.is_entry)

    _trade_busted = _trade_corrected = _fee_adjusted = _corrected

    def _received(self, append: Append, event: Any) -> None:
        figures = event.figures
        self.came = Sum(append.effective_at, 1, F(figures.quantity), F(figures.cost), F(figures.open_fees))

    def _transfer_restated(self, append: Append, event: Any) -> None:
        assert self.came is not None
        assert self.came.at == append.effective_at
        self.came = Sum(self.came.at, 1, F(event.quantity), F(event.cost), F(event.fees))

    def _transferred(self, append: Append, event: Any) -> None:
        numbers = (F(event.quantity), F(event.cost), F(event.fees))
        self.went[append.version] = Sum(append.effective_at, append.version, *numbers)

    def _shares_split(self, append: Append, event: Any) -> None:
        self.splits.append((append.effective_at, append.version, F(event.ratio)))

    def _settled(self, _append: Append, event: Any) -> None:
        self.value, self.verdict_fee, self.refunds = F(event.settlement_value), F(event.fee), False

    _settlement_amended = _settled

    def _voided(self, _append: Append, event: Any) -> None:
        self.value, self.verdict_fee, self.refunds = None, F(0), event.refund_fees

    # Sums

    @property
    def is_split(self) -> bool:
        return bool(self.splits)

    def now(self, one: Sum) -> Fraction:
        """Its quantity in the contracts of now."""
        ratios = (ratio for at, version, ratio in self.splits if (one.at, one.version) < (at, version))
        return one.quantity * reduce(mul, ratios, F(1))

    def of(self, *, is_entry: bool) -> tuple[Fraction, Fraction]:
        """(quantity, amount) of all entries, or of all exits."""
        those = [one for one in self.trades.values() if one.is_entry is is_entry and one.quantity]
        return sum((self.now(one) for one in those), F(0)), sum((one.amount for one in those), F(0))

    @property
    def moved(self) -> list[tuple[int, Sum]]:
        """What came (1) and what went (-1) without an execution."""
        came = [] if self.came is None else [(1, self.came)]
        return came + [(-1, one) for one in self.went.values()]

    @property
    def quantity(self) -> Fraction:
        """Of what is no execution."""
        return sum((sign * self.now(one) for sign, one in self.moved), F(0))

    @property
    def cost(self) -> Fraction:
        return sum((sign * one.amount for sign, one in self.moved), F(0))

    @property
    def fees(self) -> Fraction:
        return sum((sign * one.fee for sign, one in self.moved), F(0))


def counted(position: Position, appends: Iterable[Append]) -> Counted:
    """Count the events of a position."""
    found = Counted(position.side.entry_action)
    for append in appends:
        found.hear(append)
    return found


def check_counted(position: Position, found: Counted) -> None:
    """Laws 1, 2 and 4: quantity, gain and fees are what executions, transfers and the payout add up to."""
    (entered, paid), (left, got) = found.of(is_entry=True), found.of(is_entry=False)
    held = found.quantity + entered - left + F(position.shortfall_quantity)
    is_paid = position.exit_reason in {"settlement", "void"}
    fees = found.fees + sum((one.fee for one in found.trades.values()), F(0)) + (found.verdict_fee if is_paid else 0)
    if is_paid and position.status == "voided" and found.refunds:
        fees = F(0)
    sign, payout = position.side.sign, F(0)
    if is_paid:
        payout = payout_of(position, found, held)
        held = F(0)
    gain = sign * (got - F(position.shortfall_amount) + payout - paid - found.cost + F(position.cost))
    slack = SMALL if found.is_split else F(0)
    assert abs(F(position.quantity) - held) <= slack
    assert abs(F(position.realized_gross) - gain) <= slack * 10**6
    assert F(position.open_fees) + F(position.close_fees) == fees
    assert F(position.realized_pnl) == F(position.realized_gross) - fees


def payout_of(position: Position, found: Counted, held: Fraction) -> Fraction:
    """What the market paid for what was held in the end: its value, or what it had cost."""
    assert held > 0 or found.is_split
    whole = r18(held * F(position.multiplier))
    if position.status == "voided":
        (_, paid), (_, got) = found.of(is_entry=True), found.of(is_entry=False)
        gain = position.side.sign * F(position.realized_gross)
        cost = gain + paid + found.cost - got + F(position.shortfall_amount)
        assert abs(cost - whole * F(position.exit_price or 0)) <= SMALL * 10**6 or found.trades
        return cost
    assert found.value == F(position.settlement_value or 0)
    at_value = r18(held * F(position.multiplier) * found.value)
    return whole - at_value if position.side == "NO" else at_value


def check_figures(position: Position) -> None:
    """Laws 1, 2, 3 and 6 by the figures alone, exactly, whatever happened to the position."""
    sign = position.side.sign
    fees = F(position.open_fees) + F(position.close_fees)
    gross, cost = F(position.realized_gross), F(position.cost)
    taken = F(position.entry_quantity) + F(position.transferred_quantity) - F(position.exit_quantity)
    assert F(position.quantity) == taken
    assert F(position.realized_pnl) == gross - fees
    given = sign * (sign * (F(position.exit_amount) - F(position.entry_amount)) + sign * cost - gross)
    assert given == 0 if not position.transferred_quantity else given <= 0
    value = r18(F(position.quantity) * F(position.multiplier) * F(position.current_price))
    if position.quantity:
        assert F(position.unrealized_pnl or 0) == sign * (value - cost)
    else:
        assert (cost, position.unrealized_pnl, position.average_entry_price) == (0, None, None)
        assert position.realized_pnl == position.realized_pnl_closed
    assert (position.quantity > 0) is position.is_open
