"""Lots: which entries each exit used up. A report over the facts of the ledger, which itself books at average cost.

Facts are those that count (busts out, corrections in), in effective order. FIFO uses the oldest entry first, LIFO the
newest, HIFO the one that makes the gain smallest (the highest price; the lowest for SHORT); average uses all of them in
proportion. gross = sign * (amount - cost used up); net also takes the fee of the exit and the fees of the entries used
up, in proportion. Shortfall uses up nothing and is left out. Everything is rounded to 18 places.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import TYPE_CHECKING

from position_ledger.domain.journal import FillFact, ReceivedFact, SplitFact, TransferredFact, read_journal
from position_ledger.domain.numbers import ONE, ZERO, amount_of, mean_of, minus, plus, pro_rata
from position_ledger.domain.vocabulary import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from decimal import Decimal

    from position_ledger.domain.draft import Append
    from position_ledger.domain.journal import Journal, Verdict

__all__ = ["LotExit", "LotUsed", "Lots", "Method", "OpenLot", "lots_of"]


class Method(StrEnum):
    """Which entries an exit uses up first."""

    AVERAGE = "average"
    FIFO = "fifo"
    LIFO = "lifo"
    HIFO = "hifo"


@dataclass(frozen=True, slots=True)
class OpenLot:
    """What is left of one entry."""

    entered_at: datetime
    price: Decimal
    quantity: Decimal
    cost: Decimal
    fees: Decimal
    """Of the entry, not used up yet."""


@dataclass(frozen=True, slots=True)
class LotUsed:
    """What an exit used up of one entry."""

    entered_at: datetime
    quantity: Decimal
    cost: Decimal
    fees: Decimal


@dataclass(frozen=True, slots=True)
class LotExit:
    """One exit, a settlement or void included, and the entries it used up."""

    left_at: datetime
    quantity: Decimal
    price: Decimal
    amount: Decimal
    fee: Decimal
    gross: Decimal
    net: Decimal
    used: tuple[LotUsed, ...]


@dataclass(frozen=True, slots=True)
class Lots:
    """The lots of one position by one method. ``gross`` and ``net`` are the sums over its exits."""

    method: Method
    side: Side
    exits: tuple[LotExit, ...]
    open: tuple[OpenLot, ...]
    gross: Decimal
    net: Decimal


def lots_of(appends: Iterable[Append], method: Method) -> Lots:
    """Work out the lots of a position from all its events, by version."""
    journal = read_journal(appends)
    begun = journal.begun
    book = _Book(method, begun.side, begun.multiplier)
    book.read(journal)
    return Lots(
        method,
        begun.side,
        tuple(book.exits),
        tuple(book.lots),
        reduce(plus, (one.gross for one in book.exits), ZERO),
        reduce(plus, (one.net for one in book.exits), ZERO),
    )


class _Book:
    """Open lots, the oldest entry first, and the exits so far."""

    def __init__(self, method: Method, side: Side, multiplier: Decimal) -> None:
        self.method = method
        self.side = side
        self.multiplier = multiplier
        self.lots: list[OpenLot] = []
        self.exits: list[LotExit] = []

    def read(self, journal: Journal) -> None:
        for fact in journal.facts:
            if isinstance(fact, FillFact) and fact.counts:
                self._fill(fact)
            elif isinstance(fact, ReceivedFact) and fact.counts:
                self._receive(fact)
            elif isinstance(fact, TransferredFact):
                self._use(min(fact.event.quantity, self.held))
            elif isinstance(fact, SplitFact):
                self._split(fact.event.ratio)
        if journal.verdict is not None and self.lots:
            self._end(journal.verdict)

    @property
    def held(self) -> Decimal:
        return reduce(plus, (lot.quantity for lot in self.lots), ZERO)

    def _fill(self, fact: FillFact) -> None:
        if fact.is_entry:
            self.lots.append(OpenLot(fact.at, fact.fill.price, fact.quantity, fact.amount, fact.fill.fee))
            return
        quantity = min(self.held, fact.quantity)
        if quantity:
            amount = pro_rata(fact.amount, quantity, fact.quantity)
            self._leave(fact.at, quantity, fact.fill.price, amount, fact.fill.fee)

    def _leave(self, at: datetime, quantity: Decimal, price: Decimal, amount: Decimal, fee: Decimal) -> None:
        used = self._use(quantity)
        cost = reduce(plus, (one.cost for one in used), ZERO)
        fees = reduce(plus, (one.fees for one in used), ZERO)
        gross = minus(amount, cost) if self.side.sign > 0 else minus(cost, amount)
        self.exits.append(LotExit(at, quantity, price, amount, fee, gross, minus(minus(gross, fees), fee), used))

    def _use(self, quantity: Decimal) -> tuple[LotUsed, ...]:
        used = []
        for lot, taken in self._chosen(quantity):
            part = LotUsed(
                lot.entered_at, taken, pro_rata(lot.cost, taken, lot.quantity), pro_rata(lot.fees, taken, lot.quantity)
            )
            left = OpenLot(
                lot.entered_at,
                lot.price,
                minus(lot.quantity, taken),
                minus(lot.cost, part.cost),
                minus(lot.fees, part.fees),
            )
            place = next(index for index, one in enumerate(self.lots) if one is lot)
            self.lots[place : place + 1] = [left] if left.quantity else []
            used.append(part)
        return tuple(used)

    def _chosen(self, quantity: Decimal) -> Iterator[tuple[OpenLot, Decimal]]:
        if self.method is Method.AVERAGE:
            yield from self._in_proportion(quantity)
            return
        for lot in self._in_order():
            taken = min(quantity, lot.quantity)
            if not taken:
                return
            yield lot, taken
            quantity = minus(quantity, taken)

    def _in_order(self) -> list[OpenLot]:
        if self.method is Method.LIFO:
            return self.lots[::-1]
        if self.method is Method.HIFO:
            return sorted(self.lots, key=lambda lot: -self.side.sign * lot.price)
        return list(self.lots)

    def _in_proportion(self, quantity: Decimal) -> Iterator[tuple[OpenLot, Decimal]]:
        """Differences of rounded cumulative shares: the parts sum to the quantity exactly."""
        held, so_far, given = self.held, ZERO, ZERO
        for lot in list(self.lots):
            so_far = plus(so_far, lot.quantity)
            upto = pro_rata(quantity, so_far, held)
            taken = min(minus(upto, given), lot.quantity)
            given = upto
            if taken:
                yield lot, taken

    def _end(self, verdict: Verdict) -> None:
        quantity = self.held
        if verdict.value is None:
            cost = reduce(plus, (lot.cost for lot in self.lots), ZERO)
            self._leave(verdict.at, quantity, ZERO, cost, ZERO)
            return
        amount, price = amount_of(quantity, verdict.value, self.multiplier), verdict.value
        if self.side is Side.NO:
            amount, price = minus(amount_of(quantity, ONE, self.multiplier), amount), minus(ONE, price)
        self._leave(verdict.at, quantity, price, amount, verdict.fee)

    def _receive(self, fact: ReceivedFact) -> None:
        price = mean_of(fact.cost, fact.quantity, self.multiplier) or ZERO
        self.lots.append(OpenLot(fact.entry_time, price, fact.quantity, fact.cost, fact.fees))

    def _split(self, ratio: Decimal) -> None:
        self.lots = [
            OpenLot(
                lot.entered_at,
                pro_rata(lot.price, ONE, ratio),
                amount_of(lot.quantity, ratio),
                lot.cost,
                lot.fees,
            )
            for lot in self.lots
        ]
