"""Advisory file locks whose holder may die at any moment: the kernel gives them back."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.02


def open_lock_file(path: Path) -> int:
    """Open (and make, private) a lock file; the descriptor is not inherited by programs that this process starts."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock if it is free now; True when it is held afterwards."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(fd: int) -> None:
    """Take the lock exclusively, waiting as long as it takes."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Give the lock back for every process that shares this open file, forks included."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def lock_within(fd: int, limit_s: float, *, shared: bool = False) -> bool:
    """Take the lock, waiting up to `limit_s` seconds; False when another process kept it."""
    deadline = time.monotonic() + limit_s
    while not try_lock(fd, shared=shared):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def is_same_file(fd: int, path: Path) -> bool:
    """Whether `path` still names the open file; False once the folder was removed, even if it was made again."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except OSError:
        return False
