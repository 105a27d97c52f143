"""A folder for a team: made, and brought to a new release."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from position_ledger.cli.options import command
from position_ledger.cli.output import write_lines
from position_ledger.operations import RELEASE
from position_ledger.scaffolding import make_folder, upgrade_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.scaffolding import Upgrade


@command(
    """Make a folder with migrations, projections, workers and tests that are yours to edit.

    Commands that are started in it use what lies there, for its file .env names these folders.

    With --upgrade: add the migrations of this release that the folder lacks, under its next free numbers, and name the
    projections and workers that differ from the release. Nothing that is there is overwritten.

    \b
    Examples:
      position-ledger init desk
      position-ledger init desk --upgrade
    """
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--upgrade", is_flag=True, help="The folder was made by an older release.")
def init(*, folder: Path, upgrade: bool) -> None:
    """Make it, or upgrade it, and say what comes next."""
    if upgrade:
        write_lines(_upgraded(folder, upgrade_folder(folder)))
        return
    count = make_folder(folder)
    write_lines(
        [
            f"made {folder} with {count} files: migrations, projections, workers, tests and the settings .env",
            f"next: cd {shlex.quote(str(folder))} && position-ledger migrate up",
        ]
    )


def _upgraded(folder: Path, upgrade: Upgrade) -> Iterator[str]:
    for name, target in upgrade.added:
        yield f"added migrations/{target}" + (f" (the release's {name})" if name != target else "")
    for one in upgrade.differing:
        mine = shlex.quote(str(folder / one.path))
        yield f"{one.path} {one.reason}: compare with diff -u {mine} {shlex.quote(one.shipped)}"
    if upgrade.added:
        yield f"next: cd {shlex.quote(str(folder))} && position-ledger migrate plan"
    else:
        yield f"{folder} has every migration of position-ledger {RELEASE}"
