"""Turn this process into a server: drop root's rights, tie its life to its parent, then exec. Run as a script.

    python -I -S become.py PARENT_PID DEATH_SIGNAL UID GID -- PROGRAM ARGUMENT…

A program of its own, and not code between fork and exec, so that a parent with threads may use it too.
It runs isolated and without site-packages: about 15 ms. UID and GID equal to the present ones change nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
"""All that a server sees: PG*, LD_* and the secrets of the caller's environment stay behind."""


def drop_rights(uid: int, gid: int) -> None:
    """Become `uid` for good; only root has something to drop."""
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(parent_pid: int, death_signal: int) -> None:
    """Let the kernel send `death_signal` when the parent ends; must follow `drop_rights`, which would clear it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the parent ended before the server began")


def main(arguments: list[str]) -> None:
    """Follow the steps in the order that makes them safe."""
    parent_pid, death_signal, uid, gid = map(int, arguments[:4])
    program = arguments[5:]
    os.umask(0o077)
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the supervisor blocks the signals that a server must get
    drop_rights(uid, gid)
    die_with_parent(parent_pid, death_signal)
    os.execve(program[0], program, ENVIRONMENT)  # noqa: S606  (an exec without a shell is the point)


if __name__ == "__main__":
    main(sys.argv[1:])
