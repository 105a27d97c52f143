"""The life of a market, its registration and its quotes."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger.domain.commands import (
    AmendMarket,
    ChangeMarket,
    DetermineMarket,
    DisputeMarket,
    QuoteMarket,
    RegisterMarket,
    SetMarketStatus,
    SettleMarket,
    VoidMarket,
)
from position_ledger.domain.families import state_from_json, state_json
from position_ledger.domain.markets.events import MarketQuoted
from position_ledger.domain.markets.market import evolve_market, market_stream
from position_ledger.domain.markets.vocabulary import MarketStatus
from position_ledger.domain.rejections import CommandRejected, Reason
from tests.unit.domain.market_world import HERE, PAPER, STEPS, WAYS, market_in, refused, world_with
from tests.unit.domain.world import NOON, D, World

if TYPE_CHECKING:
    from position_ledger.domain.decisions import Decision

# Life

ALLOWED = {
    "initialized": {"open": "open", "halted": "halted", "closed": "closed", "determined": "determined"},
    "open": {"halted": "halted", "closed": "closed", "determined": "determined"},
    "halted": {"open": "open", "closed": "closed", "determined": "determined"},
    "closed": {"determined": "determined"},
    "determined": {"disputed": "disputed", "amended": "amended"},
    "disputed": {"determined": "determined", "amended": "amended"},
    "amended": {"disputed": "disputed"},
    "settled": {"amended": "settled"},
    "voided": {"amended": "settled"},
}
PAID = {"settled": "settled", "voided": "voided"}
HARMLESS = {(status, status) for status in STEPS}


@pytest.mark.parametrize(("status", "step"), list(product(WAYS, STEPS)))
def test_every_step_from_every_status(status: str, step: str) -> None:
    # given a market that has come to a status
    world = world_with(status="initialized")
    for done in WAYS[status]:
        world.do(STEPS[done])
    assert market_in(world).status == status
    log = len(world.log)
    after = (ALLOWED[status] | (PAID if status != "voided" else {})).get(step)
    if (status, step) in HARMLESS:
        # when it is told again what it is, then nothing happens
        assert world.do(STEPS[step]).appends == ()
        assert len(world.log) == log
    elif (status, step) == ("amended", "settled"):
        # when it is settled at another outcome than it was amended to, then that is told
        assert refused(world, STEPS[step]).reason is Reason.OUTCOME_DIFFERS
    elif after is None:
        # when a step is not possible, then it is refused and says where the market is
        rejection = refused(world, STEPS[step])
        assert rejection.reason is Reason.MARKET_STATUS_WRONG
        assert f"market M is {status}, and {type(STEPS[step]).__name__} is not possible then" in str(rejection)
    else:
        # when it is possible, then it is one event, and repeating it is harmless
        world.do(STEPS[step])
        assert market_in(world).status == after
        assert len(world.log) == log + 1
        assert world.do(STEPS[step]).appends == ()
    assert world.replayed()[market_stream(PAPER)] == market_in(world)


def test_the_statuses_of_the_table_are_all_there_are() -> None:
    assert set(WAYS) == set(MarketStatus)


def test_each_verdict_that_is_paid_has_a_revision() -> None:
    world = world_with()
    for command, revision, value in [
        (DetermineMarket(**HERE, value="0.5"), 0, D("0.5")),
        (AmendMarket(**HERE, value=1), 0, D(1)),
        (SettleMarket(**HERE, value=1, fee="0.10"), 1, D(1)),
        (AmendMarket(**HERE, value=0), 2, D(0)),
        (AmendMarket(**HERE, value=1), 3, D(1)),
        (VoidMarket(**HERE, refund_fees=True), 4, None),
        (AmendMarket(**HERE, value="0.25"), 5, D("0.25")),
    ]:
        world.do(command)
        world.later(hours=1)
        assert (market_in(world).revision, market_in(world).value) == (revision, value)
    assert market_in(world).settled_at == NOON + timedelta(hours=2), "the first time that anybody was paid"
    assert market_in(world).fee == D("0.10")


def test_a_settled_market_is_amended_and_never_settled_anew() -> None:
    world = world_with()
    world.do(SettleMarket(**HERE, value=1))

    assert refused(world, SettleMarket(**HERE, value=0)).reason is Reason.MARKET_STATUS_WRONG
    assert refused(world, SettleMarket(**HERE, value=1, fee=1)).reason is Reason.MARKET_STATUS_WRONG
    assert refused(world, DisputeMarket(**HERE)).reason is Reason.MARKET_STATUS_WRONG


def test_what_was_unwound_does_not_come_back() -> None:
    world = world_with()
    world.do(VoidMarket(**HERE, unwind=True))

    assert refused(world, AmendMarket(**HERE, value=1)).reason is Reason.MARKET_STATUS_WRONG
    assert refused(world, VoidMarket(**HERE)).reason is Reason.MARKET_STATUS_WRONG


def test_the_determined_outcome_is_the_one_that_is_paid() -> None:
    world = world_with()
    world.do(DetermineMarket(**HERE, value=1))

    assert "value 0 is not the outcome 1" in str(refused(world, SettleMarket(**HERE, value=0)))
    assert refused(world, DetermineMarket(**HERE, value=0)).reason is Reason.OUTCOME_DIFFERS
    world.do(DisputeMarket(**HERE))
    assert refused(world, DetermineMarket(**HERE, value=0)).reason is Reason.OUTCOME_DIFFERS
    world.do(DetermineMarket(**HERE, value=1))
    world.do(SettleMarket(**HERE, value=1))


@pytest.mark.parametrize("command", [DetermineMarket, SettleMarket])
def test_an_outcome_is_at_most_1_in_a_binary_market_only(command: Any) -> None:
    assert refused(world_with(), command(**HERE, value="1.01")).reason is Reason.PRICE_OUT_OF_RANGE
    assert world_with(kind="spot").do(command(**HERE, value="1.01")).appends
    assert world_with().do(command(**HERE, value=0)).appends


@pytest.mark.parametrize("command", STEPS.values(), ids=STEPS)
def test_nothing_is_said_about_a_market_that_nobody_registered(command: Any) -> None:
    rejection = refused(World(), command)
    assert rejection.reason is Reason.MARKET_UNKNOWN
    assert "market M is not registered in paper" in str(rejection)


def test_environments_have_markets_of_their_own() -> None:
    world = world_with()
    assert refused(world, SettleMarket(**HERE | {"environment": "live"}, value=1)).reason is Reason.MARKET_UNKNOWN


# Registration and change


def test_registering_again_is_harmless_and_with_other_terms_refused() -> None:
    terms = {"title": "Rain?", "tick_size": "0.01", "price_min": "0.02", "status": "initialized", "metadata": {"a": 1}}
    world = world_with(**terms)
    world.do(ChangeMarket(**HERE, title="Rain tomorrow?"))
    world.do(SetMarketStatus(**HERE, status="open"))

    again = world.do(RegisterMarket(**HERE, kind="binary", **terms))

    assert again.appends == ()
    assert again.subject
    rejection = refused(world, RegisterMarket(**HERE, kind="spot"))
    assert rejection.reason is Reason.MARKET_EXISTS
    assert "market M is registered with kind binary" in str(rejection)


def test_what_positions_depend_on_cannot_be_changed() -> None:
    for name in ("kind", "currency", "multiplier", "margin_rate", "netting", "base_asset"):
        with pytest.raises(CommandRejected) as caught:
            ChangeMarket(**HERE, **{name: "1"})
        assert caught.value.reason is Reason.FIELD_UNKNOWN


def test_a_change_is_what_is_new() -> None:
    world = world_with(price_max="0.9")

    assert world.do(ChangeMarket(**HERE, price_max="0.9")).appends == ()
    changed = world.do(ChangeMarket(**HERE, title="T", price_max="0.95", metadata={"b": [2]}))

    (append,) = changed.appends
    assert (append.event.title, append.event.price_max, append.event.tick_size) == ("T", D("0.95"), None)
    assert market_in(world).changed == ("metadata", "price_max", "title")
    assert refused(world, ChangeMarket(**HERE, price_min="0.96")).reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "horses"}, Reason.FIELD_INVALID),
        ({"price_min": "0.5", "price_max": "0.4"}, Reason.FIELD_INVALID),
        ({"market": "MKT-7"}, Reason.FIELD_INVALID),
        ({"status": "settled"}, Reason.FIELD_INVALID),
        ({"tick_size": 0}, Reason.QUANTITY_NOT_POSITIVE),
        ({"multiplier": 0.5}, Reason.FLOAT_NOT_ALLOWED),
        ({"margin_rate": -1}, Reason.NUMBER_NEGATIVE),
        ({"environment": None}, Reason.ENVIRONMENT_UNKNOWN),
        ({"price_max": "1.5"}, Reason.PRICE_OUT_OF_RANGE),
    ],
)
def test_bad_terms(fields: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(CommandRejected) as caught:
        World().do(RegisterMarket(**HERE | {"kind": "binary"} | fields))
    assert caught.value.reason is reason


def test_the_kind_is_never_assumed() -> None:
    with pytest.raises(CommandRejected, match="kind is missing"):
        RegisterMarket(**HERE)


def test_a_market_survives_a_snapshot() -> None:
    world = world_with(metadata={"a": [1]}, close_time=NOON, tick_size="0.01")
    world.do(QuoteMarket(**HERE, yes_bid="0.40"))
    market = market_in(world)

    assert state_from_json("market.1", state_json(market)) == market


def test_a_market_begins_with_its_registration() -> None:
    world = world_with()
    with pytest.raises(TypeError, match="MarketQuoted cannot be folded into NoneType"):
        evolve_market(None, MarketQuoted(), NOON)
    with pytest.raises(TypeError, match="MarketRegistered cannot be folded into Market"):
        evolve_market(market_in(world), world.log[0].event, NOON)


# Quotes


def quoted(world: World, **fields: Any) -> Decision:
    return world.do(QuoteMarket(**HERE | fields))


def test_an_unchanged_quote_makes_no_event_and_a_change_says_what_is_new() -> None:
    world = world_with()
    quoted(world, yes_price="0.40", no_price="0.61", yes_bid="0.39")
    at = world.later(seconds=1)

    assert quoted(world, yes_price="0.40", yes_bid="0.390").appends == ()
    (append,) = quoted(world, yes_price="0.41", no_price="0.61").appends

    assert (append.event.yes_price, append.event.no_price) == (D("0.41"), None)
    market = market_in(world)
    assert (market.yes_price, market.no_price, market.yes_bid, market.quoted_at) == (
        D("0.41"),
        D("0.61"),
        D("0.39"),
        at,
    )


def test_yes_and_no_are_both_quoted_and_not_derived() -> None:
    world = world_with()
    quoted(world, yes_price="0.40")
    assert market_in(world).no_price is None
    quoted(world, no_price="0.62")
    assert market_in(world).yes_price == D("0.40")


def test_an_older_quote_changes_nothing_and_one_of_the_same_time_replaces() -> None:
    world = world_with()
    quoted(world, last_price="0.40", effective_at=NOON + timedelta(hours=1))

    assert quoted(world, last_price="0.50", effective_at=NOON + timedelta(minutes=59)).appends == ()
    assert quoted(world, last_price="0.45", effective_at=NOON + timedelta(hours=1)).appends
    assert market_in(world).last_price == D("0.45")


def test_a_quote_without_a_time_is_never_late() -> None:
    world = world_with()
    quoted(world, last_price="0.40", effective_at=NOON + timedelta(hours=1))
    assert quoted(world, last_price="0.41").appends[0].effective_at == NOON + timedelta(hours=1)


def test_a_change_below_the_threshold_is_none_but_many_add_up() -> None:
    world = world_with()
    quoted(world, yes_bid="0.40", min_change="0.02")

    assert quoted(world, yes_bid="0.41", min_change="0.02").appends == ()
    assert quoted(world, yes_bid="0.41", yes_ask="0.50", min_change="0.02").appends, "a quote that was not there is new"
    assert market_in(world).yes_bid == D("0.41")
    assert quoted(world, yes_bid="0.429", min_change="0.02").appends == ()
    assert quoted(world, yes_bid="0.43", min_change="0.02").appends


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("binary", {"yes_bid": "1.01"}, Reason.PRICE_OUT_OF_RANGE),
        ("binary", {"no_ask": "1.01"}, Reason.PRICE_OUT_OF_RANGE),
        ("binary", {"last_price": -1}, Reason.NUMBER_NEGATIVE),
        ("spot", {"no_price": "0.5"}, Reason.SIDE_NOT_IN_MARKET),
        ("spot", {}, Reason.FIELD_MISSING),
    ],
)
def test_bad_quotes(kind: str, fields: dict[str, Any], reason: Reason) -> None:
    world = world_with(kind=kind)
    with pytest.raises(CommandRejected) as caught:
        quoted(world, **fields)
    assert caught.value.reason is reason
    assert len(world.log) == 1


def test_0_and_1_are_quotes_and_spot_has_no_bound() -> None:
    assert quoted(world_with(), yes_price=0, no_price=1).appends
    assert quoted(world_with(kind="spot"), last_price=50_000, yes_bid=49_999).appends


def test_a_market_that_has_been_paid_is_not_quoted() -> None:
    world = world_with()
    world.do(SetMarketStatus(**HERE, status="closed"))
    quoted(world, last_price="0.99")
    world.do(SettleMarket(**HERE, value=1))
    assert refused(world, QuoteMarket(**HERE, last_price=1)).reason is Reason.MARKET_STATUS_WRONG


def test_what_is_known_already_is_harmless_even_then() -> None:
    """A feed that is read again from its beginning must end where it ended."""
    world = world_with(status="initialized")
    feed = [
        SetMarketStatus(**HERE, status="open", effective_at=NOON + timedelta(minutes=1)),
        QuoteMarket(**HERE, last_price="0.6", effective_at=NOON + timedelta(minutes=2)),
        QuoteMarket(**HERE, last_price="0.9", effective_at=NOON + timedelta(minutes=3)),
        QuoteMarket(**HERE, last_price="0.9", effective_at=NOON + timedelta(minutes=4)),
        SettleMarket(**HERE, value=1, effective_at=NOON + timedelta(minutes=5)),
    ]
    assert sum(len(world.do(command).appends) for command in feed) == 4
    assert sum(len(world.do(command).appends) for command in feed) == 0
