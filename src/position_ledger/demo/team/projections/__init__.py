"""The team's projected tables after the change: positions is its own by now, the others are as they ship."""

from position_ledger.reference.projections.account_balance import ACCOUNT_BALANCE

__all__ = ["ACCOUNT_BALANCE"]
