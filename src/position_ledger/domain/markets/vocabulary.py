"""The words of markets: kinds, netting, and the life that a market has."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["MarketKind", "MarketStatus", "Netting"]


class MarketKind(StrEnum):
    """What is traded. YES and NO exist in binary markets only, LONG and SHORT in all others."""

    BINARY = "binary"
    SPOT = "spot"
    EQUITY = "equity"
    FUTURE = "future"
    PERPETUAL = "perpetual"
    OPTION = "option"
    OTHER = "other"

    @property
    def is_binary(self) -> bool:
        """Whether prices live in [0, 1] and its sides are YES and NO."""
        return self is MarketKind.BINARY


class Netting(StrEnum):
    """What a buy of the other side does to what is held."""

    SIDE = "side"
    """Nothing: YES and NO are held side by side."""
    MARKET = "market"
    """At n it closes the held side at 1 - n first; what is left opens."""


class MarketStatus(StrEnum):
    """Where a market is in its life."""

    INITIALIZED = "initialized"
    OPEN = "open"
    HALTED = "halted"
    CLOSED = "closed"
    DETERMINED = "determined"
    DISPUTED = "disputed"
    AMENDED = "amended"
    SETTLED = "settled"
    VOIDED = "voided"

    @property
    def is_final(self) -> bool:
        """Whether its positions have been paid or given back: nobody trades or quotes it any more."""
        return self in _FINAL

    def may_become(self, after: MarketStatus) -> bool:
        """Whether a market may go there from here.

        Forwards it may skip what the ledger never heard of, because a venue's word is a fact. Backwards it may only be
        opened again after a halt, and be determined or disputed again until it is settled. Leaving ``settled`` and
        ``voided`` is an amendment, which pays the difference.
        """
        return after in _NEXT[self]


_FINAL: Final = frozenset({MarketStatus.SETTLED, MarketStatus.VOIDED})
_VERDICT: Final = frozenset({MarketStatus.DETERMINED, MarketStatus.SETTLED, MarketStatus.VOIDED})
_NEXT: Final[dict[MarketStatus, frozenset[MarketStatus]]] = {
    MarketStatus.INITIALIZED: _VERDICT | {MarketStatus.OPEN, MarketStatus.HALTED, MarketStatus.CLOSED},
    MarketStatus.OPEN: _VERDICT | {MarketStatus.HALTED, MarketStatus.CLOSED},
    MarketStatus.HALTED: _VERDICT | {MarketStatus.OPEN, MarketStatus.CLOSED},
    MarketStatus.CLOSED: _VERDICT,
    MarketStatus.DETERMINED: _FINAL | {MarketStatus.DISPUTED, MarketStatus.AMENDED},
    MarketStatus.DISPUTED: _VERDICT | {MarketStatus.AMENDED},
    MarketStatus.AMENDED: _FINAL | {MarketStatus.DISPUTED, MarketStatus.AMENDED},
    MarketStatus.SETTLED: _FINAL,
    MarketStatus.VOIDED: frozenset({MarketStatus.SETTLED}),
}
