"""Every reason to refuse is produced once, in a table; no reason is missing and none is told twice."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.commands import (
    AmendSettlement,
    BustTrade,
    ClosePosition,
    Command,
    CorrectTrade,
    Deposit,
    DetermineMarket,
    DisputeMarket,
    Handle,
    IncreasePosition,
    MarkPosition,
    MergePair,
    OpenPosition,
    RecordCash,
    RecordFill,
    ReducePosition,
    RegisterMarket,
    SetExits,
    SetMarketStatus,
    SetOpeningBalance,
    SettleMarket,
    SettlePosition,
    SplitShares,
    TrailingStop,
    TransferPosition,
    Withdraw,
)
from position_ledger.domain.decisions import COMMANDS, Decision
from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge
from position_ledger.domain.errors import LedgerError
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.identity import (
    content_digest,
    correction_digest,
    require_same_command,
    require_same_correction,
    require_same_fill,
)
from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason, shown
from tests.unit.domain.world import NOON, D, World

if TYPE_CHECKING:
    from collections.abc import Callable

OPENING = {
    "environment": "paper", "account": "main", "market": "M", "side": "YES", "quantity": 10, "entry_price": "0.40",
}  # fmt: skip
FILL = {
    "environment": "paper", "account": "main", "market": "M", "side": "YES", "action": "sell", "quantity": 10,
    "price": "0.5",
}  # fmt: skip


@dataclass
class Watched(World):
    """Knows how long the log was after the last command that was accepted: a refused one must not make it longer."""

    begun_at: int = 0

    def do(self, command: Command) -> Decision:
        decision = super().do(command)
        self.begun_at = len(self.log)
        return decision


def opening(**fields: Any) -> Callable[[World], object]:
    return lambda world: world.do(OpenPosition(**OPENING | fields))


def fill(**fields: Any) -> Callable[[World], object]:
    return lambda world: world.do(RecordFill(**FILL | fields))


def on_position(command: type[Command], **fields: Any) -> Callable[[World], object]:
    return lambda world: world.do(command(position_id="POS-1", **fields))


def after_closing(command: type[Command], **fields: Any) -> Callable[[World], object]:
    def act(world: World) -> object:
        world.do(ClosePosition(position_id="POS-1", price="0.5", reason="manual"))
        return world.do(command(position_id="POS-1", **fields))

    return act


def cash(command: type[Command], **fields: Any) -> Callable[[World], object]:
    return lambda world: world.do(command(environment="paper", account="main", **fields))


def funded(command: type[Command], **fields: Any) -> Callable[[World], object]:
    """The open position has cost 4 of the 10 that are paid in."""

    def act(world: World) -> object:
        world.do(Deposit(environment="paper", account="main", amount=10))
        return world.do(command(environment="paper", account="main", **fields))

    return act


def pays_in_contracts(world: World) -> object:
    world.do(RegisterMarket(environment="paper", market="BTC", kind="spot", base_asset="BTC"))
    fields = {"market": "BTC", "side": "LONG", "action": "buy", "quantity": 2, "fee": 2, "fee_currency": "BTC"}
    return world.do(RecordFill(**FILL | fields))


def repeated(check: Callable[[Command, bytes], None]) -> Callable[[World], object]:
    first = OpenPosition(**OPENING, command_id="c-1", venue_fill_id="f-1")
    other = OpenPosition(**OPENING | {"quantity": 11}, command_id="c-1", venue_fill_id="f-1")
    return lambda _: check(other, content_digest(first))


def in_market(command: type[Command], **fields: Any) -> Callable[[World], object]:
    """A command about the market that the position is in, which is registered first."""

    def act(world: World) -> object:
        world.do(RegisterMarket(environment="paper", market="M", kind="binary", tick_size="0.01"))
        return world.do(command(environment="paper", market="M", **fields))

    return act


def in_market_after(first: Command, command: type[Command], **fields: Any) -> Callable[[World], object]:
    def act(world: World) -> object:
        world.do(RegisterMarket(environment="paper", market="M", kind="binary"))
        world.do(first)
        return world.do(command(environment="paper", market="M", **fields))

    return act


HALTED = SetMarketStatus(environment="paper", market="M", status="halted")
DETERMINED = DetermineMarket(environment="paper", market="M", value=1)
IN_M = {"account": "main", "side": "YES", "quantity": 1, "entry_price": "0.4"}


def edge(**fields: Any) -> Callable[[World], object]:
    told = {"environment": "paper", "name": "e", "market": "M", "true_win_probability": "0.6"} | fields
    return lambda world: world.do(DetectEdge(**told))


def after_edge(act: Callable[[World], object], *, ended: bool = False) -> Callable[[World], object]:
    def both(world: World) -> object:
        edge()(world)
        if ended:
            world.do(ChangeEdgeStatus(environment="paper", name="e", status="void"))
        return act(world)

    return both


def with_references(act: Callable[[World], object], **known: set[str | int]) -> Callable[[World], object]:
    def both(world: World) -> object:
        world.references |= known
        return act(world)

    return both


BUST = {"trade": "TRD-1", "bust_id": "b-1", "reason": "erroneous", "actor": "desk"}


def bust(**fields: Any) -> Callable[[World], object]:
    return lambda world: world.do(BustTrade(**BUST | fields))


def bust_half_of_a_flip(world: World) -> object:
    world.fill("sell", 15, "0.5", on_excess="flip")
    return bust(trade=world.trade(2), quantity=1)(world)


def bust_of_what_was_handed_on(world: World) -> object:
    world.later(seconds=1)
    world.do(TransferPosition(position_id="POS-1", to_account="other", quantity=4))
    return bust()(world)


def correct_what_is_busted(world: World) -> object:
    bust()(world)
    return world.do(CorrectTrade(trade="TRD-1", correction_id="c", price=1, reason="venue", actor="desk"))


NAN_IN_METADATA = {"edge": float("nan")}

TABLE: list[tuple[Reason, Callable[[World], object], str]] = [
    (
        Reason.FIELD_MISSING,
        lambda _: OpenPosition(**{name: value for name, value in OPENING.items() if name != "environment"}),
        "environment is missing; OpenPosition cannot do without it",
    ),
    (Reason.FIELD_UNKNOWN, opening(qty=1), "qty is not a field of OpenPosition"),
    (Reason.FLOAT_NOT_ALLOWED, opening(quantity=0.1), "quantity is the float 0.1, which is not exact"),
    (Reason.NOT_A_NUMBER, opening(entry_price="NaN"), "entry_price is NaN, not a finite number"),
    (Reason.NUMBER_TOO_LARGE, opening(fee=10**20), "fee is 100000000000000000000, too large"),
    (Reason.QUANTITY_NOT_POSITIVE, opening(quantity=-1), "quantity is -1 but must be greater than 0"),
    (
        Reason.NUMBER_NEGATIVE,
        opening(entry_price="-0.4"),
        "entry_price -0.4 is outside valid range: it must not be negative",
    ),
    (
        Reason.PROBABILITY_OUT_OF_RANGE,
        edge(true_win_probability="1.01"),
        "true_win_probability 1.01 is outside valid range",
    ),
    (
        Reason.COUNT_INVALID,
        lambda world: world.do(RecordGameState(environment="paper", game_id="G", home_score=-1)),
        "home_score is -1; it must be a whole number from 0 to 2147483647",
    ),
    (Reason.SIDE_UNKNOWN, opening(side="yes"), "side is yes; it must be exactly YES, NO, LONG or SHORT"),
    (Reason.ACTION_UNKNOWN, fill(action="hold"), "action is hold; it must be buy or sell"),
    (Reason.ENVIRONMENT_UNKNOWN, opening(environment="prod"), "environment is prod; it must be live, paper or"),
    (Reason.TEXT_BLANK, opening(account="  "), "account is blank; give it a value"),
    (Reason.TEXT_INVALID, opening(market="a\x00b"), r"market is 'a\x00b'; text must have at most 1000 characters"),
    (Reason.TIME_INVALID, opening(effective_at="2026-03-01"), "effective_at is 2026-03-01; give a datetime with"),
    (
        Reason.TRAILING_STOP_INVALID,
        opening(trailing_stop={"trail_amount": "0.1", "trail_percent": "0.1"}),
        "trailing_stop is {'trail_amount': '0.1', 'trail_percent': '0.1'}; give exactly one",
    ),
    (Reason.METADATA_INVALID, opening(metadata=NAN_IN_METADATA), "metadata cannot be kept as JSON"),
    (Reason.FIELD_INVALID, opening(strategy=0), "strategy is 0: it must be the positive whole number of a row"),
    (Reason.COMMAND_ID_REUSED, repeated(require_same_command), "command_id c-1 was used before with other content"),
    (Reason.FILL_ID_REUSED, repeated(require_same_fill), "venue_fill_id f-1 was recorded before with other content"),
    (
        Reason.CORRECTION_ID_REUSED,
        lambda _: require_same_correction(BustTrade(**BUST | {"quantity": 2}), correction_digest(BustTrade(**BUST))),
        "bust_id b-1 was used before for this trade with other content",
    ),
    (
        Reason.REFERENCE_UNKNOWN,
        with_references(opening(strategy=2), strategy={1}),
        "strategy is 2, which has no row in strategies; see: position-ledger reference list strategies",
    ),
    (Reason.EDGE_UNKNOWN, opening(edge=99), "edge 99 not found; name one that was detected"),
    (Reason.EDGE_IS_OTHER, after_edge(edge(market="N")), "market is N but the edge has M"),
    (Reason.EDGE_NOT_LIVE, after_edge(edge(true_win_probability=".7"), ended=True), "edge e is void; its values"),
    (
        Reason.EDGE_STATUS_INVALID,
        after_edge(lambda world: world.do(ChangeEdgeStatus(environment="paper", name="e", status="acted_on"))),
        "edge e is detected and cannot become acted_on",
    ),
    (
        Reason.OUT_OF_ORDER,
        after_edge(
            lambda world: world.do(
                ChangeEdgeStatus(environment="paper", name="e", status="void", effective_at=NOON - timedelta(seconds=1))
            )
        ),
        "effective_at 2026-03-01T11:59:59+00:00 is before 2026-03-01T12:00:00+00:00, when it became detected",
    ),
    (
        Reason.POSITION_UNKNOWN,
        lambda world: world.do(MarkPosition(position_id="POS-99", price="0.5")),
        "position POS-99 not found",
    ),
    (
        Reason.MARKET_UNKNOWN,
        lambda world: world.do(SettleMarket(environment="live", market="M", value=1)),
        "market M is not registered in live",
    ),
    (
        Reason.MARKET_EXISTS,
        in_market(RegisterMarket, kind="spot"),
        "market M is registered with kind binary",
    ),
    (
        Reason.MARKET_STATUS_WRONG,
        in_market(DisputeMarket),
        "market M is open, and DisputeMarket is not possible then",
    ),
    (
        Reason.MARKET_NOT_OPEN,
        in_market_after(HALTED, OpenPosition, **IN_M),
        "market M is halted, not open",
    ),
    (
        Reason.POSITION_NOT_OPEN,
        after_closing(MarkPosition, price="0.5"),
        "position POS-1 is closed, not open",
    ),
    (
        Reason.POSITION_NOT_SETTLED,
        on_position(AmendSettlement, value=1),
        "position POS-1 is open and was never settled or voided",
    ),
    (Reason.TRADE_UNKNOWN, bust(trade="TRD-99"), "trade TRD-99 not found"),
    (Reason.FLIP_IS_ONE_TRADE, bust_half_of_a_flip, "is one half of a flip: bust it whole"),
    (Reason.TRADE_BUSTED, correct_what_is_busted, "of trade TRD-1 10 contracts are busted"),
    (Reason.BUST_EXCEEDS_REST, bust(quantity=11), "quantity 11 exceeds the 10 of the trade that are not busted yet"),
    (
        Reason.KEY_MISMATCH,
        fill(position_id="POS-1", account="other"),
        "account is other but the position has main",
    ),
    (
        Reason.SIDE_NOT_IN_MARKET,
        in_market(OpenPosition, **IN_M | {"side": "LONG"}),
        "side is of side LONG, but market M is binary",
    ),
    (
        Reason.MARKET_CURRENCY,
        in_market(OpenPosition, **IN_M, currency="EUR"),
        "currency is EUR but market M is traded in USD",
    ),
    (
        Reason.FEE_CURRENCY_UNSUPPORTED,
        fill(fee=1, fee_currency="EUR"),
        "fee_currency EUR is not the currency USD of the position",
    ),
    (
        Reason.FEE_TAKES_ALL,
        pays_in_contracts,
        "fee 2 in the base asset takes all of the 2 contracts",
    ),
    (
        Reason.ENTRY_PRICE_OUT_OF_RANGE,
        opening(entry_price="0.995"),
        "entry_price 0.995 is outside valid range [0.01, 0.99]",
    ),
    (
        Reason.PRICE_NOT_ON_TICK,
        in_market(OpenPosition, **IN_M | {"entry_price": "0.405"}),
        "entry_price 0.405 is no multiple of the tick size 0.01",
    ),
    (
        Reason.PRICE_OUT_OF_RANGE,
        on_position(MarkPosition, price="1.01"),
        "price 1.01 is outside valid range [0, 1] of the binary side YES",
    ),
    (
        Reason.OUTCOME_DIFFERS,
        in_market_after(DETERMINED, SettleMarket, value=0),
        "value 0 is not the outcome 1 that the market was determined at",
    ),
    (
        Reason.TOO_LATE,
        on_position(ClosePosition, price="0.5", reason="manual", effective_at=NOON - timedelta(seconds=1)),
        "effective_at 2026-03-01T11:59:59+00:00 is before the last fill at 2026-03-01T12:00:00+00:00",
    ),
    (
        Reason.HANDED_ON,
        bust_of_what_was_handed_on,
        "effective_at 2026-03-01T12:00:00+00:00 is before 2026-03-01T12:00:01+00:00, when the position was received",
    ),
    (
        Reason.QUANTITY_EXCEEDS_HELD,
        on_position(ReducePosition, quantity="10.5", price="0.5"),
        "quantity 10.5 exceeds the 10 held",
    ),
    (
        Reason.CASH_KIND_NOT_RECORDED,
        cash(RecordCash, kind="deposit", amount=1),
        "kind deposit has a command of its own",
    ),
    (
        Reason.BALANCE_ALREADY_SET,
        funded(SetOpeningBalance, amount=100),
        "account main has its opening balance or a deposit already",
    ),
    (
        Reason.TRANSFER_TO_ITSELF,
        on_position(TransferPosition, to_account="main"),
        "to_account main holds the position already",
    ),
    (Reason.SIDE_CANNOT_SPLIT, on_position(SplitShares, ratio=2), "side is YES: a binary contract pays 1"),
    (
        Reason.NOT_A_PAIR,
        lambda world: world.do(MergePair(yes_position_id="POS-1", no_position_id="POS-1", quantity=1)),
        "no_position_id is YES where NO is needed",
    ),
    (
        Reason.INSUFFICIENT_FUNDS,
        funded(Withdraw, amount="6.01"),
        "6.01 is needed but only 6 is free in the account",
    ),
    (
        Reason.FIGURE_TOO_LARGE,
        opening(side="LONG", quantity=10**19, entry_price=10**19),
        "entry_amount would become 1.000000e+38, too large for the ledger",
    ),
]


@pytest.mark.parametrize(("reason", "act", "message"), TABLE, ids=[row[0].code for row in TABLE])
def test_every_reason(reason: Reason, act: Callable[[World], object], message: str) -> None:
    # given one open position, YES 10 @ .40
    world = Watched()
    world.open()

    # when
    with pytest.raises(CommandRejected) as caught:
        act(world)

    # then the reason is told in one sentence, and nothing of the refused command was appended
    assert caught.value.reason is reason
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, LedgerError)
    assert len(world.log) == world.begun_at


def test_the_table_has_every_reason_once() -> None:
    assert [row[0] for row in TABLE] == list(Reason)
    assert len({reason.code for reason in Reason}) == len(Reason)


def test_only_what_other_commands_can_cure_is_transient() -> None:
    transient = {reason for reason in Reason if reason.transient}
    assert transient == {
        Reason.REFERENCE_UNKNOWN,
        Reason.EDGE_UNKNOWN,
        Reason.POSITION_UNKNOWN,
        Reason.MARKET_UNKNOWN,
        Reason.MARKET_STATUS_WRONG,
        Reason.MARKET_NOT_OPEN,
        Reason.OUTCOME_DIFFERS,
        Reason.POSITION_NOT_SETTLED,
        Reason.TRADE_UNKNOWN,
        Reason.QUANTITY_EXCEEDS_HELD,
        Reason.INSUFFICIENT_FUNDS,
    }


def test_the_first_reason_in_the_order_of_precedence_is_told() -> None:
    with pytest.raises(CommandRejected) as caught:
        OpenPosition(**{**OPENING, "environment": "prod", "account": "", "quantity": 1.5, "extra": 1})

    assert caught.value.reason is Reason.FIELD_UNKNOWN


def test_a_float_is_a_type_error() -> None:
    """S74."""
    with pytest.raises(TypeError, match=r"entry_price is the float 0\.4"):
        OpenPosition(**OPENING | {"entry_price": 0.4})
    with pytest.raises(FloatRefused, match="trail_amount is the float"):
        TrailingStop(trail_amount=0.05)
    with pytest.raises(FloatRefused, match=r"trailing_stop\.trail_amount is the float"):
        OpenPosition(**OPENING | {"trailing_stop": {"trail_amount": 0.05}})
    with pytest.raises(FloatRefused, match="price is the float"):
        MarkPosition.model_validate_json('{"position_id": "POS-1", "price": 0.5}')


@pytest.mark.parametrize(
    "value", [True, None, "", "1_000", "ten", "inf", "-Infinity", D("NaN"), D("sNaN"), [], "1" * 300]
)
def test_what_is_not_a_number(value: object) -> None:
    with pytest.raises(CommandRejected) as caught:
        OpenPosition(**OPENING | {"quantity": value})
    assert caught.value.reason is Reason.NOT_A_NUMBER


@pytest.mark.parametrize(
    "value",
    [
        10**20,
        -(10**20),
        pytest.param(10**5000, id="endless"),
        D("1e20"),
        D("1E+999999"),
        "99999999999999999999.9999999999999999999",
    ],
)
def test_what_the_column_cannot_hold(value: object) -> None:
    with pytest.raises(CommandRejected) as caught:
        OpenPosition(**OPENING | {"fee": value})
    assert caught.value.reason is Reason.NUMBER_TOO_LARGE


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("quantity", "1e-19", Reason.QUANTITY_NOT_POSITIVE),
        ("quantity", 0, Reason.QUANTITY_NOT_POSITIVE),
        ("account", 7, Reason.TEXT_INVALID),
        ("account", "x" * 1001, Reason.TEXT_INVALID),
        ("account", "\ud800", Reason.TEXT_INVALID),
        ("command_id", "", Reason.TEXT_BLANK),
        ("strategy", True, Reason.FIELD_INVALID),
        ("strategy", "1", Reason.FIELD_INVALID),
        ("strategy", 2**63, Reason.FIELD_INVALID),
        pytest.param("strategy", 10**5000, Reason.FIELD_INVALID, id="endless"),
        ("liquidity", "both", Reason.FIELD_INVALID),
        ("effective_at", NOON.replace(tzinfo=None), Reason.TIME_INVALID),
        ("effective_at", 1767225600, Reason.TIME_INVALID),
        ("effective_at", "yesterday", Reason.TIME_INVALID),
        ("effective_at", "0001-01-01T00:00:00+14:00", Reason.TIME_INVALID),
        ("metadata", {"a": "\x00"}, Reason.METADATA_INVALID),
        ("metadata", {"a": ["\ud800"]}, Reason.METADATA_INVALID),
        ("metadata", {"\x00": 1}, Reason.METADATA_INVALID),
        ("metadata", {1: 2}, Reason.METADATA_INVALID),
        ("metadata", {"a": D(1)}, Reason.METADATA_INVALID),
        ("metadata", {"a": (1, 2)}, Reason.METADATA_INVALID),
        ("metadata", {"a": "x" * 100_001}, Reason.METADATA_INVALID),
        ("metadata", ["a"], Reason.METADATA_INVALID),
        ("trailing_stop", {"trail_percent": 1}, Reason.TRAILING_STOP_INVALID),
        ("trailing_stop", {"trail_amount": 0}, Reason.TRAILING_STOP_INVALID),
        ("trailing_stop", {}, Reason.TRAILING_STOP_INVALID),
        ("trailing_stop", "5%", Reason.TRAILING_STOP_INVALID),
        ("target_price", "1.2", Reason.PRICE_OUT_OF_RANGE),
        ("stop_loss_price", "1.2", Reason.PRICE_OUT_OF_RANGE),
        ("trailing_stop", {"trail_amount": "0.1", "activation_price": 2}, Reason.PRICE_OUT_OF_RANGE),
        ("entry_price", "0.009999999999999999", Reason.ENTRY_PRICE_OUT_OF_RANGE),
        ("entry_price", "1.5", Reason.ENTRY_PRICE_OUT_OF_RANGE),
    ],
)
def test_bad_fields_of_an_opening(field: str, value: object, reason: Reason) -> None:
    world = World()

    with pytest.raises(CommandRejected) as caught:
        world.do(OpenPosition(**OPENING | {field: value}))

    assert caught.value.reason is reason
    assert not world.log


@pytest.mark.parametrize("ref", [1.0, True, 0, -1, None, ["POS-1"], {"name": "a"}])
def test_what_cannot_name_a_position(ref: object) -> None:
    with pytest.raises(CommandRejected) as caught:
        MarkPosition(position_id=ref, price=1)
    assert caught.value.reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "command",
    [
        IncreasePosition(position_id="POS-1", quantity=1, price="0.5"),
        ReducePosition(position_id="POS-1", quantity=1, price="0.5"),
        ClosePosition(position_id="POS-1", price="0.5", reason="manual"),
        SettlePosition(position_id="POS-1", value=1),
        MarkPosition(position_id="POS-1", price="0.5"),
        SetExits(position_id="POS-1"),
        RecordFill(position_id="POS-1", action="buy", quantity=1, price="0.5"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_happens_to_a_closed_position(command: Command) -> None:
    """S88: a second close never overwrites the first."""
    world = World()
    world.open()
    world.do(ClosePosition(position_id="POS-1", price="0.7", reason="profit_target"))
    closed = world.at("POS-1")

    with pytest.raises(CommandRejected) as caught:
        world.do(command)

    assert caught.value.reason is Reason.POSITION_NOT_OPEN
    assert world.at("POS-1") == closed


def test_an_unknown_handle_is_told_by_its_name() -> None:
    with pytest.raises(CommandRejected, match="position hedge not found"):
        World().do(MarkPosition(position_id=Handle("hedge"), price="0.5"))


def test_a_fill_needs_an_address() -> None:
    with pytest.raises(CommandRejected, match="side is missing; RecordFill cannot do without it"):
        RecordFill(**{name: value for name, value in FILL.items() if name != "side"})


def test_rejections_cross_processes() -> None:
    with pytest.raises(CommandRejected) as caught:
        OpenPosition(**OPENING | {"quantity": 0.5})

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes

    assert (type(copy), copy.reason, str(copy)) == (FloatRefused, Reason.FLOAT_NOT_ALLOWED, str(caught.value))


def test_long_values_are_cut_in_messages() -> None:
    assert len(shown("x" * 500)) == 120
    assert shown("") == "''"


def test_every_command_is_listed_frozen_and_described() -> None:
    def below(kind: type[Command]) -> set[type[Command]]:
        return {kind, *(sub for child in kind.__subclasses__() for sub in below(child))}

    public = {kind for kind in below(Command) if not kind.__name__.startswith("_")} - {Command}
    assert set(COMMANDS.values()) == public
    for kind in public:
        assert kind.__doc__
        assert kind.model_config["frozen"]
        assert kind.model_config["extra"] == "forbid"
