"""Whichever command records an execution in a market that is settled, the position is paid in the same append."""

from __future__ import annotations

import pytest

from position_ledger.domain.commands import IncreasePosition, ReducePosition, RegisterMarket, SettleMarket
from tests.unit.domain.world import World


@pytest.mark.parametrize(("command", "pnl"), [(IncreasePosition, 11), (ReducePosition, 5)])
def test_an_increase_or_reduce_before_the_payout_is_paid_with_it(command: type, pnl: int) -> None:
    # given a position whose market has settled and that waits for its payout
    world = World()
    world.do(RegisterMarket(environment="paper", market="M", kind="binary"))
    world.open(quantity=10, entry_price="0.40")
    world.do(SettleMarket(environment="paper", market="M", value=1))
    # when more is told of it
    world.do(command(position_id="POS-1", quantity=10 if command is IncreasePosition else 2, price="0.50"))
    # then it is settled in that append
    position = world.at("POS-1")
    assert (position.status, position.quantity, position.settlement_value) == ("settled", 0, 1)
    assert position.realized_pnl == pnl
