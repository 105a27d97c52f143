"""Importing: fills, quotes, game states and edges from files of venues and other systems."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from position_ledger.cli.opening import open_ledger
from position_ledger.cli.options import LedgerGroup, as_json
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.progress import Bar
from position_ledger.cli.running import ANSWER_IS_NO, note
from position_ledger.domain.vocabulary import Environment
from position_ledger.errors import NotYetVisible
from position_ledger.importing import (
    import_edges,
    import_fills,
    import_game_states,
    import_quotes,
    load_mapping,
    load_quote_mapping,
)
from position_ledger.importing.signals import load_edge_mapping, load_game_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from position_ledger.importing import ImportResult, QuotesResult
    from position_ledger.ledger import Ledger

VISIBLE_WITHIN_S = 600.0
REASONS_SHOWN_MAX = 8

group = LedgerGroup(name="import", help="Turn files of other systems into events.")


def _from_file(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the argument and the options of every import."""
    for declare in (
        as_json,
        click.option("--strict", is_flag=True, help="Exit with 1 if a row was rejected."),
        click.option(
            "--rejects",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Where refused rows go, with reasons.",
        ),
        click.option(
            "--environment",
            type=click.Choice([one.value for one in Environment]),
            required=True,
            envvar="POSITION_LEDGER_ENVIRONMENT",
            help="Where this happened; never assumed.",
        ),
        click.option(
            "--map",
            "mapping",
            required=True,
            metavar="PRESET|FILE.toml",
            help="What its columns mean.",
        ),
        click.argument("file", type=click.Path(path_type=Path)),
    ):
        function = declare(function)
    return function


@group.command(
    help="""Record each row of a CSV file (plain or gzip) as a fill, or write it to the rejects file with the reason.

    Importing a file again, or a longer export of the same history, adds only what is new. An import that was
    interrupted is simply run again.

    \b
    Examples:
      position-ledger import fills fills.csv.gz --map polymarket-scrape --environment paper --rejects rejects.csv
      position-ledger import fills export.csv --map my-venue.toml --environment live --strict
    """
)
@_from_file
def fills(*, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool) -> int:
    """Import, wait until the rows are visible, and say what happened."""
    checked = load_mapping(mapping)
    job = partial(import_fills, mapping=checked)
    return _run(job, file, environment, rejects, strict=strict, as_json=as_json, duplicates="recorded before")


@group.command(
    name="game-states",
    help="""Record how games went on: each row of a CSV file (plain or gzip) is a state, or a part of one.

    Rows that tell nothing new make no event. Importing a file again appends nothing.

    \b
    Examples:
      position-ledger import game-states states.csv.gz --map cricket-stream --environment paper
      position-ledger import game-states feed.csv --map my-feed.toml --environment live --rejects rejects.csv
    """,
)
@_from_file
def game_states(
    *, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool
) -> int:
    """Import, wait until the rows are visible, and say what happened."""
    checked = load_game_mapping(mapping)
    return _run(
        partial(import_game_states, mapping=checked), file, environment, rejects, strict=strict, as_json=as_json
    )


@group.command(
    help="""Record what a model believed, tick by tick: rows of a CSV file (plain or gzip) detect, revise, settle edges.

    Rows that tell nothing new make no event. Importing a file again appends nothing.

    \b
    Examples:
      position-ledger import edges ticks.csv.gz --map basketball-win-probability --environment backtest
      position-ledger import edges model.csv --map my-model.toml --environment live --rejects rejects.csv
    """
)
@_from_file
def edges(*, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool) -> int:
    """Import, wait until the rows are visible, and say what happened."""
    checked = load_edge_mapping(mapping)
    return _run(partial(import_edges, mapping=checked), file, environment, rejects, strict=strict, as_json=as_json)


@group.command(
    help="""Record the quotes, statuses and outcomes of markets: each row of a CSV file (plain or gzip) is one of them.

    A market that is not registered is registered with the terms of the mapping. Positions of markets that the file
    settles or voids are paid. Rows that tell nothing new make no event. Importing a file again appends nothing.

    \b
    Examples:
      position-ledger import quotes ticks.csv.gz --map betfair-ticks --environment backtest
      position-ledger import quotes quotes.csv --map my-venue.toml --environment paper --rejects rejects.csv
    """
)
@_from_file
def quotes(*, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool) -> int:
    """Import, pay what was settled, wait until the rows are visible, and say what happened."""
    checked = load_quote_mapping(mapping)
    job = partial(import_quotes, mapping=checked)
    return _run(job, file, environment, rejects, strict=strict, as_json=as_json)


def _run(
    job: Callable[..., ImportResult | QuotesResult],
    file: Path,
    environment: str,
    rejects: Path | None,
    *,
    strict: bool,
    as_json: bool,
    duplicates: str = "told nothing new",
) -> int:
    """Import a file of any kind: ``job`` has its mapping already; ``duplicates`` is what rows of that count did."""
    with open_ledger() as ledger, Bar() as bar:
        bar.start(None, "reading")
        result = job(ledger, file, environment=environment, rejects_path=rejects, progress=_Told(bar))
        _wait(ledger, result.token)
        for market in getattr(result, "paid", ()):
            ledger.pay_markets(environment, market)
    if as_json:
        write_json(asdict(result))
    else:
        write_lines(_lines(result, environment, rejects, duplicates))
    return ANSWER_IS_NO if strict and result.rejected else 0


class _Told:
    """Passes on what the importer tells: the rows done, and their total once it is known."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._total: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        if total != self._total:
            self._total = total
            self._bar.start(total, "recording")
        self._bar.advance(done)


def _wait(ledger: Ledger, token: int) -> None:
    if not token:
        return
    try:
        ledger.wait_for(token, timeout_s=VISIBLE_WITHIN_S)
    except NotYetVisible as late:
        note(f"everything is recorded, but not yet in the tables: {late}")


def _lines(
    result: ImportResult | QuotesResult, environment: str, rejects: Path | None, duplicates: str
) -> Iterator[str]:
    yield (
        f"{result.rows:,} rows: {result.accepted:,} accepted ({environment}), {result.rejected:,} rejected, "
        f"{result.duplicates:,} {duplicates}; {result.events:,} events"
    )
    for code, count in list(result.reasons.items())[:REASONS_SHOWN_MAX]:
        yield f"  {count:>8,}  {code}"
    if result.rejected:
        yield (
            f"rejected rows are in {rejects}" if rejects else "name a file with --rejects to see why each was rejected"
        )
