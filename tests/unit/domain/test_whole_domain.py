"""All laws that one process can break, over random histories of everything that can be asked of the ledger."""

# mypy: disable-error-code="comparison-overlap"
from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from position_ledger.domain.accounts.account import Account, AccountKey, account_stream
from position_ledger.domain.book import Book, BookKey, book_stream
from position_ledger.domain.commands import (
    AmendSettlement,
    RecordOpeningPosition,
    SettlePosition,
    VoidPosition,
)
from position_ledger.domain.decisions import fold_append
from position_ledger.domain.effective_order import in_effective_order
from position_ledger.domain.families import family_of_state, state_from_json, state_json
from position_ledger.domain.figures import FIGURE_NAMES
from position_ledger.domain.markets.market import Market, MarketKey, market_stream
from position_ledger.domain.position import Position
from position_ledger.domain.rejections import CommandRejected, Reason
from position_ledger.domain.vocabulary import Environment
from tests.support.whole_domain import ACCOUNTS, BINARY, DECIDED, MARKETS, WEIGHTED, Held, command_of, registrations
from tests.unit.domain.bookkeeping import check_counted, check_figures, counted
from tests.unit.domain.world import LONG, World, examples, through_json

if TYPE_CHECKING:
    from datetime import datetime

    from position_ledger.domain.commands import Command
    from position_ledger.domain.decisions import Append

F = Fraction
STREAMS = {name: account_stream(AccountKey(Environment.PAPER, name, "USD")) for name in ACCOUNTS}
MOVES_MONEY = {"account.cash_moved", "account.position_booked"}
NEVER = {Reason.FIGURE_TOO_LARGE, Reason.POSITION_UNKNOWN, Reason.TRADE_UNKNOWN, Reason.MARKET_UNKNOWN}
"""What these commands never deserve."""


