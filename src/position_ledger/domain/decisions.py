"""Deciding commands: one table from command to function, and folding what was decided. Pure, no clock.

An executor loads streams, calls `decide`, appends ``Decision.appends`` under optimistic concurrency, and within a
batch folds each append into its working states with `fold_append` before it decides the next command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from position_ledger.domain import commands as c
from position_ledger.domain import correcting, orders
from position_ledger.domain.accounts.account import AccountKey, account_stream
from position_ledger.domain.accounts.commands import AccountCommand
from position_ledger.domain.accounts.decisions import ACCOUNT_DECIDERS, booked
from position_ledger.domain.book import BookKey, book_stream
from position_ledger.domain.correcting import correction_key
from position_ledger.domain.draft import Append, Decision, Located, Streams, unknown_position
from position_ledger.domain.edges import commands as edge_commands
from position_ledger.domain.edges import decisions as edges
from position_ledger.domain.edges.state import edge_stream
from position_ledger.domain.families import family_of
from position_ledger.domain.fills import record_fill
from position_ledger.domain.games.commands import RecordGameState
from position_ledger.domain.games.decisions import record_state
from position_ledger.domain.games.state import game_stream
from position_ledger.domain.identity import fill_key_of
from position_ledger.domain.markets.commands import MarketCommand
from position_ledger.domain.markets.decisions import MARKET_DECIDERS
from position_ledger.domain.markets.market import MarketKey, market_stream
from position_ledger.domain.markets.terms import named
from position_ledger.domain.references import require_references
from position_ledger.domain.transfers.decisions import TRANSFER_DECIDERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID


__all__ = [
    "COMMANDS",
    "Append",
    "Decision",
    "Located",
    "Streams",
    "correction_key",
    "decide",
    "fill_key",
    "fold_append",
    "streams_of",
    "unknown_position",
]

_DECIDERS: Final[dict[type[c.Command], Callable[[Any, Streams, datetime], Decision]]] = {
    c.OpenPosition: orders.open_new,
    c.IncreasePosition: orders.increase,
    c.ReducePosition: orders.reduce,
    c.ClosePosition: orders.close,
    c.SettlePosition: orders.settle,
    c.MarkPosition: orders.mark,
    c.SetExits: orders.set_exits,
    c.RecordFill: record_fill,
    **MARKET_DECIDERS,
    c.BustTrade: correcting.bust_trade,
    c.CorrectTrade: correcting.correct_trade,
    c.AdjustFee: correcting.adjust_fee,
    c.AmendSettlement: correcting.amend_settlement,
    c.VoidPosition: correcting.void_position,
    **ACCOUNT_DECIDERS,
    **TRANSFER_DECIDERS,
    edge_commands.DetectEdge: edges.detect,
    edge_commands.ReviseEdge: edges.revise,
    edge_commands.ChangeEdgeStatus: edges.change_status,
    RecordGameState: record_state,
}
_INTENTIONS: Final = frozenset({c.OpenPosition, c.TransferPosition})
"""What may be refused for lack of money, beside commands on accounts; everything else is a fact."""

COMMANDS: Final[dict[str, type[c.Command]]] = {command.__name__: command for command in _DECIDERS}
"""Every command by its name."""


def decide(command: c.Command, streams: Streams, now: datetime) -> Decision:
    """Decide a command against the present state of its streams.

    ``now`` is the recorded time in UTC, used for commands that state no effective time. Raises `CommandRejected`,
    and then nothing has changed.
    """
    command = named(command, streams)
    require_references(command, streams)
    decision = _DECIDERS[type(command)](command, streams, now)
    return booked(command, decision, streams, is_intention=type(command) in _INTENTIONS)


def fold_append(state: Any | None, append: Append) -> Any:
    """Fold one append into the state of its stream (None: the stream has not begun).

    Raises ``TypeError`` for an event that does not fit: the log is damaged.
    """
    family = family_of(append.event)
    if state is not None and not isinstance(state, family.state):
        raise TypeError(f"a {family.name} event cannot be folded into {type(state).__name__}; the log is damaged")
    return family.evolve(state, append.event, append.effective_at)


def streams_of(command: c.Command) -> set[UUID]:
    """Streams that deciding a command will surely read and whose ids follow from the command alone."""
    reads = _READS.get(type(command))
    return reads(command) if reads else set()


def _of_account(command: Any) -> set[UUID]:
    return {account_stream(AccountKey(command.environment, command.account, command.currency))}


def _of_market(command: Any) -> set[UUID]:
    return {market_stream(MarketKey(command.environment, command.market))}


def _of_game(command: Any) -> set[UUID]:
    return {game_stream(command.environment, command.game_id)}


def _of_edge(command: Any) -> set[UUID]:
    environment, name = command.environment, command.name
    return set() if environment is None or name is None else {edge_stream(environment, name)}


def _of_key(command: Any) -> set[UUID]:
    """Streams of a key that a command may state in full: its book, its market, its account."""
    environment, account, market = command.environment, command.account, command.market
    if environment is None or account is None or market is None:
        return set()
    return {
        book_stream(BookKey(environment, account, market, command.strategy)),
        market_stream(MarketKey(environment, market)),
        account_stream(AccountKey(environment, account, command.currency or "USD")),
    }


_READS: Final[dict[type[c.Command], Callable[[Any], set[UUID]]]] = {
    **{kind: _of_account for kind in _DECIDERS if issubclass(kind, AccountCommand)},
    **{kind: _of_market for kind in _DECIDERS if issubclass(kind, MarketCommand)},
    **dict.fromkeys((edge_commands.DetectEdge, edge_commands.ReviseEdge, edge_commands.ChangeEdgeStatus), _of_edge),
    **dict.fromkeys((c.OpenPosition, c.RecordFill, c.SplitPair, c.RecordOpeningPosition), _of_key),
    RecordGameState: _of_game,
}
"""By type, looked up for every command: asking a pydantic model what it is an instance of costs microseconds."""


def fill_key(command: c.Command, streams: Streams) -> str | None:
    """Canonical text under which the fill of a command is unique; None if the venue gave it no id.

    Can be asked before deciding: a fill that is sent again must be recognised even when deciding would refuse it.
    Raises `CommandRejected` when the command names a position that is not known.
    """
    venue_fill_id = getattr(command, "venue_fill_id", None)
    if venue_fill_id is None:
        return None
    ref = getattr(command, "position_id", None)
    holder: Any = command if ref is None else streams.position(ref).position
    return fill_key_of(holder.environment, holder.account, getattr(command, "venue", None), venue_fill_id)
