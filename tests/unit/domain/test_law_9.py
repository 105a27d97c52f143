"""Law 9, command against command: a log with a correction equals the log in which it had been right from the start."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.commands import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    CorrectTrade,
    SettlePosition,
    VoidPosition,
)
from position_ledger.domain.figures import FIGURE_NAMES
from position_ledger.domain.rejections import CommandRejected
from tests.unit.domain.world import World, examples

if TYPE_CHECKING:
    from position_ledger.domain.position import Position

Step = tuple[bool, Decimal, Decimal, Decimal]
COMPARED = (*FIGURE_NAMES, "status", "exit_reason", "settlement_value", "mark_price", "is_open")

quantities = st.one_of(st.integers(1, 100).map(Decimal), st.integers(1, 10**6).map(lambda n: Decimal(n).scaleb(-6)))
prices = st.one_of(st.sampled_from([Decimal(0), Decimal(1)]), st.integers(1, 9999).map(lambda n: Decimal(n).scaleb(-4)))
fees = st.one_of(st.just(Decimal(0)), st.integers(-100, 300).map(lambda n: Decimal(n).scaleb(-2)))
steps = st.lists(st.tuples(st.booleans(), quantities, prices, fees), min_size=1, max_size=8)
sides = st.sampled_from(["YES", "NO", "LONG", "SHORT"])
ABOUT: dict[str, Any] = {"reason": "venue", "actor": "desk"}


def told(side: str, fills: list[Step], *, except_: int | None = None) -> World:
    """A first large entry, so that one position takes everything, and then these fills but one."""
    world = World()
    for place, (is_entry, quantity, price, fee) in enumerate(
        [(True, Decimal(10_000), Decimal("0.4"), Decimal(0)), *fills]
    ):
        if place == except_:
            continue
        world.later(seconds=1)
        action = "buy" if is_entry is (side != "SHORT") else "sell"
        world.fill(action, quantity, price, fee, side=side, effective_at=world.now)
    return world


def figures(world: World) -> dict[str, Any]:
    position: Position = world.at("POS-1")
    return {name: getattr(position, name) for name in COMPARED}


def accounts(world: World) -> list[Any]:
    return sorted((one.cash, one.locked) for one in world.states.values() if hasattr(one, "is_cash_controlled"))


@examples(100)
@given(side=sides, fills=steps, data=st.data())
def test_log_and_bust_is_the_log_without(side: str, fills: list[Step], data: st.DataObject) -> None:
    place = data.draw(st.integers(1, len(fills)))
    world = told(side, fills)

    world.do(BustTrade(trade=world.trade(place + 1), bust_id="b", **ABOUT))

    without = told(side, fills, except_=place)
    assert figures(world) == figures(without)
    assert accounts(world) == accounts(without)


@examples(100)
@given(side=sides, fills=steps, quantity=quantities, price=prices, fee=fees, is_marked=st.booleans(), data=st.data())
def test_log_and_correction_is_the_log_with_what_is_right(
    side: str, fills: list[Step], quantity: Decimal, price: Decimal, fee: Decimal, is_marked: bool, data: st.DataObject,  # noqa: FBT001
) -> None:  # fmt: skip
    place = data.draw(st.integers(1, len(fills)))
    world = told(side, fills)
    trade = world.trade(place + 1)
    if (quantity, price) == fills[place - 1][1:3]:
        world.do(AdjustFee(trade=trade, fee=fee, adjustment_id="a", **ABOUT))
    else:
        world.do(CorrectTrade(trade=trade, quantity=quantity, price=price, fee=fee, correction_id="c", **ABOUT))

    right = told(side, [*fills[: place - 1], (fills[place - 1][0], quantity, price, fee), *fills[place:]])
    assert figures(world) == figures(right)
    assert accounts(world) == accounts(right)


@examples(60)
@given(
    side=sides, fills=steps, first=prices, then=st.lists(st.one_of(st.none(), prices), min_size=1, max_size=4), fee=fees
)
def test_amended_back_and_forth_is_settled_at_the_last(
    side: str, fills: list[Step], first: Decimal, then: list[Decimal | None], fee: Decimal
) -> None:
    """settle(A) and amend(B), or void, any number of times; None: void."""
    world, once = told(side, fills), told(side, fills)
    at = world.later(minutes=1)
    world.do(SettlePosition(position_id="POS-1", value=first, fee="0.03", effective_at=at))
    for value in then:
        world.later(minutes=1)
        command = (
            VoidPosition(position_id="POS-1")
            if value is None
            else AmendSettlement(position_id="POS-1", value=value, fee=fee)
        )
        world.do(command)

    if then[-1] is None:
        once.do(VoidPosition(position_id="POS-1", effective_at=at))
    else:
        once.do(SettlePosition(position_id="POS-1", value=then[-1], fee=fee, effective_at=at))

    assert figures(world) == figures(once)
    assert accounts(world) == accounts(once)
    assert world.at("POS-1").exit_time == once.at("POS-1").exit_time == at


@examples(60)
@given(side=sides, fills=steps, parts=st.lists(quantities, min_size=1, max_size=4), data=st.data())
def test_busts_add_up_to_the_whole(side: str, fills: list[Step], parts: list[Decimal], data: st.DataObject) -> None:
    """Different ids add up; beyond the rest is refused; in parts it ends as it does at once."""
    place = data.draw(st.integers(1, len(fills)))
    world, once = told(side, fills), told(side, fills)
    trade, left = world.trade(place + 1), fills[place - 1][1]
    for number, part in enumerate(parts):
        try:
            world.do(BustTrade(trade=trade, bust_id=str(number), quantity=part, **ABOUT))
        except CommandRejected:
            assert part > left
        else:
            assert part <= left
            left -= part
    if left:
        world.do(BustTrade(trade=trade, bust_id="rest", **ABOUT))

    once.do(BustTrade(trade=trade, bust_id="all", **ABOUT))
    assert figures(world) == figures(once)
    assert accounts(world) == accounts(once)
