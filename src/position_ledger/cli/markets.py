"""Verdicts on markets: settle, amend, void; each pays all positions before it returns."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_ledger
from position_ledger.cli.options import Moment, as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.domain.vocabulary import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from position_ledger.settling.payer import Settlement

_MARKET = click.argument("market")
_VALUE = click.option("--value", required=True, help="What one YES is worth, 0 to 1; elsewhere the settlement price.")
_SHARED = (
    click.option(
        "--environment",
        type=click.Choice([one.value for one in Environment]),
        required=True,
        envvar="POSITION_LEDGER_ENVIRONMENT",
        help="Where the market is; never assumed.",
    ),
    click.option("--at", type=Moment(), help="When the venue decided; now, if not given."),
    click.option("--actor", help="Who asks; kept beside the event."),
    as_json,
)


def _with_shared(function: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_SHARED):
        function = option(function)
    return function


@command(
    """Settle a market: pay VALUE for each YES and 1 - VALUE for each NO, elsewhere the settlement price.

    Every position is paid exactly once. Repeating it is harmless; what was interrupted goes on where it was.

    \b
    Examples:
      position-ledger settle KXNBA-CLE --value 1 --environment paper
      position-ledger settle MKT-12 --value 0.5 --fee 0.10 --environment live --json
    """
)
@_MARKET
@_VALUE
@click.option("--fee", default="0", show_default=True, help="Charged to each position.")
@_with_shared
def settle(*, market: str, value: str, fee: str, environment: str, as_json: bool, **about: Any) -> int:
    """Settle, pay, and say what was done."""
    with open_ledger() as ledger:
        done = ledger.settle_market(environment, market, value, fee=fee, **_about(**about))
    return _told(done, f"settled at {value}", market, as_json=as_json)


@command(
    """Give a market another outcome. After a settlement all positions come to stand as if settled at it.

    \b
    Examples:
      position-ledger amend KXNBA-CLE --value 0 --environment paper
    """
)
@_MARKET
@_VALUE
@_with_shared
def amend(*, market: str, value: str, environment: str, as_json: bool, **about: Any) -> int:
    """Amend, pay the difference, and say what was done."""
    with open_ledger() as ledger:
        done = ledger.amend_market(environment, market, value, **_about(**about))
    return _told(done, f"amended to {value}", market, as_json=as_json)


@command(
    """Void a market: give back what its open positions cost, or cost when it settled. Earlier exits stay.

    \b
    Examples:
      position-ledger void KXNBA-CLE --environment paper
      position-ledger void KXNBA-CLE --refund-fees --unwind --environment paper
    """
)
@_MARKET
@click.option("--refund-fees", is_flag=True, help="Give back all fees of the positions too.")
@click.option(
    "--unwind", is_flag=True, help="Bust every trade of the market, so that earlier exits are undone as well."
)
@_with_shared
def void(*, market: str, refund_fees: bool, unwind: bool, environment: str, as_json: bool, **about: Any) -> int:
    """Void, pay back, and say what was done."""
    with open_ledger() as ledger:
        done = ledger.void_market(environment, market, refund_fees=refund_fees, unwind=unwind, **_about(**about))
    return _told(done, "void", market, as_json=as_json)


def _about(*, at: datetime | None, actor: str | None) -> dict[str, Any]:
    return {"effective_at": at, "actor": actor}


def _told(done: Settlement, what: str, market: str, *, as_json: bool) -> int:
    if as_json:
        write_json(asdict(done) | {"positions": done.positions})
    else:
        write_lines(_lines(done, what, market))
    return ANSWER_IS_NO if done.left else 0


def _lines(done: Settlement, what: str, market: str) -> Iterator[str]:
    yield (
        f"{market} ({done.market_id}) {what}, revision {done.revision}: {done.settled:,} positions settled, "
        f"{done.amended:,} amended, {done.voided:,} voided, {done.busted:,} trades busted; {done.having_it:,} have the verdict"
    )
    if done.left:
        yield f"{done.left:,} positions or trades could not be paid; they are tried again by workers, see position-ledger verify"
