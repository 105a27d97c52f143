"""The team's projected tables after the change: positions is its own by now, all others are as they ship."""

from position_ledger.reference.projections.account_balance import ACCOUNT_BALANCE
from position_ledger.reference.projections.edges import EDGES
from position_ledger.reference.projections.game_states import GAME_STATES
from position_ledger.reference.projections.markets import MARKETS
from position_ledger.reference.projections.trades import TRADES

__all__ = ["ACCOUNT_BALANCE", "EDGES", "GAME_STATES", "MARKETS", "TRADES"]
