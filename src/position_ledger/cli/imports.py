"""Importing: fills from files of venues and other systems."""

from __future__ import annotations

from dataclasses import asdict
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
from position_ledger.importing import import_fills, import_quotes, load_mapping, load_quote_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from position_ledger.importing import ImportResult, QuotesResult
    from position_ledger.ledger import Ledger

VISIBLE_WITHIN_S = 600.0
REASONS_SHOWN_MAX = 8

group = LedgerGroup(name="import", help="Turn files of other systems into events.")


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
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "mapping", required=True, metavar="PRESET|FILE.toml", help="How its columns become fills.")
@click.option(
    "--environment",
    type=click.Choice([one.value for one in Environment]),
    required=True,
    envvar="POSITION_LEDGER_ENVIRONMENT",
    help="Where these fills happened; never assumed.",
)
@click.option("--rejects", type=click.Path(path_type=Path), metavar="FILE", help="Where refused rows go, with reasons.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a row was rejected.")
@as_json
def fills(*, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool) -> int:
    """Import, wait until the rows are visible, and say what happened."""
    checked = load_mapping(mapping)
    with open_ledger() as ledger, Bar() as bar:
        bar.start(None, "reading")
        result = import_fills(ledger, file, checked, environment=environment, rejects_path=rejects, progress=_Told(bar))
        _wait(ledger, result.token)
    if as_json:
        write_json(asdict(result))
    else:
        write_lines(_lines(result, environment, rejects))
    return ANSWER_IS_NO if strict and result.rejected else 0


@group.command(
    help="""Record the quotes, statuses and outcomes of markets in a CSV file (plain or gzip), oldest first.

    A market that is not registered is registered with the terms of the mapping. Positions of markets that the file
    settles or voids are paid. Importing a file again adds only what is new.

    \b
    Examples:
      position-ledger import quotes ticks.csv.gz --map betfair-ticks --environment backtest
      position-ledger import quotes quotes.csv --map my-venue.toml --environment paper --rejects rejects.csv
    """
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "mapping", required=True, metavar="PRESET|FILE.toml", help="How its columns become quotes.")
@click.option(
    "--environment",
    type=click.Choice([one.value for one in Environment]),
    required=True,
    envvar="POSITION_LEDGER_ENVIRONMENT",
    help="Where these markets are; never assumed.",
)
@click.option("--rejects", type=click.Path(path_type=Path), metavar="FILE", help="Where refused rows go, with reasons.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a row was rejected.")
@as_json
def quotes(*, file: Path, mapping: str, environment: str, rejects: Path | None, strict: bool, as_json: bool) -> int:
    """Import, pay what was settled, wait until the rows are visible, and say what happened."""
    checked = load_quote_mapping(mapping)
    with open_ledger() as ledger, Bar() as bar:
        bar.start(None, "reading")
        result = import_quotes(
            ledger, file, checked, environment=environment, rejects_path=rejects, progress=_Told(bar)
        )
        _wait(ledger, result.token)
        for market in result.paid:
            ledger.pay_markets(environment, market)
    if as_json:
        write_json(asdict(result))
    else:
        write_lines(_quote_lines(result, environment, rejects))
    return ANSWER_IS_NO if strict and result.rejected else 0


def _quote_lines(result: QuotesResult, environment: str, rejects: Path | None) -> Iterator[str]:
    yield (
        f"{result.rows:,} rows of {result.markets:,} markets: {result.accepted:,} accepted ({environment}), "
        f"{result.rejected:,} rejected, {result.duplicates:,} nothing new, {result.ignored:,} ignored; "
        f"{result.events:,} events"
    )
    yield from _reason_lines(result.reasons, rejects)


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


def _lines(result: ImportResult, environment: str, rejects: Path | None) -> Iterator[str]:
    yield (
        f"{result.rows:,} rows: {result.accepted:,} accepted ({environment}), {result.rejected:,} rejected, "
        f"{result.duplicates:,} recorded before; {result.events:,} events"
    )
    yield from _reason_lines(result.reasons, rejects)


def _reason_lines(reasons: Mapping[str, int], rejects: Path | None) -> Iterator[str]:
    for code, count in list(reasons.items())[:REASONS_SHOWN_MAX]:
        yield f"  {count:>8,}  {code}"
    if reasons:
        yield (
            f"rejected rows are in {rejects}" if rejects else "name a file with --rejects to see why each was rejected"
        )
