"""Random commands of the whole domain, for histories in memory and for a real database alike.

A `Trader` draws from what a `View` says is there; it needs to know little, because a refusal is the ledger's right.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from position_ledger import (
    AdjustCash,
    AdjustFee,
    AmendMarket,
    AmendSettlement,
    BustTrade,
    ClosePosition,
    CorrectTrade,
    Deposit,
    IncreasePosition,
    MarkPosition,
    MergePair,
    OpenPosition,
    QuoteMarket,
    RecordCash,
    RecordFill,
    RecordOpeningPosition,
    ReducePosition,
    RegisterMarket,
    SetExits,
    SettleMarket,
    SettlePosition,
    SplitPair,
    SplitShares,
    TransferPosition,
    VoidMarket,
    VoidPosition,
    Withdraw,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from position_ledger import Command

ACCOUNTS = ("main", "other")
PAPER = "paper"
MARKETS: dict[str, dict[str, Any] | None] = {
    "PLAIN": None,
    "NETTED": {"kind": "binary", "netting": "market"},
    "TENFOLD": {"kind": "binary", "multiplier": 10},
    "PAID-1": {"kind": "binary"},
    "PAID-2": {"kind": "binary", "netting": "market"},
    "COIN": {"kind": "spot", "base_asset": "BTC", "margin_rate": "0.5"},
    "FUTURE": {"kind": "future", "multiplier": 50, "margin_rate": "0.1"},
    "SHARES": None,
}
"""Terms by market; None: nobody registers it."""
BINARY = ("PLAIN", "NETTED", "TENFOLD", "PAID-1", "PAID-2")
DECIDED = ("PAID-1", "PAID-2")
"""Markets that get verdicts."""


def is_binary(market: str) -> bool:
    """Whether YES and NO are traded there; what follows an @ in its name only tells it from others of its terms."""
    return market.partition("@")[0] in BINARY


@dataclass(frozen=True, slots=True)
class Held:
    """A position as a trader knows it."""

    ref: str
    account: str
    market: str
    side: str
    quantity: Decimal

    @property
    def is_binary(self) -> bool:
        return is_binary(self.market)


class View(Protocol):
    """What a trader sees."""

    @property
    def now(self) -> datetime: ...
    @property
    def open(self) -> Sequence[Held]: ...
    @property
    def ended(self) -> Sequence[Held]: ...
    @property
    def trades(self) -> Sequence[str]: ...
    @property
    def suffix(self) -> str:
        """Of the names of markets; a new one begins with books that are empty."""


def registrations(suffix: str = "") -> list[Command]:
    """What must be known before trading."""
    return [
        RegisterMarket(environment=PAPER, market=name + suffix, **terms) for name, terms in MARKETS.items() if terms
    ]


class Trader:
    """Draws one command of a kind; None where there is nothing that it could be about."""

    def __init__(self, dice: random.Random, view: View, number: int) -> None:
        self.dice = dice
        self.view = view
        self.number = number
        """Of the command: ids of corrections are made of it."""

    # Numbers

    def quantity(self) -> Decimal:
        return Decimal(self.dice.randrange(1, 200)) / self.dice.choice((1, 1, 1, 8, 100))

    def price(self, market: str) -> Decimal:
        if not is_binary(market):
            return Decimal(self.dice.choice((0, self.dice.randrange(1, 20_000)))) / 100
        return Decimal(self.dice.choice((0, 10_000, *(self.dice.randrange(1, 10_000) for _ in range(6))))) / 10_000

    def fee(self) -> Decimal:
        return Decimal(self.dice.choice((0, 0, self.dice.randrange(-50, 300)))) / 100

    def part(self, whole: Decimal) -> Decimal | None:
        """None: all."""
        share = self.dice.choice((None, 2, 3, 5))
        return None if share is None else round(whole / share, 18) or None

    def held(self, *, binary: bool | None = None) -> Held | None:
        those = [one for one in self.view.open if binary in (None, one.is_binary)]
        return self.dice.choice(those) if those else None

    def key(self) -> dict[str, Any]:
        market = self.dice.choice(tuple(MARKETS))
        sides = ("YES", "NO") if is_binary(market) else ("LONG", "SHORT")
        return {
            "environment": PAPER, "account": self.dice.choice(ACCOUNTS), "market": market + self.view.suffix,
            "side": self.dice.choice(sides), "strategy": self.dice.choice((None, 1)),
        }  # fmt: skip

    def fees_of(self, market: str) -> dict[str, Any]:
        if market.startswith("COIN") and self.dice.random() < 0.5:
            return {"fee": "0.001", "fee_currency": "BTC"}
        if self.dice.random() < 0.1:
            return {"fee": self.fee(), "fee_currency": "EUR", "fee_rate": "1.0917"}
        return {"fee": self.fee()}

    def earlier(self) -> datetime:
        return self.view.now - timedelta(seconds=self.dice.randrange(1, 600))

    # Money

    def deposit(self) -> Command:
        return Deposit(environment=PAPER, account=self.dice.choice(ACCOUNTS), amount=self.dice.randrange(1, 500_000))

    def withdraw(self) -> Command:
        return Withdraw(environment=PAPER, account=self.dice.choice(ACCOUNTS), amount=self.quantity())

    def cash(self) -> Command:
        about: dict[str, Any] = {"environment": PAPER, "account": self.dice.choice(ACCOUNTS), "amount": self.fee() or 1}
        if self.dice.random() < 0.3:
            return AdjustCash(**about, reason="venue statement")
        return RecordCash(**about, kind=self.dice.choice(("reward", "funding", "dividend")))

    # Executions

    def open(self) -> Command:
        key = self.key()
        most = Decimal("0.99") if is_binary(key["market"]) else Decimal(200)
        price = min(max(self.price(key["market"]), Decimal("0.01")), most)
        exits = {"stop_loss_price": "0.2", "trailing_stop": {"trail_amount": "0.1"}} if self.dice.random() < 0.3 else {}
        return OpenPosition(**key, quantity=self.quantity(), entry_price=price, **self.fees_of(key["market"]), **exits)

    def fill(self) -> Command:
        key = self.key()
        about = {"dust": self.dice.choice((0, 0, "0.5")), "on_excess": self.dice.choice(("refuse", "flip", "flip"))}
        return RecordFill(
            **key, **about, action=self.dice.choice(("buy", "sell")), quantity=self.quantity(),
            price=self.price(key["market"]), **self.fees_of(key["market"]),
        )  # fmt: skip

    def late_fill(self) -> Command:
        return self.fill().model_copy(update={"effective_at": self.earlier()})

    def change(self) -> Command | None:
        held = self.held()
        if held is None:
            return None
        kind = self.dice.choice((IncreasePosition, ReducePosition))
        about = {"position_id": held.ref, "price": self.price(held.market), **self.fees_of(held.market)}
        return kind(**about, quantity=self.part(held.quantity) or held.quantity or 1)

    def late_change(self) -> Command | None:
        known = (*self.view.open, *self.view.ended)
        if not known:
            return None
        held = self.dice.choice(known)
        kind = self.dice.choice((IncreasePosition, ReducePosition))
        return kind(
            position_id=held.ref, price=self.price(held.market), quantity=self.quantity(), fee=self.fee(),
            effective_at=self.earlier(),
        )  # fmt: skip

    def close(self) -> Command | None:
        held = self.held()
        price = self.price(held.market) if held else 0
        return (
            None if held is None else ClosePosition(position_id=held.ref, price=price, fee=self.fee(), reason="manual")
        )

    def mark(self) -> Command | None:
        held = self.held()
        return None if held is None else MarkPosition(position_id=held.ref, price=self.price(held.market))

    def exits(self) -> Command | None:
        held = self.held()
        return (
            None
            if held is None
            else SetExits(
                position_id=held.ref, target_price=self.price(held.market), trailing_stop={"trail_percent": "0.1"}
            )
        )

    # The market's word

    def settle(self) -> Command | None:
        held = self.held()
        value = self.price(held.market) if held else 0
        return None if held is None else SettlePosition(position_id=held.ref, value=value, fee=self.fee())

    def amend(self) -> Command | None:
        if not self.view.ended:
            return None
        held = self.dice.choice(self.view.ended)
        fee = self.dice.choice((None, self.fee()))
        return AmendSettlement(position_id=held.ref, value=self.price(held.market), fee=fee)

    def void(self) -> Command | None:
        known = (*self.view.open, *self.view.ended)
        refunds = self.dice.random() < 0.5
        return VoidPosition(position_id=self.dice.choice(known).ref, refund_fees=refunds) if known else None

    def verdict(self) -> Command:
        about = {"environment": PAPER, "market": self.dice.choice(DECIDED) + self.view.suffix}
        dice = self.dice.random()
        if dice < 0.1:
            return VoidMarket(**about, refund_fees=dice < 0.05)
        value = self.dice.choice(("0", "1", "0.5", "0.3125"))
        return (SettleMarket if dice < 0.6 else AmendMarket)(**about, value=value)

    def quote(self) -> Command:
        market = self.dice.choice(BINARY[1:]) + self.view.suffix
        return QuoteMarket(environment=PAPER, market=market, yes_price=self.price(market), no_price=self.price(market))

    # Corrections

    def about_a_trade(self) -> dict[str, Any] | None:
        if not self.view.trades:
            return None
        return {"trade": self.dice.choice(self.view.trades), "reason": "venue", "actor": "desk"}

    def bust(self) -> Command | None:
        about = self.about_a_trade()
        part = self.dice.choice((None, None, "0.125", "1", "7"))
        return None if about is None else BustTrade(**about, bust_id=f"b-{self.number}", quantity=part)

    def correct(self) -> Command | None:
        about = self.about_a_trade()
        if about is None:
            return None
        told: dict[str, Any] = {"price": Decimal(self.dice.randrange(1, 100)) / 100, "quantity": self.quantity()}
        told |= {"fee": self.fee(), "execution_time": self.earlier()}
        chosen = {name: told[name] for name in self.dice.sample(sorted(told), self.dice.randrange(1, 4))}
        return CorrectTrade(**about, correction_id=f"c-{self.number}", **chosen)

    def adjust_fee(self) -> Command | None:
        about = self.about_a_trade()
        return None if about is None else AdjustFee(**about, adjustment_id=f"a-{self.number}", fee=self.fee())

    # Positions that are moved, counted anew, made and handed in

    def transfer(self) -> Command | None:
        held = self.held()
        to = None if held is None else ACCOUNTS[held.account == ACCOUNTS[0]]
        return (
            None
            if held is None
            else TransferPosition(position_id=held.ref, to_account=to, quantity=self.part(held.quantity))
        )

    def split_shares(self) -> Command | None:
        held = self.held(binary=False)
        return (
            None
            if held is None
            else SplitShares(position_id=held.ref, ratio=self.dice.choice(("2", "3", "0.1", "1.5")))
        )

    def opening(self) -> Command:
        key = self.key()
        return RecordOpeningPosition(
            **key, quantity=self.quantity(), entry_price=self.price(key["market"]), open_fees=abs(self.fee())
        )

    def pair(self) -> Command | None:
        key = self.key() | {"market": self.dice.choice(BINARY) + self.view.suffix}
        del key["side"]
        yes = [one for one in self.view.open if one.side == "YES"]
        pairs = [
            (one, other) for one in yes for other in self.view.open
            if other.side == "NO" and (one.account, one.market) == (other.account, other.market)
        ]  # fmt: skip
        if not pairs or self.dice.random() < 0.4:
            return SplitPair(**key, quantity=self.quantity(), yes_price=self.price("PLAIN"), fee=self.fee())
        one, other = self.dice.choice(pairs)
        quantity = min(one.quantity, other.quantity)
        return MergePair(
            yes_position_id=one.ref, no_position_id=other.ref, quantity=self.part(quantity) or quantity or 1,
            yes_price=self.price("PLAIN"), fee=self.fee(),
        )  # fmt: skip


KINDS: dict[str, tuple[int, Callable[[Trader], Command | None]]] = {
    "deposit": (2, Trader.deposit),
    "withdraw": (2, Trader.withdraw),
    "cash": (2, Trader.cash),
    "open": (6, Trader.open),
    "fill": (16, Trader.fill),
    "late_fill": (5, Trader.late_fill),
    "change": (8, Trader.change),
    "late_change": (5, Trader.late_change),
    "close": (3, Trader.close),
    "mark": (5, Trader.mark),
    "exits": (2, Trader.exits),
    "settle": (2, Trader.settle),
    "amend": (3, Trader.amend),
    "void": (2, Trader.void),
    "verdict": (3, Trader.verdict),
    "quote": (1, Trader.quote),
    "bust": (7, Trader.bust),
    "correct": (6, Trader.correct),
    "adjust_fee": (3, Trader.adjust_fee),
    "transfer": (5, Trader.transfer),
    "split_shares": (3, Trader.split_shares),
    "opening": (2, Trader.opening),
    "pair": (5, Trader.pair),
}
"""How often each kind is drawn, and how."""
WEIGHTED = tuple(kind for kind, (weight, _) in KINDS.items() for _ in range(weight))


def command_of(kind: str, dice: random.Random, view: View, number: int) -> Command | None:
    """Draw a command of a kind."""
    return KINDS[kind][1](Trader(dice, view, number))
