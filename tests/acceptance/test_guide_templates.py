"""The three test templates of the workflow guide, ported to psycopg with nothing changed in meaning.

They ask for no fixture that trading code would not have: a pool, a cursor, and an empty test database (S42).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from position_ledger import PositionManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg_pool import ConnectionPool

    from position_ledger import Ledger
    from position_ledger.testing.databases import OwnerCursor


@pytest.fixture
def manager(ledger: Ledger) -> PositionManager:
    return PositionManager(ledger, execution_environment="paper")


@pytest.fixture
def position_params() -> dict[str, Any]:
    return {
        "market_id": "KXNFL-TEMPLATE",
        "strategy_id": 1,
        "model_id": 1,
        "side": "YES",
        "quantity": 10,
        "entry_price": Decimal("0.4975"),
        "available_margin": Decimal("1000.00"),
        "target_price": Decimal("0.7500"),
        "stop_loss_price": Decimal("0.3500"),
    }


def test_business_key_is_set_at_creation(
    db_pool: ConnectionPool[Any],
    db_cursor: OwnerCursor,
    clean_test_data: Callable[[], None],
    manager: PositionManager,
    position_params: dict[str, Any],
) -> None:
    """S37: the mapping has the surrogate id and the business key made of it, and so has the row."""
    position = manager.open_position(**position_params)

    assert position["id"] is not None
    assert position["position_id"] is not None
    assert position["position_id"] == "POS-" + str(position["id"])

    db_cursor.execute(
        "SELECT id, position_id, row_current_ind FROM positions WHERE position_id = %s", (position["position_id"],)
    )
    rows = db_cursor.fetchall()
    assert len(rows) == 1
    assert rows[0]["id"] == position["id"]
    assert rows[0]["row_current_ind"] is True


def test_update_makes_a_new_version_with_the_same_business_key(
    db_pool: ConnectionPool[Any],
    db_cursor: OwnerCursor,
    clean_test_data: Callable[[], None],
    manager: PositionManager,
    position_params: dict[str, Any],
) -> None:
    """S38: a new surrogate id; a separate connection sees the old row ended immediately afterwards."""
    position = manager.open_position(**position_params)
    old_id, business_key = position["id"], position["position_id"]

    updated = manager.update_position(position_id=old_id, current_price=Decimal("0.5200"))

    assert updated["id"] != old_id
    assert updated["position_id"] == business_key
    connection = db_pool.getconn()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT row_current_ind FROM positions WHERE id = %s", (old_id,))
            old = cursor.fetchone()
            assert old is not None
            assert old["row_current_ind"] is False
            assert old[0] is False
            cursor.execute("SELECT position_id, row_current_ind FROM positions WHERE id = %s", (updated["id"],))
            new = cursor.fetchone()
            assert new is not None
            assert (new["position_id"], new["row_current_ind"]) == (business_key, True)
    finally:
        db_pool.putconn(connection)


def test_only_current_rows_are_listed(
    db_pool: ConnectionPool[Any],
    db_cursor: OwnerCursor,
    clean_test_data: Callable[[], None],
    manager: PositionManager,
    position_params: dict[str, Any],
) -> None:
    """S39, S40, S41: two updates by the original surrogate id; one row with the latest price; three versions."""
    position = manager.open_position(**position_params)
    manager.update_position(position_id=position["id"], current_price=Decimal("0.5200"))
    manager.update_position(position_id=position["id"], current_price=Decimal("0.5500"))

    open_positions = manager.get_open_positions()

    assert len(open_positions) == 1
    assert open_positions[0]["position_id"] == position["position_id"]
    assert open_positions[0]["current_price"] == Decimal("0.5500")
    assert isinstance(open_positions[0]["current_price"], Decimal)

    db_cursor.execute("SELECT count(*) AS count FROM positions WHERE position_id = %s", (position["position_id"],))
    counted = db_cursor.fetchone()
    assert counted is not None
    assert counted["count"] == 3
    db_cursor.execute(
        "SELECT count(*) AS count FROM positions WHERE position_id = %s AND row_current_ind = TRUE",
        (position["position_id"],),
    )
    current = db_cursor.fetchone()
    assert current is not None
    assert current["count"] == 1


def test_each_template_begins_with_an_empty_database(
    db_cursor: OwnerCursor,
    clean_test_data: Callable[[], None],
    manager: PositionManager,
    position_params: dict[str, Any],
) -> None:
    """S42: one call empties it again, and the same test can go on."""
    manager.open_position(**position_params)
    clean_test_data()
    assert manager.get_open_positions() == []
    assert manager.open_position(**position_params)["version"] == 1
    assert len(manager.get_open_positions()) == 1
