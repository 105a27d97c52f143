"""Positions that come from elsewhere, go elsewhere, or whose contracts are split. No execution, so no trade."""

from __future__ import annotations

from typing import Any, Final

from position_ledger.domain.event import Event
from position_ledger.domain.events import PositionBegun
from position_ledger.domain.exits import TrailingState
from position_ledger.domain.numbers import Figure
from position_ledger.domain.parts import Figures, StreamRef
from position_ledger.domain.vocabulary import Origin

__all__ = ["TRANSFER_EVENTS", "PositionReceived", "PositionTransferred", "SharesSplit"]


class PositionReceived(PositionBegun):
    """The first event of a position that was not bought here: transferred in, or held before the ledger knew it."""

    TOPIC = "position.received"

    origin: Origin
    brought: Figure
    """What of its cost and fees was paid elsewhere: it came to the account together with the position."""
    figures: Figures


class PositionTransferred(Event):
    """A part of the position, or all of it, went to another account at cost; nothing is realized."""

    TOPIC = "position.transferred"

    quantity: Figure
    cost: Figure
    fees: Figure
    """Open fees that were not released yet; the receiver has them from now on."""
    brought: Figure
    """Minus what of cost and fees went along with the position."""
    receiver: StreamRef
    figures: Figures


class SharesSplit(Event):
    """Each contract became ``ratio`` contracts; every quantity is multiplied, every price of one divided by it."""

    TOPIC = "position.shares_split"

    ratio: Figure
    target_price: Figure | None = None
    stop_loss_price: Figure | None = None
    trailing_stop: TrailingState | None = None
    figures: Figures


TRANSFER_EVENTS: Final[tuple[type[Event], ...]] = (PositionReceived, PositionTransferred, SharesSplit)

IDENTITY: Final = tuple(PositionBegun.model_fields)
"""Fields that a position takes over as they are."""


def identity_of(holder: Any) -> dict[str, Any]:
    """Take who and what a position is from anything that carries it."""
    return {name: getattr(holder, name) for name in IDENTITY}
