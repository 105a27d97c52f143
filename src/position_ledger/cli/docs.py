"""Documentation that is generated: the reference pages of the schema."""

from __future__ import annotations

from pathlib import Path

import click

from position_ledger.cli.app import Entry, LazyGroup
from position_ledger.cli.opening import open_servers
from position_ledger.cli.options import as_json, command
from position_ledger.cli.output import write_json, write_lines
from position_ledger.cli.running import ANSWER_IS_NO
from position_ledger.operations import compare_pages, schema_pages, write_pages

FOLDER = Path("docs/reference/schema")

group = LazyGroup(
    name="docs",
    table={"schema": Entry("docs:schema", "Write a page for each table, from catalogue, comments and migrations.")},
    help="Documentation that is generated.",
)


@command(
    """Write a page for each table of the schema, and their list: purpose, migrations, keys, columns, constraints, queries.

    The pages are made from the migrations (their headers and the comments on columns) in a scratch database of the
    server; the ledger's own tables are not looked at. With --check nothing is written: exit code 1, and a line for each
    page that differs.

    \\b
    Examples:
      position-ledger docs schema
      position-ledger docs schema --check
    """
)
@click.option("--check", "is_check", is_flag=True, help="Compare the pages instead of writing them.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
@as_json
def schema(*, is_check: bool, out: Path, as_json: bool) -> int:
    """Write or compare."""
    with open_servers(needs_schema=False) as (settings, reached):
        made = schema_pages(settings, reached)
    if is_check:
        differences = compare_pages(made, out)
        if as_json:
            write_json({"holds": not differences, "differences": differences})
        elif differences:
            write_lines([*differences, "run position-ledger docs schema and commit what it writes"])
        else:
            write_lines([f"{len(made)} pages in {out} are what the migrations make"])
        return ANSWER_IS_NO if differences else 0
    written = write_pages(made, out)
    if as_json:
        write_json({"changed": [str(one) for one in written.changed], "removed": [str(one) for one in written.removed]})
        return 0
    write_lines([*(f"wrote {page}" for page in written.changed), *(f"removed {page}" for page in written.removed)])
    if not written.changed and not written.removed:
        write_lines([f"{len(made)} pages in {out} are what the migrations make: nothing to write"])
    return 0
