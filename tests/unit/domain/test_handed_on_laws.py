"""Laws 1, 2, 3, 5, 6, 9 and 13 over histories in which parts of positions are handed on and split, and what was before that
is busted, corrected or becomes known late: every position of the tree, and the money of every account, at every time.
"""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from hypothesis import find
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.accounts.effects import holding
from position_ledger.domain.commands import (
    AdjustFee,
    AmendSettlement,
    BustTrade,
    CorrectTrade,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordOpeningPosition,
    ReducePosition,
    SetExits,
    SettlePosition,
    SplitShares,
    TransferPosition,
)
from position_ledger.domain.effective_order import in_effective_order
from position_ledger.domain.journal import read_journal
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.restating import is_marked
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.bookkeeping import check_counted, check_figures, counted
from tests.unit.domain.handed_on_oracle import Came, Gone, Node, Split, Sums, Traded, folded
from tests.unit.domain.oracle import r18
from tests.unit.domain.test_correction_laws import NOT_FOLDED, fees, minutes, position_of, prices, quantities
from tests.unit.domain.world import LONG, NOON, World, examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from position_ledger.domain.position import Position

F = Fraction
END = 13
"""The minute of every settlement."""
ACCOUNTS = ("A", "B", "C")
REFUSED = {Reason.QUANTITY_EXCEEDS_HELD, Reason.BUST_EXCEEDS_REST, Reason.TRADE_BUSTED, Reason.POSITION_NOT_OPEN,
           Reason.TOO_LATE, Reason.POSITION_NOT_SETTLED}  # fmt: skip
shares = st.sampled_from([None, F(1, 2), F(1, 3), F(4, 5)])


