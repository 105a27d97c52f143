"""A way to be refused for every reason there is, in the order of precedence, with the sentence that is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from position_ledger.domain.commands import (
    AmendSettlement,
    BustTrade,
    ClosePosition,
    Command,
    CorrectTrade,
    Deposit,
    DetermineMarket,
    DisputeMarket,
    MarkPosition,
    MergePair,
    OpenPosition,
    RecordCash,
    RecordFill,
    RecordOpeningPosition,
    ReducePosition,
    RegisterMarket,
    SetMarketStatus,
    SetOpeningBalance,
    SettleMarket,
    SplitShares,
    TransferPosition,
    Withdraw,
)
from position_ledger.domain.decisions import Decision
from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.identity import (
    content_digest,
    correction_digest,
    require_same_command,
    require_same_correction,
    require_same_fill,
)
from position_ledger.domain.rejections import Reason
from position_ledger.domain.transfers.handing_on import RESTATED_MAX
from tests.unit.domain.world import NOON, World

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


def fill_before_the_statement(world: World) -> object:
    stated = {"environment": "paper", "account": "main", "market": "OTHER", "side": "YES"}
    world.do(RecordOpeningPosition(**stated, quantity=10, entry_price="0.4", effective_at=NOON))
    return fill(**stated, effective_at=NOON - timedelta(seconds=1))(world)


def bust_of_what_too_many_have(world: World) -> object:
    for _ in range(RESTATED_MAX + 1):
        world.do(TransferPosition(position_id="POS-1", to_account="other", quantity="0.01"))
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
        Reason.BEFORE_STATEMENT,
        fill_before_the_statement,
        "effective_at 2026-03-01T11:59:59+00:00 is before the position was stated as held at 2026-03-01T12:00:00+00:00",
    ),
    (
        Reason.HANDED_ON,
        bust_of_what_too_many_have,
        "501 or more positions hold what came of this one, and one command restates at most 500",
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
