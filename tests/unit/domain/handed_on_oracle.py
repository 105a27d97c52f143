"""A naive ledger of positions that hand parts of themselves on: lists of facts as fractions, folded whole each time.

It shares no code with the ledger. A transfer is a fact of its giver; what came of it is worked out anew from the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from tests.unit.domain.oracle import r18

F = Fraction
NONE = F(0)
LEAST = F(1, 10**18)


@dataclass
class Traded:
    """One execution as it counts."""

    minute: int
    order: int
    is_entry: bool
    quantity: Fraction
    price: Fraction
    fee: Fraction
    busted: Fraction = NONE
    busted_amount: Fraction = NONE

    @property
    def amount(self) -> Fraction:
        return r18(self.quantity * self.price)

    @property
    def left(self) -> Fraction:
        return self.quantity - self.busted


@dataclass
class Split:
    minute: int
    order: int
    ratio: Fraction


@dataclass
class Gone:
    """So many contracts, at most what is held, went to another node."""

    minute: int
    order: int
    asked: Fraction
    receiver: Node


@dataclass
class Came:
    """What came along: contracts, cost, open fees, and since when it is held."""

    quantity: Fraction = NONE
    cost: Fraction = NONE
    fees: Fraction = NONE
    since: int | None = None


@dataclass
class Node:
    """One position."""

    account: str
    side: str
    came_at: int | None = None
    """When a transfer or an opening statement brought it; None: an execution opened it."""
    brought: Came | None = None
    """Stated; None: it is what a transfer took along."""
    facts: list[Traded | Split | Gone] = field(default_factory=list)
    settled: tuple[int, Fraction, Fraction] | None = None
    """(minute, value, fee)"""

    @property
    def sign(self) -> int:
        return -1 if self.side == "SHORT" else 1


@dataclass
class Sums:
    """What the facts make of a node."""

    quantity: Fraction = NONE
    cost: Fraction = NONE
    gross: Fraction = NONE
    entered: Fraction = NONE
    left: Fraction = NONE
    entry_amount: Fraction = NONE
    exit_amount: Fraction = NONE
    open_fees: Fraction = NONE
    close_fees: Fraction = NONE
    released: Fraction = NONE
    short: Fraction = NONE
    short_amount: Fraction = NONE
    peak: Fraction = NONE
    moved: Fraction = NONE
    since: int | None = None
    status: str = "voided"
    """How it stands when nothing is held."""
    flow: Fraction = NONE
    """Money that its own executions and its payout made free or took, fees included."""

    def named(self) -> dict[str, Fraction]:
        return {
            "quantity": self.quantity, "cost": self.cost, "realized_gross": self.gross, "entry_quantity": self.entered,
            "exit_quantity": self.left, "entry_amount": self.entry_amount, "exit_amount": self.exit_amount,
            "open_fees": self.open_fees, "close_fees": self.close_fees, "open_fees_released": self.released,
            "shortfall_quantity": self.short, "shortfall_amount": self.short_amount, "peak_quantity": self.peak,
            "transferred_quantity": self.moved, "realized_pnl": self.gross - self.open_fees - self.close_fees,
        }  # fmt: skip

    def enter(self, quantity: Fraction, amount: Fraction, fee: Fraction, since: int) -> None:
        self.quantity, self.cost, self.open_fees = self.quantity + quantity, self.cost + amount, self.open_fees + fee
        self.entered, self.entry_amount = self.entered + quantity, self.entry_amount + amount
        self.peak = max(self.peak, self.quantity)
        self.since = since if self.since is None else min(self.since, since)
        self.status = "closed"

    def leave(self, quantity: Fraction, amount: Fraction, sign: int) -> None:
        cost = share(self.cost, quantity, self.quantity)
        self.released += share(self.open_fees - self.released, quantity, self.quantity)
        self.gross += sign * (amount - cost)
        self.cost, self.quantity = self.cost - cost, self.quantity - quantity
        self.left, self.exit_amount = self.left + quantity, self.exit_amount + amount


def share(whole: Fraction, part: Fraction, of: Fraction) -> Fraction:
    return whole if part == of else r18(whole * part / of)


def folded(root: Node, until: int = 99) -> dict[int, Sums]:
    """Sums of a node and of all that came of it, by the identity of the node; what has not begun by then is left out."""
    found: dict[int, Sums] = {}
    _fold(root, root.brought, until, found)
    return found


def _fold(node: Node, came: Came | None, until: int, found: dict[int, Sums]) -> None:
    now = found[id(node)] = Sums()
    for minute, _, fact in _in_order(node, came):
        if minute <= until:
            _step(now, node, minute, fact)
        if isinstance(fact, Gone):  # what is told of the receiver before it received counts for itself
            _fold(fact.receiver, _go(now, fact) if minute <= until else None, until, found)
    if node.settled is not None and node.settled[0] <= until and now.quantity:
        _settle(now, node, *node.settled[1:])
    if now.quantity:
        now.status = "open"


def _in_order(node: Node, came: Came | None) -> list[tuple[int, int, Traded | Split | Gone | Came]]:
    facts: list[tuple[int, int, Traded | Split | Gone | Came]] = [(one.minute, one.order, one) for one in node.facts]
    if came is not None and node.came_at is not None:
        facts.append((node.came_at, 0, came))
    return sorted(facts, key=lambda one: one[:2])


def _step(now: Sums, node: Node, minute: int, fact: Traded | Split | Gone | Came) -> None:
    if isinstance(fact, Traded):
        _trade(now, fact, node)
    elif isinstance(fact, Split):
        _split(now, fact.ratio)
    elif isinstance(fact, Came) and fact.quantity:
        now.enter(fact.quantity, fact.cost, fact.fees, minute if fact.since is None else fact.since)


def _settle(now: Sums, node: Node, value: Fraction, fee: Fraction) -> None:
    paid = r18(now.quantity * value)
    paid = now.quantity - paid if node.side == "NO" else paid
    now.flow += flow_of(now, paid, node, now.quantity) - fee
    now.leave(now.quantity, paid, node.sign)
    now.close_fees += fee
    now.status = "settled"


def flow_of(now: Sums, amount: Fraction, node: Node, quantity: Fraction) -> Fraction:
    """What an exit makes free: the amount, of SHORT the gain, as its proceeds were locked."""
    return share(now.cost, quantity, now.quantity) - amount if node.side == "SHORT" else amount


def _trade(now: Sums, fact: Traded, node: Node) -> None:
    amount = fact.amount - fact.busted_amount
    now.flow -= fact.fee
    if not fact.left:
        if fact.is_entry:
            now.open_fees += fact.fee
        else:
            now.close_fees += fact.fee
        if fact.fee and not now.quantity:
            now.released = now.open_fees
    elif fact.is_entry:
        now.enter(fact.left, amount, fact.fee, fact.minute)
        now.flow -= 0 if node.side == "SHORT" else amount
    else:
        now.close_fees += fact.fee
        taken = min(now.quantity, fact.left)
        got = share(amount, taken, fact.left) if taken else NONE
        if taken:
            now.flow += flow_of(now, got, node, taken)
            now.leave(taken, got, node.sign)
        else:
            now.released = now.open_fees
        now.short, now.short_amount = now.short + fact.left - taken, now.short_amount + amount - got
        now.status = "closed"


def _split(now: Sums, ratio: Fraction) -> None:
    was_held = now.quantity
    for name in ("quantity", "left", "peak", "short", "moved"):
        setattr(now, name, r18(getattr(now, name) * ratio))
    if was_held and not now.quantity:
        now.quantity = LEAST
    now.entered = now.quantity + now.left - now.moved


def _go(now: Sums, fact: Gone) -> Came:
    moved = min(now.quantity, fact.asked)
    if not moved:
        return Came()
    cost = share(now.cost, moved, now.quantity)
    fees = share(now.open_fees - now.released, moved, now.quantity)
    now.quantity, now.cost, now.open_fees = now.quantity - moved, now.cost - cost, now.open_fees - fees
    now.moved -= moved
    now.status = "transferred"
    return Came(moved, cost, fees, now.since)
