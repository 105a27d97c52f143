"""The child of `supervision`: ties its life to its parent, sets up logging, and becomes dramatiq. Run as a script.

    python -P supervised.py PARENT_PID DRAMATIQ_ARGUMENT…

Imports nothing of ours: dramatiq forks from here, and each of its processes loads what it needs.
"""

from __future__ import annotations

import ctypes
import logging
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
LOG_FORMAT = "%(asctime)s position-ledger worker %(process)d: %(message)s"


def main(arguments: list[str]) -> None:
    """Die with the parent, gently: whoever kills it with -9 leaves nothing running."""
    stop_when_parent_ends(int(arguments[0]))
    if "--skip-logging" in arguments:
        logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    sys.argv = ["dramatiq", *arguments[1:]]
    runpy.run_module("dramatiq", run_name="__main__", alter_sys=True)


def stop_when_parent_ends(parent_pid: int) -> None:
    """Have one SIGTERM when the parent is gone.

    The kernel sends the death signal for each of the parent's threads in turn, and dramatiq takes a second SIGTERM for
    impatience. So it is another signal, of which only the first counts.
    """
    told: list[int] = []

    def stop_once(number: int, _frame: object) -> None:
        if not told:
            told.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR1, stop_once)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the parent ended before the worker began")


if __name__ == "__main__":
    main(sys.argv[1:])
