"""A second, naive ledger: it keeps lists of fills as fractions and recomputes everything from them each time.

It shares no code with the ledger. Figures are worked out from the whole list, not step by step from the state before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from itertools import pairwise

F = Fraction
PLACES = 10**18


class Refused(Exception):
    """The naive ledger would not accept it."""


def r18(value: Fraction) -> Fraction:
    """Half-even to 18 places: Python rounds fractions so."""
    return F(round(value * PLACES), PLACES)


def parts_of(total: Fraction, weights: list[Fraction]) -> list[Fraction]:
    """Differences of the rounded cumulative shares."""
    marks = [r18(total * sum(weights[:n], F(0)) / sum(weights, F(0))) for n in range(len(weights) + 1)]
    return [upper - lower for lower, upper in pairwise(marks)]


@dataclass
class Part:
    is_entry: bool
    quantity: Fraction
    price: Fraction
    amount: Fraction
    fee: Fraction


@dataclass
class Holding:
    name: str
    side: str
    entry_time: datetime
    parts: list[Part] = field(default_factory=list)
    mark: Fraction | None = None
    status: str = "open"

    @property
    def quantity(self) -> Fraction:
        return sum((part.quantity if part.is_entry else -part.quantity for part in self.parts), F(0))

    def figures(self) -> dict[str, Fraction | None]:
        sign = -1 if self.side == "SHORT" else 1
        entries = [part for part in self.parts if part.is_entry]
        exits = [part for part in self.parts if not part.is_entry]
        held = cost = gross = peak = fees_left = fees_released = F(0)
        for part in self.parts:
            if part.is_entry:
                held, cost, fees_left = held + part.quantity, cost + part.amount, fees_left + part.fee
                peak = max(peak, held)
                continue
            released, fee_released = r18(cost * part.quantity / held), r18(fees_left * part.quantity / held)
            gross += sign * (part.amount - released)
            cost, held = cost - released, held - part.quantity
            fees_left, fees_released = fees_left - fee_released, fees_released + fee_released
        entry_quantity, entry_amount = sum(p.quantity for p in entries), sum(p.amount for p in entries)
        exit_quantity, exit_amount = sum(p.quantity for p in exits), sum(p.amount for p in exits)
        open_fees, close_fees = sum(p.fee for p in entries), sum(p.fee for p in exits)
        exit_price = None
        if exits:
            exit_price = exits[0].price if len(exits) == 1 else r18(F(exit_amount) / exit_quantity)
        price = exit_price if not held else self.mark if self.mark is not None else entries[0].price
        assert price is not None
        unrealized = sign * (r18(held * price) - cost) if held else None
        ratio = r18(unrealized / cost) if unrealized is not None and cost else None
        return {
            "quantity": held,
            "entry_quantity": F(entry_quantity),
            "exit_quantity": F(exit_quantity),
            "peak_quantity": peak,
            "entry_amount": F(entry_amount),
            "exit_amount": F(exit_amount),
            "cost": cost,
            "realized_gross": gross,
            "open_fees": F(open_fees),
            "close_fees": F(close_fees),
            "open_fees_released": fees_released,
            "entry_price": entries[0].price if len(entries) == 1 else r18(F(entry_amount) / entry_quantity),
            "average_entry_price": r18(cost / held) if held else None,
            "exit_price": exit_price,
            "current_price": price,
            "realized_pnl": gross - open_fees - close_fees,
            "realized_pnl_closed": gross - close_fees - fees_released,
            "unrealized_pnl": unrealized,
            "unrealized_pnl_pct": ratio if ratio is None or abs(ratio) < 10**20 else None,
            "shortfall_quantity": F(0),
        }


@dataclass
class NaiveLedger:
    """Holdings by key, in the order of opening; names as the tests give them (POS-1, POS-2, …)."""

    holdings: dict[tuple[str, int | None], list[Holding]] = field(default_factory=dict)
    count: int = 0

    def all(self) -> list[Holding]:
        return [holding for held in self.holdings.values() for holding in held]

    def named(self, name: str) -> Holding:
        return next(holding for holding in self.all() if holding.name == name)

    def open(self, key: tuple[str, int | None], side: str, at: datetime, part: Part) -> None:
        self.count += 1
        self.holdings.setdefault(key, []).append(Holding(f"POS-{self.count}", side, at, [part]))

    def trade(self, holding: Holding, part: Part) -> None:
        if not part.is_entry and part.quantity > holding.quantity:
            raise Refused
        holding.parts.append(part)
        if not holding.quantity:
            holding.status = "closed"

    def settle(self, holding: Holding, value: Fraction, fee: Fraction) -> None:
        quantity = holding.quantity
        if holding.side == "NO":
            part = Part(False, quantity, 1 - value, quantity - r18(quantity * value), fee)  # noqa: FBT003
        else:
            part = Part(False, quantity, value, r18(quantity * value), fee)  # noqa: FBT003
        holding.parts.append(part)
        holding.status = "settled"

    def open_on(self, key: tuple[str, int | None], side: str) -> list[Holding]:
        """Oldest entry first; sorting keeps the order of opening for equal times."""
        held = [h for h in self.holdings.get(key, []) if h.side == side and h.status == "open"]
        return sorted(held, key=lambda holding: holding.entry_time)

    def fill(
        self,
        candidates: list[Holding],
        key: tuple[str, int | None],
        side: str,
        at: datetime,
        *,
        is_entry: bool,
        quantity: Fraction,
        price: Fraction,
        fee: Fraction,
        dust: Fraction,
        flips: bool,
    ) -> None:
        if is_entry:
            self._enter(candidates, key, side, at, Part(True, quantity, price, r18(quantity * price), fee))  # noqa: FBT003
            return
        held = sum((holding.quantity for holding in candidates), F(0))
        excess = max(quantity - held, F(0))
        if excess and held and excess <= dust:
            quantity, excess = held, F(0)
        if excess and not flips:
            raise Refused
        other = {"YES": "NO", "NO": "YES", "LONG": "SHORT", "SHORT": "LONG"}[side]
        other_price = 1 - price if side in {"YES", "NO"} else price
        takes: list[tuple[Holding, Fraction]] = []
        left = quantity - excess
        for holding in candidates:
            take = min(left, holding.quantity)
            if take:
                takes.append((holding, take))
            left -= take
        weights = [take for _, take in takes] + ([excess] if excess else [])
        fees = parts_of(fee, weights)
        if other_price == price:
            amounts = parts_of(r18(price * sum(weights)), weights)
        else:
            amounts = parts_of(r18(price * sum(weights[: len(takes)])), weights[: len(takes)]) if takes else []
            amounts += [r18(excess * other_price)]
        for (holding, take), amount, part_fee in zip(takes, amounts, fees, strict=False):
            self.trade(holding, Part(False, take, price, amount, part_fee))  # noqa: FBT003
        if excess:
            entry = Part(True, excess, other_price, amounts[-1], fees[-1])  # noqa: FBT003
            self._enter(self.open_on(key, other), key, other, at, entry)

    def _enter(
        self, candidates: list[Holding], key: tuple[str, int | None], side: str, at: datetime, part: Part
    ) -> None:
        if candidates:
            candidates[0].parts.append(part)
        else:
            self.open(key, side, at, part)
