"""Reading: positions, one of them, its versions, its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.listings import columns_of
from position_ledger.cli.opening import open_for_reading
from position_ledger.cli.options import REFERENCE, as_json, as_of, command, form, known_at
from position_ledger.cli.output import Column, write_json, write_listing, write_pairs, write_rows
from position_ledger.cli.running import note
from position_ledger.cli.stale import warn_if_stale
from position_ledger.domain.vocabulary import Environment, Side, Status
from position_ledger.reading import ROWS_MAX

if TYPE_CHECKING:
    from datetime import datetime


LISTING = (
    Column("position_id", "position"),
    Column("account_id", "account", 7, is_long=True),
    Column("market_id", "market", is_long=True),
    Column("side", "side"),
    Column("status", "status", 4),
    Column("quantity", "quantity", is_number=True),
    Column("entry_price", "entry", 1, is_number=True),
    Column("current_price", "current", 2, is_number=True),
    Column("unrealized_pnl", "unrealized", 3, is_number=True),
    Column("realized_pnl", "realized", 5, is_number=True),
    Column("execution_environment", "env", 6),
    Column("strategy_id", "strategy", 9, is_number=True),
    Column("entry_time", "opened (UTC)", 8),
    Column("mark_time", "marked (UTC)", 10),
    Column("exit_time", "closed (UTC)", 11),
    Column("currency", "currency", 12),
)
VERSIONS = (
    Column("version", "version", is_number=True),
    Column("id", "id", 3, is_number=True),
    Column("row_effective_date", "recorded (UTC)", 1),
    Column("effective_at", "happened (UTC)", 8),
    Column("status", "status"),
    Column("quantity", "quantity", is_number=True),
    Column("average_entry_price", "average", 4, is_number=True),
    Column("current_price", "current", 2, is_number=True),
    Column("exit_price", "exit", 7, is_number=True),
    Column("realized_pnl", "realized", 5, is_number=True),
    Column("unrealized_pnl", "unrealized", 6, is_number=True),
    Column("open_fees", "open fees", 9, is_number=True),
    Column("close_fees", "close fees", 10, is_number=True),
    Column("exit_reason", "reason", 11, is_long=True),
)
EVENTS = (
    Column("version", "version", is_number=True),
    Column("seq", "seq", is_number=True),
    Column("topic", "event"),
    Column("recorded_at", "recorded (UTC)", 1),
    Column("effective_at", "happened (UTC)", 3),
    Column("body", "body", 2, is_long=True),
)


@command(
    """List positions: all of them, or those that pass every filter.

    --as-of is about what happened: what was held at that time, by all that is known now. --known-at is about what the
    ledger knew. Both together: what was believed at the one time about the other. The table rounds to 6 decimals and
    shows as many columns as fit; --json and --format csv have all, exactly.

    \b
    Examples:
      position-ledger positions --status open --account main
      position-ledger positions --market KXNBA-CLE --known-at 2026-03-01T14:30:00Z
      position-ledger positions --as-of 2026-03-01T00:00:00Z --known-at 2026-03-02T00:00:00Z
      position-ledger positions --format csv > positions.csv
    """
)
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only these.")
@click.option("--account", metavar="A", help="Only of this account.")
@click.option("--market", metavar="M", help="Only in this market.")
@click.option("--strategy", type=click.IntRange(min=1), metavar="S", help="Only of this strategy.")
@click.option("--environment", type=click.Choice([one.value for one in Environment]), help="Only in this environment.")
@click.option("--side", type=click.Choice([side.value for side in Side]), help="Only on this side.")
@as_of
@known_at
@form
@as_json
def positions(*, form: str, as_json: bool, as_of: datetime | None, known_at: datetime | None, **filters: Any) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        warn_if_stale(ledger, "positions")
        rows = ledger.positions(as_of=as_of, known_at=known_at, **filters)
        columns = columns_of(ledger, "positions")
    if len(rows) == ROWS_MAX:
        note(f"only the newest {ROWS_MAX} positions are listed; narrow them by account, market or strategy")
    write_rows(LISTING, columns, rows, "position", "json" if as_json else form)


@command(
    """Show one position: every column of its current row, exactly.

    POSITION is POS-n, or the id of any version it ever had.

    \b
    Examples:
      position-ledger show POS-17
      position-ledger show 4711 --json
      position-ledger show POS-17 --as-of 2026-03-01T00:00:00Z
    """
)
@REFERENCE
@as_of
@known_at
@as_json
def show(*, reference: str, as_of: datetime | None, known_at: datetime | None, as_json: bool) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        warn_if_stale(ledger, "positions")
        row = ledger.position(reference, as_of=as_of, known_at=known_at)
    if as_json:
        write_json(row)
    else:
        write_pairs((name, value) for name, value in row.items() if value is not None)


@command(
    """All versions of one position, the oldest first: what the ledger knew of it, from when to when.

    \b
    Example:
      position-ledger history POS-17
    """
)
@REFERENCE
@as_json
def history(*, reference: str, as_json: bool) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        warn_if_stale(ledger, "positions")
        rows = ledger.history(reference)
    if as_json:
        write_json(rows)
    else:
        write_listing(VERSIONS, rows, "version")


@command(
    """The events behind one position, the oldest first.

    \b
    Example:
      position-ledger events POS-17 --json
    """
)
@REFERENCE
@as_json
def events(*, reference: str, as_json: bool) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        rows = ledger.events(reference)
    if as_json:
        write_json(rows)
    else:
        write_listing(EVENTS, rows, "event")
