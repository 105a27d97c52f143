"""The position manager on a real database: what trading code was promised, requirement by requirement."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import (
    CommandRejected,
    Deposit,
    InsufficientMarginError,
    Ledger,
    LedgerError,
    PositionManager,
    Reason,
    RegisterMarket,
)
from position_ledger.database import connect
from tests.support.managing import FLOAT, count_of_events, params, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from position_ledger.testing.databases import OwnerCursor

D = Decimal


@pytest.fixture
def manager(ledger: Ledger) -> PositionManager:
    assert ledger.settings.consistency == "eventual"
    return PositionManager(ledger, execution_environment="paper")


# Opening


def test_opening_answers_the_row_with_its_key(manager: PositionManager, ledger: Ledger) -> None:
    """S25, S26, S37, S82: POS- and the id of the first version; the current price is the entry price."""
    position = manager.open_position(
        **params(target_price=D("0.60"), stop_loss_price=D("0.40"), position_metadata={"why": "test"})
    )

    assert position["position_id"] == "POS-" + str(position["id"])
    assert (position["current_price"], position["entry_price"]) == (D("0.4975"), D("0.4975"))
    assert (position["version"], position["row_current_ind"], position["status"]) == (1, True, "open")
    assert (position["market_id"], position["strategy_id"], position["model_id"]) == ("KXNBA-CLE", 1, 2)
    assert (position["account_id"], position["execution_environment"]) == ("default", "paper")
    assert (position["target_price"], position["stop_loss_price"]) == (D("0.60"), D("0.40"))
    assert position["position_metadata"] == {"why": "test"}
    assert tuple(position) == next(one.columns for one in ledger.projections if one.table == "positions")


@pytest.mark.parametrize("price", ["0.01", "0.99"])
def test_the_entry_price_may_be_at_the_edge(manager: PositionManager, price: str) -> None:
    """S83, S43: both ends are included."""
    assert manager.open_position(**params(entry_price=D(price)))["entry_price"] == D(price)


@pytest.mark.parametrize(
    ("wrong", "sentence", "reason"),
    [
        ({"entry_price": D("0.009")}, "entry_price 0.009 is outside valid range", Reason.ENTRY_PRICE_OUT_OF_RANGE),
        ({"entry_price": D("0.991")}, "entry_price 0.991 is outside valid range", Reason.ENTRY_PRICE_OUT_OF_RANGE),
        ({"entry_price": D("1.5")}, "entry_price 1.5 is outside valid range", Reason.PRICE_OUT_OF_RANGE),
        ({"entry_price": D(-1)}, "entry_price -1 is outside valid range", Reason.NUMBER_NEGATIVE),
        ({"entry_price": D("1.5"), "available_margin": 0}, "outside valid range", Reason.PRICE_OUT_OF_RANGE),
        ({"entry_price": D("NaN")}, "entry_price is NaN", Reason.NOT_A_NUMBER),
        ({"side": "yes"}, "side is yes", Reason.SIDE_UNKNOWN),
        ({"side": ""}, "side is", Reason.SIDE_UNKNOWN),
        ({"side": "LONG"}, "must be exactly YES or NO", Reason.SIDE_UNKNOWN),
        ({"quantity": 0}, "quantity is 0", Reason.QUANTITY_NOT_POSITIVE),
        ({"quantity": -1}, "quantity is -1", Reason.QUANTITY_NOT_POSITIVE),
        ({"quantity": None}, "quantity is None", Reason.NOT_A_NUMBER),
        ({"market_id": " "}, "market_id is blank", Reason.TEXT_BLANK),
        ({"market_id": None}, "market_id is None", Reason.TEXT_INVALID),
        ({"strategy_id": 0}, "strategy_id is 0", Reason.FIELD_INVALID),
        ({"available_margin": None}, "available_margin is None", Reason.NOT_A_NUMBER),
        ({"target_price": D("1.01")}, "target_price 1.01 is outside valid range", Reason.PRICE_OUT_OF_RANGE),
        ({"trailing_stop_config": {}}, "trail_amount", Reason.TRAILING_STOP_INVALID),
        ({"position_metadata": {"a": object()}}, "position_metadata cannot be kept", Reason.METADATA_INVALID),
    ],
)
def test_what_cannot_be_opened_is_a_value_error(
    manager: PositionManager, db_cursor: OwnerCursor, wrong: dict[str, Any], sentence: str, reason: Reason
) -> None:
    """S83, S84, S43, S48: one sentence with the name of the argument, and nothing is written."""
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        manager.open_position(**params(**wrong))

    assert isinstance(refused.value, LedgerError)
    assert getattr(refused.value, "reason") is reason  # noqa: B009
    assert count_of_events(db_cursor) == 0


@pytest.mark.parametrize("name", ["quantity", "entry_price", "available_margin", "target_price", "stop_loss_price"])
def test_a_float_is_a_type_error(manager: PositionManager, db_cursor: OwnerCursor, name: str) -> None:
    """S74: money is exact, and the error names the argument."""
    with pytest.raises(TypeError, match=f"{name} is the float 0.5"):
        manager.open_position(**params(**{name: FLOAT}))
    assert count_of_events(db_cursor) == 0


def test_a_float_is_a_type_error_everywhere_else(manager: PositionManager) -> None:
    """S74: also inside a trailing stop, in updates, closes and calculations."""
    position = manager.open_position(**params())["position_id"]
    calls: list[Callable[[], object]] = [
        lambda: manager.open_position(**params(trailing_stop_config={"trail_amount": FLOAT})),
        lambda: manager.update_position(position, FLOAT),  # type: ignore[arg-type]
        lambda: manager.close_position(position, FLOAT, "manual"),  # type: ignore[arg-type]
        lambda: manager.update_trailing_stop(position, FLOAT),  # type: ignore[arg-type]
        lambda: manager.initialize_trailing_stop(position, {"trail_percent": FLOAT}),
        lambda: manager.calculate_position_pnl(D("0.5"), FLOAT, 1, "YES"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"is the float 0\.5"):
            call()


@pytest.mark.parametrize("side", ["YES", "NO"])
def test_margin_is_what_the_position_costs_on_either_side(
    manager: PositionManager, db_cursor: OwnerCursor, side: str
) -> None:
    """S85: 10 at .30 need 3.00 on either side; a cent less and nothing is written."""
    with pytest.raises(InsufficientMarginError, match=r"needs a margin of 3, but available_margin is 2\.99"):
        manager.open_position(**params(side=side, entry_price=D("0.30"), available_margin=D("2.99")))
    assert count_of_events(db_cursor) == 0

    opened = manager.open_position(**params(side=side, entry_price=D("0.30"), available_margin=D("3.00")))
    assert opened["cost"] == D(3)


def test_an_account_that_was_funded_must_have_the_money_too(manager: PositionManager, ledger: Ledger) -> None:
    """S85: whatever margin the caller believes to have; an account without deposits is not asked."""
    ledger.execute(Deposit(environment="paper", account="default", amount=D("2.00")))

    with pytest.raises(InsufficientMarginError) as refused:
        manager.open_position(**params())
    assert isinstance(refused.value.__cause__, CommandRejected)
    assert refused.value.__cause__.reason is Reason.INSUFFICIENT_FUNDS
    assert manager.get_open_positions() == []

    assert manager.open_position(**params(quantity=4))["cost"] == D("1.99")
    assert manager.open_position(**params(), account="never funded")["status"] == "open"


def test_a_market_may_allow_other_entry_prices(manager: PositionManager, ledger: Ledger) -> None:
    """S83: [0.01, 0.99] unless the market says otherwise."""
    ledger.execute(
        RegisterMarket(market="CENTI", environment="paper", kind="binary", price_min=D("0.001"), price_max=D("0.5"))
    )
    assert manager.open_position(**params(market_id="CENTI", entry_price=D("0.002")))["entry_price"] == D("0.002")
    with pytest.raises(ValueError, match=r"entry_price 0\.6 is outside valid range"):
        manager.open_position(**params(market_id="CENTI", entry_price=D("0.6")))


def test_a_missing_parent_is_told_before_anything_is_written(
    manager: PositionManager, ledger: Ledger, db_cursor: OwnerCursor
) -> None:
    """S90, S48: once strategies are kept, one that does not exist is refused by name; a model likewise."""
    strategy = ledger.reference.add_strategy("momentum").id
    model = ledger.reference.add_model("elo").id
    events = count_of_events(db_cursor)
    for wrong, sentence in (
        ({"strategy_id": 4711, "model_id": model}, "strategy_id is 4711, which has no row in strategies"),
        ({"strategy_id": strategy, "model_id": 4712}, "model_id is 4712, which has no row in probability_models"),
    ):
        with pytest.raises(ValueError, match=sentence):
            manager.open_position(**params(**wrong))
    assert count_of_events(db_cursor) == events

    assert manager.open_position(**params(strategy_id=strategy, model_id=model))["strategy_id"] == strategy


def test_the_same_key_opened_twice_is_two_positions(manager: PositionManager) -> None:
    """S89: same market, strategy and side."""
    first, second = manager.open_position(**params()), manager.open_position(**params())

    assert first["position_id"] != second["position_id"]
    assert [row["id"] for row in manager.get_open_positions()] == [second["id"], first["id"]]


# Updating


def test_an_update_ends_exactly_the_old_row(manager: PositionManager, db_cursor: OwnerCursor) -> None:
    """S28, S30, S38: a new id, the same key; a separate connection sees the old row ended immediately afterwards."""
    other = manager.open_position(**params())
    old = manager.open_position(**params())

    new = manager.update_position(position_id=old["id"], current_price=D("0.5200"))

    rows = versions(db_cursor, old["position_id"])
    assert [row["row_current_ind"] for row in rows] == [False, True]
    assert rows[0]["row_expiration_date"] == rows[1]["row_effective_date"]
    assert (new["id"], new["position_id"]) == (rows[1]["id"], old["position_id"])
    assert new["id"] != old["id"]
    assert [row["row_current_ind"] for row in versions(db_cursor, other["position_id"])] == [True]


def test_a_new_version_carries_every_other_column_forward(manager: PositionManager) -> None:
    """S29: only what a mark changes is different."""
    old = manager.open_position(**params(target_price=D("0.9"), position_metadata={"a": 1}))
    new = manager.update_position(old["id"], D("0.5200"))

    changed = {name for name in old if old[name] != new[name]}
    assert changed == {
        "id",
        "version",
        "row_effective_date",
        "effective_at",
        "current_price",
        "mark_time",
        "unrealized_pnl",
        "unrealized_pnl_pct",
    }


def test_quick_updates_by_the_first_id_are_never_coalesced(manager: PositionManager, db_cursor: OwnerCursor) -> None:
    """S39, S41: any surrogate id ever issued names its position; equal prices are versions too."""
    first = manager.open_position(**params())
    answers = [manager.update_position(first["id"], D(price)) for price in ("0.51", "0.52", "0.52")]
    by_text = manager.update_position(str(answers[1]["id"]), D("0.53"))
    by_key = manager.update_position(first["position_id"], D("0.54"))

    rows = versions(db_cursor, first["position_id"])
    assert [row["id"] for row in rows] == [first["id"], *(row["id"] for row in (*answers, by_text, by_key))]
    assert [str(row["current_price"].normalize()) for row in rows] == [
        "0.4975",
        "0.51",
        "0.52",
        "0.52",
        "0.53",
        "0.54",
    ]


@pytest.mark.parametrize("price", [0, 1])
def test_a_price_may_be_zero_or_one(manager: PositionManager, price: int) -> None:
    """S83, S43: 0 and 1 are prices of a market that is all but decided."""
    position = manager.open_position(**params())
    assert manager.update_position(position["id"], price)["current_price"] == price
    assert manager.close_position(position["id"], price, "market_close")["exit_price"] == price


def test_prices_outside_are_refused_by_the_name_of_the_argument(manager: PositionManager) -> None:
    """S83: [0, 1] for updates and closes."""
    position = manager.open_position(**params())["id"]
    for price in (D("1.0001"), D("-0.0001")):
        with pytest.raises(ValueError, match=f"current_price {price} is outside valid range"):
            manager.update_position(position, price)
        with pytest.raises(ValueError, match=f"exit_price {price} is outside valid range"):
            manager.close_position(position, price, "manual")


@pytest.mark.parametrize("ref", ["POS-4711", 4711, "4711", "POS-", "MKT-1", "nonsense"])
def test_an_unknown_id_is_told_with_the_id(manager: PositionManager, ref: str | int) -> None:
    """S27: not found, whatever is asked of it."""
    calls: list[Callable[[], object]] = [
        lambda: manager.update_position(ref, D("0.5")),
        lambda: manager.close_position(ref, D("0.5"), "manual"),
        lambda: manager.update_trailing_stop(ref, D("0.5")),
        lambda: manager.initialize_trailing_stop(ref, {"trail_amount": D("0.05")}),
        lambda: manager.check_trailing_stop_trigger(ref),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"{ref} not found"):
            call()


@pytest.mark.uncounted
def test_a_reader_at_random_instants_sees_exactly_one_current_row(
    manager: PositionManager, ledger: Ledger, ledger_database: str
) -> None:
    """S31: never zero, never two."""
    position = manager.open_position(**params())
    counts: list[int] = []
    stop = threading.Event()

    def read() -> None:
        with closing(connect(ledger_database, ledger.settings, as_app=True)) as reader:
            while not stop.is_set():
                row = reader.execute(
                    "SELECT count(*) FROM positions WHERE position_id = %s AND row_current_ind",
                    (position["position_id"],),
                ).fetchone()
                assert row is not None
                counts.append(row[0])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for cent in range(20, 50):
            manager.update_position(position["id"], D(cent) / 100)
    finally:
        stop.set()
        for reader in readers:
            reader.join(10)

    assert len(counts) > 100
    assert set(counts) == {1}


def test_updates_at_the_same_time_are_all_kept(manager: PositionManager, db_cursor: OwnerCursor) -> None:
    """S30, S31: each caller gets the version that it made itself."""
    position = manager.open_position(**params())
    answers: list[dict[str, Any]] = []

    def update(first: int) -> None:
        answers.extend(manager.update_position(position["id"], D(first + step) / 100) for step in range(4))

    threads = [threading.Thread(target=update, args=(first,)) for first in (20, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    rows = versions(db_cursor, position["position_id"])
    assert [row["version"] for row in rows] == list(range(1, 14))
    assert {row["id"] for row in rows[1:]} == {row["id"] for row in answers}
    assert {row["current_price"] for row in answers} == {
        D(first + step) / 100 for first in (20, 40, 60) for step in range(4)
    }


# Closing


def test_a_closed_row_says_what_it_brought(manager: PositionManager) -> None:
    """S33, S87: exit price, realized P&L and reason; nothing is unrealized any more."""
    position = manager.open_position(**params())
    closed = manager.close_position(position["id"], D("0.7000"), "profit_target")

    assert (closed["status"], closed["exit_reason"]) == ("closed", "profit_target")
    assert (closed["exit_price"], closed["current_price"]) == (D("0.7"), D("0.7"))
    assert closed["realized_pnl"] == D("2.0250")
    assert (closed["unrealized_pnl"], closed["quantity"]) == (None, 0)
    assert closed["exit_time"] is not None
    assert manager.get_open_positions() == []


@pytest.mark.parametrize(
    "reason", ["profit_target", "stop_loss", "trailing_stop", "market_close", "manual", "risk_limit", "hedge: see note"]
)
def test_every_exit_reason_is_kept(manager: PositionManager, reason: str) -> None:
    """S91: the usual ones and free text."""
    position = manager.open_position(**params())
    assert manager.close_position(position["id"], D("0.5"), reason)["exit_reason"] == reason


def test_a_second_close_is_refused_and_the_first_stays(manager: PositionManager, ledger: Ledger) -> None:
    """S88: so is an update; nothing of the first close is overwritten."""
    position = manager.open_position(**params())
    closed = manager.close_position(position["id"], D("0.7000"), "profit_target")

    calls: list[Callable[[], object]] = [
        lambda: manager.close_position(position["id"], D("0.10"), "stop_loss"),
        lambda: manager.update_position(closed["id"], D("0.10")),
        lambda: manager.update_trailing_stop(closed["id"], D("0.10")),
        lambda: manager.initialize_trailing_stop(closed["id"], {"trail_amount": D("0.1")}),
        lambda: manager.check_trailing_stop_trigger(closed["id"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is closed, not open"):
            call()

    assert ledger.position(position["id"]) == closed


def test_two_closes_at_the_same_time_are_one(manager: PositionManager, ledger: Ledger) -> None:
    """S88, S31: whoever is second is refused."""
    position = manager.open_position(**params())
    outcomes: list[object] = []
    together = threading.Barrier(4)

    def close(price: Decimal) -> None:
        together.wait(10)
        try:
            outcomes.append(manager.close_position(position["id"], price, "manual"))
        except ValueError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=close, args=(D(cent) / 100,)) for cent in (30, 40, 50, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    won = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    assert len(outcomes) == 4
    assert won == [ledger.position(position["id"])]


# Profit and loss


@pytest.mark.parametrize("side", ["YES", "NO"])
@pytest.mark.parametrize(
    ("price", "profit"),
    [(".5200", ".2250"), (".6000", "1.0250"), (".7000", "2.0250"), (".7500", "2.5250"), (".3500", "-1.4750")],
)
def test_profit_is_quantity_times_the_move_of_the_contract_held(
    manager: PositionManager, side: str, price: str, profit: str
) -> None:
    """S86, and the first deliberate difference: a NO position is priced in NO prices, so its sign is the same."""
    position = manager.open_position(**params(side=side))

    assert manager.calculate_position_pnl(D("0.4975"), D(price), 10, side) == D(profit)
    assert manager.update_position(position["id"], D(price))["unrealized_pnl"] == D(profit)
    assert manager.close_position(position["id"], D(price), "manual")["realized_pnl"] == D(profit)


def test_calculating_refuses_what_is_no_position(manager: PositionManager) -> None:
    """S83, S84."""
    for arguments, sentence in (
        ((D("0.5"), D("1.1"), 1, "YES"), "current_price 1.1 is outside valid range"),
        ((D("1.5"), D("0.1"), 1, "NO"), "entry_price 1.5 is outside valid range"),
        ((D("0.5"), D("0.5"), 0, "YES"), "quantity is 0"),
        ((D("0.5"), D("0.5"), 1, "SHORT"), "must be exactly YES or NO"),
        ((D("0.5"), D("0.5"), 1, "Yes"), "side is Yes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            manager.calculate_position_pnl(*arguments)
