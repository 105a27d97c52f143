"""Fills find their positions: by id, by key, netted, split over several, flipped, with dust and in order of time."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_ledger.domain.accounts.events import ACCOUNT_EVENTS
from position_ledger.domain.commands import (
    ClosePosition,
    Handle,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SettlePosition,
)
from position_ledger.domain.edges.commands import DetectEdge
from position_ledger.domain.events import (
    BookPositionClosed,
    BookPositionOpened,
    Fill,
    PositionClosed,
    PositionIncreased,
    PositionOpened,
    PositionReduced,
    StreamRef,
)
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restatements import LateFillRecorded
from position_ledger.domain.vocabulary import Action, Environment, Status
from tests.unit.domain.world import NOON, D, World, examples

if TYPE_CHECKING:
    from position_ledger.domain.decisions import Decision


@pytest.fixture
def world() -> World:
    return World()


def fills(decision: Decision) -> list[Fill]:
    return [append.event.fill for append in decision.appends if hasattr(append.event, "fill")]


def kinds(decision: Decision) -> list[type]:
    """Of the position and its book; the account's side is added to every decision and tested by itself."""
    return [kind for append in decision.appends if (kind := type(append.event)) not in ACCOUNT_EVENTS]


def assert_ring(decision: Decision) -> None:
    """Each leg is linked to the event of the next one, the last to the first."""
    legs = [append for append in decision.appends if hasattr(append.event, "fill")]
    for index, append in enumerate(legs):
        following = legs[(index + 1) % len(legs)]
        assert append.event.fill.leg == index + 1  # type: ignore[attr-defined]
        assert append.event.fill.linked == StreamRef(stream=following.stream, version=following.version)  # type: ignore[attr-defined]


def test_the_first_buy_of_a_key_opens_and_the_next_adds(world: World) -> None:
    assert kinds(world.fill("buy", 10, ".4")) == [PositionOpened, BookPositionOpened]
    assert kinds(world.fill("buy", 10, ".6")) == [PositionIncreased]
    assert world.at("POS-1").average_entry_price == D(".5")


def test_keys_do_not_net_with_each_other(world: World) -> None:
    """The environment, the account, the market, the strategy and the side are all part of the key."""
    world.fill("buy", 10, ".4")
    for other in ({"environment": "live"}, {"account": "b"}, {"market": "N"}, {"strategy": 1}, {"side": "NO"}):
        world.fill("buy", 1, ".5", **other)
        with pytest.raises(CommandRejected) as caught:
            world.fill("sell", 2, ".5", **other)
        assert caught.value.reason is Reason.QUANTITY_EXCEEDS_HELD
    assert [position.quantity for position in world.positions.values()] == [10, 1, 1, 1, 1, 1]


def test_opening_the_same_twice_makes_two_positions(world: World) -> None:
    """S89."""
    world.open()
    world.open()
    assert [position.quantity for position in world.positions.values()] == [10, 10]


def test_an_exit_takes_the_oldest_entry_first_and_splits(world: World) -> None:
    # given three positions of one key, the second opened entered before the first
    world.open(quantity=10)
    world.open(quantity=20, effective_at=NOON - timedelta(hours=1))
    world.open(quantity=30)

    # when more is sold than the two oldest hold
    decision = world.fill("sell", 40, ".50", ".10", venue="v", venue_fill_id="f-1")

    # then each part is linked, and amounts and fees sum exactly
    assert kinds(decision) == [PositionClosed, BookPositionClosed, PositionClosed, BookPositionClosed, PositionReduced]
    assert_ring(decision)
    assert [(fill.quantity, fill.amount, fill.fee) for fill in fills(decision)] == [
        (20, 10, D(".05")),
        (10, 5, D(".025")),
        (10, 5, D(".025")),
    ]
    assert {fill.venue_fill_id for fill in fills(decision)} == {"f-1"}
    assert decision.positions == tuple(world.names[name] for name in ("POS-2", "POS-1", "POS-3"))
    assert world.at("POS-3").quantity == 20
    assert decision.fill_key == '["paper","main","v","f-1"]'


def test_an_entry_adds_to_the_oldest(world: World) -> None:
    world.open()
    world.open()

    decision = world.fill("buy", 5, ".5")

    assert decision.positions == (world.names["POS-1"],)
    assert fills(decision)[0].linked is None


