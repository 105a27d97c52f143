"""Making the folder: whole, or nothing of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from position_ledger.errors import ConfigurationError
from position_ledger.migration import load_folder
from position_ledger.migration.sums import write_sum
from position_ledger.scaffolding.shipped import new_files

LEFT_ALONE: Final = frozenset({".git"})
"""What may be there before: the folder of a repository that has nothing in it yet."""
EXECUTABLE: Final = frozenset({"check.sh"})


def make_folder(folder: Path) -> int:
    """Write the migrations, projections, workers and tests of this release into a new or empty folder; how many files.

    Raises:
        ConfigurationError: there is something in it already; nothing was written.
        OSError: it cannot be written; nothing is left of the attempt.
    """
    _refuse_content(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as draft:
            count = _write_all(Path(draft))
            for entry in sorted(Path(draft).iterdir()):
                entry.rename(folder / entry.name)
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return count


def _refuse_content(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file: name a folder that is new or empty")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name not in LEFT_ALONE) if folder.is_dir() else []
    if not found:
        return
    shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")  # noqa: PLR2004 - a sentence
    raise ConfigurationError(
        f"{folder} is not empty (it has {shown}): name a new folder, or, if it was made by init, run "
        f"position-ledger init {folder} --upgrade"
    )


def _write_all(draft: Path) -> int:
    count = 0
    for path, content in new_files():
        target = draft / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755 if path in EXECUTABLE else 0o644)
        count += 1
    load_folder(draft / "migrations")
    write_sum(draft / "migrations")
    return count + 1
