"""What can be asked about edges. An edge that has a name is addressed by it, any edge by EDGE-n."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from position_ledger.domain.commands import Command
from position_ledger.domain.edges.vocabulary import EdgeStatus
from position_ledger.domain.fields import Count, Metadata, RowId, RowRef, Text
from position_ledger.domain.numbers import Money, Price, Probability
from position_ledger.domain.refusals import refusal
from position_ledger.domain.rejections import Reason
from position_ledger.domain.vocabulary import Environment, Side

__all__ = ["ChangeEdgeStatus", "DetectEdge", "ReviseEdge"]


class DetectEdge(Command):
    """Record that a model sees another probability than the market does; with a name that is in use: revise that edge.

    Probabilities, price and expected value speak of the contract of ``side``, a NO in NO prices. So a feed says every
    tick with this one command: the first detects the edge, those that change something revise it.
    """

    environment: Environment
    name: Text | None = None
    """The caller's own name, unique in its environment; None: every detection is an edge of its own."""
    market: Text
    strategy: RowId | None = None
    model: RowId | None = None
    side: Side | None = None
    """The contract that the numbers speak of; None: one that pays 1 if it wins, and nothing more is known."""
    true_win_probability: Probability
    """What the model believes."""
    market_implied_probability: Probability | None = None
    """What the market believes, as the caller derives it; None: not known."""
    market_price: Price | None = None
    """What one contract costs; None: there was no offer."""
    expected_value: Money | None = None
    """Of one contract; None: ``true_win_probability - market_price``, which is what a contract that pays 1 if it wins
    earns on average before fees, and unknown without a price and for LONG and SHORT, whose payout is no probability."""
    confidence_level: Text | None = None
    recommended_action: Text | None = None
    tick: Count | None = None
    """Number of the tick among those of the same effective time; None: it comes after all that have arrived."""
    metadata: Metadata | None = None
    """Kept with the edge; that of the first detection stays."""


class _OnEdge(Command):
    edge: RowRef | None = None
    """EDGE-n or the number of any of its versions."""
    environment: Environment | None = None
    name: Text | None = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if self.edge is None and (self.environment is None or self.name is None):
            raise refusal(Reason.FIELD_MISSING, "edge" if self.name is None else "environment")
        return self


class ReviseEdge(_OnEdge):
    """Say what has changed; what is None stays. Unchanged or older values make no event.

    A new probability or price without an ``expected_value`` computes it anew, as `DetectEdge` does.
    """

    true_win_probability: Probability | None = None
    market_implied_probability: Probability | None = None
    market_price: Price | None = None
    expected_value: Money | None = None
    confidence_level: Text | None = None
    recommended_action: Text | None = None
    tick: Count | None = None


class ChangeEdgeStatus(_OnEdge):
    """Say where an edge is in its life; each change is a version, the status it has already is none.

    detected -> recommended -> acted_on, and from each of them expired, settled or void, which are ends.
    """

    status: EdgeStatus
    actual_outcome: Probability | None = None
    """What the contract paid: 1 it won, 0 it lost. Given exactly when ``status`` is settled."""
    reason: Text | None = None

    @model_validator(mode="after")
    def _outcome(self) -> Self:
        if self.status is EdgeStatus.SETTLED and self.actual_outcome is None:
            raise refusal(Reason.FIELD_MISSING, "actual_outcome")
        if self.status is not EdgeStatus.SETTLED and self.actual_outcome is not None:
            raise refusal(Reason.FIELD_UNKNOWN, "actual_outcome")
        return self