class HandedOn(RuleBasedStateMachine):
    """A tree of positions; times are minutes, so that ties are common."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.nodes: list[Node] = []
        self.trades: dict[str, tuple[Node, Traded]] = {}
        self.ids = 0

    # What there is

    def name(self, node: Node) -> str:
        return f"POS-{next(n for n, one in enumerate(self.nodes, 1) if one is node)}"

    def position(self, node: Node) -> Position:
        return self.world.at(self.name(node))

    def a_node(self, data: st.DataObject) -> Node:
        return self.nodes[data.draw(st.integers(0, len(self.nodes) - 1), "position")]

    def a_trade(self, data: st.DataObject) -> tuple[str, Node, Traded]:
        name = data.draw(st.sampled_from(sorted(self.trades)), "trade")
        return (name, *self.trades[name])

    def tried(self, command: Any) -> bool:
        """Execute a command; whether it was accepted."""
        size = len(self.world.log)
        try:
            return bool(self.world.do(command).appends)
        except CommandRejected as rejection:
            assert rejection.reason in REFUSED  # noqa: PT017 - either is fine
            assert len(self.world.log) == size
            return False

    def next(self) -> int:
        self.ids += 1
        return self.ids

    def keep(self, node: Node, fact: Traded) -> None:
        node.facts.append(fact)
        number = len([one for one in self.world.log if getattr(one.event, "fill", None) is not None])
        self.trades[self.world.trade(number)] = (node, fact)

    def said(self, trade: str) -> dict[str, str]:
        return {"trade": trade, "reason": "venue", "actor": "desk"}

    # What happens

    @initialize(side=st.sampled_from(["YES", "NO", "LONG", "SHORT"]), minute=minutes, quantity=quantities, fee=fees,
                is_opening=st.booleans())  # fmt: skip
    def begin(self, side: str, minute: int, quantity: Decimal, fee: Decimal, is_opening: bool) -> None:  # noqa: FBT001
        key = {"environment": "paper", "account": "A", "market": "M", "side": side}
        price, about = Decimal("0.4"), {"quantity": quantity, "effective_at": at(minute)}
        if is_opening:
            cost = r18(F(quantity) * F(price))
            self.world.do(RecordOpeningPosition(**key, **about, entry_price=price, open_fees=abs(fee)))
            brought = Came(F(quantity), cost, F(abs(fee)))
            self.nodes.append(Node("A", side, minute, brought))
            return
        self.world.do(OpenPosition(**key, **about, entry_price=price, fee=fee))
        self.nodes.append(Node("A", side))
        self.keep(self.nodes[0], Traded(minute, self.next(), True, F(quantity), F(price), F(fee)))  # noqa: FBT003

    @rule(data=st.data(), minute=minutes, is_entry=st.booleans(), quantity=quantities, price=prices, fee=fees)
    def fill(
        self, data: st.DataObject, minute: int, is_entry: bool, quantity: Decimal, price: Decimal, fee: Decimal  # noqa: FBT001
    ) -> None:  # fmt: skip
        node = self.a_node(data)
        kind = IncreasePosition if is_entry else ReducePosition
        held = self.sums(minute).get(id(node), Sums()).quantity
        was_open = self.position(node).is_open
        took = self.tried(
            kind(position_id=self.name(node), quantity=quantity, price=price, fee=fee, effective_at=at(minute))
        )
        if took:
            assert is_entry or F(quantity) <= held
            self.keep(node, Traded(minute, self.next(), is_entry, F(quantity), F(price), F(fee)))
        elif was_open:
            assert not is_entry
            assert F(quantity) > held

    @rule(data=st.data(), minute=minutes, part=shares, account=st.sampled_from(ACCOUNTS))
    def transfer(self, data: st.DataObject, minute: int, part: Fraction | None, account: str) -> None:
        node = self.a_node(data)
        held = self.position(node).quantity
        quantity = None if part is None else Decimal(int(F(held) * part * 10**5)).scaleb(-5)
        if len(self.nodes) > 6 or account == node.account or quantity == 0:
            return
        receiver = Node(account, node.side, minute)
        command = TransferPosition(
            position_id=self.name(node), to_account=account, quantity=quantity, effective_at=at(minute)
        )
        if self.tried(command):
            node.facts.append(Gone(minute, self.next(), F(held if quantity is None else quantity), receiver))
            self.nodes.append(receiver)

    @precondition(lambda self: self.nodes[0].side in {"LONG", "SHORT"})
    @rule(data=st.data(), minute=minutes, ratio=st.sampled_from(["2", "0.1", "1.5"]))
    def split(self, data: st.DataObject, minute: int, ratio: str) -> None:
        node = self.a_node(data)
        if self.tried(SplitShares(position_id=self.name(node), ratio=ratio, effective_at=at(minute))):
            node.facts.append(Split(minute, self.next(), F(ratio)))

    @precondition(lambda self: self.trades)
    @rule(data=st.data(), part=st.sampled_from([None, F(1), F(1, 2), F(1, 3)]), fee=st.one_of(st.none(), fees))
    def bust(self, data: st.DataObject, part: Fraction | None, fee: Decimal | None) -> None:
        trade, _, fact = self.a_trade(data)
        stated = None if part is None else Decimal(int(fact.quantity * part * 10**5)).scaleb(-5)
        if stated is not None and stated <= 0:
            return
        taken = fact.left if stated is None else F(stated)
        if not self.tried(BustTrade(**self.said(trade), bust_id=str(self.next()), quantity=stated, fee=fee)):
            assert taken > fact.left or not fact.left
            return
        due, back = fact.amount - fact.busted_amount, fact.fee
        if taken != fact.left:
            due, back = r18(due * taken / fact.left), r18(fact.fee * taken / fact.left)
        fact.fee -= back if fee is None else F(fee)
        fact.busted, fact.busted_amount = fact.busted + taken, fact.busted_amount + due

    @precondition(lambda self: self.trades)
    @rule(data=st.data(), price=st.one_of(st.none(), prices), quantity=st.one_of(st.none(), quantities),
          minute=st.one_of(st.none(), minutes))  # fmt: skip
    def correct(self, data: st.DataObject, price: Decimal | None, quantity: Decimal | None, minute: int | None) -> None:
        """Law 9: it is as if the corrected fill had been recorded in the first place."""
        time = None if minute is None else at(minute)
        told: dict[str, Any] = {"price": price, "quantity": quantity, "execution_time": time}
        told = {name: value for name, value in told.items() if value is not None}
        if not told:
            return
        trade, _, fact = self.a_trade(data)
        if not self.tried(CorrectTrade(**self.said(trade), correction_id=str(self.next()), **told)):
            assert F(quantity or fact.quantity) <= fact.busted
            return
        fact.price = fact.price if price is None else F(price)
        fact.quantity = fact.quantity if quantity is None else F(quantity)
        fact.minute = fact.minute if minute is None else minute
        fact.busted_amount = r18(fact.amount * fact.busted / fact.quantity)

    @precondition(lambda self: self.trades)
    @rule(data=st.data(), fee=fees)
    def adjust(self, data: st.DataObject, fee: Decimal) -> None:
        trade, _, fact = self.a_trade(data)
        assert self.tried(AdjustFee(**self.said(trade), adjustment_id=str(self.next()), fee=fee))
        fact.fee = F(fee)

    @rule(data=st.data(), minute=minutes, price=prices)
    def mark(self, data: st.DataObject, minute: int, price: Decimal) -> None:
        self.tried(MarkPosition(position_id=self.name(self.a_node(data)), price=price, effective_at=at(minute)))

    @rule(data=st.data(), minute=minutes, stop=prices)
    def exits(self, data: st.DataObject, minute: int, stop: Decimal) -> None:
        name = self.name(self.a_node(data))
        about = {"stop_loss_price": stop, "trailing_stop": {"trail_amount": "0.1"}, "effective_at": at(minute)}
        self.tried(SetExits(position_id=name, **about))

    @rule(data=st.data(), value=prices, fee=fees)
    def settle(self, data: st.DataObject, value: Decimal, fee: Decimal) -> None:
        node = self.a_node(data)
        if self.tried(SettlePosition(position_id=self.name(node), value=value, fee=fee, effective_at=at(END))):
            node.settled = (END, F(value), F(fee))

    @rule(data=st.data(), value=prices)
    def amend(self, data: st.DataObject, value: Decimal) -> None:
        node = self.a_node(data)
        self.tried(AmendSettlement(position_id=self.name(node), value=value))
        if node.settled is not None:
            node.settled = (END, F(value), node.settled[2])

    # What must hold

    def sums(self, until: int = 99) -> dict[int, Sums]:
        return folded(self.nodes[0], until)

    def appends(self, node: Node) -> list[Any]:
        stream: UUID = self.world.names[self.name(node)]
        return [one for one in self.world.log if one.stream == stream]

    @invariant()
    def every_position_is_what_its_facts_make_of_it(self) -> None:
        if not self.nodes:
            return
        expected = self.sums()
        assert len(expected) == len(self.nodes)
        for node in self.nodes:
            position, sums = self.position(node), expected[id(node)]
            same(position, sums)
            check_figures(position)
            check_counted(position, counted(position, self.appends(node)))

    @invariant()
    def the_fold_in_effective_order_is_the_same(self) -> None:
        """Law 13 in the domain, for now and for every time."""
        for node in self.nodes:
            appends = self.appends(node)
            told, now = position_of(in_effective_order(appends)), self.position(node)
            assert told is not None
            names = [name for name in told.__struct_fields__ if name not in NOT_FOLDED]
            if not is_marked(now, read_journal(appends)):  # what a position says of marks stays what was told last
                names = [name for name in names if not name.startswith("mark_")]
                assert told.mark_time is None
            assert {name: getattr(told, name) for name in names} == {name: getattr(now, name) for name in names}

    def teardown(self) -> None:
        self.seen.update(one.event.TOPIC for one in self.world.log)
        for split in (one for one in self.world.log if one.event.TOPIC == "position.shares_split"):
            self.seen["known after a split"] += any(
                one.stream == split.stream and one.version > split.version and one.effective_at < split.effective_at
                and hasattr(one.event, "restated") for one in self.world.log
            )  # fmt: skip
        if self.nodes:
            for minute in range(END + 2):
                self.look(minute)

    @rule(minute=st.integers(0, END + 1))
    def look(self, minute: int) -> None:
        """Every position and the money of every account as of a time."""
        expected = self.sums(minute)
        told = {id(node): position_of(in_effective_order(self.appends(node), at(minute))) for node in self.nodes}
        for node in self.nodes:
            found, sums = told[id(node)], expected.get(id(node))
            if sums is None or sums.since is None:
                assert found is None or not found.quantity
            else:
                assert found is not None
                same(found, sums)
        for account in ACCOUNTS:
            nodes = [node for node in self.nodes if node.account == account]
            assert self.free(account, minute, [told[id(node)] for node in nodes]) == sum(
                (expected[id(node)].flow for node in nodes if told[id(node)] is not None), F(0)
            )

    def free(self, account: str, minute: int, held: list[Position | None]) -> Fraction:
        """What is free as of a time, as `as_of_rows` adds it up: what came by then, and what positions had done by then."""
        stream = account_stream(AccountKey(Environment.PAPER, account, "USD"))
        came = [
            -F(one.event.postings.external)  # type: ignore[attr-defined]
            for one in self.world.log if one.stream == stream and one.effective_at <= at(minute)
        ]  # fmt: skip
        done = [holding(one) for one in held if one is not None]
        return sum(came, F(0)) + sum((F(one.cash) - F(one.locked) for one in done), F(0))

    @invariant()
    def accounts_have_what_their_executions_made_free(self) -> None:
        """Law 5: transfers move cost and what is locked, never what is free."""
        if not self.nodes:
            return
        expected = self.sums()
        for account in ACCOUNTS:
            state = self.world.states.get(account_stream(AccountKey(Environment.PAPER, account, "USD")))
            flows = [expected[id(node)].flow for node in self.nodes if node.account == account]
            assert (F(state.free) if state else F(0)) == sum(flows, F(0))


def same(position: Position, sums: Sums) -> None:
    named = sums.named()
    assert {name: F(getattr(position, name)) for name in named} == named
    assert position.status == sums.status
    if sums.since is not None:
        assert position.entry_time == at(sums.since)


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


HandedOn.TestCase.settings = examples(100, steps=40)


@pytest.mark.uncounted
class TestHandedOn(HandedOn.TestCase):  # type: ignore[misc, valid-type]
    """Random histories; what they may miss is in the history by hand below."""

    @pytest.mark.timeout(0 if LONG else 240)
    def runTest(self) -> None:  # noqa: N802 - unittest's name
        super().runTest()


class First:
    """Draws what comes first."""

    def draw(self, strategy: st.SearchStrategy[Any], _label: str) -> Any:
        return find(strategy, lambda _value: True)


@pytest.mark.parametrize("ratio", ["2", "0.1", "1.5"])
@pytest.mark.parametrize("side", ["LONG", "SHORT"])
def test_what_was_before_a_transfer_and_a_split_becomes_known(side: str, ratio: str) -> None:
    """Receivers are told again, and what was before a split is counted in the shares of then."""
    history, first = HandedOn(), cast("st.DataObject", First())
    HandedOn.seen.clear()
    history.begin(side, 1, Decimal(10), Decimal(1), is_opening=False)
    steps: list[Callable[[], None]] = [
        lambda: history.transfer(first, 4, F(1, 2), "B"),
        lambda: history.split(first, 6, ratio),
        lambda: history.fill(first, 3, is_entry=True, quantity=Decimal(3), price=Decimal("0.2"), fee=Decimal("0.1")),
        lambda: history.bust(first, F(1, 2), None),
        lambda: history.correct(first, Decimal("0.3"), None, 2),
    ]
    for step in steps:
        step()
        history.every_position_is_what_its_facts_make_of_it()
        history.the_fold_in_effective_order_is_the_same()
        history.accounts_have_what_their_executions_made_free()
    history.teardown()
    assert HandedOn.seen["position.transfer_restated"]
    assert HandedOn.seen["known after a split"]