@examples(60)
@given(
    held=st.lists(st.integers(1, 10**9), min_size=2, max_size=4),
    places=st.sampled_from([0, 6, 18]),
    price=st.integers(0, 10**18),
    fee=st.integers(-(10**6), 10**18),
)
def test_parts_of_a_split_sum_exactly(held: list[int], places: int, price: int, fee: int) -> None:
    world = World()
    for quantity in held:
        world.open(quantity=D(quantity).scaleb(-places))
    price_, fee_ = D(price).scaleb(-18), D(fee).scaleb(-18)
    whole = D(sum(held)).scaleb(-places)

    decision = world.fill("sell", whole, price_, fee_)

    parts = fills(decision)
    assert sum(part.fee for part in parts) == fee_
    assert sum(part.quantity for part in parts) == whole
    assert sum(part.amount for part in parts) == round(whole * price_, 18)
    assert all(part.amount >= 0 for part in parts)


def test_a_flip_links_both_halves_and_names_the_position_before(world: World) -> None:
    world.fill("buy", 10, ".40", model=7, platform="kalshi", currency="EUR")

    decision = world.fill("sell", 15, ".70", ".3", on_excess="flip", metadata={"raw": "x"})

    assert kinds(decision) == [PositionClosed, BookPositionClosed, PositionOpened, BookPositionOpened]
    assert_ring(decision)
    closing, opening = fills(decision)
    assert (closing.action, closing.quantity, closing.price, closing.fee) == (Action.SELL, 10, D(".7"), D(".2"))
    assert (opening.action, opening.quantity, opening.price, opening.fee) == (Action.BUY, 5, D(".3"), D(".1"))
    assert closing.metadata == opening.metadata == {"raw": "x"}
    flipped = world.at("POS-2")
    assert flipped.previous == StreamRef(stream=world.names["POS-1"], version=1)
    assert (flipped.model, flipped.platform, flipped.currency) == (7, "kalshi", "EUR")
    assert decision.opened == world.names["POS-2"]
    assert world.at("POS-1").exit_reason == "flip"


@pytest.mark.parametrize(("price", "other"), [("0", 1), ("1", 0), (".5", D(".5"))])
def test_a_binary_flips_at_the_rest_of_one(world: World, price: str, other: object) -> None:
    world.fill("buy", 10, ".40", side="NO")
    world.fill("sell", 11, price, side="NO", on_excess="flip")
    assert (world.at("POS-2").side, world.at("POS-2").entry_price) == ("YES", other)


def test_outside_binaries_long_becomes_short_and_back_at_the_same_price(world: World) -> None:
    # given
    world.fill("buy", 2, 100, side="LONG")

    # when
    decision = world.fill("sell", 5, 120, side="LONG", on_excess="flip")

    # then both halves are sales
    assert [fill.action for fill in fills(decision)] == [Action.SELL, Action.SELL]
    short = world.at("POS-2")
    assert (short.side, short.quantity, short.cost, short.entry_price) == ("SHORT", 3, 360, 120)
    world.do(MarkPosition(position_id="POS-2", price=110))
    assert world.at("POS-2").unrealized_pnl == 30

    # when it is bought back and beyond
    decision = world.fill("buy", 4, 90, side="SHORT", on_excess="flip")
    assert [fill.action for fill in fills(decision)] == [Action.BUY, Action.BUY]
    assert world.at("POS-2").realized_pnl == 90
    assert (world.at("POS-3").side, world.at("POS-3").quantity) == ("LONG", 1)


def test_what_a_flip_leaves_over_adds_to_an_open_other_side(world: World) -> None:
    world.open()
    world.open(side="NO")

    decision = world.fill("sell", 15, ".60", on_excess="flip")

    assert kinds(decision) == [PositionClosed, BookPositionClosed, PositionIncreased]
    assert_ring(decision)
    assert (world.at("POS-2").quantity, world.at("POS-2").cost, decision.opened) == (15, 6, None)


def test_a_flip_with_nothing_held_enters_the_other_side(world: World) -> None:
    decision = world.fill("sell", 5, ".60", on_excess="flip")

    assert kinds(decision) == [PositionOpened, BookPositionOpened]
    assert (world.at("POS-1").side, world.at("POS-1").entry_price, fills(decision)[0].linked) == ("NO", D(".4"), None)


def test_a_fill_of_one_position_leaves_the_others_of_its_key(world: World) -> None:
    world.open()
    world.open()

    world.do(RecordFill(position_id="POS-2", action="sell", quantity=4, price=".5"))
    world.do(RecordFill(position_id="POS-2", action="buy", quantity=1, price=".5", side="YES", account="main"))

    assert (world.at("POS-1").quantity, world.at("POS-2").quantity) == (10, 7)
    with pytest.raises(CommandRejected):
        world.do(RecordFill(position_id="POS-2", action="sell", quantity=8, price=".5"))


