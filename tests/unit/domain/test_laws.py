"""The laws of domain.md over random histories, against an independent naive ledger."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from position_ledger.domain.book import Book, BookKey
from position_ledger.domain.commands import (
    ClosePosition,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SetExits,
    SettlePosition,
)
from position_ledger.domain.decisions import fold_append
from position_ledger.domain.events import PositionSettled
from position_ledger.domain.families import POSITION, state_from_json, state_json
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment, Side
from tests.unit.domain.oracle import NaiveLedger, Part, Refused, r18
from tests.unit.domain.world import LONG, World, examples

if TYPE_CHECKING:
    from position_ledger.domain.decisions import Decision

F = Fraction
MARKETS = {"binary": ("YES", "NO"), "spot": ("LONG", "SHORT")}
FIGURES = [
    "quantity",
    "entry_quantity",
    "exit_quantity",
    "peak_quantity",
    "entry_amount",
    "exit_amount",
    "cost",
    "realized_gross",
    "open_fees",
    "close_fees",
    "open_fees_released",
    "entry_price",
    "average_entry_price",
    "exit_price",
    "current_price",
    "realized_pnl",
    "realized_pnl_closed",
    "unrealized_pnl",
    "unrealized_pnl_pct",
    "shortfall_quantity",
    "shortfall_amount",
]


def scaled(limit: int, *, least: int = 1) -> st.SearchStrategy[Decimal]:
    """Numbers that are round, have a few places, or use all 18."""
    return st.builds(
        lambda digits, places: Decimal(digits).scaleb(-places),
        st.integers(least, limit),
        st.sampled_from([0, 2, 6, 18]),
    )


quantities = st.one_of(st.integers(1, 200).map(Decimal), scaled(10**9), scaled(10**24).filter(lambda q: q < 10**9))
fees = st.one_of(st.just(Decimal(0)), scaled(10**4), scaled(10**4).map(lambda fee: -fee))
unit_prices = st.one_of(
    st.sampled_from([Decimal(0), Decimal(1), Decimal("0.5")]),
    st.integers(0, 10**4).map(lambda n: Decimal(n).scaleb(-4)),
    st.integers(0, 10**18).map(lambda n: Decimal(n).scaleb(-18)),
)
spot_prices = st.one_of(st.just(Decimal(0)), scaled(10**6, least=0), scaled(10**9))
strategies = st.sampled_from([None, 1])
markets = st.sampled_from(sorted(MARKETS))
dusts = st.sampled_from([Decimal(0), Decimal("0.01"), Decimal(5)])


def price_in(data: st.DataObject, market: str) -> Decimal:
    return data.draw(unit_prices if market == "binary" else spot_prices, "price")


class Histories(RuleBasedStateMachine):
    """Two markets, two strategies each, several open positions per key; the naive ledger is told the same."""

    refusals = frozenset({Reason.QUANTITY_EXCEEDS_HELD})

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.naive = NaiveLedger()

    # What is open, by the naive ledger.

    def open_names(self) -> list[str]:
        return [holding.name for holding in self.naive.all() if holding.status == "open"]

    def drawn(self, data: st.DataObject) -> tuple[str, str]:
        """Draw the name of an open position and its market."""
        name = data.draw(st.sampled_from(self.open_names()), "position")
        return name, "binary" if self.naive.named(name).side in MARKETS["binary"] else "spot"

    def both(self, command: Any, told: Any) -> None:
        """Give a command to the ledger and the same to the naive one; both accept or both refuse."""
        states, log = dict(self.world.states), len(self.world.log)
        try:
            decision = self.world.do(command)
        except CommandRejected as rejection:
            assert rejection.reason in self.refusals  # noqa: PT017 - most commands are accepted
            assert (self.world.states, len(self.world.log)) == (states, log)
            with pytest.raises(Refused):
                told()
        else:
            told()
            self.note(command, decision)

    def note(self, command: Any, decision: Decision) -> None:
        """Tell the naive ledger when things were: it has no clock."""
        at = decision.appends[0].effective_at if decision.appends else None
        if isinstance(command, MarkPosition):
            self.naive.named(str(command.position_id)).mark_at = at
        for part in (part for holding in self.naive.all() for part in holding.parts if part.at is None):
            part.at = at

    @initialize(data=st.data(), market=markets, quantity=quantities)
    def begin(self, data: st.DataObject, market: str, quantity: Decimal) -> None:
        self.open_position(data, market, None, quantity, Decimal(0), 0)

    @rule(data=st.data(), market=markets, strategy=strategies, quantity=quantities, fee=fees, age_s=st.integers(0, 3))
    def open_position(
        self, data: st.DataObject, market: str, strategy: int | None, quantity: Decimal, fee: Decimal, age_s: int
    ) -> None:
        side = data.draw(st.sampled_from(MARKETS[market]), "side")
        price = price_in(data, market)
        if market == "binary":
            price = min(max(price, Decimal("0.01")), Decimal("0.99"))
        at = self.world.now - timedelta(seconds=age_s)
        command = OpenPosition(
            environment="paper", account="main", market=market, strategy=strategy, side=side, quantity=quantity,
            entry_price=price, fee=fee, effective_at=at,
        )  # fmt: skip
        part = Part(True, F(quantity), F(price), r18(F(quantity) * F(price)), F(fee))  # noqa: FBT003
        self.both(command, lambda: self.naive.open((market, strategy), side, at, part))

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), quantity=quantities, fee=fees, is_entry=st.booleans())
    def increase_or_reduce(self, data: st.DataObject, quantity: Decimal, fee: Decimal, is_entry: bool) -> None:  # noqa: FBT001
        name, market = self.drawn(data)
        price = price_in(data, market)
        kind = IncreasePosition if is_entry else ReducePosition
        part = Part(is_entry, F(quantity), F(price), r18(F(quantity) * F(price)), F(fee))
        self.both(
            kind(position_id=name, quantity=quantity, price=price, fee=fee),
            lambda: self.naive.trade(self.naive.named(name), part),
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), share=st.fractions(0, 1), fee=fees)
    def reduce_by_a_share(self, data: st.DataObject, share: F, fee: Decimal) -> None:
        name, market = self.drawn(data)
        held = self.world.at(name).quantity
        quantity = round(held * share.numerator / share.denominator, 18)
        assume(0 < quantity <= held)
        price = price_in(data, market)
        part = Part(False, F(quantity), F(price), r18(F(quantity) * F(price)), F(fee))  # noqa: FBT003
        self.both(
            ReducePosition(position_id=name, quantity=quantity, price=price, fee=fee),
            lambda: self.naive.trade(self.naive.named(name), part),
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), fee=fees)
    def close(self, data: st.DataObject, fee: Decimal) -> None:
        name, market = self.drawn(data)
        price = price_in(data, market)
        holding = self.naive.named(name)
        part = Part(False, holding.quantity, F(price), r18(holding.quantity * F(price)), F(fee))  # noqa: FBT003
        self.both(
            ClosePosition(position_id=name, price=price, fee=fee, reason="manual"),
            lambda: self.naive.trade(holding, part),
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), fee=fees)
    def settle(self, data: st.DataObject, fee: Decimal) -> None:
        name, market = self.drawn(data)
        value = price_in(data, market)
        self.both(
            SettlePosition(position_id=name, value=value, fee=fee),
            lambda: self.naive.settle(self.naive.named(name), F(value), F(fee)),
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        name, market = self.drawn(data)
        price = price_in(data, market)
        self.both(
            MarkPosition(position_id=name, price=price),
            lambda: setattr(self.naive.named(name), "mark", F(price)),
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), amount=scaled(100))
    def set_exits(self, data: st.DataObject, amount: Decimal) -> None:
        name, market = self.drawn(data)
        stop = price_in(data, market)
        self.both(
            SetExits(position_id=name, stop_loss_price=stop, trailing_stop={"trail_amount": amount}), lambda: None
        )

    @precondition(lambda self: self.open_names())
    @rule(data=st.data())
    def mark_from_the_past(self, data: st.DataObject) -> None:
        name, _ = self.drawn(data)
        position = self.world.at(name)
        before = (position.mark_time or position.entry_time) - timedelta(microseconds=1)
        assert not self.world.do(MarkPosition(position_id=name, price=0, effective_at=before)).appends

    @rule(
        data=st.data(), market=markets, strategy=strategies, action=st.sampled_from(["buy", "sell"]),
        quantity=quantities, fee=fees, dust=dusts, flips=st.booleans(),
    )  # fmt: skip
    def record_fill_of_a_key(
        self, data: st.DataObject, market: str, strategy: int | None, action: str, quantity: Decimal, fee: Decimal,
        dust: Decimal, flips: bool,  # noqa: FBT001
    ) -> None:  # fmt: skip
        side = data.draw(st.sampled_from(MARKETS[market]), "side")
        held: list[F] = [holding.quantity for holding in self.naive.open_on((market, strategy), side)]
        if held and data.draw(st.sampled_from([True, False]), "about what is held"):
            near = Decimal(int(sum(held) * 10**18)).scaleb(-18)
            quantity = max(near + data.draw(st.sampled_from([-1, 0, 1])) * dust, Decimal("1e-18"))
        price = price_in(data, market)
        command = RecordFill(
            environment="paper", account="main", market=market, strategy=strategy, side=side, action=action,
            quantity=quantity, price=price, fee=fee, dust=dust, on_excess="flip" if flips else "refuse",
        )  # fmt: skip
        self.both(command, lambda: self.naive_fill(command, (market, strategy), side, None))

    @precondition(lambda self: self.open_names())
    @rule(data=st.data(), quantity=quantities, fee=fees, flips=st.booleans(), action=st.sampled_from(["buy", "sell"]))
    def record_fill_of_a_position(
        self, data: st.DataObject, quantity: Decimal, fee: Decimal, flips: bool, action: str  # noqa: FBT001
    ) -> None:  # fmt: skip
        name, market = self.drawn(data)
        command = RecordFill(
            position_id=name, action=action, quantity=quantity, price=price_in(data, market), fee=fee,
            on_excess="flip" if flips else "refuse",
        )  # fmt: skip
        key = (market, self.world.at(name).strategy)
        self.both(command, lambda: self.naive_fill(command, key, self.naive.named(name).side, name))

    def naive_fill(self, command: RecordFill, key: tuple[str, int | None], side: str, name: str | None) -> None:
        candidates = [self.naive.named(name)] if name else self.naive.open_on(key, side)
        last = self.world.log[-1].effective_at if self.world.log else self.world.now
        self.naive.fill(
            candidates, key, side, last,
            is_entry=(command.action == "sell") is (side == "SHORT"),
            quantity=F(command.quantity), price=F(command.price), fee=F(command.fee), dust=F(command.dust),
            flips=command.on_excess == "flip",
        )  # fmt: skip

    @rule(seconds=st.integers(-2, 5))
    def time_passes_not_always_forwards(self, seconds: int) -> None:
        """Know that the clocks of two machines differ."""
        self.world.later(seconds=seconds)

    @invariant()
    def figures_equal_the_naive_ledger(self) -> None:
        assert len(self.world.positions) == self.naive.count
        for holding in self.naive.all():
            position = self.world.at(holding.name)
            assert position.status == holding.status
            figures = {name: getattr(position, name) for name in FIGURES}
            assert {name: value if value is None else F(value) for name, value in figures.items()} == holding.figures()

    @invariant()
    def laws_hold_within_every_position(self) -> None:
        for position in self.world.positions.values():
            check_laws(position)

    @invariant()
    def the_book_lists_what_is_open(self) -> None:
        for market, sides in MARKETS.items():
            for strategy in (None, 1):
                book = self.world.book(BookKey(Environment.PAPER, "main", market, strategy))
                for side in sides:
                    names = [holding.name for holding in self.naive.open_on((market, strategy), side)]
                    assert book.open_on(Side(side)) == tuple(self.world.names[name] for name in names)

    def teardown(self) -> None:
        assert self.world.replayed() == self.world.states
        check_fills_make_quantities(self.world)
        check_snapshots(self.world)
        check_versions(self.world)


def check_laws(position: Position) -> None:
    """Laws 2, 3 and 6, exactly, in fractions."""
    sign = position.side.sign
    fees = F(position.open_fees) + F(position.close_fees)
    gross, cost = F(position.realized_gross), F(position.cost)
    trading_cash = sign * (F(position.exit_amount) - F(position.entry_amount)) - fees
    assert gross - fees == trading_cash + sign * cost
    assert F(position.realized_pnl) == gross - fees
    value = r18(F(position.quantity) * F(position.current_price))
    assert trading_cash + sign * value == gross - fees + F(position.unrealized_pnl or 0)
    if not position.quantity:
        assert (cost, position.unrealized_pnl, position.average_entry_price) == (0, None, None)
        assert position.realized_pnl == position.realized_pnl_closed
        assert position.current_price == position.exit_price
    assert (position.quantity > 0) is position.is_open


def check_fills_make_quantities(world: World) -> None:
    """Law 1, and every fill's amounts and gains sum to the figures."""
    for stream, position in world.positions.items():
        held = gross = F(0)
        for append in world.log:
            if append.stream != stream:
                continue
            fill = append.event if isinstance(append.event, PositionSettled) else getattr(append.event, "fill", None)
            if fill is None:
                continue
            action = getattr(fill, "action", position.side.exit_action)
            held += F(fill.quantity) if action is position.side.entry_action else -F(fill.quantity)
            gross += F(fill.realized_gross)
        assert (held, gross) == (F(position.quantity), F(position.realized_gross))


