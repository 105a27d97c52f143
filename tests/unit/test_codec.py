"""Events to stored JSON and back, in both forms, over versions of their shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel

from position_ledger import (
    AdjustFee,
    AmendMarket,
    AmendSettlement,
    BustTrade,
    ChangeMarket,
    ClosePosition,
    Command,
    CorrectTrade,
    Deposit,
    DetermineMarket,
    DisputeMarket,
    Handle,
    IncreasePosition,
    MarkPosition,
    QuoteMarket,
    RecordFill,
    ReducePosition,
    RegisterMarket,
    SetExits,
    SetMarketStatus,
    SettleMarket,
    SettlePosition,
    SplitShares,
    TrailingStop,
    TransferPosition,
    VoidMarket,
    VoidPosition,
)
from position_ledger.domain.edges.commands import ChangeEdgeStatus, DetectEdge, ReviseEdge
from position_ledger.domain.event import Event
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.errors import ConfigurationError, SchemaMismatch
from position_ledger.events import EVENTS, PositionMarked
from position_ledger.store.codec import VERSION_KEY, Codec, amounts_of, fields_of
from position_ledger.testing import given
from tests.support.commands import opening

CODEC = Codec(EVENTS)


def market_steps() -> list[Command]:
    """A market through every step of its life, and a second one that is voided."""
    one, two = ({"environment": "paper", "market": name} for name in ("M-1", "M-2"))
    return [
        RegisterMarket(**one, kind="binary", title="Will it?", status="initialized"),
        SetMarketStatus(**one, status="open"),
        ChangeMarket(**one, title="Will it, really?"),
        QuoteMarket(**one, yes_price="0.4", no_price="0.59"),
        SetMarketStatus(**one, status="closed"),
        DetermineMarket(**one, value=1),
        DisputeMarket(**one),
        AmendMarket(**one, value=0),
        SettleMarket(**one, value=0),
        RegisterMarket(**two, kind="binary"),
        VoidMarket(**two),
    ]


def signal_steps() -> list[Command]:
    """An edge through its life, and the state of a game."""
    edge = {"environment": "paper", "name": "E-1"}
    return [
        DetectEdge(**edge, market="M-3", true_win_probability="0.6", market_implied_probability="0.5"),
        ReviseEdge(**edge, true_win_probability="0.7"),
        ChangeEdgeStatus(**edge, status="recommended"),
        RecordGameState(environment="paper", game_id="G-1", home_score=1, situation={"down": 3}),
    ]


OPENED = opening(fee="0.02")
SAID: dict[str, Any] = {"reason": "venue", "actor": "desk"}


def every_event() -> list[Event]:
    """Events of every kind, with every part that a trading day gives them."""
    stop = TrailingStop(trail_amount="0.05")
    long_ago = datetime(2025, 5, 5, 5, 5, 5, 123456, tzinfo=UTC)
    outcome = given().when(
        Deposit(environment="paper", account="main", amount=100, reason="first"),
        *market_steps(),
        *signal_steps(),
        opening(strategy=3, handle="first", metadata={"note": "ä\u2028", "tags": [1, None, {"deep": True}]}, trailing_stop=stop),
        MarkPosition(position_id=Handle("first"), price="0.55", source="book"),
        SetExits(position_id=Handle("first"), target_price="0.60", stop_loss_price="0.10", trailing_stop=stop),
        MarkPosition(position_id=Handle("first"), price="0.61"),
        ReducePosition(position_id=Handle("first"), quantity="0.000000000000000001", price=0, fee="0.01", venue_fill_id="F"),
        ClosePosition(position_id=Handle("first"), price=1, reason="profit_target", metadata={"by": "hand"}),
        opening(strategy=3, handle="second"),
        SettlePosition(position_id=Handle("second"), value="0.5"),
        opening(side="LONG", handle="third"),
        SplitShares(position_id=Handle("third"), ratio=4),
        TransferPosition(position_id=Handle("third"), to_account="other", quantity=1),
        IncreasePosition(position_id=Handle("third"), quantity=2, price="0.10", effective_at=long_ago),
        *(
            RecordFill(
                environment="paper", account="main", market="M", side="YES", action=action, quantity=quantity,
                price="0.333333333333333333", fee="-0.002", liquidity="maker", on_excess="flip",
                effective_at=long_ago + timedelta(days=day),
            )
            for day, (action, quantity) in enumerate([("buy", 10), ("buy", 5), ("sell", 20)])
        ),
    )  # fmt: skip
    if outcome.rejection:
        raise outcome.rejection
    corrected = given(OPENED).when(
        ReducePosition(position_id="POS-1", quantity=5, price="0.60"),
        RecordFill(position_id="POS-1", action="buy", quantity=5, price="0.50", effective_at=long_ago),
        CorrectTrade(**SAID, trade="TRD-1", correction_id="C", price="0.41", execution_time=long_ago),
        AdjustFee(**SAID, trade="TRD-1", adjustment_id="A", fee="-0.02", effective_at=long_ago),
        SettlePosition(position_id="POS-1", value=1, settlement_revision=1),
        AmendSettlement(position_id="POS-1", value="0.5", fee="0.01", settlement_revision=2),
        VoidPosition(position_id="POS-1", refund_fees=True, settlement_revision=3),
        BustTrade(**SAID, trade="TRD-1", bust_id="B", quantity="0.5"),
        ReducePosition(position_id="POS-1", quantity=1, price="0.60", effective_at=long_ago + timedelta(1)),
    )
    reopened = given(OPENED, ClosePosition(position_id="POS-1", price=1, reason="manual")).when(
        BustTrade(**SAID, trade="TRD-4", bust_id="B")
    )
    for one in (corrected, reopened):
        if one.rejection:
            raise one.rejection
    return [*outcome.events, *corrected.events, *reopened.events]


EXAMPLES = every_event()


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value.model_dump() if isinstance(value, BaseModel) else value, str_keys=True)


def test_the_examples_show_every_event() -> None:
    assert {type(event) for event in EXAMPLES} == set(EVENTS)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.TOPIC)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert CODEC.decode(event.TOPIC, CODEC.encode(event)) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.TOPIC)
def test_the_struct_for_projecting_has_the_same_content(event: Event) -> None:
    struct = CODEC.decode_struct(event.TOPIC, CODEC.encode(event))
    assert plain(struct) == plain(event)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.TOPIC)
def test_what_is_stored_is_plain_json_with_numbers_as_text(event: Event) -> None:
    body = msgspec.json.decode(CODEC.encode(event))
    assert isinstance(body, dict)
    assert not any(isinstance(number, float) for number in msgspec.json.decode(CODEC.encode(event), type=dict).values())


@pytest.mark.parametrize("number", ["0", "1e-18", "0.000000000000000001", "12345678901234567890.123456789012345678"])
def test_numbers_keep_every_digit(number: str) -> None:
    event = PositionMarked(price=Decimal(number), unrealized_pnl=Decimal(0))
    stored = CODEC.encode(event)
    assert CODEC.decode(event.TOPIC, stored).model_dump()["price"] == Decimal(number)
    assert CODEC.decode_struct(event.TOPIC, stored).price == Decimal(number)


class Inner(BaseModel):
    amount: Decimal
    rest: Decimal | None = Decimal(1)


class Outer(Event):
    TOPIC = "test.outer"
    inner: Inner
    other: Inner | None = None
    amounts: tuple[Decimal, ...] = ()
    kind: int | str = 0
    total: Annotated[Decimal, "in the currency of the account"] = Decimal(0)


def test_the_fields_and_amounts_of_a_model_are_found_through_the_models_in_it() -> None:
    inside = {(name, part) for name in ("inner", "other") for part in ("amount", "rest")}
    assert amounts_of(Outer) == {*inside, ("total",)}
    assert fields_of(Outer) == {*inside, ("total",), ("inner",), ("other",), ("amounts",), ("kind",)}


def test_amounts_stay_text_where_it_is_said_and_nowhere_else() -> None:
    as_text = frozenset({("inner", "amount"), ("inner", "rest"), ("total",), ("amounts",)})
    read = Codec([Outer], as_text={"test.outer": as_text}).decode_struct
    state = b'{"inner":{"amount":"1.50","rest":null},"other":{"amount":"1.50"},"amounts":["2"],"total":"3"}'
    body = read("test.outer", state)
    assert (body.inner.amount, body.inner.rest, body.total) == ("1.50", None, "3")
    assert (body.other.amount, body.other.rest, body.amounts) == (Decimal("1.50"), Decimal(1), (Decimal(2),))
    assert read("test.outer", b'{"inner":{"amount":"1"}}').total == Decimal(0), "a default stays"
    assert read("test.outer", b'{"inner":{"amount":1.5}}').inner.amount == Decimal("1.5"), "a number is no text"
    with pytest.raises(SchemaMismatch, match=r"a stored test\.outer event does not fit this release"):
        read("test.outer", b'{"inner":{"amount":[]}}')


# Shapes that changed over time: the same topic at version 1, 2 and 3, the last under another class name


class Cash1(Event):
    TOPIC = "test.cash"
    amount: str


class Cash2(Event):
    TOPIC = "test.cash"
    VERSION = 2
    UPCASTERS = {1: lambda body: {"value": body["amount"]}}  # noqa: RUF012 - read only
    value: Decimal


class CashMoved(Event):
    TOPIC = "test.cash"
    VERSION = 3
    UPCASTERS = {**Cash2.UPCASTERS, 2: lambda body: {**body, "currency": "USD"}}  # noqa: RUF012 - read only
    value: Decimal
    currency: str
    note: str = "none"


WRITTEN = {
    1: Cash1(amount="5.25"),
    2: Cash2(value=Decimal("5.25")),
    3: CashMoved(value=Decimal("5.25"), currency="USD"),
}


def stored_as(version: int) -> bytes:
    return Codec([type(WRITTEN[version])]).encode(WRITTEN[version])


@pytest.mark.parametrize("version", WRITTEN)
def test_every_older_version_is_read_as_the_newest(version: int) -> None:
    codec = Codec([CashMoved])
    assert codec.decode("test.cash", stored_as(version)) == WRITTEN[3]
    assert plain(codec.decode_struct("test.cash", stored_as(version))) == plain(WRITTEN[3])


@pytest.mark.parametrize("version", WRITTEN)
def test_an_older_version_is_upcast_before_its_amounts_stay_text(version: int) -> None:
    codec = Codec([CashMoved], as_text={"test.cash": frozenset({("value",)})})
    assert codec.decode_struct("test.cash", stored_as(version)).value == "5.25"


def test_the_version_is_stored_only_beyond_the_first() -> None:
    assert [msgspec.json.decode(stored_as(version)).get(VERSION_KEY) for version in WRITTEN] == [None, 2, 3]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("older", [Cash1, Cash2])
@pytest.mark.parametrize("read", ["decode", "decode_struct"])
def test_what_newer_code_wrote_is_refused_by_name_and_version(version: int, older: type[Event], read: str) -> None:
    if version <= older.VERSION:
        return
    with pytest.raises(SchemaMismatch, match=rf"test\.cash event has version {version}, this release reads up to"):
        getattr(Codec([older]), read)("test.cash", stored_as(version))


@pytest.mark.parametrize("read", ["decode", "decode_struct"])
def test_an_unknown_topic_is_refused_by_name(read: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"'position\.split' that this release does not know"):
        getattr(CODEC, read)("position.split", b"{}")


BROKEN = {
    "no json": b"{",
    "no object": b"[]",
    "nothing": b"",
    "a field is missing": b'{"price": "0.5"}',
    "a number that is none": b'{"price": "abc", "unrealized_pnl": "1"}',
    "a field that is unknown": b'{"price": "0.5", "unrealized_pnl": "1", "worst_mark": "0.4"}',
    "not UTF-8": b'{"price": "0.5", "unrealized_pnl": "1", "source": "\xff"}',
}


@pytest.mark.parametrize("state", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("read", ["decode", "decode_struct"])
def test_a_body_that_does_not_fit_is_refused(state: bytes, read: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"a stored position\.marked event does not fit this release"):
        getattr(CODEC, read)("position.marked", state)


@pytest.mark.parametrize("state", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("read", ["decode", "decode_struct"])
def test_a_body_that_cannot_be_upcast_is_refused(state: bytes, read: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"a stored test\.cash event does not fit this release"):
        getattr(Codec([CashMoved]), read)("test.cash", state)


def test_two_events_cannot_have_one_topic() -> None:
    with pytest.raises(ConfigurationError, match=r"test\.cash.*Cash1 and Cash2"):
        Codec([Cash1, Cash2])


def test_a_version_without_its_upcasters_is_refused() -> None:
    class Later(Event):
        TOPIC = "test.later"
        VERSION = 3
        UPCASTERS = {2: lambda body: body}  # noqa: RUF012 - read only

    with pytest.raises(ConfigurationError, match=r"Later is at version 3 but has no upcaster from \[1\]"):
        Codec([Later])
