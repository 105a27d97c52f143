"""The words of the ledger: sides, actions, environments, states, and what follows from a side alone."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from position_ledger.domain.numbers import ONE, minus

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = [
    "Action",
    "CashKind",
    "Environment",
    "ExitKind",
    "Liquidity",
    "OnExcess",
    "Origin",
    "PositionEffect",
    "Side",
    "Status",
]


class Environment(StrEnum):
    """Where a position lives; required everywhere, part of every key, never mixed in a sum."""

    LIVE = "live"
    PAPER = "paper"
    BACKTEST = "backtest"


class Side(StrEnum):
    """The contract that a position holds. YES and NO exist in binary markets only, LONG and SHORT in all others."""

    YES = "YES"
    NO = "NO"
    LONG = "LONG"
    SHORT = "SHORT"

    @property
    def is_binary(self) -> bool:
        """Whether prices of this side live in [0, 1] and the other side is priced at 1 - p."""
        return self in _BINARY

    @property
    def sign(self) -> int:
        """+1 if the position gains when its price rises, -1 for SHORT."""
        return -1 if self is Side.SHORT else 1

    @property
    def other(self) -> Side:
        """The side that a flip turns this one into."""
        return _OTHER[self]

    @property
    def entry_action(self) -> Action:
        """What the venue calls an execution that enters this side: SHORT is sold to open and bought to cover."""
        return Action.SELL if self is Side.SHORT else Action.BUY

    @property
    def exit_action(self) -> Action:
        """What the venue calls an execution that leaves this side."""
        return Action.BUY if self is Side.SHORT else Action.SELL

    def price_on_other(self, price: Decimal) -> Decimal:
        """Give the same execution's price in the space of the other side: 1 - p in a binary, p elsewhere.

        The only place where a price changes its space.
        """
        return minus(ONE, price) if self in _BINARY else price


class Action(StrEnum):
    """What was executed at the venue."""

    BUY = "buy"
    SELL = "sell"


class Origin(StrEnum):
    """Where a position comes from that was not bought here."""

    TRANSFER = "transfer"
    OPENING = "opening"
    """Held before the ledger knew the account."""


class Status(StrEnum):
    """Life of a position; ``open`` is the only one that trades, marks and exits apply to."""

    OPEN = "open"
    CLOSED = "closed"
    SETTLED = "settled"
    VOIDED = "voided"
    TRANSFERRED = "transferred"


class Liquidity(StrEnum):
    """Which side of the order book an execution was on."""

    MAKER = "maker"
    TAKER = "taker"


class OnExcess(StrEnum):
    """What a fill does that leaves more than is held: it is refused, or the rest enters the other side."""

    REFUSE = "refuse"
    FLIP = "flip"


class PositionEffect(StrEnum):
    """What a trade does to its position."""

    OPEN = "open"
    INCREASE = "increase"
    REDUCE = "reduce"
    CLOSE = "close"


class ExitKind(StrEnum):
    """Exits that a mark can trigger, in order of precedence; the values are the usual exit reasons."""

    STOP_LOSS = "stop_loss"
    TRAILING_STOP = "trailing_stop"
    PROFIT_TARGET = "profit_target"


class CashKind(StrEnum):
    """Why money came to an account or left it, beside positions."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    OPENING_BALANCE = "opening_balance"
    ADJUSTMENT = "adjustment"
    REWARD = "reward"
    REBATE = "rebate"
    FUNDING = "funding"
    INTEREST = "interest"
    DIVIDEND = "dividend"
    FEE = "fee"
    """Charged by the venue for something else than a trade."""

    @property
    def is_recorded(self) -> bool:
        """Whether the venue pays or charges it, so that RecordCash takes it; the others have commands of their own."""
        return self in _RECORDED


_RECORDED: Final = frozenset(
    {CashKind.REWARD, CashKind.REBATE, CashKind.FUNDING, CashKind.INTEREST, CashKind.DIVIDEND, CashKind.FEE}
)
_BINARY: Final = frozenset({Side.YES, Side.NO})
_OTHER: Final = {Side.YES: Side.NO, Side.NO: Side.YES, Side.LONG: Side.SHORT, Side.SHORT: Side.LONG}
