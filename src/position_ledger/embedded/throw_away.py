"""Where throw-away servers live: in memory if there is room and nothing has to last, and never for longer than their owner."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from position_ledger.embedded import locks

PREFIX = "position-ledger-test-"
MEMORY = Path("/dev/shm")  # noqa: S108 - the one name of it on Linux
MEMORY_FREE_MIN = 4 * 1024**3
"""Bytes that must be free there: containers often have 64 MB, and several test processes share it."""

LEFTOVER_AGE_S = 60.0
"""A folder that is younger may not have been locked by its owner yet."""

_OWNER = "owner.lock"


def make_folder_for(*, is_durable: bool) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds it: nobody sweeps it away until that is closed.

    Making and dropping databases is a matter of many small files: in memory it takes a third of the time or less.
    """
    parent = None if is_durable else _memory()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    owner = locks.open_lock_file(folder / _OWNER)
    locks.lock(owner)
    return folder, owner


def _memory() -> Path | None:
    """The folder in memory, swept of what killed owners left; None without enough room."""
    try:
        sweep(MEMORY)
        room = os.statvfs(MEMORY)
    except OSError:
        return None
    is_enough = room.f_bavail * room.f_frsize >= MEMORY_FREE_MIN and os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if is_enough else None


def sweep(parent: Path) -> None:
    """Remove the folders there whose owners are gone; those of other users stay."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            is_young = time.time() - folder.stat().st_mtime < LEFTOVER_AGE_S
        except OSError:
            continue
        if not is_young and not _is_owned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_owned(folder: Path) -> bool:
    """Whether somebody holds it, or it is another user's."""
    try:
        owner = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not locks.try_lock(owner)
    finally:
        os.close(owner)
