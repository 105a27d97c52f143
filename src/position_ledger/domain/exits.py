"""Exits of a position: stop, target and trailing stop, in own-side prices. Pure; the ledger tells, it never trades."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from position_ledger.domain.numbers import ONE, Figure, Price, amount_of, minus, plus
from position_ledger.domain.refusals import refusal, rejected
from position_ledger.domain.rejections import Reason
from position_ledger.domain.vocabulary import ExitKind, Side

__all__ = ["TrailingState", "TrailingStop", "TrailingTerms", "arm", "touched", "trail"]


class TrailingTerms(BaseModel):
    """What a trailing stop is asked to do: follow the best mark at a distance, from the activation price on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trail_amount: Price | None = None
    """Distance in the price's unit; exactly one of the two distances is given."""
    trail_percent: Price | None = None
    """Distance as a fraction of the watermark: 0.05 is five percent."""
    activation_price: Price | None = None
    """The stop is armed by the first mark that touches this price; None: at once."""

    @model_validator(mode="after")
    def _exactly_one_distance(self) -> Self:
        given = [trail for trail in (self.trail_amount, self.trail_percent) if trail is not None]
        if len(given) != 1 or not given[0] or (self.trail_percent is not None and self.trail_percent >= ONE):
            raise refusal(Reason.TRAILING_STOP_INVALID, self.model_dump(mode="json", exclude_none=True))
        return self


class TrailingStop(TrailingTerms):
    """The terms as a caller writes them; raises `CommandRejected` like a command."""

    def __init__(self, **fields: Any) -> None:
        """Check every field; raises `CommandRejected` (`FloatRefused` for a float)."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise rejected(type(self), error) from None


class TrailingState(BaseModel):
    """A trailing stop at work: its terms, the best mark since activation, and the stop that follows from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trail_amount: Figure | None = None
    trail_percent: Figure | None = None
    activation_price: Figure | None = None
    watermark: Figure | None = None
    """Highest mark since activation (lowest for SHORT); None: not active yet."""
    stop_price: Figure | None = None
    """watermark - trail (+ for SHORT); it only ratchets."""

    @property
    def is_active(self) -> bool:
        """Whether the activation price has been touched."""
        return self.watermark is not None


def arm(terms: TrailingTerms, side: Side, price: Decimal) -> TrailingState:
    """Start a trailing stop at the present price, active at once unless an activation price is still ahead."""
    return trail(TrailingState(**terms.__dict__), side, price)


def trail(state: TrailingState, side: Side, price: Decimal) -> TrailingState:
    """Follow one mark; the same object when the mark changes nothing."""
    if state.watermark is None:
        if state.activation_price is not None and _is_better(side, state.activation_price, price):
            return state
    elif not _is_better(side, price, state.watermark):
        return state
    return state.model_copy(update={"watermark": price, "stop_price": _stop(state, side, price)})


def touched(
    side: Side,
    price: Decimal,
    stop_loss_price: Decimal | None,
    trailing: TrailingState | None,
    target_price: Decimal | None,
) -> tuple[ExitKind, ...]:
    """Name the exits that a mark at ``price`` touches, in order of precedence: stop, trailing stop, target."""
    trailing_price = trailing.stop_price if trailing else None
    levels = (
        (ExitKind.STOP_LOSS, stop_loss_price is not None and not _is_better(side, price, stop_loss_price)),
        (ExitKind.TRAILING_STOP, trailing_price is not None and not _is_better(side, price, trailing_price)),
        (ExitKind.PROFIT_TARGET, target_price is not None and not _is_better(side, target_price, price)),
    )
    return tuple(kind for kind, is_touched in levels if is_touched)


def _is_better(side: Side, price: Decimal, than: Decimal) -> bool:
    return price > than if side.sign > 0 else price < than


def _stop(state: TrailingState, side: Side, watermark: Decimal) -> Decimal:
    distance = state.trail_amount
    if distance is None:
        distance = amount_of(watermark, state.trail_percent or ONE)
    return minus(watermark, distance) if side.sign > 0 else plus(watermark, distance)