def test_money_of_two_currencies_is_never_mixed(world: World) -> None:
    # given a NO position in euros
    world.open(side="NO", currency="EUR")

    # then a flip into it takes its currency, and states no other
    with pytest.raises(CommandRejected, match="currency is USD but the position has EUR"):
        world.fill("sell", 5, ".60", on_excess="flip", currency="USD")
    with pytest.raises(CommandRejected, match="fee_currency USD is not the currency EUR"):
        world.fill("sell", 5, ".60", 1, on_excess="flip", fee_currency="USD")
    world.fill("sell", 5, ".60", 1, on_excess="flip", fee_currency="EUR")
    assert (world.at("POS-1").quantity, world.at("POS-1").open_fees) == (15, 1)


def test_a_fill_confirms_the_position_it_names(world: World) -> None:
    world.open(strategy=1)
    for field, value in {"environment": "live", "market": "N", "side": "NO", "strategy": 2, "currency": "EUR"}.items():
        with pytest.raises(CommandRejected, match=f"{field} is {value} but the position has"):
            world.do(RecordFill(position_id="POS-1", action="sell", quantity=1, price=".5", **{field: value}))


def test_a_second_leg_closes_books_at_following_versions(world: World) -> None:
    world.open(quantity=1)
    world.open(quantity=1)

    decision = world.fill("sell", 3, ".5", on_excess="flip")

    book = [
        append.version
        for append in decision.appends
        if isinstance(append.event, BookPositionClosed | BookPositionOpened)
    ]
    assert book == [3, 4, 5]


@pytest.mark.parametrize("dust", ["0.01", "0.010000000000000001", "5"])
def test_an_excess_of_dust_closes_and_is_kept(world: World, dust: str) -> None:
    world.fill("buy", 10, ".4")

    decision = world.fill("sell", "10.01", ".5", ".1", dust=dust, on_excess="flip")

    (fill,) = fills(decision)
    assert (fill.quantity, fill.dust_excess, fill.amount, fill.fee) == (10, D("0.01"), 5, D(".1"))
    assert world.at("POS-1").status is Status.CLOSED


def test_an_excess_beyond_the_dust_is_refused_as_a_whole(world: World) -> None:
    world.fill("buy", 10, ".4")
    with pytest.raises(CommandRejected, match=r"quantity 10\.010000000000000001 exceeds the 10 held"):
        world.fill("sell", "10.010000000000000001", ".5", dust="0.01")


def test_dust_is_nothing_to_sell(world: World) -> None:
    with pytest.raises(CommandRejected, match=r"quantity 0\.01 exceeds the 0 held"):
        world.fill("sell", "0.01", ".5", dust="0.01")


@pytest.mark.parametrize(("quantity", "is_flagged"), [("9.99", True), ("9.98", False), ("10", False)])
def test_a_remainder_of_dust_stays_open_and_is_flagged(world: World, quantity: str, is_flagged: bool) -> None:  # noqa: FBT001
    world.fill("buy", 10, ".4")

    decision = world.fill("sell", quantity, ".5", dust="0.01")

    assert fills(decision)[0].is_dust_left is is_flagged
    assert world.at("POS-1").is_open is (quantity != "10")


def test_a_position_that_follows_another_of_its_key_names_it(world: World) -> None:
    world.fill("buy", 10, ".4")
    world.fill("sell", 10, ".5")
    world.fill("buy", 10, ".4")
    world.do(ClosePosition(position_id="POS-2", price=".5", reason="manual"))

    assert world.at("POS-2").previous == StreamRef(stream=world.names["POS-1"], version=1)
    assert world.open().previous == StreamRef(stream=world.names["POS-2"], version=1)
    assert world.open(side="NO").previous is None


def test_fills_count_in_the_order_of_the_venue(world: World) -> None:
    # given a position filled at noon and closed an hour later
    world.fill("buy", 10, ".4", effective_at=NOON)
    world.fill("sell", 10, ".5", effective_at=NOON + timedelta(hours=1))

    # then what is earlier is one of its fills, and equal times are in the order of arrival
    world.fill("buy", 1, ".4", effective_at=NOON + timedelta(minutes=59))
    world.fill("sell", 1, ".4", effective_at=NOON + timedelta(minutes=59))
    assert (len(world.positions), world.at("POS-1").restatements, world.at("POS-1").status) == (1, 2, "closed")
    world.fill("buy", 1, ".4", effective_at=NOON + timedelta(hours=1))
    world.fill("buy", 1, ".4", side="NO", effective_at=NOON)

    # when a mark is later than the next fill, the fill is in order all the same
    world.do(MarkPosition(position_id="POS-2", price=".9", effective_at=NOON + timedelta(hours=3)))
    world.do(IncreasePosition(position_id="POS-2", quantity=1, price=".6", effective_at=NOON + timedelta(hours=2)))
    assert (world.at("POS-2").current_price, world.at("POS-2").unrealized_pnl) == (D(".9"), D(".8"))
    assert world.at("POS-2").last_effective_at == NOON + timedelta(hours=3)