def check_snapshots(world: World) -> None:
    """Law 10: a snapshot after any event, and the tail from there, make the same state."""
    for stream in world.states:
        appends = [append for append in world.log if append.stream == stream]
        state: Position | Book | None = None
        for cut, append in enumerate(appends, start=1):
            state = fold_append(state, append)
            if isinstance(state, Position) and (cut == len(appends) // 2 or LONG):
                snapshot = state_from_json(POSITION.shape_name, state_json(state))
                assert snapshot == state
                state = snapshot
        assert state == world.states[stream]


def check_versions(world: World) -> None:
    """Laws 11 and 12 as far as the fold goes: versions run from 1, and every event of a position changes its state."""
    versions: dict[Any, int] = {}
    states: dict[Any, Any] = {}
    for append in world.log:
        assert append.version == versions.get(append.stream, 0) + 1
        before, after = states.get(append.stream), fold_append(states.get(append.stream), append)
        assert after != before
        assert after.version == append.version
        versions[append.stream], states[append.stream] = append.version, after


Histories.TestCase.settings = examples(100, steps=30)
TestHistories = pytest.mark.uncounted(pytest.mark.timeout(0 if LONG else 120)(Histories.TestCase))


@examples(100)
@example(value=Decimal("0.5"), quantity=Decimal("1e-18"), fee=Decimal(0))
@example(value=Decimal("0.25"), quantity=Decimal("6e-18"), fee=Decimal(0))
@given(value=unit_prices, quantity=quantities, fee=fees)
def test_law_4_a_pair_receives_exactly_one(value: Decimal, quantity: Decimal, fee: Decimal) -> None:
    world = World()
    world.open(side="YES", quantity=quantity)
    world.open(side="NO", quantity=quantity)

    for name in ("POS-1", "POS-2"):
        world.do(SettlePosition(position_id=name, value=value, fee=fee))

    assert F(world.at("POS-1").exit_amount) + F(world.at("POS-2").exit_amount) == F(quantity)


@examples(60)
@given(parts=st.lists(quantities, min_size=2, max_size=5), price=unit_prices, exit_price=unit_prices)
def test_law_7_splitting_a_fill_changes_nothing_once_flat(
    parts: list[Decimal], price: Decimal, exit_price: Decimal
) -> None:
    whole, split = World(), World()
    total = sum(parts, Decimal(0))
    price, exit_price = round(price, 6), round(exit_price, 6)

    # given one entry, and the same entry in parts
    whole.fill("buy", total, price)
    for part in parts:
        split.fill("buy", part, price)

    # then they differ by less than the last place of each part
    tolerance = F(len(parts), 10**18)
    for name in ("quantity", "entry_amount", "cost"):
        assert abs(F(getattr(whole.at("POS-1"), name)) - F(getattr(split.at("POS-1"), name))) <= tolerance

    # when one exit is made whole and in parts, gains differ by no more than amounts do
    whole.fill("sell", total, exit_price)
    for part in parts:
        split.fill("sell", part, exit_price)
    one, many = whole.at("POS-1"), split.at("POS-1")
    assert (one.cost, many.cost, one.quantity, many.quantity) == (0, 0, 0, 0)
    assert abs(F(one.realized_gross) - F(many.realized_gross)) <= 2 * tolerance


@examples(60)
@given(
    parts=st.lists(st.integers(1, 10**6), min_size=2, max_size=5), price=st.integers(0, 100), out=st.integers(0, 100)
)
def test_law_7_is_exact_where_amounts_are(parts: list[int], price: int, out: int) -> None:
    whole, split = World(), World()
    whole.fill("buy", sum(parts), Decimal(price) / 100)
    whole.fill("sell", sum(parts), Decimal(out) / 100)

    for part in parts:
        split.fill("buy", part, Decimal(price) / 100)
    for part in parts:
        split.fill("sell", part, Decimal(out) / 100)

    names = [name for name in FIGURES if name != "peak_quantity"]
    assert [getattr(whole.at("POS-1"), name) for name in names] == [getattr(split.at("POS-1"), name) for name in names]


steps = st.lists(st.tuples(st.booleans(), quantities, unit_prices, fees), min_size=1, max_size=8)


@examples(60)
@given(path=steps)
def test_law_8_equal_own_side_paths_give_equal_figures(path: list[tuple[bool, Decimal, Decimal, Decimal]]) -> None:
    worlds = {side: World() for side in ("YES", "NO")}

    for side, world in worlds.items():
        for is_entry, quantity, price, fee in path:
            action = "buy" if is_entry or not world.positions else "sell"
            world.fill(action, quantity, price, fee, side=side, on_excess="flip")

    yes, no = (list(world.positions.values()) for world in worlds.values())
    assert [[getattr(position, name) for name in FIGURES] for position in yes] == [
        [getattr(position, name) for name in FIGURES] for position in no
    ]


@examples(60)
@given(quantity=st.integers(1, 10**6), cents=st.integers(0, 100), out=st.integers(0, 100))
def test_law_8_yes_and_no_of_one_market_cancel(quantity: int, cents: int, out: int) -> None:
    world = World()
    price, exit_price = Decimal(cents) / 100, Decimal(out) / 100

    world.fill("buy", quantity, price, side="YES")
    world.fill("buy", quantity, 1 - price, side="NO")
    assert world.at("POS-1").cost + world.at("POS-2").cost == quantity
    world.fill("sell", quantity, exit_price, side="YES")
    world.fill("sell", quantity, 1 - exit_price, side="NO")

    assert world.at("POS-1").realized_pnl + world.at("POS-2").realized_pnl == 0
