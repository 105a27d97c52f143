"""Reading the other tables: markets, trades, accounts, edges, games; current rows, or as the ledger knew them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_for_reading
from position_ledger.cli.options import as_json, as_of, command, form, known_at
from position_ledger.cli.output import Column, write_rows
from position_ledger.cli.running import note
from position_ledger.cli.stale import warn_if_stale
from position_ledger.domain.vocabulary import Environment
from position_ledger.reading import ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from position_ledger.ledger import Ledger
    from position_ledger.reading import TableRow


@dataclass(frozen=True, slots=True)
class Listing:
    """One table as the command line lists it."""

    name: str
    table: str
    noun: str
    about: str
    filters: Mapping[str, tuple[str, str]]
    """Option to column and help."""
    shown: tuple[Column, ...]
    example: str


ENVIRONMENT = Column("execution_environment", "env", 7)
ACCOUNT = ("account_id", "Only of this account.")
MARKET_OF_IT = ("market_id", "Only in this market.")
STRATEGY = ("strategy_id", "Only of this strategy.")
STATUS = "Only with this status."

MARKETS = Listing(
    "markets",
    "markets",
    "market",
    "Markets with their terms, quotes and outcome.",
    {
        "market": ("ticker", "Only this one, by its ticker."),
        "kind": ("kind", "Only this kind."),
        "status": ("status", STATUS),
    },
    (
        Column("market_id", "market"),
        Column("ticker", "ticker", is_long=True),
        Column("kind", "kind", 5),
        Column("status", "status"),
        Column("yes_price", "yes", 1, is_number=True),
        Column("no_price", "no", 2, is_number=True),
        Column("last_price", "last", 4, is_number=True),
        Column("settlement_value", "settled at", 3, is_number=True),
        Column("currency", "currency", 8),
        ENVIRONMENT,
        Column("quote_time", "quoted (UTC)", 6),
        Column("close_time", "closes (UTC)", 9),
        Column("title", "title", 10, is_long=True),
    ),
    "markets --status open --environment live",
)
TRADES = Listing(
    "trades",
    "trades",
    "trade",
    "Trades: every fill, as it stands after busts and corrections.",
    {
        "account": ACCOUNT,
        "market": MARKET_OF_IT,
        "strategy": STRATEGY,
        "position": ("position_id", "Only on this position, POS-n."),
        "status": ("status", "Only active, corrected or busted ones."),
    },
    (
        Column("trade_id", "trade"),
        Column("position_id", "position", 1),
        Column("market_id", "market", is_long=True),
        Column("side", "side"),
        Column("action", "action"),
        Column("quantity", "quantity", is_number=True),
        Column("price", "price", is_number=True),
        Column("fee", "fee", 3, is_number=True),
        Column("realized_gross", "realized gross", 4, is_number=True),
        Column("status", "status", 2),
        Column("execution_time", "executed (UTC)", 5),
        Column("account_id", "account", 6, is_long=True),
        ENVIRONMENT,
        Column("venue_fill_id", "venue's id", 8, is_long=True),
    ),
    "trades --position POS-17 --as-of 2026-03-01T00:00:00Z",
)
ACCOUNTS = Listing(
    "accounts",
    "account_balance",
    "balance",
    "Accounts: cash, what of it is locked, and what is free.",
    {"account": ACCOUNT, "currency": ("currency", "Only in this currency.")},
    (
        Column("balance_id", "balance"),
        Column("account_id", "account", is_long=True),
        Column("currency", "currency"),
        Column("cash", "cash", is_number=True),
        Column("locked", "locked", 1, is_number=True),
        Column("free", "free", is_number=True),
        Column("is_cash_controlled", "controlled", 4),
        ENVIRONMENT,
        Column("change", "last change", 2, is_number=True),
        Column("cause", "cause", 3),
        Column("effective_at", "happened (UTC)", 5),
    ),
    "accounts --environment live --known-at 2026-03-01T14:30:00Z",
)
EDGES = Listing(
    "edges",
    "edges",
    "edge",
    "Edges: what a model believes against what a market asks, and what became of it.",
    {"market": MARKET_OF_IT, "strategy": STRATEGY, "status": ("edge_status", STATUS)},
    (
        Column("edge_id", "edge"),
        Column("market_id", "market", is_long=True),
        Column("edge_status", "status"),
        Column("true_win_probability", "model", is_number=True),
        Column("market_implied_probability", "market's", 1, is_number=True),
        Column("expected_value", "expected", is_number=True),
        Column("recommended_action", "action", 2),
        Column("strategy_id", "strategy", 4, is_number=True),
        Column("model_id", "model id", 5, is_number=True),
        ENVIRONMENT,
        Column("actual_outcome", "outcome", 3),
        Column("effective_at", "happened (UTC)", 6),
    ),
    "edges --status recommended",
)
GAMES = Listing(
    "games",
    "game_states",
    "game",
    "Games: score, period, clock and status.",
    {
        "game": ("game_id", "Only this one, by the id of its source."),
        "league": ("league", "Only of this league."),
        "status": ("game_status", STATUS),
    },
    (
        Column("game_state_id", "state"),
        Column("game_id", "game", is_long=True),
        Column("league", "league", 4, is_long=True),
        Column("home_team", "home", 1, is_long=True),
        Column("home_score", "score", is_number=True),
        Column("away_team", "away", 1, is_long=True),
        Column("away_score", "score", is_number=True),
        Column("period", "period", 2),
        Column("clock_display", "clock", 3),
        Column("game_status", "status"),
        ENVIRONMENT,
        Column("effective_at", "happened (UTC)", 5),
    ),
    "games --status in_progress --json",
)


def _command(listing: Listing) -> click.Command:
    """The command that lists a table."""

    def read(*, form: str, as_json: bool, as_of: datetime | None, known_at: datetime | None, **asked: Any) -> None:
        with open_for_reading() as ledger:
            warn_if_stale(ledger, listing.table)
            if listing is TRADES:
                rows = _trades(ledger, as_of=as_of, known_at=known_at, **asked)
            else:
                rows = ledger.rows(listing.table, as_of=as_of, known_at=known_at, **_columns(listing, asked))
            names = columns_of(ledger, listing.table)
        if len(rows) == ROWS_MAX:
            note(f"only the newest {ROWS_MAX} {listing.noun}s are listed; narrow them by the filters")
        write_rows(listing.shown, names, rows, listing.noun, "json" if as_json else form)

    declared: Any = read
    options = [
        *(_filter(name, help_text) for name, (_, help_text) in listing.filters.items()),
        click.option("--environment", type=click.Choice([one.value for one in Environment]), help="Only in this one."),
        as_of,
        known_at,
        form,
        as_json,
    ]
    for option in reversed(options):
        declared = option(declared)
    help_text = f"""{listing.about}

    All current rows, or those that pass every filter; with --as-of as of a time at
    the venue, with --known-at as the ledger knew them then. The table shows as
    many columns as fit; --json and --format csv have all, exactly.

    \b
    Example:
      position-ledger {listing.example}
    """
    return command(help_text, name=listing.name)(declared)


def _trades(ledger: Ledger, *, status: str | None, **asked: Any) -> list[TableRow]:
    """Trades by any id of their position, as of any time."""
    return [row for row in ledger.trades(**asked) if status is None or row["status"] == status]


def _filter(name: str, help_text: str) -> Any:
    kind: Any = click.IntRange(min=1) if name == "strategy" else click.STRING
    return click.option(f"--{name}", type=kind, metavar=name[0].upper(), help=help_text)


def _columns(listing: Listing, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that columns must have, of the options that were given."""
    names = {option: column for option, (column, _) in listing.filters.items()}
    names["environment"] = "execution_environment"
    return {names[option]: value for option, value in given.items() if value is not None}


def columns_of(ledger: Ledger, table: str) -> tuple[str, ...]:
    """Every column of a projected table, in order."""
    return next(one.columns for one in ledger.projections if one.table == table)


markets, trades, accounts, edges, games = (_command(one) for one in (MARKETS, TRADES, ACCOUNTS, EDGES, GAMES))