class Whole(RuleBasedStateMachine):
    """Two accounts, eight markets of all kinds; a command of a drawn kind from a drawn seed, so that failures shrink."""

    suffix = ""
    accepted: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.logs: dict[UUID, list[Append]] = {}
        self.states: dict[UUID, Any] = {}
        self.refs: dict[UUID, str] = {}
        self.trades: list[str] = []
        self.cash = dict.fromkeys(ACCOUNTS, F(0))
        self.known: dict[int, dict[UUID, Any]] = {}
        self.done: list[tuple[datetime, Command]] = []
        self.commands = 0

    # What a trader sees

    @property
    def now(self) -> datetime:
        return self.world.now

    @property
    def open(self) -> list[Held]:
        return self._held(is_open=True)

    @property
    def ended(self) -> list[Held]:
        return self._held(is_open=False)

    def _held(self, *, is_open: bool) -> list[Held]:
        found = [(self.refs[stream], one) for stream, one in self.world.positions.items() if one.is_open is is_open]
        return [Held(ref, one.account, one.market, one.side.value, one.quantity) for ref, one in found]

    # Commands

    @initialize(is_funded=st.booleans())
    def begin(self, is_funded: bool) -> None:  # noqa: FBT001
        for command in registrations():
            self.do(command)
        if is_funded:
            for name in ACCOUNTS:
                self.command("deposit", len(name))

    @rule(kind=st.sampled_from(WEIGHTED), seed=st.integers(0, 2**32), seconds=st.sampled_from([0, 0, 7, 120]))
    def command(self, kind: str, seed: int, seconds: int = 0) -> None:
        self.world.later(seconds=seconds)
        self.commands += 1
        if not self.commands % 20:
            self.known[len(self.world.log)] = dict(self.world.states)
        command = command_of(kind, random.Random(seed), self, self.commands)
        if command is not None:
            self.accepted[kind] += self.do(command)

    @rule(market=st.sampled_from(DECIDED), most=st.integers(1, 3))
    def pay(self, market: str, most: int) -> None:
        """Do what the paying process does, as far as it comes."""
        for command in self.payments(market)[:most]:
            self.accepted["pay"] += self.do(command)

    def payments(self, name: str) -> list[Command]:
        market = self.world.states[market_stream(MarketKey(Environment.PAPER, name))]
        assert isinstance(market, Market)
        if not market.revision:
            return []
        due = [
            (self.refs[stream], one) for stream, one in self.world.positions.items()
            if one.market == name and (one.settlement_revision or 0) < market.revision
            and one.status in {"open", "settled", "voided"} and (one.is_open or one.settlement_revision)
        ]  # fmt: skip
        return [self.payment(market, ref, one) for ref, one in due]

    @staticmethod
    def payment(market: Market, ref: str, position: Position) -> Command:
        about: dict[str, Any] = {"position_id": ref, "settlement_revision": market.revision}
        if market.value is None:
            return VoidPosition(**about, refund_fees=market.refund_fees)
        if position.is_open:
            return SettlePosition(**about, value=market.value, fee=market.fee)
        return AmendSettlement(**about, value=market.value, fee=market.fee)

    def do(self, command: Command) -> bool:
        """Give a command to the ledger and check whatever it changed; whether it changed anything."""
        size, before = len(self.world.log), dict(self.world.states)
        try:
            decision = self.world.do(command)
        except CommandRejected as rejection:
            assert rejection.reason not in NEVER  # noqa: PT017 - most commands are accepted
            assert (len(self.world.log), self.world.states) == (size, before)
            return False
        new = self.world.log[size:]
        assert tuple(new) == decision.appends
        for number, append in enumerate(new, size + 1):
            self.heard(append, number)
        self.check_money(command, new)
        for stream in {one.stream for one in new}:
            state = self.world.states[stream]
            if isinstance(state, Position):
                check_figures(state)
                check_counted(state, counted(state, self.logs[stream]))
                check_terms(state)
        self.done.append((self.world.now, command))
        return bool(new)

    def heard(self, append: Append, number: int) -> None:
        """Laws 11 and 12: versions run 1..n, and every event makes a state of its own."""
        log = self.logs.setdefault(append.stream, [])
        log.append(append)
        assert append.version == len(log)
        before = self.states.get(append.stream)
        after = self.states[append.stream] = fold_append(before, append)
        assert after != before
        assert after.version == append.version
        if append.version == 1 and isinstance(after, Position):
            self.refs[append.stream] = f"POS-{len(self.refs) + 1}"
        if getattr(append.event, "fill", None) is not None:
            self.trades.append(f"TRD-{number}")

    # Money

    def check_money(self, command: Command, new: list[Append]) -> None:
        """Law 5, and no money comes from nowhere: accounts have what came in and what positions brought."""
        for append in new:
            if append.event.TOPIC in MOVES_MONEY:
                check_postings(append.event)
        self.check_conserved(command, new)

    def check_conserved(self, command: Command, new: list[Append]) -> None:
        for append in new:
            event: Any = append.event
            if append.event.TOPIC == "account.cash_moved":
                self.cash[event.account] += F(event.change)
            if append.event.TOPIC in {"position.received", "position.transferred", "position.transfer_restated"}:
                self.cash[self.world.states[append.stream].account] += F(event.brought)
            for part in getattr(getattr(event, "restated", None), "handed_on", ()):
                self.cash[self.world.states[append.stream].account] += F(part.brought)
        if isinstance(command, RecordOpeningPosition):
            position = self.world.states[new[0].stream]
            expected = F(position.open_fees) + (0 if position.side == "SHORT" else F(position.cost))
            assert F(new[0].event.brought) == expected  # type: ignore[attr-defined]
        for name, stream in STREAMS.items():
            account = self.world.states.get(stream, Account())
            held = [money_of(one) for one in self.world.positions.values() if one.account == name]
            assert F(account.free) == self.cash[name] + sum((free for free, _ in held), F(0))
            assert F(account.locked) == sum((locked for _, locked in held), F(0))

    # The end

    def teardown(self) -> None:
        for name in DECIDED:
            for command in self.payments(name):
                self.do(command)
            assert not self.payments(name)
            self.check_law_4(name)
        check_cuts(self.world, self.logs)
        check_known(self.world, self.known)
        check_effective_order(self.world, self.logs)
        check_books(self.world)

    def check_law_4(self, name: str) -> None:
        """YES and NO of a settled market have received 1 a pair: its value and what it leaves."""
        market = self.world.states[market_stream(MarketKey(Environment.PAPER, name))]
        for position in self.world.positions.values():
            if position.market == name and position.settlement_revision and position.status == "settled":
                if position.settlement_revision == market.revision:
                    assert position.settlement_value == market.value
                assert position.settlement_revision <= market.revision


def check_postings(event: Any) -> None:
    books = {name: F(getattr(event.postings, name)) for name in type(event.postings).model_fields}
    assert sum(books.values()) == 0
    assert F(event.cash) == F(event.free) + F(event.locked)
    assert F(event.change) == books["free"] + books["locked"]


def money_of(position: Position) -> tuple[Fraction, Fraction]:
    """(free, locked) that a position has made of its account: all it paid and received, and what stands behind it."""
    sign = position.side.sign
    fees = F(position.open_fees) + F(position.close_fees)
    free = F(position.realized_gross) - fees - sign * F(position.cost)
    if position.side == "LONG":
        return free, F(0)
    if position.side != "SHORT":
        return free, F(position.cost)
    locked = F(round(F(position.cost) * (1 + F(position.margin_rate)) * 10**18), 10**18)
    return free - locked, locked


def check_terms(position: Position) -> None:
    """A position has the terms of its market, however it came to be."""
    terms = MARKETS[position.market] or {}
    expected = (F(terms.get("multiplier", 1)), F(terms.get("margin_rate", 0)))
    assert (F(position.multiplier), F(position.margin_rate)) == expected


