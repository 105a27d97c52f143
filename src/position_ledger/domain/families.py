"""The kinds of streams: which events each has and how they fold. One list; whoever adds a kind adds it here."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from pydantic import BaseModel

from position_ledger.domain.accounts.account import Account, evolve_account
from position_ledger.domain.accounts.events import ACCOUNT_EVENTS
from position_ledger.domain.book import Book, evolve_book
from position_ledger.domain.edges.events import EDGE_EVENTS
from position_ledger.domain.edges.state import Edge, evolve_edge
from position_ledger.domain.event import Event
from position_ledger.domain.events import BOOK_EVENTS, POSITION_EVENTS
from position_ledger.domain.family import Family
from position_ledger.domain.games.events import GAME_EVENTS
from position_ledger.domain.games.state import GameState, evolve_game
from position_ledger.domain.markets.events import MARKET_EVENTS
from position_ledger.domain.markets.market import Market, evolve_market
from position_ledger.domain.position import Position, evolve
from position_ledger.domain.transfers.events import TRANSFER_EVENTS

__all__ = [
    "ACCOUNT",
    "BOOK",
    "EDGE",
    "EVENTS",
    "FAMILIES",
    "GAME_STATE",
    "MARKET",
    "POSITION",
    "TRADE_EVENTS",
    "Family",
    "family_of",
    "family_of_state",
    "state_from_json",
    "state_json",
]


POSITION: Final = Family("position", "POS-", Position, 3, (*POSITION_EVENTS, *TRANSFER_EVENTS), evolve)
BOOK: Final = Family("book", None, Book, 1, BOOK_EVENTS, evolve_book)
ACCOUNT: Final = Family("account", "BAL-", Account, 1, ACCOUNT_EVENTS, evolve_account)
MARKET: Final = Family("market", "MKT-", Market, 1, MARKET_EVENTS, evolve_market)

EDGE: Final = Family("edge", "EDGE-", Edge, 1, EDGE_EVENTS, evolve_edge)
GAME_STATE: Final = Family("game_state", "GS-", GameState, 1, GAME_EVENTS, evolve_game)

FAMILIES: Final = (POSITION, BOOK, ACCOUNT, MARKET, EDGE, GAME_STATE)

EVENTS: Final[tuple[type[Event], ...]] = tuple(event for family in FAMILIES for event in family.events)
"""Every event of the ledger."""

TRADE_EVENTS: Final = frozenset(event for event in EVENTS if "fill" in event.model_fields)
"""Events that record an execution, and so begin a trade."""

_BY_EVENT: Final = {event: family for family in FAMILIES for event in family.events}
_BY_STATE: Final = {family.state: family for family in FAMILIES}
_BY_SHAPE: Final = {family.shape_name: family for family in FAMILIES}


def family_of(event: Event | type[Event]) -> Family:
    """Find the family of an event. Raises ``TypeError`` for one that has none."""
    kind = event if isinstance(event, type) else type(event)
    family = _BY_EVENT.get(kind)
    if family is None:
        raise TypeError(f"{kind.__name__} belongs to no family of streams; the log is damaged")
    return family


def family_of_state(state: object) -> Family:
    """Find the family that a state belongs to; KeyError for anything else."""
    return _BY_STATE[type(state)]  # type: ignore[index]  # anything else is a KeyError, as promised


def state_json(state: object) -> bytes:
    """Write a snapshot of a state of any family; `state_from_json` reads it back exactly."""
    return msgspec.json.encode(state, enc_hook=_written)


def state_from_json(shape_name: str, snapshot: bytes) -> Any:
    """Read a snapshot. Raises ``msgspec.DecodeError`` if it is of another shape."""
    family = _BY_SHAPE.get(shape_name)
    if family is None:
        raise msgspec.DecodeError(f"shape {shape_name!r} is not one of this release")
    return msgspec.json.decode(snapshot, type=family.state, dec_hook=_read)


def _written(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_defaults=True)


def _read(kind: type[BaseModel], part: object) -> BaseModel:
    return kind.model_validate(part)
