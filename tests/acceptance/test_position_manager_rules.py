"""The position manager on a real database: listing, environments, trailing stops, repeats and connections."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import (
    CommandRejected,
    DatabaseUnavailable,
    InsufficientMarginError,
    Ledger,
    MarkPosition,
    PositionManager,
    QuoteMarket,
    RegisterMarket,
    SetExits,
    TrailingStop,
)
from tests.support.managing import count_of_events, params, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from position_ledger.testing.databases import OwnerCursor

D = Decimal


@pytest.fixture
def manager(ledger: Ledger) -> PositionManager:
    assert ledger.settings.consistency == "eventual"
    return PositionManager(ledger, execution_environment="paper")


# Listing


def test_listing_is_filtered_and_the_newest_entry_comes_first(manager: PositionManager) -> None:
    """S32, S89: by market and by strategy; closed ones and other environments are not listed."""
    cle1 = manager.open_position(**params())["position_id"]
    nyk = manager.open_position(**params(market_id="KXNBA-NYK", strategy_id=2))["position_id"]
    cle2 = manager.open_position(**params(strategy_id=2))["position_id"]
    gone = manager.open_position(**params())["position_id"]
    manager.close_position(gone, D("0.5"), "manual")
    manager.update_position(cle1, D("0.6"))

    def listed(**filters: Any) -> list[str]:
        return [row["position_id"] for row in manager.get_open_positions(**filters)]

    assert listed() == [cle2, nyk, cle1]
    assert listed(market_id="KXNBA-CLE") == [cle2, cle1]
    assert listed(strategy_id=2) == [cle2, nyk]
    assert listed(market_id="KXNBA-CLE", strategy_id=2) == [cle2]
    assert listed(market_id="none") == []


def test_a_position_whose_market_has_no_row_still_shows(manager: PositionManager) -> None:
    """S32: ticker, yes_price and no_price are there, and unknown."""
    opened = manager.open_position(**params())
    (row,) = manager.get_open_positions()

    assert {name: row[name] for name in opened} == opened
    assert (row["ticker"], row["yes_price"], row["no_price"]) == (None, None, None)


def test_a_listing_has_the_quotes_of_the_market_as_it_is_now(manager: PositionManager, ledger: Ledger) -> None:
    """S32: ticker, yes_price and no_price, both as quoted, of the market of the same environment."""
    market: dict[str, Any] = {"market": "KXNBA-CLE", "environment": "paper"}
    ledger.execute(RegisterMarket(**market, kind="binary"))
    ledger.execute(QuoteMarket(**market, yes_price=D("0.50"), no_price=D("0.52")))
    live = {**market, "environment": "live"}
    ledger.execute(RegisterMarket(**live, kind="binary"))
    ledger.execute(QuoteMarket(**live, yes_price=D("0.11")))
    manager.open_position(**params(market_id="KXNBA-NYK"))
    manager.open_position(**params())
    ledger.execute(QuoteMarket(**market, yes_price=D("0.61")))

    rows = manager.get_open_positions()

    assert [(row["market_id"], row["ticker"], row["yes_price"], row["no_price"]) for row in rows] == [
        ("KXNBA-CLE", "KXNBA-CLE", D("0.61"), D("0.52")),
        ("KXNBA-NYK", None, None, None),
    ]


def test_a_listing_has_what_others_have_committed(manager: PositionManager, ledger: Ledger) -> None:
    """Given a mark that nobody waited for, when listed, then it is in the row: strong, whatever the ledger's setting."""
    position = manager.open_position(**params())["position_id"]
    ledger.execute(MarkPosition(position_id=position, price=D("0.77")))

    assert [row["current_price"] for row in manager.get_open_positions()] == [D("0.77")]


