"""Reference data: listing strategies, models, platforms and market events, entering them, and changing their status."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from position_ledger.cli.opening import open_for_reading, open_ledger
from position_ledger.cli.options import LedgerGroup, as_json
from position_ledger.cli.output import Column, write_json, write_pairs, write_table
from position_ledger.errors import ReferenceRefused
from position_ledger.reference_data import NUMBERED, TABLES, Reference, ReferenceStatus

if TYPE_CHECKING:
    pass

LISTING = (
    Column("id", "id"),
    Column("name", "name", is_long=True),
    Column("version", "version"),
    Column("status", "status"),
    Column("config", "config", 2, is_long=True),
    Column("created_at", "entered (UTC)", 1),
    Column("notes", "notes", 3, is_long=True),
)
STATUSES = click.Choice([status.value for status in ReferenceStatus])

group = LedgerGroup(name="reference", help="Strategies, probability models, platforms and market events.")
_table = click.argument("table", type=click.Choice(TABLES))
_id = click.argument("row", metavar="ID")


@group.command(
    name="list",
    help="""List the rows of a reference table, by name, versions in the order in which they were entered.

    \b
    Example:
      position-ledger reference list strategies --status active
    """,
)
@_table
@click.option("--name", metavar="NAME", help="Only the versions of this one.")
@click.option("--status", type=STATUSES, help="Only these.")
@as_json
def listing(*, table: str, name: str | None, status: str | None, as_json: bool) -> None:
    """Read and render."""
    with open_for_reading() as ledger:
        rows = [asdict(row) for row in ledger.reference.list(table, name=name, status=status)]
    if as_json:
        write_json(rows)
    elif rows:
        write_table(LISTING, [{**row, "config": json.dumps(row["config"])} for row in rows])
    else:
        click.echo(f"{table} has no such row; a table without any is not in use, and its ids are not checked")


@group.command(
    help="""Enter a row of a reference table. It stays for ever: its config never changes, see the command version.

    \b
    Examples:
      position-ledger reference add strategies momentum --config '{"lookback_days": 20}' --status active
      position-ledger reference add platforms Kalshi --id kalshi
    """
)
@_table
@click.argument("name")
@click.option("--id", "row", metavar="ID", help="Of platforms and market events in words; others are numbered.")
@click.option("--version", default="1", show_default=True, metavar="TEXT", help="Of this row among those of its name.")
@click.option("--config", default="{}", metavar="JSON|@FILE", help="Its settings, one JSON object.")
@click.option("--status", type=STATUSES, help="Default: draft for strategies and models, active for the others.")
@click.option("--notes", metavar="TEXT", help="For people.")
@as_json
def add(*, table: str, name: str, row: str | None, config: str, as_json: bool, **fields: Any) -> None:
    """Enter one and show it."""
    told, number = _config(config), _number(table, row)
    with open_ledger() as ledger:
        _show(ledger.reference.add(table, name, id=number, config=told, **fields), as_json=as_json)


@group.command(
    name="version",
    help="""Enter another version of a row: the same name with another config and an id of its own.

    \b
    Example:
      position-ledger reference version strategies 1 --version 2 --config '{"lookback_days": 10}'
    """,
)
@_table
@_id
@click.option("--version", required=True, metavar="TEXT", help="Of the new row among those of its name.")
@click.option("--config", required=True, metavar="JSON|@FILE", help="Its settings, one JSON object.")
@click.option("--id", "new", metavar="ID", help="Of the new row; platforms and market events need one.")
@click.option("--status", type=STATUSES, help="Default: draft for strategies and models, active for the others.")
@click.option("--notes", metavar="TEXT", help="For people.")
@as_json
def new_version(*, table: str, row: str, new: str | None, config: str, as_json: bool, **fields: Any) -> None:
    """Enter it and show it."""
    told, of, number = _config(config), _number(table, row), _number(table, new)
    with open_ledger() as ledger:
        entered = ledger.reference.new_version(table, of or row, id=number, config=told, **fields)
        _show(entered, as_json=as_json)


@group.command(
    name="status",
    help="""Move a row on: draft -> testing -> active <-> inactive; deprecated is the end.

    \b
    Example:
      position-ledger reference status strategies 1 active
    """,
)
@_table
@_id
@click.argument("status", type=STATUSES)
@as_json
def set_status(*, table: str, row: str, status: str, as_json: bool) -> None:
    """Change it and show the row."""
    number = _number(table, row)
    with open_ledger() as ledger:
        _show(ledger.reference.set_status(table, number or row, status), as_json=as_json)


def _number(table: str, text: str | None) -> int | str | None:
    """The id in the type of its table; what is no number is left for the table to refuse."""
    return int(text) if text is not None and table in NUMBERED and text.isascii() and text.isdigit() else text


def _config(text: str) -> dict[str, Any]:
    try:
        said = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        config: dict[str, Any] = json.loads(said)
    except (OSError, ValueError, RecursionError) as error:
        raise ReferenceRefused(
            f"config cannot be read: {error}; give one JSON object, or @ and the file of it"
        ) from None
    return config


def _show(row: Reference, *, as_json: bool) -> None:
    document = asdict(row)
    if as_json:
        write_json(document)
    else:
        write_pairs({**document, "config": json.dumps(document["config"])}.items())
