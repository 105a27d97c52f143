"""Paying: gives every position of a decided market its verdict, in small appends, until none is left.

It is reconciliation, not a queue: what is to do is read from the tables each time, and whether a position has been paid
is decided by its own stream, which keeps the revision of the verdict. So it may be killed anywhere, run twice at once,
or meet positions that were opened late, and each position is paid exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from position_ledger.domain.commands import AmendSettlement, BustTrade, Command, SettlePosition, VoidPosition
from position_ledger.errors import ConcurrencyError
from position_ledger.execution.executor import Executed, Refusal
from position_ledger.settling.work import Due, Verdict, Work, payment, unwinding

__all__ = ["BATCH_MAX", "Paid", "Payer", "Settlement"]

BATCH_MAX: Final = 200
"""Positions in one append at most: three events each, so its transaction stays far below a second."""
STANDSTILL_MAX: Final = 3
"""Passes that find work and can do none of it, before it is left: others may be doing it."""
STANDSTILL_S: Final = 0.05

ExecuteEach = Callable[[Sequence[Command]], Sequence[Executed | Refusal]]
CatchUp = Callable[[], None]
"""Waits until the tables have everything that is in the log now."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What paying has done."""

    settled: int = 0
    """Positions that were open and are paid."""
    amended: int = 0
    """Positions that had another verdict and are as if they had always had this one."""
    voided: int = 0
    """Positions that have their cost back."""
    busted: int = 0
    """Trades that were busted because their market was unwound."""
    left: int = 0
    """Positions and trades that refused to be paid, and still do."""
    token: int = 0

    @property
    def positions(self) -> int:
        """Positions that have a new verdict."""
        return self.settled + self.amended + self.voided

    def __add__(self, more: Paid) -> Paid:
        """Both; what is left is what the later one left."""
        counts = {one.name: getattr(self, one.name) + getattr(more, one.name) for one in fields(Paid)}
        return Paid(**counts | {"left": more.left, "token": max(self.token, more.token)})


@dataclass(frozen=True, slots=True)
class Settlement(Paid):
    """What settling, amending or voiding one market has done, as far as this call did it itself."""

    market_id: str = ""
    """MKT-n."""
    revision: int = 0
    """Of the verdict."""
    having_it: int = 0
    """Positions that have the verdict now, whoever paid them."""


_COUNTED_AS: Final[dict[type[Command], str]] = {
    SettlePosition: "settled",
    AmendSettlement: "amended",
    VoidPosition: "voided",
    BustTrade: "busted",
}


class Payer:
    """Pays the positions of decided markets. Safe for threads and for several at once."""

    def __init__(self, work: Work, execute_each: ExecuteEach, catch_up: CatchUp, *, batch_max: int = BATCH_MAX) -> None:
        self._work = work
        self._execute_each = execute_each
        self._catch_up = catch_up
        self._batch_max = min(batch_max, BATCH_MAX)

    def pay(
        self,
        environment: str | None = None,
        market: str | None = None,
        *,
        until: Callable[[], bool] = lambda: False,
    ) -> Paid:
        """Pay until nothing is left, in one market, one environment or all; ``until`` ends it early.

        Raises:
            ConcurrencyError, DatabaseUnavailable, NotYetVisible: what was paid stays paid; pay again for the rest.
        """
        total, standstill = Paid(), 0
        while not until():
            self._catch_up()
            done = self._pass(environment, market, until)
            total += done
            if not done.left and not done.token:
                break
            standstill = 0 if done.token else standstill + 1
            if standstill == STANDSTILL_MAX:
                break
            if standstill:
                time.sleep(STANDSTILL_S)
        return total

    def pay_verdict(self, market_id: str, token: int) -> Settlement:
        """Pay one market whose verdict is in the log at ``token``. Raises as `pay`."""
        paid = self.pay(market=market_id)
        revision, having_it = self._work.having(market_id)
        counts = {one.name: getattr(paid, one.name) for one in fields(Paid)} | {"token": max(token, paid.token)}
        return Settlement(**counts, market_id=market_id, revision=revision, having_it=having_it)

    def _pass(self, environment: str | None, market: str | None, until: Callable[[], bool]) -> Paid:
        """Take on every market that has work once."""
        total, after = Paid(), ""
        while verdicts := self._work.verdicts(environment, market, after):
            for verdict in verdicts:
                if until():
                    return total
                total = _also(total, self._pay_market(verdict, until))
            after = verdicts[-1].market_id
        return total

    def _pay_market(self, verdict: Verdict, until: Callable[[], bool]) -> Paid:
        if verdict.is_void and verdict.unwind:
            busted = self._in_pages(verdict, self._work.trades, lambda page: unwinding(verdict, page), until)
            if busted.busted:
                return busted  # its positions are looked at again when the tables have the busts
        return self._in_pages(
            verdict, self._work.positions, lambda page: [payment(verdict, due) for due in page], until
        )

    def _in_pages(
        self,
        verdict: Verdict,
        read: Callable[[Verdict, int, int], list[Due]],
        commands: Callable[[list[Due]], list[Command]],
        until: Callable[[], bool],
    ) -> Paid:
        total, after = Paid(), 0
        while not until() and (page := read(verdict, after, self._batch_max)):
            total = _also(total, self._execute(commands(page)))
            after = page[-1].id
        return total

    def _execute(self, commands: Sequence[Command]) -> Paid:
        """Execute in one append; in smaller ones, where others are faster again and again."""
        try:
            outcomes = self._execute_each(commands)
        except ConcurrencyError:
            if len(commands) == 1:
                raise
            half = len(commands) // 2
            return _also(self._execute(commands[:half]), self._execute(commands[half:]))
        counts = dict.fromkeys(_COUNTED_AS.values(), 0)
        left = token = 0
        for command, outcome in zip(commands, outcomes, strict=True):
            if not isinstance(outcome, Executed):
                left += 1
            elif outcome.events and not outcome.is_repeat:
                counts[_COUNTED_AS[type(command)]] += 1
                token = max(token, outcome.token)
        return Paid(**counts, left=left, token=token)


def _also(first: Paid, second: Paid) -> Paid:
    """Both, as parts of one pass: what is left adds up."""
    return Paid(
        first.settled + second.settled,
        first.amended + second.amended,
        first.voided + second.voided,
        first.busted + second.busted,
        first.left + second.left,
        max(first.token, second.token),
    )
