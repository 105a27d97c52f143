"""What can be asked beside executions: move a position, split its contracts, merge or make pairs, state what was held."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from position_ledger.domain.command import Command
from position_ledger.domain.fields import Handle, Metadata, Moment, PositionRef, RowId, Text
from position_ledger.domain.numbers import ZERO, Money, NotNegative, Price, Quantity
from position_ledger.domain.vocabulary import Environment, Side

__all__ = [
    "Handle",
    "MergePair",
    "RecordOpeningPosition",
    "SplitPair",
    "SplitShares",
    "TransferPosition",
]

HALF: Final = Decimal("0.5")


class TransferPosition(Command):
    """Move a position, or a part of it, to another account of its environment, at cost: nothing is realized."""

    position_id: PositionRef
    to_account: Text
    to_strategy: RowId | None = None
    """None: the strategy stays."""
    quantity: Quantity | None = None
    """None: all that is held."""
    handle: Text | None = None


class SplitShares(Command):
    """Make ``ratio`` contracts of each one held (0.1 for a reverse split 1:10). Cash in lieu is a ReducePosition."""

    position_id: PositionRef
    ratio: Quantity


class MergePair(Command):
    """Hand in equal quantities of YES and NO of one market for 1 each pair: sold at ``yes_price`` and 1 minus it."""

    yes_position_id: PositionRef
    no_position_id: PositionRef
    quantity: Quantity
    yes_price: Price = HALF
    fee: Money = ZERO
    """Split over both halves in proportion."""
    source: Text = "merge"


class SplitPair(Command):
    """Pay 1 for each pair of YES and NO of one market: both are bought, at ``yes_price`` and 1 minus it."""

    environment: Environment
    account: Text
    market: Text
    strategy: RowId | None = None
    model: RowId | None = None
    platform: Text | None = None
    currency: Text | None = None
    quantity: Quantity
    yes_price: Price = HALF
    fee: Money = ZERO
    source: Text = "split"


class RecordOpeningPosition(Command):
    """State a position that was held before the ledger knew the account. Its cost was paid elsewhere."""

    environment: Environment
    account: Text
    market: Text
    strategy: RowId | None = None
    model: RowId | None = None
    edge: RowId | None = None
    platform: Text | None = None
    currency: Text = "USD"
    side: Side
    quantity: Quantity
    entry_price: Price
    """Average price of what is held."""
    open_fees: NotNegative = ZERO
    """Fees that were paid for it and are to count in its P&L."""
    entry_time: Moment | None = None
    metadata: Metadata | None = None
    handle: Text | None = None
