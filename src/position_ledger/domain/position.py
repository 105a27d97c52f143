"""The state of a position: the fold of its events. It repeats no arithmetic, because events carry the figures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

from position_ledger.domain.event import Event
from position_ledger.domain.events import (
    ExitsSet,
    ExitTriggered,
    PositionBegun,
    PositionClosed,
    PositionIncreased,
    PositionMarked,
    PositionOpened,
    PositionReduced,
    PositionSettled,
)
from position_ledger.domain.exits import TrailingState
from position_ledger.domain.numbers import ONE, ZERO
from position_ledger.domain.parts import Restated, StreamRef
from position_ledger.domain.restatements import RESTATEMENT_EVENTS, PositionVoided, SettlementAmended
from position_ledger.domain.transfers.arithmetic import divided
from position_ledger.domain.transfers.events import PositionReceived, PositionTransferred, SharesSplit
from position_ledger.domain.vocabulary import Environment, ExitKind, Origin, Side, Status

__all__ = ["Position", "evolve"]


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle from opening to flat. Figures are those of the last event that carried any; times are UTC."""

    version: int
    """Version of the stream after the last event folded."""
    status: Status = Status.OPEN
    environment: Environment
    account: str
    market: str
    platform: str | None = None
    strategy: int | None = None
    model: int | None = None
    edge: int | None = None
    currency: str
    multiplier: Decimal = ONE
    margin_rate: Decimal = ZERO
    side: Side
    entry_time: datetime
    exit_time: datetime | None = None
    exit_reason: str | None = None
    settlement_value: Decimal | None = None
    target_price: Decimal | None = None
    stop_loss_price: Decimal | None = None
    trailing_stop: TrailingState | None = None
    triggered: tuple[ExitKind, ...] = ()
    """Exits that were told since they were armed; they are not told again."""
    mark_time: datetime | None = None
    mark_source: str | None = None
    mark_price: Decimal | None = None
    """Last mark ever; what an open position is valued at after a restatement."""
    last_fill_at: datetime
    """Latest effective time of the facts that count: fills and the settlement."""
    last_effective_at: datetime
    """Latest effective time of any event."""
    previous: StreamRef | None = None
    metadata: dict[str, Any] | None = None
    settlement_revision: int | None = None
    """Of the market's last verdict that the position was told."""
    received_at: datetime | None = None
    """When it came from another account; None: it was opened, or held before the ledger knew."""
    stated_at: datetime | None = None
    """When it was stated as held from before the ledger; the statement contains every fill of the key before it."""
    restatements: int = 0
    """Events that changed what had been recorded before."""
    restated_realized: Decimal = ZERO
    """Sum of what they changed ``realized_pnl`` by."""

    quantity: Decimal
    entry_quantity: Decimal
    exit_quantity: Decimal
    peak_quantity: Decimal
    entry_amount: Decimal
    exit_amount: Decimal
    cost: Decimal
    realized_gross: Decimal
    open_fees: Decimal
    close_fees: Decimal
    open_fees_released: Decimal
    entry_price: Decimal
    average_entry_price: Decimal | None
    exit_price: Decimal | None
    current_price: Decimal
    realized_pnl: Decimal
    realized_pnl_closed: Decimal
    unrealized_pnl: Decimal | None
    unrealized_pnl_pct: Decimal | None
    shortfall_quantity: Decimal
    shortfall_amount: Decimal = ZERO
    transferred_quantity: Decimal = ZERO

    @property
    def is_open(self) -> bool:
        """Whether it can be traded, marked and closed."""
        return self.status is Status.OPEN


def evolve(position: Position | None, event: Event, effective_at: datetime) -> Position:
    """Fold the next event of a position's stream.

    Raises ``TypeError`` for an event that is not a position's, or that does not fit a stream that has begun or not.
    """
    handler = _HANDLERS.get(type(event))
    if handler is None and isinstance(event, PositionOpened | PositionReceived):
        if position is not None:
            raise TypeError(f"{event.TOPIC} must be the first event of its stream; the log is damaged")
        return _opened(event, effective_at)
    if handler is None or position is None:
        raise TypeError(f"{type(event).__name__} cannot be folded into {type(position).__name__}; the log is damaged")
    changes = handler(position, event, effective_at)
    return msgspec.structs.replace(
        position,
        version=position.version + 1,
        last_effective_at=max(position.last_effective_at, effective_at),
        **changes,
    )


_OPENED_AS_THEY_ARE: Final = tuple(PositionBegun.model_fields)


