"""Fees in the base asset and in other currencies."""

from __future__ import annotations

from typing import Any

import pytest

from position_ledger.domain.accounts.account import Account, AccountKey, account_stream
from position_ledger.domain.commands import ClosePosition, OpenPosition, RegisterMarket
from position_ledger.domain.rejections import CommandRejected
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import D, World

BTC = {"environment": "paper", "account": "main", "market": "BTC-USD"}


def spot() -> World:
    world = World()
    world.do(RegisterMarket(environment="paper", market="BTC-USD", kind="spot", base_asset="BTC"))
    return world


def fill(world: World, action: str, quantity: Any, price: Any, fee: Any, **fields: Any) -> None:
    world.fill(action, quantity, price, fee, market="BTC-USD", side="LONG", **fields)


def cash(world: World) -> Any:
    state = world.states[account_stream(AccountKey(Environment.PAPER, "main", "USD"))]
    assert isinstance(state, Account)
    return state.cash


def test_golden_g7() -> None:
    """G7 spot, base-asset fee: B1@50000 fee .001 base; S.999@51000 fee 50.949: quantity 0, net +898.051."""
    world = spot()
    fill(world, "buy", 1, 50000, "0.001", fee_currency="BTC")
    bought = world.at("POS-1")
    assert (bought.quantity, bought.cost, bought.open_fees, bought.entry_price) == (D("0.999"), 49950, 50, 50000)
    assert cash(world) == -50000

    fill(world, "sell", "0.999", 51000, "50.949")

    sold = world.at("POS-1")
    assert (sold.quantity, sold.status, sold.realized_pnl) == (0, "closed", D("898.051"))
    assert cash(world) == D("898.051")


def test_an_exit_with_a_fee_in_the_base_asset_takes_the_fee_on_top() -> None:
    world = spot()
    fill(world, "buy", 2, 100, 0)
    fill(world, "sell", 1, 110, "0.5", fee_currency="BTC")

    position = world.at("POS-1")
    assert (position.quantity, position.realized_gross, position.close_fees) == (D("0.5"), 15, 55)
    assert cash(world) == -200 + 110


def test_closing_with_a_fee_in_the_base_asset_sells_what_the_fee_leaves() -> None:
    world = spot()
    world.do(OpenPosition(**BTC, side="LONG", quantity=2, entry_price=100))
    world.do(ClosePosition(position_id="POS-1", price=110, fee="0.5", fee_currency="BTC", reason="manual"))

    assert world.at("POS-1").status == "closed"
    assert cash(world) == -200 + 165


def test_a_foreign_fee_is_valued_at_its_rate_and_kept_as_charged() -> None:
    world = World()
    decision = world.fill("buy", 10, "0.40", "0.30", fee_currency="EUR", fee_rate="1.1")

    assert world.at("POS-1").open_fees == D("0.33")
    booked = decision.appends[0].event.fill
    assert (booked.fee, booked.fee_currency, booked.fee_charged) == (D("0.33"), "EUR", D("0.3"))


def test_a_foreign_fee_without_a_rate_is_refused() -> None:
    with pytest.raises(CommandRejected, match="fee_currency EUR is not the currency USD of the position; say what one"):
        World().fill("buy", 10, "0.40", "0.30", fee_currency="EUR")


def test_a_foreign_fee_is_split_over_the_legs_of_a_flip_exactly() -> None:
    world = World()
    world.fill("buy", 10, "0.40")
    decision = world.fill("sell", 15, "0.50", 1, fee_currency="EUR", fee_rate="1.1", on_excess="flip")

    fills = [append.event.fill for append in decision.appends if hasattr(append.event, "fill")]
    assert [sum(fill.fee for fill in fills), sum(fill.fee_charged for fill in fills)] == [D("1.1"), 1]
