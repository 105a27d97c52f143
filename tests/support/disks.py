"""Disks that fill up."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.embedded.temporary import TemporaryPostgres


@contextmanager
def small_disk(server: TemporaryPostgres, megabytes: int) -> Iterator[Path]:
    """A file system of its own size that a server may write to, if this user may mount one."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system to fill it up")
    folder = server.data.parent / "small"
    folder.mkdir()
    owner_uid = Path(f"/proc/{server.pid}").stat().st_uid
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={megabytes}m,uid={owner_uid},mode=0700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def almost_full(disk: Path, left_kb: int) -> Iterator[None]:
    """The disk with no more room than this, until the end of the block."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - left_kb * 1024)))
    try:
        yield
    finally:
        filler.unlink()
