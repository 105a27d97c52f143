"""What a team would write to add a column to positions that only history can fill: one SQL file and one field."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from position_ledger.migration import load_folder

if TYPE_CHECKING:
    from pathlib import Path

MIGRATION = "positions_worst_mark.sql"
"""The file beside this one, whose number is still open: it takes the next one of the folder that it goes to."""

OPEN_NUMBER = "NNN"


def add_migration(folder: Path) -> int:
    """Put the team's migration beside those of a folder, under the next free number; answers the number."""
    number = load_folder(folder)[-1].number + 1
    text = files(__name__).joinpath("migrations", MIGRATION).read_text("utf-8")
    (folder / f"{number:03}_{MIGRATION}").write_text(text.replace(OPEN_NUMBER, f"{number:03}", 1), "utf-8")
    return number
