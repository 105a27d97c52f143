"""Writing migrations: the next file from a template, and the sum file after an edit. Neither needs a database."""

from __future__ import annotations

import click

from position_ledger.cli.options import command
from position_ledger.cli.output import write_lines
from position_ledger.migration.templates import TEMPLATES, Filling
from position_ledger.operations import new_migration, renew_sum
from position_ledger.settings import load_settings


@command(
    """Write the next migration: number, complete header and sections, and its line in the sum file.

    \b
    Without a template the sections refuse to run until they are written. A template is complete as it is:
      add-column       --table T --column C --type X [--not-null] [--default SQL] [--comment TEXT]
      change-type      --table T --column C --type NEW --from OLD
      add-foreign-key  --table T --column C --references "parent(column)"
      projected-table  --table T --key K --column C --type X (both repeated) [--not-null] [--comment TEXT]
      concurrent-index --table T --column C (repeated) [--unique]
      reference-data   --table T --column C (repeated) --row "'a text', 1" (repeated)

    \b
    Examples:
      position-ledger migrate new add_notes --template add-column --table positions --column notes --type text
      position-ledger migrate new backfill_desks
    """
)
@click.argument("name")
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="empty", show_default=True)
@click.option("--table", default="", metavar="T", help="The table it is about.")
@click.option("--column", multiple=True, metavar="C", help="A column of it.")
@click.option("--type", "type_", multiple=True, metavar="X", help="The type of the column, such as numeric(38,18).")
@click.option("--from", "old_type", default="", metavar="OLD", help="The type that it has now.")
@click.option("--key", default="", metavar="K", help="The business key of a projected table.")
@click.option("--references", default="", metavar="T(C)", help="The table and column that it refers to.")
@click.option("--row", multiple=True, metavar="VALUES", help="One row, as values in SQL; the first is its key.")
@click.option("--default", default="", metavar="SQL", help="The default of the column, as in SQL.")
@click.option("--comment", default="", metavar="TEXT", help="What the column or table is for.")
@click.option("--not-null", is_flag=True, help="The column is never null.")
@click.option("--unique", is_flag=True, help="The index is unique.")
@click.option("--summary", default="", metavar="TEXT", help="The summary of the header.")
def new(  # noqa: PLR0913 - the options
    *,
    name: str,
    template: str,
    table: str,
    column: tuple[str, ...],
    type_: tuple[str, ...],
    old_type: str,
    key: str,
    references: str,
    row: tuple[str, ...],
    default: str,
    comment: str,
    not_null: bool,
    unique: bool,
    summary: str,
) -> None:
    """Write and say where."""
    filling = Filling(
        table=table,
        column=column,
        type=type_,
        old_type=old_type,
        key=key,
        references=references,
        row=row,
        default=default,
        comment=comment,
        not_null=not_null,
        unique=unique,
    )
    paths = new_migration(load_settings(), name, template, filling, summary=summary)
    write_lines(f"written: {path}" for path in paths)
    after = "edit it, then run position-ledger migrate sum and " if template == "empty" else "read it, then run "
    write_lines([f"{after}position-ledger migrate plan"])


@command(
    """Write the sum file again after migrations were edited, and say which ones changed.

    The sum file makes two branches that take one number meet as a conflict. A migration that is applied must not change:
    that is held against the database by up, plan and status.

    \b
    Example:
      position-ledger migrate sum
    """
)
def renew() -> None:
    """Write and say what changed."""
    report = renew_sum(load_settings())
    write_lines(f"{one.what}: {one.name}" for one in report.changes)
    write_lines([f"{report.path} fits its {'migrations again' if report.changes else 'migrations; nothing changed'}"])
