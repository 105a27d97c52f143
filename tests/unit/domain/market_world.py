"""A world with one market, and the ways in which it comes to each status."""

from __future__ import annotations

from typing import Any

import pytest

from position_ledger.domain.book import BookKey
from position_ledger.domain.commands import (
    AmendMarket,
    DetermineMarket,
    DisputeMarket,
    RegisterMarket,
    SetMarketStatus,
    SettleMarket,
    VoidMarket,
)
from position_ledger.domain.markets.market import Market, MarketKey, market_stream
from position_ledger.domain.rejections import CommandRejected
from position_ledger.domain.vocabulary import Environment
from tests.unit.domain.world import World

HERE = {"environment": "paper", "market": "M"}
PAPER = MarketKey(Environment.PAPER, "M")
KEY = BookKey(Environment.PAPER, "main", "M")


def world_with(**terms: Any) -> World:
    """A world with the market M, by default a binary one that is open."""
    world = World()
    world.do(RegisterMarket(**HERE | {"kind": "binary"} | terms))
    return world


def market_in(world: World) -> Market:
    market = world.state(market_stream(PAPER))
    assert isinstance(market, Market)
    return market


def refused(world: World, command: Any) -> CommandRejected:
    """The refusal of a command, which has left nothing behind."""
    log = len(world.log)
    with pytest.raises(CommandRejected) as caught:
        world.do(command)
    assert len(world.log) == log
    return caught.value


STEPS: dict[str, Any] = {
    "open": SetMarketStatus(**HERE, status="open"),
    "halted": SetMarketStatus(**HERE, status="halted"),
    "closed": SetMarketStatus(**HERE, status="closed"),
    "determined": DetermineMarket(**HERE, value=1),
    "disputed": DisputeMarket(**HERE, reason="photo finish"),
    "amended": AmendMarket(**HERE, value=0),
    "settled": SettleMarket(**HERE, value=1),
    "voided": VoidMarket(**HERE),
}
WAYS = {
    "initialized": [],
    "open": ["open"],
    "halted": ["open", "halted"],
    "closed": ["open", "closed"],
    "determined": ["open", "closed", "determined"],
    "disputed": ["open", "closed", "determined", "disputed"],
    "amended": ["open", "closed", "determined", "disputed", "amended"],
    "settled": ["open", "closed", "determined", "settled"],
    "voided": ["open", "voided"],
}
