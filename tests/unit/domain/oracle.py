"""A second, naive ledger: it keeps lists of fills as fractions and recomputes everything from them each time.

It shares no code with the ledger. Figures are worked out from the whole list, not step by step from the state before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from itertools import pairwise

F = Fraction
ZERO = F(0)
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
    """One execution, or a leg of one, on one holding; what was busted of it since is kept beside it."""

    is_entry: bool
    quantity: Fraction
    price: Fraction
    amount: Fraction
    fee: Fraction
    at: datetime | None = None
    legs: list[tuple[Holding, Part]] = field(default_factory=list)
    """All legs of the execution, in order; empty: it is the only one."""
    busted: Fraction = ZERO
    busted_amount: Fraction = ZERO

    @property
    def left(self) -> Fraction:
        return self.quantity - self.busted

    @property
    def due(self) -> Fraction:
        return self.amount - self.busted_amount

    def bust(self, quantity: Fraction | None = None, fee: Fraction | None = None) -> None:
        """Take all that is left of it, or so much, out; fees come back in proportion unless told."""
        part = self.left if quantity is None else quantity
        is_all = part == self.left
        back = (self.fee if is_all else r18(self.fee * part / self.left)) if fee is None else fee
        self.busted_amount += self.due if is_all else r18(self.due * part / self.left)
        self.busted, self.fee = self.busted + part, self.fee - back


@dataclass
class Verdict:
    value: Fraction
    fee: Fraction


@dataclass
class Tally:
    """Sums over the parts of a holding, each in its turn."""

    sign: int
    held: Fraction = ZERO
    cost: Fraction = ZERO
    gross: Fraction = ZERO
    peak: Fraction = ZERO
    open_fees: Fraction = ZERO
    close_fees: Fraction = ZERO
    released: Fraction = ZERO
    short: Fraction = ZERO
    short_amount: Fraction = ZERO
    entries: list[tuple[Fraction, Fraction, Fraction]] = field(default_factory=list)
    """(quantity, amount, price)"""
    exits: list[tuple[Fraction, Fraction, Fraction]] = field(default_factory=list)

    def enter(self, part: Part) -> None:
        self.open_fees += part.fee
        if not part.left:
            self.released = self.released if self.held else self.open_fees
            return
        self.held, self.cost = self.held + part.left, self.cost + part.due
        self.peak = max(self.peak, self.held)
        self.entries.append((part.left, part.due, part.price))

    def leave(self, quantity: Fraction, amount: Fraction, price: Fraction, fee: Fraction) -> None:
        taken = min(self.held, quantity)
        got = amount if taken == quantity else r18(amount * taken / quantity) if taken else F(0)
        self.close_fees += fee
        self.short, self.short_amount = self.short + quantity - taken, self.short_amount + amount - got
        if not taken:
            self.released = self.released if self.held else self.open_fees
            return
        released = r18(self.cost * taken / self.held)
        self.released += r18((self.open_fees - self.released) * taken / self.held)
        self.gross += self.sign * (got - released)
        self.cost, self.held = self.cost - released, self.held - taken
        self.exits.append((taken, got, price))


def mean(traded: list[tuple[Fraction, Fraction, Fraction]]) -> Fraction | None:
    if len(traded) < 2:
        return traded[0][2] if traded else None
    return r18(sum((amount for _, amount, _ in traded), F(0)) / sum((quantity for quantity, _, _ in traded), F(0)))


@dataclass
class Holding:
    name: str
    side: str
    entry_time: datetime
    parts: list[Part] = field(default_factory=list)
    mark: Fraction | None = None
    mark_at: datetime | None = None
    verdict: Verdict | None = None
    account: str = "main"
    order: int = 0
    """Of its last opening among all openings; a reopened one comes last."""

    @property
    def sign(self) -> int:
        return -1 if self.side == "SHORT" else 1

    def tally(self, *, is_paid: bool = True) -> Tally:
        now = Tally(self.sign)
        for part in self.parts:
            if part.is_entry:
                now.enter(part)
            elif part.left:
                now.leave(part.left, part.due, part.price, part.fee)
            else:
                now.leave(F(0), F(0), part.price, part.fee)
        if is_paid and self.verdict is not None and now.held:
            paid, price = r18(now.held * self.verdict.value), self.verdict.value
            if self.side == "NO":
                paid, price = now.held - paid, 1 - price
            now.leave(now.held, paid, price, self.verdict.fee)
        return now

    @property
    def quantity(self) -> Fraction:
        return self.tally().held

    @property
    def status(self) -> str:
        if self.verdict is not None and self.tally(is_paid=False).held:
            return "settled"
        if self.quantity:
            return "open"
        return "closed" if any(part.left for part in self.parts) else "voided"

    def money(self, margin_rate: Fraction = ZERO) -> tuple[Fraction, Fraction]:
        """(cash, locked) that it has brought to its account: from what was paid and received, and domain.md."""
        now = self.tally()
        paid, got = sum(amount for _, amount, _ in now.entries), sum(amount for _, amount, _ in now.exits)
        free = self.sign * (got - paid) - now.open_fees - now.close_fees
        if self.side == "LONG":
            return free, F(0)
        locked = now.cost if self.side != "SHORT" else r18(now.cost * (1 + margin_rate))
        return (free + locked, locked) if self.side != "SHORT" else (free, locked)

    def quote(self) -> Fraction:
        entries = [part for part in self.parts if part.is_entry and part.left]
        first = entries[0] if entries else self.parts[0]
        is_known = not entries or self.mark_at is None or first.at is None or self.mark_at >= first.at
        return self.mark if self.mark is not None and entries and is_known else first.price

    def figures(self) -> dict[str, Fraction | None]:
        now = self.tally()
        exit_price = mean(now.exits)
        price = self.quote() if now.held or exit_price is None else exit_price
        unrealized = self.sign * (r18(now.held * price) - now.cost) if now.held else None
        ratio = r18(unrealized / now.cost) if unrealized is not None and now.cost else None
        entry_price = mean(now.entries)
        return {
            "quantity": now.held,
            "entry_quantity": sum((quantity for quantity, _, _ in now.entries), F(0)),
            "exit_quantity": sum((quantity for quantity, _, _ in now.exits), F(0)),
            "peak_quantity": now.peak,
            "entry_amount": sum((amount for _, amount, _ in now.entries), F(0)),
            "exit_amount": sum((amount for _, amount, _ in now.exits), F(0)),
            "cost": now.cost,
            "realized_gross": now.gross,
            "open_fees": now.open_fees,
            "close_fees": now.close_fees,
            "open_fees_released": now.released,
            "entry_price": self.parts[0].price if entry_price is None else entry_price,
            "average_entry_price": r18(now.cost / now.held) if now.held else None,
            "exit_price": exit_price,
            "current_price": price,
            "realized_pnl": now.gross - now.open_fees - now.close_fees,
            "realized_pnl_closed": now.gross - now.close_fees - now.released,
            "unrealized_pnl": unrealized,
            "unrealized_pnl_pct": ratio if ratio is None or abs(ratio) < 10**20 else None,
            "shortfall_quantity": now.short,
            "shortfall_amount": now.short_amount,
        }


@dataclass
class NaiveLedger:
    """Holdings by key, in the order of opening; names as the tests give them (POS-1, POS-2, …)."""

    holdings: dict[tuple[str, int | None], list[Holding]] = field(default_factory=dict)
    count: int = 0
    openings: int = 0
    cash: Fraction = ZERO
    """Paid in less paid out, and all other money that no position earned or cost."""

    def all(self) -> list[Holding]:
        return [holding for held in self.holdings.values() for holding in held]

    def named(self, name: str) -> Holding:
        return next(holding for holding in self.all() if holding.name == name)

    def open(self, key: tuple[str, int | None], side: str, at: datetime, part: Part) -> Holding:
        self.count, self.openings = self.count + 1, self.openings + 1
        holding = Holding(f"POS-{self.count}", side, at, [part], order=self.openings)
        self.holdings.setdefault(key, []).append(holding)
        return holding

    def trade(self, holding: Holding, part: Part) -> None:
        if not part.is_entry and part.quantity > holding.quantity:
            raise Refused
        holding.parts.append(part)

    def settle(self, holding: Holding, value: Fraction, fee: Fraction) -> None:
        holding.verdict = Verdict(value, fee)

    def bust(self, holding: Holding, part: Part, quantity: Fraction | None = None, fee: Fraction | None = None) -> None:
        """Take an execution out, whole or in part; one that touched both sides is one, and goes whole."""
        if not part.left or (quantity is not None and quantity > part.left):
            raise Refused
        legs = part.legs if len({of.side for of, _ in part.legs}) > 1 else [(holding, part)]
        if len(legs) > 1 and (quantity not in (None, part.left) or fee is not None):
            raise Refused
        for of, leg in legs:
            was_open = of.status == "open"
            if leg.left:
                leg.bust(quantity if leg is part else None, fee)
            if of.status == "open" and not was_open:
                self.openings += 1
                of.order = self.openings

    def money(self, margin_rate: Fraction = ZERO) -> tuple[Fraction, Fraction]:
        """(cash, locked) of the one account that everything is in."""
        moved = [holding.money(margin_rate) for holding in self.all()]
        return self.cash + sum(cash for cash, _ in moved), sum((locked for _, locked in moved), F(0))

    def open_on(self, key: tuple[str, int | None], side: str) -> list[Holding]:
        """Oldest entry first; of equal times the one that was opened, or opened again, first."""
        held = [h for h in self.holdings.get(key, []) if h.side == side and h.status == "open"]
        return sorted(held, key=lambda holding: (holding.entry_time, holding.order))

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
            part = Part(True, quantity, price, r18(quantity * price), fee, at)  # noqa: FBT003
            self._enter(candidates, key, side, at, part)
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
        parts = [
            (holding, Part(False, take, price, amount, part_fee, at))  # noqa: FBT003
            for (holding, take), amount, part_fee in zip(takes, amounts, fees, strict=False)
        ]
        for holding, part in parts:
            self.trade(holding, part)
        if excess:
            entry = Part(True, excess, other_price, amounts[-1], fees[-1], at)  # noqa: FBT003
            parts.append((self._enter(self.open_on(key, other), key, other, at, entry), entry))
        for _, part in parts:
            part.legs = parts

    def _enter(
        self, candidates: list[Holding], key: tuple[str, int | None], side: str, at: datetime, part: Part
    ) -> Holding:
        if candidates:
            candidates[0].parts.append(part)
            return candidates[0]
        return self.open(key, side, at, part)
