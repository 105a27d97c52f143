"""What the trades, transfers and payouts of a position add up to, counted from its events one by one, as fractions.

Law 1 and law 2 from the bottom: figures are not believed but counted again from executions and their corrections.
"""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tests.unit.domain.oracle import r18

if TYPE_CHECKING:
    from collections.abc import Iterable

    from position_ledger.domain.decisions import Append
    from position_ledger.domain.position import Position

F = Fraction
ZERO = F(0)
SMALL = F(1, 10**15)
"""Beyond what roundings of 18 places can sum up to in one history; only contracts that were split need it."""


@dataclass
class Counted:
    """Sums over the events of one position."""

    is_entry_action: str
    trades: dict[int, tuple[bool, Fraction, Fraction, Fraction]] = field(default_factory=dict)
    """(is_entry, quantity, amount, fee) of each execution by version of its event, as it counts now."""
    quantity: Fraction = ZERO
    """Of what is no execution: taken over, given away, and what a split has made of all before it."""
    cost: Fraction = ZERO
    fees: Fraction = ZERO
    is_split: bool = False
    verdict_fee: Fraction = ZERO
    value: Fraction | None = None
    refunds: bool = False

    def hear(self, append: Append) -> None:
        """Count one more event."""
        event: Any = append.event
        getattr(self, f"_{event.TOPIC.partition('.')[2]}", self._fill)(append.version, event)

    def _fill(self, version: int, event: Any) -> None:
        fill = getattr(event, "fill", None)
        if fill is not None:
            numbers = (F(fill.quantity), F(fill.amount), F(fill.fee))
            self.trades[version] = (fill.action == self.is_entry_action, *numbers)

    def _corrected(self, _version: int, event: Any) -> None:
        is_entry, *_ = self.trades[event.trade.version]
        now = event.now
        left = (F(now.quantity) - F(now.busted_quantity), F(now.amount) - F(now.busted_amount), F(now.fee))
        self.trades[event.trade.version] = (is_entry, *left)

    _trade_busted = _trade_corrected = _fee_adjusted = _corrected

    def _received(self, _version: int, event: Any) -> None:
        self.quantity, self.cost = F(event.figures.quantity), F(event.figures.cost)
        self.fees = F(event.figures.open_fees)

    def _transferred(self, _version: int, event: Any) -> None:
        self.quantity, self.cost = self.quantity - F(event.quantity), self.cost - F(event.cost)
        self.fees -= F(event.fees)

    def _shares_split(self, _version: int, event: Any) -> None:
        self.is_split = True
        self.quantity *= F(event.ratio)
        for version, (is_entry, quantity, amount, fee) in self.trades.items():
            self.trades[version] = (is_entry, quantity * F(event.ratio), amount, fee)

    def _settled(self, _version: int, event: Any) -> None:
        self.value, self.verdict_fee, self.refunds = F(event.settlement_value), F(event.fee), False

    _settlement_amended = _settled

    def _voided(self, _version: int, event: Any) -> None:
        self.value, self.verdict_fee, self.refunds = None, F(0), event.refund_fees

    # Sums

    def of(self, *, is_entry: bool) -> tuple[Fraction, Fraction]:
        """(quantity, amount) of all entries, or of all exits."""
        those = [one for one in self.trades.values() if one[0] is is_entry and one[1]]
        return sum((one[1] for one in those), F(0)), sum((one[2] for one in those), F(0))


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
    fees = found.fees + sum((one[3] for one in found.trades.values()), F(0)) + (found.verdict_fee if is_paid else 0)
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
