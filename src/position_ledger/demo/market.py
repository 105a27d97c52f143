"""A trading session made by the project itself: seeded, so that two runs send the same commands."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from position_ledger import (
    ClosePosition,
    Command,
    Executed,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SettlePosition,
)

TICK = Decimal("0.01")
ENVIRONMENT = "paper"
OPEN_MAX = 40
"""Positions that one trader holds at most: beyond it, it closes one for each that it opens."""


@dataclass(slots=True)
class Holding:
    """What the trader believes it holds; the ledger is asked nothing."""

    position_id: str
    market: int
    side: str
    quantity: int


@dataclass(slots=True)
class Trader:
    """Some accounts trading YES and NO in a few binary markets whose prices walk at random."""

    seed: int
    accounts: Sequence[str]
    markets: int = 6
    holdings: list[Holding] = field(default_factory=list)
    random: random.Random = field(init=False)
    yes_prices: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Start the walks in the middle."""
        self.random = random.Random(self.seed)
        self.yes_prices = [self.random.randint(30, 70) for _ in range(self.markets)]

    def price(self, market: int, side: str) -> Decimal:
        """Own-side price of one contract."""
        cents = self.yes_prices[market] if side == "YES" else 100 - self.yes_prices[market]
        return cents * TICK

    def round(self) -> Iterator[list[Command]]:
        """One tick of one market: marks for what is held there, and a trade. Each list is one atomic batch."""
        market = self.random.randrange(self.markets)
        step = self.random.choice((-2, -1, 1, 2))
        self.yes_prices[market] = min(97, max(3, self.yes_prices[market] + step))
        marks: list[Command] = [
            MarkPosition(position_id=one.position_id, price=self.price(market, one.side), source="walk")
            for one in self.holdings
            if one.market == market
        ]
        if marks:
            yield marks
        yield [self._trade(market)]

    def _trade(self, market: int) -> Command:
        mine = [one for one in self.holdings if one.market == market]
        if not mine or (len(self.holdings) < OPEN_MAX and self.random.random() < 0.4):
            return self._open(market)
        chosen = self.random.choice(mine)
        dice = self.random.random()
        if chosen.quantity > 20 and dice < 0.5:
            chosen.quantity -= 10
            fee = Decimal("0.02")
            return ReducePosition(
                position_id=chosen.position_id, quantity=10, price=self.price(market, chosen.side), fee=fee
            )
        if dice < 0.7:
            chosen.quantity += 10
            return IncreasePosition(
                position_id=chosen.position_id, quantity=10, price=self.price(market, chosen.side), fee="0.02"
            )
        self.holdings.remove(chosen)
        reason = "profit_target" if self.random.random() < 0.5 else "stop_loss"
        return ClosePosition(position_id=chosen.position_id, price=self.price(market, chosen.side), reason=reason)

    def _open(self, market: int) -> Command:
        side = self.random.choice(("YES", "NO"))
        account, quantity = self.random.choice(self.accounts), self.random.randrange(10, 100, 10)
        name, price = f"MARKET-{market + 1}", self.price(market, side)
        if self.random.random() < 0.5:
            return OpenPosition(
                environment=ENVIRONMENT, account=account, market=name, side=side, quantity=quantity, entry_price=price,
                strategy=1, fee="0.05",
            )  # fmt: skip
        return RecordFill(
            environment=ENVIRONMENT, account=account, market=name, side=side, quantity=quantity, price=price,
            action="buy", strategy=self.random.randrange(10**6), fee="0.05",
        )  # fmt: skip

    def note(self, command: Command, executed: Executed) -> None:
        """Remember what a command opened."""
        if isinstance(command, (OpenPosition, RecordFill)) and executed.position_id and command.side is not None:
            market = int(str(command.market).removeprefix("MARKET-")) - 1
            quantity = int(command.quantity)
            self.holdings.append(Holding(executed.position_id, market, command.side.value, quantity))

    def settlement(self) -> Iterator[list[Command]]:
        """Every market is decided; what is still held is paid out."""
        outcomes = [Decimal(self.random.randint(0, 1)) for _ in range(self.markets)]
        for holding in self.holdings:
            yield [SettlePosition(position_id=holding.position_id, value=outcomes[holding.market])]
        self.holdings.clear()