def _opened(event: PositionOpened | PositionReceived, effective_at: datetime) -> Position:
    attributes = {name: getattr(event, name) for name in _OPENED_AS_THEY_ARE}
    origin = event.origin if isinstance(event, PositionReceived) else None
    return Position(
        version=1,
        received_at=effective_at if origin is Origin.TRANSFER else None,
        stated_at=effective_at if origin is Origin.OPENING else None,
        last_fill_at=effective_at,
        last_effective_at=effective_at,
        **attributes,
        **event.figures.__dict__,
    )


_RESTATED_AS_THEY_ARE: Final = (
    "status", "entry_time", "exit_time", "exit_reason", "settlement_value", "last_fill_at",
)  # fmt: skip
_Changes = dict[str, Any]


def _filled(position: Position, event: Event, effective_at: datetime) -> _Changes:
    filled = cast("PositionIncreased | PositionReduced | PositionClosed | PositionSettled", event)
    return {"last_fill_at": max(position.last_fill_at, effective_at), **filled.figures.__dict__}


def _closed(position: Position, event: Event, effective_at: datetime) -> _Changes:
    closed = cast("PositionClosed", event)
    return {
        **_filled(position, event, effective_at),
        "status": Status.CLOSED,
        "exit_reason": closed.exit_reason,
        "exit_time": effective_at,
    }


def _settled(position: Position, event: Event, effective_at: datetime) -> _Changes:
    settled = cast("PositionSettled", event)
    return {
        **_filled(position, event, effective_at),
        "status": Status.SETTLED,
        "exit_reason": settled.exit_reason,
        "exit_time": effective_at,
        "settlement_value": settled.settlement_value,
        "settlement_revision": settled.settlement_revision,
    }


def _transferred(position: Position, event: Event, effective_at: datetime) -> _Changes:
    changes = _filled(position, event, effective_at)
    return (
        changes
        if changes["quantity"]
        else {**changes, "status": Status.TRANSFERRED, "exit_time": effective_at, "exit_reason": "transfer"}
    )


def _split(position: Position, event: Event, effective_at: datetime) -> _Changes:
    split = cast("SharesSplit", event)
    names = ("target_price", "stop_loss_price", "trailing_stop")
    mark_price = None if position.mark_price is None else divided(position.mark_price, split.ratio)
    return {
        **_filled(position, event, effective_at),
        "mark_price": mark_price,
        **{name: getattr(split, name) for name in names},
    }


def _marked(position: Position, event: Event, effective_at: datetime) -> _Changes:
    marked = cast("PositionMarked", event)
    return {
        "current_price": marked.price,
        "mark_time": effective_at,
        "mark_source": marked.source,
        "mark_price": marked.price,
        "unrealized_pnl": marked.unrealized_pnl,
        "unrealized_pnl_pct": marked.unrealized_pnl_pct,
        "trailing_stop": position.trailing_stop if marked.trailing_stop is None else marked.trailing_stop,
    }


def _restated(position: Position, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    """Take the position as it is when all its facts are folded again; marks stay those that were recorded last."""
    restated: Restated = cast("Any", event).restated
    counts = not isinstance(event, PositionVoided) or event.replaces_settlement
    told = isinstance(event, SettlementAmended | PositionVoided)
    return {
        **{name: getattr(restated, name) for name in _RESTATED_AS_THEY_ARE},
        **restated.figures.__dict__,
        "restatements": position.restatements + counts,
        "restated_realized": restated.restated_realized_sum,
        "settlement_revision": cast("Any", event).settlement_revision if told else position.settlement_revision,
    }


def _triggered(position: Position, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    triggered = cast("ExitTriggered", event)
    return {"triggered": (*position.triggered, triggered.kind, *triggered.also)}


def _exits_set(position: Position, event: Event, effective_at: datetime) -> _Changes:  # noqa: ARG001 - one shape
    exits = cast("ExitsSet", event)
    return {**exits.__dict__, "triggered": ()}


_HANDLERS: Final[dict[type[Event], Callable[[Position, Event, datetime], _Changes]]] = {
    PositionIncreased: _filled,
    PositionReduced: _filled,
    PositionClosed: _closed,
    PositionSettled: _settled,
    PositionMarked: _marked,
    ExitTriggered: _triggered,
    ExitsSet: _exits_set,
    PositionTransferred: _transferred,
    SharesSplit: _split,
    **dict.fromkeys(RESTATEMENT_EVENTS, _restated),
}
