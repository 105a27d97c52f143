"""The base of every error the ledger raises on purpose."""

from __future__ import annotations


class LedgerError(Exception):
    """Something the ledger refuses or cannot do; the message is one sentence that names what, where and the remedy."""