def check_cuts(world: World, logs: dict[UUID, list[Append]]) -> None:
    """Law 10: replay = snapshot + tail for every cut, through the JSON of events and of snapshots, in any family."""
    for stream, appends in logs.items():
        state: Any = None
        for append in appends:
            state = fold_append(state, through_json(append))
            state = state_from_json(family_of_state(state).shape_name, state_json(state))
        assert state == world.states[stream]


def check_known(world: World, known: dict[int, dict[UUID, Any]]) -> None:
    """Law 13 as far as the domain goes: what followed from the log at a time follows from that part of it for ever."""
    for size, states in known.items():
        assert world.replayed(world.log[:size]) == states


def check_books(world: World) -> None:
    """Books list exactly what is open, each position once, in the book of its own key."""
    listed = {
        (stream, entry.stream, entry.side)
        for stream, book in world.states.items() if isinstance(book, Book) for entry in book.open
    }  # fmt: skip
    held = {(book_stream(BookKey.of(one)), stream, one.side) for stream, one in world.positions.items() if one.is_open}
    assert listed == held


def check_handed_on(world: World, logs: dict[UUID, list[Append]]) -> None:
    """Each part that went elsewhere came there: the same contracts, cost and fees, however often they were restated."""
    books = {stream: counted(position, logs[stream]) for stream, position in world.positions.items()}
    for stream in books:
        for append in logs[stream]:
            if append.event.TOPIC == "position.transferred":
                went = books[stream].went[append.version]
                came = books[append.event.receiver.stream].came  # type: ignore[attr-defined]
                assert came is not None
                assert (came.quantity, came.amount, came.fee) == (went.quantity, went.amount, went.fee)


def check_effective_order(world: World, logs: dict[UUID, list[Append]]) -> None:
    """The fold of what counts, in effective order, is the current position: what an as-of query of now answers."""
    for stream, position in world.positions.items():
        state: Any = None
        for append in in_effective_order(logs[stream]):
            state = fold_append(state, through_json(append))
        assert {name: getattr(state, name) for name in FIGURE_NAMES} == {
            name: getattr(position, name) for name in FIGURE_NAMES
        }
        assert (state.status, state.entry_time) == (position.status, position.entry_time)


Whole.TestCase.settings = examples(100, steps=100)


@pytest.mark.uncounted
class TestWhole(Whole.TestCase):  # type: ignore[misc, valid-type]
    """Every kind of command was accepted somewhere, or the laws would say nothing about it."""

    @pytest.mark.timeout(0 if LONG else 240)
    def runTest(self) -> None:  # noqa: N802 - unittest's name
        Whole.accepted.clear()
        super().runTest()
        never = {*WEIGHTED, "pay"} - {kind for kind, count in Whole.accepted.items() if count}
        assert not never


MIRRORED = tuple(kind for kind in WEIGHTED if kind not in {"pair", "quote"})
SHOWN = tuple(name for name in Position.__struct_fields__ if name not in {"side", "settlement_value", "previous"})


def mirrored(command: Any, world: World) -> Command:
    """The same command about the other contract of a binary market, at the same own-side prices."""
    changed: dict[str, Any] = {}
    if getattr(command, "side", None) in {"YES", "NO"}:
        changed["side"] = command.side.other
    if hasattr(command, "value") and is_about_binary(command, world):
        changed["value"] = 1 - command.value
    return command.model_copy(update=changed)  # type: ignore[no-any-return]


def is_about_binary(command: Any, world: World) -> bool:
    if hasattr(command, "market"):
        return command.market in BINARY
    return world.at(command.position_id).side.is_binary


@examples(20)
@given(steps=st.lists(st.tuples(st.sampled_from(MIRRORED), st.integers(0, 2**32)), min_size=10, max_size=40))
def test_law_8_a_history_and_its_mirror(steps: list[tuple[str, int]]) -> None:
    """YES and NO are the same but for the name, whatever happens to them: figures, fees, money and exits."""
    machine, mirror = Whole(), World()
    machine.begin(is_funded=True)
    for kind, seed in steps:
        machine.command(kind, seed, 5)

    for now, command in machine.done:
        mirror.now = now
        mirror.do(mirrored(command, mirror))

    assert len(mirror.log) == len(machine.world.log)
    for position, other in zip(machine.world.positions.values(), mirror.positions.values(), strict=True):
        assert other.side == (position.side.other if position.side.is_binary else position.side)
        for name in SHOWN:
            assert is_close(getattr(position, name), getattr(other, name)), name
    for stream in STREAMS.values():
        one: Account = machine.world.states[stream]
        two: Account = mirror.states[stream]
        assert is_close(one.cash, two.cash)
        assert is_close(one.locked, two.locked)


def is_close(one: Any, other: Any) -> bool:
    """Equal; of numbers, but for what the rounding of a settlement's two halves can leave."""
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return abs(one - other) <= Decimal("1e-9")
    return bool(one == other)
