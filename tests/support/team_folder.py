"""A team's folder in tests: made by init, edited between commands that run in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from position_ledger.migration import load_folder
from position_ledger.migration.sums import write_sum
from position_ledger.scaffolding import make_folder
from tests.support.migration_files import migration_text

if TYPE_CHECKING:
    from tests.support.command_line import Answer, CommandLine


def forget_folders() -> None:
    """Have folders that settings name imported anew, as a process of its own for each command would."""
    for name in [name for name in sys.modules if "_of_folder_" in name]:
        del sys.modules[name]


class Desk:
    """A folder as `position-ledger init` makes it, and the command line for it."""

    def __init__(self, folder: Path, run: CommandLine) -> None:
        make_folder(folder)
        self.folder = folder
        self._run = run
        self.settings = {
            f"POSITION_LEDGER_{name.upper()}": str(folder / name) for name in ("migrations", "projections", "workers")
        }

    def __call__(self, *arguments: str) -> Answer:
        """Run a command with the definitions as they are now."""
        forget_folders()
        return self._run(*arguments, **self.settings)

    def migration(self, name: str, forward: str, verify: str, rollback: str) -> int:
        """Write a migration under the next free number; answers the number."""
        number = load_folder(self.folder / "migrations")[-1].number + 1
        text = migration_text(number, forward, verify, rollback)
        (self.folder / "migrations" / f"{number:03}_{name}.sql").write_text(text)
        write_sum(self.folder / "migrations")
        return number

    def edit(self, path: str, before: str, after: str) -> None:
        """Replace the one place of a text in a file."""
        file = self.folder / path
        text = file.read_text()
        assert text.count(before) == 1, (path, before)
        file.write_text(text.replace(before, after))

    def write(self, path: str, text: str) -> None:
        """Write a file whole."""
        (self.folder / path).write_text(text)