def test_a_filter_of_the_wrong_type_is_refused(manager: PositionManager) -> None:
    """S48: before the database sees it."""
    with pytest.raises(ValueError, match="market_id is 5"):
        manager.get_open_positions(market_id=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strategy_id is seven"):
        manager.get_open_positions(strategy_id="seven")  # type: ignore[arg-type]


# Environments


def test_no_environment_is_ever_assumed(ledger: Ledger, db_cursor: OwnerCursor) -> None:
    """Given a manager without one, when a call says none, then it is refused; a position's own needs no word."""
    manager = PositionManager(ledger)
    for call in (lambda: manager.open_position(**params()), manager.get_open_positions):
        with pytest.raises(ValueError, match="execution_environment is missing"):
            call()
    assert count_of_events(db_cursor) == 0

    live = manager.open_position(**params(), execution_environment="live")
    manager.open_position(**params(), execution_environment="paper")
    assert manager.update_position(live["id"], D("0.5"))["execution_environment"] == "live"
    assert [row["position_id"] for row in manager.get_open_positions(execution_environment="live")] == [
        live["position_id"]
    ]


def test_environments_never_mix(ledger: Ledger, manager: PositionManager) -> None:
    """Given a live position, when a paper manager is asked to touch it, then it is refused."""
    live = PositionManager(ledger, "live").open_position(**params(trailing_stop_config={"trail_amount": D("0.05")}))
    calls: list[Callable[[], object]] = [
        lambda: manager.update_position(live["id"], D("0.5")),
        lambda: manager.close_position(live["id"], D("0.5"), "manual"),
        lambda: manager.update_trailing_stop(live["id"], D("0.5")),
        lambda: manager.initialize_trailing_stop(live["id"], {"trail_amount": D("0.05")}),
        lambda: manager.check_trailing_stop_trigger(live["id"]),
        lambda: manager.open_position(**params(), execution_environment="live"),
        lambda: manager.get_open_positions(execution_environment="live"),
        lambda: PositionManager(ledger).update_position(live["id"], D("0.5"), execution_environment="paper"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="execution_environment is"):
            call()
    assert ledger.position(live["id"]) == live


def test_an_environment_that_does_not_exist_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="execution_environment is 'test'; it must be live, paper or backtest"):
        PositionManager(ledger, "test")
    with pytest.raises(ValueError, match="execution_environment is 'LIVE'"):
        PositionManager(ledger).get_open_positions(execution_environment="LIVE")


# Trailing stops


def test_a_trailing_stop_of_the_opening_follows_updates(manager: PositionManager) -> None:
    """S82: the configuration is kept with the position; a touch is told by the check and by the row."""
    position = manager.open_position(
        **params(entry_price=D("0.50"), trailing_stop_config={"trail_amount": D("0.05"), "activation_price": D("0.60")})
    )
    assert position["trailing_stop_state"]["trail_amount"] == "0.05"
    assert not manager.check_trailing_stop_trigger(position["id"])
    assert manager.update_trailing_stop(position["id"], D("0.55"))["trailing_stop_state"]["watermark"] is None

    stops = [
        manager.update_trailing_stop(position["id"], D(price))["trailing_stop_state"]["stop_price"]
        for price in ("0.60", "0.70", "0.66")
    ]
    assert stops == ["0.55", "0.65", "0.65"]
    assert not manager.check_trailing_stop_trigger(position["id"])

    touched = manager.update_trailing_stop(position["id"], D("0.65"))
    assert touched["exits_triggered"] == ["trailing_stop"]
    assert manager.check_trailing_stop_trigger(position["id"])
    assert manager.close_position(position["id"], D("0.65"), "trailing_stop")["realized_pnl"] == D("1.5")


def test_a_trailing_stop_can_be_given_later_and_leaves_the_other_exits(manager: PositionManager) -> None:
    position = manager.open_position(**params(target_price=D("0.90"), stop_loss_price=D("0.20")))
    with pytest.raises(ValueError, match="has no trailing stop; initialize_trailing_stop gives it one"):
        manager.update_trailing_stop(position["id"], D("0.5"))
    with pytest.raises(ValueError, match="has no trailing stop"):
        manager.check_trailing_stop_trigger(position["id"])

    row = manager.initialize_trailing_stop(position["id"], TrailingStop(trail_percent=D("0.1")))

    assert (row["target_price"], row["stop_loss_price"]) == (D("0.9"), D("0.2"))
    assert row["trailing_stop_state"]["stop_price"] == "0.44775"
    with pytest.raises(ValueError, match="exactly one of trail_amount"):
        manager.initialize_trailing_stop(position["id"], {"trail_amount": D("0.1"), "trail_percent": D("0.1")})


def test_exits_that_somebody_else_changes_meanwhile_are_not_lost(
    manager: PositionManager, ledger: Ledger, ledger_database: str, redis_url: str
) -> None:
    """Given exits set between reading and writing, when a trailing stop is set, then it starts over and keeps them."""
    position = manager.open_position(**params(target_price=D("0.90")))["position_id"]
    with Ledger.open(database_url=ledger_database, redis_url=redis_url) as other:
        read = ledger.position
        changes = iter([D("0.91"), D("0.92")])

        def read_too_early(ref: str | int) -> dict[str, Any]:
            row = read(ref)
            price = next(changes, None)
            if price is not None:
                other.execute(SetExits(position_id=position, target_price=price))
            return row

        ledger.position = read_too_early  # type: ignore[method-assign, assignment]
        row = manager.initialize_trailing_stop(position, {"trail_amount": D("0.05")})

    assert row["target_price"] == D("0.92")
    assert row["trailing_stop_state"]["trail_amount"] == "0.05"


# Repeats, errors, connections


def test_a_call_that_is_repeated_happens_once(manager: PositionManager, db_cursor: OwnerCursor) -> None:
    """Given command ids, when calls are repeated, then they answer the version that they made the first time."""
    first = manager.open_position(**params(), command_id="open")
    assert manager.open_position(**params(), command_id="open")["id"] == first["id"]
    marked = manager.update_position(first["id"], D("0.6"), command_id="mark")
    manager.update_position(first["id"], D("0.7"))
    assert manager.update_position(first["id"], D("0.6"), command_id="mark")["id"] == marked["id"]
    closed = manager.close_position(first["id"], D("0.8"), "manual", command_id="close")
    assert manager.close_position(first["id"], D("0.8"), "manual", command_id="close") == closed
    assert len(versions(db_cursor, first["position_id"])) == 4

    with pytest.raises(ValueError, match="command_id mark was used before"):
        manager.update_position(first["id"], D("0.61"), command_id="mark")


def test_connections_return_to_the_pool_also_after_errors(ledger_database: str, redis_url: str) -> None:
    """S34: more errors than the pool has connections, and it still works."""
    with Ledger.open(database_url=ledger_database, redis_url=redis_url, pool_size_max=2, connect_timeout_s=2) as ledger:
        manager = PositionManager(ledger, "paper")
        position = manager.open_position(**params())
        for _ in range(5):
            with pytest.raises(ValueError, match="not found"):
                manager.update_position(4711, D("0.5"))
            with pytest.raises(ValueError, match="outside valid range"):
                manager.update_position(position["id"], D(2))
            with pytest.raises(InsufficientMarginError):
                manager.open_position(**params(available_margin=0))
            with pytest.raises(ValueError, match="no trailing stop"):
                manager.update_trailing_stop(position["id"], D("0.5"))
        pool = ledger._connections._pool
        assert manager.update_position(position["id"], D("0.6"))["current_price"] == D("0.6")
        stats = pool.get_stats()
        idle = stats["pool_available"] + len(ledger._connections._waiting)
        assert idle == stats["pool_size"] <= 2


def test_the_refusal_of_the_ledger_stays_attached(manager: PositionManager) -> None:
    with pytest.raises(ValueError, match="not found") as refused:
        manager.update_position(4711, D("0.5"))
    assert isinstance(refused.value.__cause__, CommandRejected)


def test_a_connection_that_breaks_is_no_value_error(manager: PositionManager, db_cursor: OwnerCursor) -> None:
    """Given a server that ends the connections, when asked, then the error is of its own kind, and the next call works."""
    position = manager.open_position(**params())["id"]
    db_cursor.execute(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a "
        "WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()"
    )
    with pytest.raises(DatabaseUnavailable) as failed:
        manager.get_open_positions()
    assert not isinstance(failed.value, ValueError)
    assert manager.update_position(position, D("0.6"))["current_price"] == D("0.6")