@pytest.mark.parametrize("last", [IncreasePosition, ReducePosition])
def test_what_is_late_is_so_by_the_last_fill_not_by_the_opening(world: World, last: type[IncreasePosition]) -> None:
    world.open()
    world.do(last(position_id="POS-1", quantity=1, price=".5", effective_at=NOON + timedelta(hours=1)))

    before = NOON + timedelta(minutes=59)
    for command in (
        ClosePosition(position_id="POS-1", price=".5", reason="manual", effective_at=before),
        SettlePosition(position_id="POS-1", value=1, effective_at=before),
    ):
        with pytest.raises(CommandRejected) as caught:
            world.do(command)
        assert caught.value.reason is Reason.TOO_LATE
    for fill in (
        ReducePosition(position_id="POS-1", quantity=1, price=".5", effective_at=before),
        RecordFill(position_id="POS-1", action="buy", quantity=1, price=1, effective_at=before),
    ):
        decision = world.do(fill)
        assert isinstance(decision.appends[0].event, LateFillRecorded)


def test_a_command_without_a_time_is_never_late(world: World) -> None:
    """Another machine's clock is ahead."""
    world.fill("buy", 10, ".4", effective_at=NOON + timedelta(seconds=5))

    reduced = world.do(ReducePosition(position_id="POS-1", quantity=1, price=".5"))
    marked = world.do(MarkPosition(position_id="POS-1", price=".5"))
    filled = world.fill("sell", 9, ".5")
    again = world.fill("buy", 1, ".5")

    times = {append.effective_at for decision in (reduced, marked, filled, again) for append in decision.appends}
    assert times == {NOON + timedelta(seconds=5)}


def test_a_position_can_be_addressed_by_its_handle_in_the_same_batch(world: World) -> None:
    world.do(
        OpenPosition(
            environment="paper", account="a", market="m", side="YES", quantity=1, entry_price=".5", handle="hedge"
        )
    )  # fmt: skip
    world.do(MarkPosition(position_id=Handle("hedge"), price=".6"))
    assert world.at("POS-1").current_price == D(".6")


def test_an_opening_tells_everything(world: World) -> None:
    """S25, S26, S82."""
    world.do(DetectEdge(environment="paper", market="KXNBA-CLE", true_win_probability=".5"))
    edge = len(world.log)
    decision = world.do(
        OpenPosition(
            environment="paper", account="main", market="KXNBA-CLE", strategy=1, model=2, edge=edge, platform="kalshi",
            side="NO", quantity=100, entry_price="0.42", fee="1.68", target_price=".6", stop_loss_price=".3",
            trailing_stop={"trail_percent": ".1"}, metadata={"why": "test"}, venue="k", venue_fill_id="f", order_id="o",
            liquidity="taker", source="api", effective_at="2026-02-28T19:00:00-05:00",
        )
    )  # fmt: skip

    event = decision.appends[0].event
    assert isinstance(event, PositionOpened)
    assert (event.environment, event.account, event.market, event.side) == (
        Environment.PAPER,
        "main",
        "KXNBA-CLE",
        "NO",
    )
    assert (event.strategy, event.model, event.edge, event.platform) == (1, 2, edge, "kalshi")
    assert (event.metadata, event.fill.metadata) == ({"why": "test"}, None)
    assert (event.fill.venue, event.fill.venue_fill_id, event.fill.order_id) == ("k", "f", "o")
    assert (event.fill.liquidity, event.fill.source) == ("taker", "api")
    assert event.entry_time.isoformat() == "2026-03-01T00:00:00+00:00"
    assert event.figures.current_price == event.figures.entry_price == D("0.42")
    assert event.trailing_stop is not None
    assert event.trailing_stop.stop_price == D("0.378")
    assert isinstance(decision.opened, UUID)
    assert decision.appends[1].effective_at == decision.appends[0].effective_at == event.entry_time
