"""Every reason to refuse is produced once, in a table; no reason is missing and none is told twice."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from position_ledger.domain.commands import (
    ClosePosition,
    Command,
    Handle,
    IncreasePosition,
    MarkPosition,
    OpenPosition,
    RecordFill,
    ReducePosition,
    SetExits,
    SettlePosition,
    TrailingStop,
)
from position_ledger.domain.decisions import COMMANDS
from position_ledger.domain.errors import LedgerError
from position_ledger.domain.rejections import CommandRejected, FloatRefused, Reason, shown
from tests.unit.domain.rejection_table import FILL, OPENING, TABLE, Watched
from tests.unit.domain.world import NOON, D, World

if TYPE_CHECKING:
    from collections.abc import Callable


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

    public = {kind for kind in below(Command) if not kind.__subclasses__() and not kind.__name__.startswith("_")}
    assert set(COMMANDS.values()) == public
    for kind in public:
        assert kind.__doc__
        assert kind.model_config["frozen"]
        assert kind.model_config["extra"] == "forbid"
