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
    parent_pid = int(arguments[0])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the parent ended before the worker began")
    if "--skip-logging" in arguments:
        logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    sys.argv = ["dramatiq", *arguments[1:]]
    runpy.run_module("dramatiq", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
