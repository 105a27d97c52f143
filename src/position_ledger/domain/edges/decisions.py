"""How commands about edges are decided."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain.draft import Append, Decision, Subject, effective_time
from position_ledger.domain.edges.events import VALUES, EdgeDetected, EdgeRevised, EdgeStatusChanged
from position_ledger.domain.edges.state import Edge, edge_stream
from position_ledger.domain.families import EDGE
from position_ledger.domain.numbers import ONE, minus
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.ticks import is_past
from position_ledger.domain.vocabulary import Side

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from position_ledger.domain.draft import Streams
    from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge, ReviseEdge
    from position_ledger.domain.event import Event

__all__ = ["change_status", "detect", "require_edge", "revise"]

_NO_PROBABILITY: Final = frozenset({Side.LONG, Side.SHORT})
_IDENTITY: Final = ("market", "strategy", "model", "side")
"""What an edge is about: it stays, whatever is detected again under its name."""


def detect(command: DetectEdge, streams: Streams, now: datetime) -> Decision:
    """Begin an edge, or revise the one that has the name."""
    _require_price(command, command.side)
    stream = edge_stream(command.environment, command.name) if command.name else streams.new_stream()
    edge = streams.state(stream) if command.name else None
    if edge is not None:
        _require_same(command, edge)
        return _revised(command, stream, edge, now)
    values = _values_of(command) | {"expected_value": _expected_value(command, command.side, command.expected_value)}
    event = EdgeDetected(
        environment=command.environment,
        name=command.name,
        market=command.market,
        strategy=command.strategy,
        model=command.model,
        side=command.side,
        **values,
        tick=command.tick,
        metadata=command.metadata,
    )
    return _decided(stream, 1, event, effective_time(command, now, ()))


def revise(command: ReviseEdge, streams: Streams, now: datetime) -> Decision:
    """Change the values of an edge."""
    stream, edge = _addressed(command, streams)
    _require_price(command, edge.side)
    return _revised(command, stream, edge, now)


def change_status(command: ChangeEdgeStatus, streams: Streams, now: datetime) -> Decision:
    """Let an edge go on in its life; the status that it has already changes nothing."""
    stream, edge = _addressed(command, streams)
    before, after = edge.status, command.status
    if before is after and edge.actual_outcome == command.actual_outcome:
        return _nothing(stream)
    if not before.may_become(after):
        raise CommandRejected(
            Reason.EDGE_STATUS_INVALID, command, value=_shown(command), status=before.value, wanted=after.value
        )
    at = effective_time(command, now, (edge.last_effective_at,))
    if at < edge.changed_at:
        raise CommandRejected(
            Reason.OUT_OF_ORDER, command, value=at.isoformat(), held=edge.changed_at.isoformat(), status=before.value
        )
    event = EdgeStatusChanged(status=after, actual_outcome=command.actual_outcome, reason=command.reason)
    return _decided(stream, edge.version + 1, event, at)


def require_edge(command: Any, streams: Streams) -> None:
    """Refuse a command of a position whose ``edge`` has never been detected in its environment."""
    ref = getattr(command, "edge", None)
    if ref is None:
        return
    _, edge = _located(command, ref, streams)
    if command.environment is not None and edge.environment is not command.environment:
        raise CommandRejected(Reason.EDGE_UNKNOWN, command, value=ref)


def _addressed(command: ReviseEdge | ChangeEdgeStatus, streams: Streams) -> tuple[UUID, Edge]:
    """Find the edge that a command means, by id or by environment and name; beside an id both only confirm it."""
    if command.edge is not None:
        stream, edge = _located(command, command.edge, streams)
        for field in ("environment", "name"):
            given, held = getattr(command, field), getattr(edge, field)
            if given is not None and given != held:
                raise CommandRejected(Reason.EDGE_IS_OTHER, command, field=field, value=given, held=held)
        return stream, edge
    if command.environment is None or command.name is None:
        raise TypeError("a command without an address cannot be constructed")
    stream = edge_stream(command.environment, command.name)
    state: Edge | None = streams.state(stream)
    if state is None:
        raise CommandRejected(Reason.EDGE_UNKNOWN, command, value=command.name)
    return stream, state


def _located(command: object, ref: str | int, streams: Streams) -> tuple[UUID, Edge]:
    try:
        return streams.located(ref, EDGE)
    except LookupError:
        raise CommandRejected(Reason.EDGE_UNKNOWN, command, value=ref) from None


def _revised(command: DetectEdge | ReviseEdge, stream: UUID, edge: Edge, now: datetime) -> Decision:
    """What a tick makes of an edge: nothing if it says nothing new, which is never refused."""
    said = {name: value for name, value in _values_of(command).items() if value is not None}
    before = {name: getattr(edge, name) for name in VALUES}
    values = before | said
    if "expected_value" not in said and any(values[name] != before[name] for name in _MAKE_EXPECTED_VALUE):
        values["expected_value"] = _expected_value_of(values, edge.side)
    at = effective_time(command, now, (edge.last_effective_at,))
    if values == before or is_past(at, command.tick, edge.valued_at, edge.valued_tick):
        return _nothing(stream)
    if edge.status.is_final:
        raise CommandRejected(Reason.EDGE_NOT_LIVE, command, value=_shown(command), status=edge.status.value)
    return _decided(stream, edge.version + 1, EdgeRevised(**values, tick=command.tick), at)


_MAKE_EXPECTED_VALUE: Final = ("true_win_probability", "market_price")


def _values_of(command: DetectEdge | ReviseEdge) -> dict[str, Any]:
    return {name: getattr(command, name) for name in VALUES}


def _expected_value(command: DetectEdge, side: Side | None, given: Decimal | None) -> Decimal | None:
    return _expected_value_of(_values_of(command), side) if given is None else given


def _expected_value_of(values: dict[str, Any], side: Side | None) -> Decimal | None:
    """Average gain of one contract that pays 1 if it wins, before fees: p * 1 - price."""
    price = values["market_price"]
    return None if price is None or side in _NO_PROBABILITY else minus(values["true_win_probability"], price)


def _require_price(command: DetectEdge | ReviseEdge, side: Side | None) -> None:
    price = command.market_price
    if price is not None and price > ONE and side not in _NO_PROBABILITY:
        raise CommandRejected(Reason.PRICE_OUT_OF_RANGE, command, field="market_price", value=price, side=side or "YES")


def _require_same(command: DetectEdge, edge: Edge) -> None:
    for field in _IDENTITY:
        given, held = getattr(command, field), getattr(edge, field)
        if given is not None and given != held:
            raise CommandRejected(Reason.EDGE_IS_OTHER, command, field=field, value=given, held=held)


def _shown(command: DetectEdge | ReviseEdge | ChangeEdgeStatus) -> str | int | None:
    return getattr(command, "edge", None) or command.name


def _decided(stream: UUID, version: int, event: Event, at: datetime) -> Decision:
    return Decision(appends=(Append(stream, version, event, at),), subject=Subject(EDGE, stream))


def _nothing(stream: UUID) -> Decision:
    return Decision(subject=Subject(EDGE, stream))
