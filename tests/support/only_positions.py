"""Positions and no other table, for tests of what the engine does with one; `many_tables` has several."""

from __future__ import annotations

from position_ledger.reference.projections.positions import POSITIONS

__all__ = ["POSITIONS"]

MODULE = "tests.support.only_positions"
