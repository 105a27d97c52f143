"""The words of edges: the life that one has."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["EdgeStatus"]


class EdgeStatus(StrEnum):
    """Where an edge is in its life: detected -> recommended -> acted_on -> expired, settled or void."""

    DETECTED = "detected"
    RECOMMENDED = "recommended"
    ACTED_ON = "acted_on"
    EXPIRED = "expired"
    SETTLED = "settled"
    VOID = "void"

    @property
    def is_final(self) -> bool:
        """Whether its life is over: it is neither revised nor changed any more."""
        return self in _ENDS

    def may_become(self, after: EdgeStatus) -> bool:
        """Whether an edge may go there from here.

        It may end at any time, because markets end whether anybody acted or not; but nobody acts on what was never
        recommended.
        """
        return not self.is_final and (after in _ENDS or _NEXT.get(self) is after)


_ENDS: Final = frozenset({EdgeStatus.EXPIRED, EdgeStatus.SETTLED, EdgeStatus.VOID})
_NEXT: Final = {EdgeStatus.DETECTED: EdgeStatus.RECOMMENDED, EdgeStatus.RECOMMENDED: EdgeStatus.ACTED_ON}
